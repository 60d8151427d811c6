package history_test

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
	"github.com/teahouse-chat/teahouse/syncapi/token"
)

// pages walks a room's timeline to its end and gives everything that it met.
func pages(g *Rig, user string, r *rooms.Room, dir, filter string, limit func() int) []matrix.EventID {
	g.Helper()
	met := []matrix.EventID{}
	from := ""
	for range 10_000 {
		n := limit()
		q := url.Values{"dir": {dir}, "limit": {fmt.Sprint(n)}, "filter": {filter}, "from": {from}}
		page := Get[messagesAnswer](g, user, roomPath(r, "messages?"+q.Encode()))
		if len(page.Chunk) > n {
			g.Fatalf("a page of %d has %d events", n, len(page.Chunk))
		}
		met = append(met, idsOf(page.Chunk)...)
		if page.End == "" {
			return met
		}
		if page.End == from && from != "" {
			g.Fatalf("page of %d does not lead on from %s", n, from)
		}
		if from != "" && page.Start != from {
			g.Fatalf("start is %s, not %s", page.Start, from)
		}
		from = page.End
	}
	g.Fatal("the pages do not end")
	return nil
}

// TestPagesOfAnySize walks random histories, in which the visibility and the
// reader's membership change, in pages of random sizes: each visible event comes
// once, in order, from memory and from the database.
func TestPagesOfAnySize(t *testing.T) {
	each(t, func(g *Rig) {
		chance := rand.New(rand.NewPCG(1, 2))
		visibilities := []string{"world_readable", "shared", "invited", "joined"}
		for range 4 {
			r := g.Room("alice")
			joined := false
			for range 150 + chance.IntN(100) {
				switch chance.IntN(12) {
				case 0:
					v := visibilities[chance.IntN(4)]
					g.Send(r, "alice", State(matrix.TypeHistoryVisibility, "", `{"history_visibility":"`+v+`"}`))
				case 1:
					if joined = !joined; joined {
						g.Join(r, "bob")
					} else {
						g.Member(r, "bob", "bob", "leave")
					}
				default:
					g.Say(r, "alice", "hello")
				}
			}
			g.Join(r, "bob")
			for _, reload := range []bool{false, true} {
				if reload {
					g.Reload()
				}
				checkPages(g, r, chance)
			}
		}
	})
}

func checkPages(g *Rig, r *rooms.Room, chance *rand.Rand) {
	g.Helper()
	r, err := g.Engine.Room(g.Context(), r.ID)
	if err != nil {
		g.Fatal(err)
	}
	all, err := g.Engine.Timeline(g.Context(), rooms.TimelineQuery{Room: r, From: -1, Limit: 10_000})
	if err != nil {
		g.Fatal(err)
	}
	for _, user := range []string{"alice", "bob"} {
		visible, err := g.Engine.Visible(g.Context(), r, User(user), all)
		if err != nil {
			g.Fatal(err)
		}
		for _, f := range []string{"", `{"types":["m.room.member"]}`, `{"senders":[]}`} {
			want := []matrix.EventID{}
			for _, st := range visible {
				if f == "" || strings.Contains(f, "types") && st.Type == "m.room.member" {
					want = append(want, st.ID)
				}
			}
			size := func() int { return 1 + chance.IntN(60) }
			if got := pages(g, user, r, "f", f, size); !slices.Equal(got, want) {
				g.Fatalf("%s forwards %s: %d events, not %d", user, f, len(got), len(want))
			}
			slices.Reverse(want)
			if got := pages(g, user, r, "b", f, size); !slices.Equal(got, want) {
				g.Fatalf("%s backwards %s: %d events, not %d", user, f, len(got), len(want))
			}
		}
	}
}

// TestHiddenPageLeadsOn has more hidden events in a row than one request looks
// at: the empty page has an end, and following it reaches what is before.
// The row F18 of the threats.
func TestHiddenPageLeadsOn(t *testing.T) {
	each(t, func(g *Rig) {
		r := g.Room("alice", State(matrix.TypeHistoryVisibility, "", `{"history_visibility":"joined"}`))
		g.Join(r, "bob")
		seen := g.Say(r, "alice", "while bob is here")
		g.Member(r, "bob", "bob", "leave")
		_, err := g.Engine.Update(g.Context(), r.ID, User("alice"), func(b *rooms.Builder) error {
			for range 2500 {
				if _, err := b.Append(Message("hidden")); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			g.Fatal(err)
		}
		g.Join(r, "bob")
		own := Get[messagesAnswer](g, "bob", roomPath(r, "messages?dir=b&limit=1"))
		page := Get[messagesAnswer](g, "bob", roomPath(r, "messages?dir=b&limit=10&from="+own.End))
		if len(page.Chunk) != 0 || page.End == "" {
			g.Fatalf("%d events and end %q, where all are hidden", len(page.Chunk), page.End)
		}
		if got := pages(g, "bob", r, "b", "", func() int { return 10 }); !slices.Contains(got, seen) {
			g.Errorf("what is before the hidden events is not reached, but %d others", len(got))
		}
	})
}

// TestMessagesTokens accepts the tokens of /sync, stops at to, and refuses what
// is no token.
func TestMessagesTokens(t *testing.T) {
	each(t, func(g *Rig) {
		r := g.Room("alice")
		first := g.Send(r, "alice", Message("1"))
		second := g.Send(r, "alice", Message("2"))
		g.Send(r, "alice", Message("3"))
		since := token.Sync{Position: second.Position, Epoch: 7}.String()
		back := Get[messagesAnswer](g, "alice", roomPath(r, "messages?dir=b&limit=2&from="+since))
		if got := idsOf(back.Chunk); !slices.Equal(got, []matrix.EventID{second.ID, first.ID}) || back.Start != since {
			g.Errorf("back from a sync token: %v, start %s", got, back.Start)
		}
		on := Get[messagesAnswer](g, "alice", roomPath(r, "messages?dir=f&from="+since))
		if len(on.Chunk) != 1 || on.Chunk[0].body() != "3" || on.End == "" {
			g.Errorf("on from a sync token: %+v", on)
		}
		end := Get[messagesAnswer](g, "alice", roomPath(r, "messages?dir=f&from="+on.End))
		if len(end.Chunk) != 0 || end.End != "" {
			g.Errorf("behind the newest event: %+v", end)
		}
		between := Get[messagesAnswer](g, "alice", roomPath(r, "messages?dir=f&from="+token.Point(first.Position)+"&to="+since))
		if got := idsOf(between.Chunk); !slices.Equal(got, []matrix.EventID{second.ID}) {
			g.Errorf("between two tokens: %v", got)
		}
		between = Get[messagesAnswer](g, "alice", roomPath(r, "messages?dir=b&from="+since+"&to="+token.Point(first.Position)))
		if got := idsOf(between.Chunk); !slices.Equal(got, []matrix.EventID{second.ID}) {
			g.Errorf("between two tokens, backwards: %v", got)
		}
		g.Refused("alice", "GET", roomPath(r, "messages"), "", 400, matrix.CodeMissingParam)
		for _, q := range []string{"dir=x", "dir=b&from=t1_x", "dir=b&from=5", "dir=b&to=s1_1", "dir=b&limit=-1"} {
			g.Refused("alice", "GET", roomPath(r, "messages?"+q), "", 400, matrix.CodeInvalidParam)
		}
		g.Refused("alice", "GET", roomPath(r, "messages?dir=b&filter={"), "", 400, matrix.CodeNotJSON)
	})
}

// TestMessagesFilters picks by what the filter says, rooms included, and gives
// the members who sent.
func TestMessagesFilters(t *testing.T) {
	each(t, func(g *Rig) {
		r := g.Room("alice")
		g.Join(r, "bob", "carol")
		g.Say(r, "bob", "from bob")
		g.Say(r, "carol", "from carol")
		for filter, want := range map[string]int{
			`{"rooms":["!other"]}`:                   0,
			`{"not_rooms":["` + string(r.ID) + `"]}`: 0,
			`{"senders":["@bob:test"]}`:              2,
			`{"types":["m.room.message"]}`:           2,
			`{"types":["m.room.m*"],"limit":3}`:      3,
			`{"not_types":["m.room.*"]}`:             0,
			`{"contains_url":true}`:                  0,
			`{"related_by_rel_types":["m.thread"]}`:  0,
			`{"related_by_senders":["@carol:test"]}`: 0,
		} {
			page := Get[messagesAnswer](g, "alice", roomPath(r, "messages?dir=b&filter="+url.QueryEscape(filter)))
			if len(page.Chunk) != want {
				g.Errorf("%s picks %d events, not %d", filter, len(page.Chunk), want)
			}
		}
		g.Reload()
		filter := url.QueryEscape(`{"lazy_load_members":true,"types":["m.room.message"]}`)
		page := Get[messagesAnswer](g, "alice", roomPath(r, "messages?dir=b&filter="+filter))
		var members []string
		for _, m := range page.State {
			members = append(members, *m.StateKey)
		}
		if !slices.Equal(members, []string{"@carol:test", "@bob:test"}) {
			g.Errorf("the members with the messages are %v", members)
		}
	})
}

// TestIgnored leaves out what an ignored user says, but not what they do.
func TestIgnored(t *testing.T) {
	each(t, func(g *Rig) {
		r := g.Room("alice")
		g.Join(r, "troll")
		said := g.Say(r, "troll", "grr")
		page := Get[messagesAnswer](g, "alice", roomPath(r, "messages?dir=b"))
		if ids := idsOf(page.Chunk); slices.Contains(ids, said) || *page.Chunk[0].StateKey != "@troll:test" {
			g.Errorf("of an ignored user: %+v", page.Chunk[0])
		}
		g.Refused("alice", "GET", roomPath(r, "event/"+string(said)), "", 404, matrix.CodeNotFound)
		if ids := idsOf(Get[messagesAnswer](g, "troll", roomPath(r, "messages?dir=b")).Chunk); ids[0] != said {
			g.Errorf("an ignored user does not see themselves")
		}
	})
}
