package push

import (
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/roomstest"
)

var (
	countLines      = db.SQL(`SELECT COUNT(*) FROM push_lines WHERE user_id = $1 AND thread = $2`)
	countHighlights = db.SQL(`SELECT COUNT(*) FROM push_highlights WHERE user_id = $1`)
)

// rows counts what is stored, once everything that happened is judged.
func (g *rig) rows(s *db.Stmt, args ...any) (n int) {
	g.Helper()
	if err := g.Wait(g.Context(), g.DB.Position()); err != nil {
		g.Fatal(err)
	}
	if err := g.ledger.settle(g.Context()); err != nil {
		g.Fatal(err)
	}
	n, _, err := db.One(g.Context(), g.DB, s, func(s db.Scanner) (n int, err error) { return n, s.Scan(&n) }, args...)
	if err != nil {
		g.Fatal(err)
	}
	return n
}

// reads lets bob read a room.
func (g *rig) reads(r Receipt) {
	g.Helper()
	r.User = roomstest.User("bob")
	if err := g.DB.Write(g.Context(), func(tx *db.Tx) error {
		tx.Position()
		tx.Publish(r)
		return nil
	}); err != nil {
		g.Fatal(err)
	}
}

// notified counts what notifies bob of a thread above an event.
func (g *rig) notified(thread matrix.EventID, after, upTo *rooms.Stored) int64 {
	g.Helper()
	if err := g.Wait(g.Context(), g.DB.Position()); err != nil {
		g.Fatal(err)
	}
	judged, err := g.Judged(g.Context(), roomstest.User("bob"), []rooms.RoomNID{upTo.Room})
	if err != nil {
		g.Fatal(err)
	}
	n, _ := judged[upTo.Room].Between(thread, after.Position, after.Unread, upTo.Position, upTo.Unread)
	return n
}

// mute lets bob's rules say nothing of messages, or what everybody's say.
func (g *rig) mute(on bool) {
	g.Helper()
	body := `{"actions":["notify"]}`
	if on {
		body = `{"actions":[]}`
	}
	roomstest.Want[struct{}](g.Rig, "bob", "PUT", "/v3/pushrules/global/underride/.m.rule.message/actions", body)
}

// What was read takes no rows of lines but the last, and what comes after is
// counted as before; whether the lines are in memory or not.
func TestLinesAreTrimmed(t *testing.T) {
	each(t, func(g *rig) {
		r := g.Room("alice")
		g.Join(r, "bob", "carol") // of two, other rules speak
		root := g.Say(r, "alice", "root")
		var main, threaded []*rooms.Stored
		say := func(muted bool) {
			g.mute(muted)
			for range 3 {
				main = append(main, g.Send(r, "alice", roomstest.Message("hello")))
				threaded = append(threaded, g.Send(r, "alice", roomstest.Relation("m.thread", root, "")))
			}
		}
		say(true)
		say(false)
		say(true)
		before := g.rows(countLines, roomstest.User("bob"), "")
		if n := g.rows(countLines, roomstest.User("bob"), root); n != before || before < 4 {
			t.Fatalf("there are %d bends of the main timeline, %d of the thread", before, n)
		}
		check := func(when string, bends, threadBends int) {
			t.Helper()
			if n := g.rows(countLines, roomstest.User("bob"), ""); n != bends {
				t.Errorf("%s, there are %d bends of the main timeline, not %d", when, n, bends)
			}
			if n := g.rows(countLines, roomstest.User("bob"), root); n != threadBends {
				t.Errorf("%s, there are %d bends of the thread, not %d", when, n, threadBends)
			}
			// Of the three messages after the fourth, one and none notify.
			for _, list := range [][]*rooms.Stored{main, threaded} {
				thread := list[0].Thread
				if n := g.notified(thread, list[4], list[8]); n != 1 {
					t.Errorf("%s, %d events of %q notify, not 1", when, n, thread)
				}
			}
		}
		check("before", before, before)
		g.reads(Receipt{Room: r.NID, Position: main[4].Position}) // of the main timeline
		kept := g.rows(countLines, roomstest.User("bob"), "")
		if kept >= before {
			t.Errorf("none of %d bends is trimmed", before)
		}
		check("once the main timeline is read", kept, before)
		g.stop()
		g.Reload() // now the lines are not in memory
		g.reads(Receipt{Room: r.NID, Position: threaded[4].Position, All: true})
		check("once all is read", kept, kept)
		say(false)
		if n := g.notified("", main[4], main[11]); n != 4 {
			t.Errorf("after further messages, %d notify, not 4", n)
		}
		g.Member(r, "bob", "bob", "leave")
		if n := g.rows(countLines, roomstest.User("bob"), ""); n != 0 {
			t.Errorf("%d bends are left of a room that bob left", n)
		}
		g.Join(r, "bob")
		say(true)
		say(false)
		if n := g.notified("", main[11], main[17]); n != 3 {
			t.Errorf("back in the room, %d messages notify, not 3", n)
		}
	})
}

// What stands out is kept as long as notifications are listed, and longer until it
// was read; not at all once the room is left.
func TestHighlightsArePruned(t *testing.T) {
	each(t, func(g *rig) {
		r := g.Room("alice")
		g.Join(r, "bob")
		mention := func() *rooms.Stored {
			return g.Send(r, "alice", rooms.Proto{Type: matrix.TypeMessage, Content: []byte(`{"body":"x","m.mentions":{"user_ids":["@bob:test"]}}`)})
		}
		left := func(want int, when string) {
			t.Helper()
			if n := g.rows(countHighlights, roomstest.User("bob")); n != want {
				t.Errorf("%s, there are %d highlights, not %d", when, n, want)
			}
		}
		g.reads(Receipt{Room: r.NID, Position: mention().Position, All: true})
		mention()
		left(2, "at first")
		after := func(d time.Duration) { g.ledger.prune(time.Now().Add(d)) }
		after(highlightsKept - time.Hour)
		left(2, "before the end of the list")
		after(highlightsKept + time.Hour)
		left(1, "later than the list goes back")
		after(unseenKept + time.Hour)
		left(0, "a year later")
		mention()
		g.Member(r, "bob", "bob", "leave")
		left(0, "without bob")
	})
}
