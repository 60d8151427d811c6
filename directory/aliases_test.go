package directory_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

type aliasAnswer struct {
	RoomID  matrix.RoomID       `json:"room_id"`
	Servers []matrix.ServerName `json:"servers"`
}

// TestAlias gives a room an alias, finds it by that, and takes it away.
func TestAlias(t *testing.T) {
	each(t, func(g *rig) {
		r := g.Room("alice")
		body := fmt.Sprintf(`{"room_id":%q}`, r.ID)
		g.Refused("", "GET", aliasPath("tea"), "", 404, matrix.CodeNotFound)
		g.put("alice", "tea", r.ID)
		got := Want[aliasAnswer](g.Rig, "", "GET", aliasPath("tea"), "")
		if got.RoomID != r.ID || !slices.Equal(got.Servers, []matrix.ServerName{"test"}) {
			t.Errorf("the alias leads to %v", got)
		}
		g.Refused("alice", "PUT", aliasPath("tea"), body, 409, matrix.CodeUnknown)
		g.Refused("bob", "PUT", aliasPath("other"), body, 403, matrix.CodeForbidden)
		g.Refused("alice", "PUT", aliasPath("other"), `{"room_id":"!nowhere:test"}`, 403, matrix.CodeForbidden)
		g.Refused("alice", "PUT", aliasPath("other"), `{"room_id":"nowhere"}`, 400, matrix.CodeInvalidParam)
		g.Refused("alice", "PUT", aliasPath("other"), `{}`, 400, matrix.CodeMissingParam)
		g.Refused("alice", "PUT", aliasPath("irc_tea"), body, 400, matrix.CodeExclusive)
		g.Refused("alice", "PUT", "/v3/directory/room/%23tea:elsewhere", body, 400, matrix.CodeInvalidParam)
		g.Refused("alice", "PUT", "/v3/directory/room/tea", body, 400, matrix.CodeInvalidParam)
		g.Refused("", "GET", "/v3/directory/room/%23tea:elsewhere", "", 404, matrix.CodeNotFound)
		g.Refused("alice", "DELETE", aliasPath("other"), "", 404, matrix.CodeNotFound)
		Want[any](g.Rig, "alice", "DELETE", aliasPath("tea"), "")
		g.Refused("", "GET", aliasPath("tea"), "", 404, matrix.CodeNotFound)
	})
}

// TestDeleteAlias lets those delete who may, and withdraws the alias from the
// room's state where they may do that, too.
func TestDeleteAlias(t *testing.T) {
	each(t, func(g *rig) {
		r := g.Room("alice", State(matrix.TypeHistoryVisibility, "", `{"history_visibility":"world_readable"}`))
		g.Join(r, "bob", "carol")
		for _, name := range []string{"one", "two", "three", "four"} {
			g.put("bob", name, r.ID)
		}
		canonical := `{"alias":"#one:test","alt_aliases":["#two:test","#one:test","#three:test"],"more":1}`
		g.Send(r, "alice", State(matrix.TypeCanonicalAlias, "", canonical))
		for _, user := range []string{"carol", "dave"} {
			g.Refused(user, "DELETE", aliasPath("one"), "", 403, matrix.CodeForbidden)
		}
		state := func() string {
			g.Helper()
			st, err := g.Engine.StateEvent(t.Context(), r.View().State, matrix.TypeCanonicalAlias, "")
			if err != nil {
				t.Fatal(err)
			}
			return string(st.Content)
		}
		// The creator of an alias may delete it, but not change the state.
		Want[any](g.Rig, "bob", "DELETE", aliasPath("three"), "")
		if got := state(); got != `{"alias":"#one:test","alt_aliases":["#two:test","#one:test","#three:test"],"more":1}` {
			t.Errorf("the state is %s", got)
		}
		Want[any](g.Rig, "alice", "DELETE", aliasPath("one"), "")
		if got := state(); got != `{"alt_aliases":["#two:test","#three:test"],"more":1}` {
			t.Errorf("the state is %s", got)
		}
		Want[any](g.Rig, "admin", "DELETE", aliasPath("four"), "")
		for user, ok := range map[string]bool{"alice": true, "carol": true, "dave": true} {
			got := Want[map[string][]string](g.Rig, user, "GET", "/v3/rooms/"+string(r.ID)+"/aliases", "")["aliases"]
			if ok && !slices.Equal(got, []string{"#two:test"}) {
				t.Errorf("the aliases for %s are %v", user, got)
			}
		}
		g.Send(r, "alice", State(matrix.TypeHistoryVisibility, "", `{"history_visibility":"shared"}`))
		g.Member(r, "carol", "carol", "leave")
		for _, user := range []string{"carol", "dave"} {
			g.Refused(user, "GET", "/v3/rooms/"+string(r.ID)+"/aliases", "", 403, matrix.CodeForbidden)
		}
		g.Refused("dave", "GET", "/v3/rooms/!nowhere:test/aliases", "", 403, matrix.CodeForbidden)
	})
}

// TestAliasesOfRooms does what making and upgrading rooms needs, in their
// commits.
func TestAliasesOfRooms(t *testing.T) {
	each(t, func(g *rig) {
		d, ctx := g.directory, t.Context()
		old, next := g.Room("alice"), g.Room("alice")
		add := func(alias matrix.RoomAlias) error {
			return g.DB.Write(ctx, func(tx *db.Tx) error {
				return errors.Join(d.Publish(tx, old.ID), d.Add(tx, alias, old.ID, User("alice")))
			})
		}
		if err := d.Check(ctx, "#tea:test", &httpx.Caller{User: User("alice")}); err != nil {
			t.Fatal(err)
		}
		if err := add("#tea:test"); err != nil {
			t.Fatal(err)
		}
		if err := add("#tea:test"); !matrix.HasCode(err, matrix.CodeRoomInUse) {
			t.Errorf("an alias is taken twice: %v", err)
		}
		for alias, code := range map[matrix.RoomAlias]matrix.Code{
			"#tea:test": matrix.CodeRoomInUse, "#irc_tea:test": matrix.CodeExclusive,
			"#tea:elsewhere": matrix.CodeInvalidParam, "#:test": matrix.CodeInvalidParam,
		} {
			if err := d.Check(ctx, alias, &httpx.Caller{User: User("alice")}); !matrix.HasCode(err, code) {
				t.Errorf("%s: %v", alias, err)
			}
		}
		if err := d.Check(ctx, "#irc_tea:test", &httpx.Caller{User: User("irc_bot")}); err != nil {
			t.Errorf("a service may not take its own alias: %v", err)
		}
		for range 2 { // as often as it is tried
			if err := g.DB.Write(ctx, func(tx *db.Tx) error { return d.Move(tx, old.ID, next.ID) }); err != nil {
				t.Fatal(err)
			}
		}
		if id, _, err := d.Resolve(ctx, "#tea:test"); err != nil || id != next.ID {
			t.Errorf("after the upgrade the alias leads to %s, %v", id, err)
		}
		for r, want := range map[*rooms.Room]string{old: "private", next: "public"} {
			if got := Want[map[string]string](g.Rig, "", "GET", "/v3/directory/list/room/"+string(r.ID), ""); got["visibility"] != want {
				t.Errorf("after the upgrade: %v, not %s", got, want)
			}
		}
	})
}
