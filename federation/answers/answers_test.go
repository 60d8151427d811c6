package answers_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

const other matrix.ServerName = "other.org"

// shared makes a room that other.org is in.
func (g *rig) shared(more ...rooms.Proto) *rooms.Room {
	g.Helper()
	r := g.Room("alice", more...)
	g.Enter(r, "@u:other.org")
	return r
}

func (g *rig) ids(list []json.RawMessage, r *rooms.Room) []matrix.EventID {
	g.Helper()
	ids := make([]matrix.EventID, len(list))
	for i, raw := range list {
		ev, err := event.Parse(r.Version, raw)
		if err != nil {
			g.Fatal(err)
		}
		ids[i] = ev.ID
	}
	return ids
}

// TestState compares the state before an event, and its auth chain, with what the
// engine says; it is larger than what is read at a time.
func TestState(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		r := g.shared()
		for i := range 450 {
			g.Send(r, "alice", State("org.example.thing", fmt.Sprint(i), `{"body":"a thing"}`))
		}
		st := g.Send(r, "alice", State("org.example.thing", "7", `{"body":"another thing"}`))
		m, err := g.Engine.StateBefore(t.Context(), st)
		if err != nil {
			t.Fatal(err)
		}
		events, err := g.Engine.StateEvents(t.Context(), m, nil)
		if err != nil {
			t.Fatal(err)
		}
		var before []matrix.EventID
		for _, st := range events {
			before = append(before, st.ID)
		}
		path := string(r.ID) + "?event_id=" + string(st.ID)
		whole := get[pdus](g, other, "/state/"+path)
		ids := get[struct {
			PDUs  []matrix.EventID `json:"pdu_ids"`
			Chain []matrix.EventID `json:"auth_chain_ids"`
		}](g, other, "/state_ids/"+path)
		for _, list := range [][]matrix.EventID{g.ids(whole.PDUs, r), ids.PDUs} {
			if !slices.Equal(list, before) {
				t.Errorf("the state has %d events, not %d", len(list), len(before))
			}
		}
		if chain := g.ids(whole.Chain, r); !slices.Equal(chain, ids.Chain) || len(chain) != 4 {
			t.Errorf("the auth chain is %v and %v", chain, ids.Chain)
		}
		if slices.Contains(before, st.ID) || len(before) != 455 {
			t.Errorf("%d events, or the event itself", len(before))
		}
		g.refused(other, "GET", "/state/"+string(r.ID), "", 400, matrix.CodeMissingParam)
		g.refused(other, "GET", "/state_ids/"+string(r.ID)+"?event_id=$unknown", "", 404, matrix.CodeNotFound)
		elsewhere := g.Say(g.shared(), "alice", "elsewhere")
		g.refused(other, "GET", "/state/"+string(r.ID)+"?event_id="+string(elsewhere), "", 404, matrix.CodeNotFound)
		g.refused(other, "GET", "/state/!unknown:test?event_id="+string(st.ID), "", 403, matrix.CodeForbidden)
	})
}

// TestHistory walks back in pages and fills gaps, within the limits.
func TestHistory(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		r := g.shared()
		var said []matrix.EventID
		for i := range 700 {
			said = append(said, g.Say(r, "alice", fmt.Sprint(i)))
		}
		room, last := string(r.ID), string(said[699])
		newest := slices.Clone(said)
		slices.Reverse(newest)
		for limit, n := range map[int]int{-1: 0, 0: 0, 1: 1, 60: 60, 100: 100, 100000: 100} {
			answer := get[pdus](g, other, fmt.Sprintf("/backfill/%s?limit=%d&v=%s", room, limit, last))
			if got := g.ids(answer.PDUs, r); !slices.Equal(got, newest[:n]) {
				t.Errorf("backfill of %d gives %d", limit, len(got))
			}
			if answer.Origin != Server || answer.TS == 0 {
				t.Errorf("it is from %s at %d", answer.Origin, answer.TS)
			}
		}
		for limit, n := range map[string]int{"": 10, `,"limit":0`: 0, `,"limit":-5`: 0, `,"limit":33`: 33, `,"limit":100000`: 500, `,"limit":100,"min_depth":650`: 55} {
			body := fmt.Sprintf(`{"earliest_events":[%q],"latest_events":[%q]%s}`, said[0], last, limit)
			if got := g.ids(want[pdus](g, other, "POST", "/get_missing_events/"+room, body).Events, r); !slices.Equal(got, said[699-n:699]) {
				t.Errorf("get_missing_events%s gives %d", limit, len(got))
			}
		}
		for path, code := range map[string]matrix.Code{
			"?v=" + last: matrix.CodeMissingParam, "?limit=5": matrix.CodeMissingParam, "?limit=x&v=" + last: matrix.CodeInvalidParam,
			"?limit=5&v=" + strings.Repeat("$x&v=", 1000) + last: matrix.CodeInvalidParam, "?limit=5&v=x": matrix.CodeInvalidParam,
		} {
			g.refused(other, "GET", "/backfill/"+room+path, "", 400, code)
		}
		for body, code := range map[string]matrix.Code{
			`{}`: matrix.CodeMissingParam, `{"latest_events":[]}`: matrix.CodeMissingParam, `{"latest_events":[5]}`: matrix.CodeBadJSON, `[]`: matrix.CodeNotJSON,
			`{"latest_events":["$a"` + strings.Repeat(`,"$a"`, 1000) + `]}`: matrix.CodeInvalidParam,
		} {
			g.refused(other, "POST", "/get_missing_events/"+room, body, 400, code)
		}
		g.refused(other, "POST", "/get_missing_events/"+room, `{"x":"`+strings.Repeat("x", 300<<10)+`"}`, 413, matrix.CodeTooLarge)
		unknown := want[pdus](g, other, "POST", "/get_missing_events/"+room, `{"latest_events":["$unknown"]}`)
		if len(unknown.Events) != 0 || unknown.Events == nil {
			t.Errorf("before an unknown event there is %v", unknown.Events)
		}
	})
}

// TestLargeEvents are cut off before an answer becomes too large: what is nearest
// is given.
func TestLargeEvents(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.shared()
	large := Message(strings.Repeat("x", 64_000))
	var said []matrix.EventID
	for range 120 {
		said = append(said, g.Send(r, "alice", large).ID)
	}
	newest := slices.Clone(said)
	slices.Reverse(newest)
	got := g.ids(get[pdus](g, other, fmt.Sprintf("/backfill/%s?limit=100&v=%s", r.ID, newest[0])).PDUs, r)
	if len(got) < 90 || len(got) >= 100 || !slices.Equal(got, newest[:len(got)]) {
		t.Errorf("backfill gives %d", len(got))
	}
	got = g.ids(want[pdus](g, other, "POST", "/get_missing_events/"+string(r.ID), fmt.Sprintf(`{"latest_events":[%q],"limit":119}`, newest[0])).Events, r)
	if len(got) < 90 || len(got) >= 100 || !slices.Equal(got, said[119-len(got):119]) {
		t.Errorf("get_missing_events gives %d", len(got))
	}
}

// TestAuthChain gives what authorises a message, and an event of another server.
func TestAuthChain(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		r := g.shared()
		said := g.Foreign(r, "@u:other.org", Message("hello"))
		g.Send(r, "alice", State(matrix.TypeTopic, "", `{"topic":"t"}`))
		types := texts(t, r, get[pdus](g, other, "/event_auth/"+string(r.ID)+"/"+string(said.ID)).Chain)
		slices.Sort(types)
		if fmt.Sprint(types) != "[m.room.create m.room.join_rules m.room.member m.room.member m.room.power_levels]" {
			t.Errorf("the chain is %v", types)
		}
		g.refused(other, "GET", "/event_auth/"+string(r.ID)+"/$unknown", "", 404, matrix.CodeNotFound)
	})
}

// TestNotServed asks for events that were turned down; what waits for what it
// redacts is part of the history (F5).
func TestNotServed(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		r := g.shared()
		first := g.Say(r, "alice", "first")
		forbidden := g.Build(r, "@u:other.org", Message("x"), func(d *event.Draft) { d.Type, d.StateKey = matrix.TypeName, new(string) })
		if out := g.Receive(r, forbidden); out.Event == nil || out.Event.Flags&rooms.Rejected == 0 {
			t.Fatalf("%+v", out)
		}
		late := g.Build(r, "@u:other.org", Message("late"))
		g.Send(r, "alice", Membership("@u:other.org", matrix.MembershipBan))
		if out := g.Receive(r, late); out.Event == nil || out.Event.Flags&rooms.SoftFailed == 0 {
			t.Fatalf("%+v", out)
		}
		g.Send(r, "alice", Membership("@v:other.org", matrix.MembershipInvite))
		g.Enter(r, "@v:other.org")
		held := g.remoteHeld(r, "@v:other.org")
		end := g.Say(r, "alice", "end")
		for _, ev := range []*event.Event{forbidden, late} {
			g.refused(other, "GET", "/event/"+string(ev.ID), "", 404, matrix.CodeNotFound)
			for path, body := range doors(&scene{room: r, first: &rooms.Stored{Event: ev}}, ev.ID) {
				switch {
				case strings.HasPrefix(path, "/state"), strings.HasPrefix(path, "/event"):
					g.refused(other, "GET", path, "", 404, matrix.CodeNotFound)
				case body == "":
					if _, text := g.ask(other, "GET", path, ""); strings.Contains(text, string(ev.ID)) || strings.Contains(text, `"late"`) {
						t.Errorf("%s: %s", path, text)
					}
				}
			}
		}
		if got := get[pdus](g, other, "/event/"+string(held.ID)).PDUs; len(got) != 1 || string(got[0]) != string(held.JSON) {
			t.Errorf("a redaction that waits: %s", got)
		}
		back := g.ids(get[pdus](g, other, "/backfill/"+string(r.ID)+"?limit=100&v="+string(end)).PDUs, r)
		between := g.ids(want[pdus](g, other, "POST", "/get_missing_events/"+string(r.ID),
			fmt.Sprintf(`{"earliest_events":[%q],"latest_events":[%q]}`, first, end)).Events, r)
		for _, list := range [][]matrix.EventID{back, between} {
			if slices.Contains(list, forbidden.ID) || slices.Contains(list, late.ID) || !slices.Contains(list, held.ID) {
				t.Errorf("the history is %v", list)
			}
		}
	})
}

// remoteHeld redacts an event that is not there.
func (g *rig) remoteHeld(r *rooms.Room, user matrix.UserID) *rooms.Stored {
	g.Helper()
	ev := g.Build(r, user, rooms.Proto{Type: matrix.TypeRedaction, Content: []byte(`{}`), Redacts: "$nowhere"})
	out := g.Receive(r, ev)
	if out.Event == nil || out.Event.Flags != rooms.Held {
		g.Fatalf("%+v", out)
	}
	return out.Event
}

// TestRedacted gives what is left of an event.
func TestRedacted(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		r := g.shared()
		id := g.Say(r, "alice", "secret")
		g.Send(r, "alice", rooms.Proto{Type: matrix.TypeRedaction, Content: []byte(`{}`), Redacts: id})
		if got := texts(t, r, get[pdus](g, other, "/event/"+string(id)).PDUs); len(got) != 1 || got[0] != "-" {
			t.Errorf("%v", got)
		}
	})
}

// TestTimes finds events by time in both directions.
func TestTimes(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		r := g.shared()
		a, b := g.Send(r, "alice", Message("a")), g.Send(r, "alice", Message("b"))
		path := "/timestamp_to_event/" + string(r.ID)
		for query, st := range map[string]*rooms.Stored{
			fmt.Sprintf("?dir=f&ts=%d", a.OriginServerTS): a, fmt.Sprintf("?dir=f&ts=%d", a.OriginServerTS+1): b,
			fmt.Sprintf("?dir=b&ts=%d", b.OriginServerTS): b, fmt.Sprintf("?dir=b&ts=%d", b.OriginServerTS-1): a,
		} {
			got := get[struct {
				ID matrix.EventID `json:"event_id"`
				TS int64          `json:"origin_server_ts"`
			}](g, other, path+query)
			if got.ID != st.ID || got.TS != st.OriginServerTS {
				t.Errorf("%s: %v", query, got)
			}
		}
		g.refused(other, "GET", fmt.Sprintf("%s?dir=f&ts=%d", path, b.OriginServerTS+1), "", 404, matrix.CodeNotFound)
		g.refused(other, "GET", path+"?dir=b&ts=5", "", 404, matrix.CodeNotFound)
		g.refused(other, "GET", path+"?dir=b", "", 400, matrix.CodeMissingParam)
		g.refused(other, "GET", path+"?dir=x&ts=5", "", 400, matrix.CodeInvalidParam)
	})
}

// TestQueries asks for aliases, profiles and OpenID tokens.
func TestQueries(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		ctx, r := t.Context(), g.Room("alice")
		if err := g.DB.Write(ctx, func(tx *db.Tx) error { return g.dir.Add(tx, "#tea:test", r.ID, User("alice")) }); err != nil {
			t.Fatal(err)
		}
		got := get[struct {
			RoomID  matrix.RoomID       `json:"room_id"`
			Servers []matrix.ServerName `json:"servers"`
		}](g, other, "/query/directory?room_alias=%23tea:test")
		if got.RoomID != r.ID || !slices.Equal(got.Servers, []matrix.ServerName{Server}) {
			t.Errorf("%v", got)
		}
		g.refused(other, "GET", "/query/directory?room_alias=%23none:test", "", 404, matrix.CodeNotFound)
		g.refused(other, "GET", "/query/directory?room_alias=%23tea:elsewhere", "", 404, matrix.CodeNotFound)
		g.refused(other, "GET", "/query/directory?room_alias=tea", "", 400, matrix.CodeInvalidParam)
		g.refused(other, "GET", "/query/directory", "", 400, matrix.CodeMissingParam)
		g.refused(other, "GET", "/query/anything", "", 404, matrix.CodeUnrecognized)
		g.refused("", "GET", "/query/directory?room_alias=%23tea:test", "", 401, matrix.CodeUnauthorized)

		if err := errors.Join(
			g.people.Set(ctx, User("alice"), "displayname", json.RawMessage(`"Alice"`)),
			g.people.Set(ctx, User("alice"), "org.example.job", json.RawMessage(`["tea"]`)),
		); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]string{
			"@alice:test": `{"displayname":"Alice","org.example.job":["tea"]}`, "@alice:test&field=displayname": `{"displayname":"Alice"}`,
			"@alice:test&field=org.example.job": `{"org.example.job":["tea"]}`, "@bare:test": `{}`,
		} {
			if code, text := g.ask(other, "GET", "/query/profile?user_id="+path, ""); code != 200 || text != want {
				t.Errorf("%s: %d %s", path, code, text)
			}
		}
		for _, user := range []string{"@nobody:test", "@alice:elsewhere", "@alice:test&field=avatar_url"} {
			g.refused(other, "GET", "/query/profile?user_id="+user, "", 404, matrix.CodeNotFound)
		}
		g.refused(other, "GET", "/query/profile", "", 400, matrix.CodeMissingParam)

		token, _, err := g.data.IssueOpenID(ctx, User("alice"))
		if err != nil {
			t.Fatal(err)
		}
		if code, text := g.ask("", "GET", "/openid/userinfo?access_token="+token, ""); code != 200 || text != `{"sub":"@alice:test"}` {
			t.Errorf("%d %s", code, text)
		}
		g.refused("", "GET", "/openid/userinfo?access_token=x", "", 401, matrix.CodeUnknownToken)
		g.refused("", "GET", "/openid/userinfo", "", 401, matrix.CodeMissingToken)
	})
}

// TestPublicRooms lists rooms by both methods, in pages and filtered.
func TestPublicRooms(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		for _, name := range []string{"tea", "coffee", "green tea"} {
			if err := g.publish(g.Room("alice", State(matrix.TypeName, "", fmt.Sprintf(`{"name":%q}`, name))).ID); err != nil {
				t.Fatal(err)
			}
		}
		all := get[rooms.ListingPage](g, other, "/publicRooms?limit=2&include_all_networks=false")
		rest := get[rooms.ListingPage](g, other, "/publicRooms?limit=2&since="+all.NextBatch)
		if len(all.Chunk) != 2 || len(rest.Chunk) != 1 || rest.NextBatch != "" || all.Total != 3 {
			t.Errorf("%+v %+v", all, rest)
		}
		if page := get[rooms.ListingPage](g, other, "/publicRooms?limit=0"); len(page.Chunk) != 3 {
			t.Errorf("without a limit: %+v", page)
		}
		if page := get[rooms.ListingPage](g, other, "/publicRooms?third_party_instance_id=irc"); len(page.Chunk) != 0 {
			t.Errorf("of another network: %+v", page)
		}
		if page := want[rooms.ListingPage](g, other, "POST", "/publicRooms", `{"filter":{"generic_search_term":"TEA"}}`); len(page.Chunk) != 2 {
			t.Errorf("filtered: %+v", page)
		}
		if page := want[rooms.ListingPage](g, other, "POST", "/publicRooms", `{"filter":{"room_types":["m.space"]}}`); len(page.Chunk) != 0 {
			t.Errorf("spaces: %+v", page)
		}
		g.refused(other, "GET", "/publicRooms?since=x", "", 400, matrix.CodeInvalidParam)
		g.refused("", "GET", "/publicRooms", "", 401, matrix.CodeUnauthorized)
	})
}
