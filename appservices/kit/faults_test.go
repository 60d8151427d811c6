package kit_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/kit/kittest"
)

// ledger is a service that notes each text in a table of its own and answers it: what
// was handled twice, or was answered without being noted, shows.
var (
	ledger = kit.NewSchema("ledger", `CREATE TABLE ledger (nid INTEGER PRIMARY KEY, room TEXT NOT NULL, text TEXT NOT NULL)`,
		`CREATE TABLE invitations (nid INTEGER PRIMARY KEY, room TEXT NOT NULL)`)

	insertEntry      = ledger.SQL(`INSERT INTO ledger (nid, room, text) VALUES ($1, $2, $3)`)
	countEntries     = ledger.SQL(`SELECT count(*) FROM ledger WHERE room = $1`)
	insertInvitation = ledger.SQL(`INSERT INTO invitations (nid, room) VALUES ($1, $2)`)
	countInvitations = ledger.SQL(`SELECT count(*) FROM invitations WHERE room = $1`)
	selectEntries    = ledger.SQL(`SELECT text FROM ledger WHERE room = $1 ORDER BY nid`)
)

func openLedger(ctx context.Context, c kit.Config) (kittest.Service, error) {
	c.Schema = ledger
	s, err := kit.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	s.On(event.EventMessage, func(tx *kit.Tx, ev *kit.Event) error {
		text := ev.Text()
		n, _, err := kit.One(tx.Context(), tx, countEntries, scanInt, ev.RoomID)
		if err != nil {
			return err
		}
		if err := tx.Exec(insertEntry, tx.Next("ledger"), ev.RoomID, text); err != nil {
			return err
		}
		ref := tx.Reply(ev, fmt.Sprintf("%d: %s", n+1, text))
		tx.ReactTo(ref, "✅")
		return nil
	})
	s.On(event.StateMember, func(tx *kit.Tx, ev *kit.Event) error {
		if ev.GetStateKey() != string(s.User()) || ev.Content.AsMember().Membership != event.MembershipInvite {
			return nil
		}
		return tx.Exec(insertInvitation, tx.Next("invitations"), ev.RoomID)
	})
	return s, nil
}

func scanInt(r kit.Scanner) (n int, err error) {
	err = r.Scan(&n)
	return n, err
}

func scanText(r kit.Scanner) (text string, err error) {
	err = r.Scan(&text)
	return text, err
}

// TestFaults: whatever goes wrong, each text and each invitation is handled exactly
// once, each text answered exactly once, and the answers of a room come in the order in
// which its texts were handled.
func TestFaults(t *testing.T) {
	seeds, steps := 2, 60
	if os.Getenv("TEAHOUSE_LONG") != "" {
		seeds, steps = 12, 200
	}
	for seed := range seeds {
		each(t, func(t *testing.T, url string) {
			t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { suffer(t, url, uint64(seed), steps) })
		})
	}
}

func suffer(t *testing.T, url string, seed uint64, steps int) {
	d := rand.New(rand.NewPCG(seed, 3))
	r := kittest.Start(t, kittest.Options{Database: url, Seed: seed, Faults: kittest.Everything(0.05), Open: openLedger, InvitesNamed: seed%2 == 1})
	alice := r.User("alice")
	said := map[id.RoomID][]string{}
	times := map[id.RoomID]int{} // that it was invited
	rooms, doors := []id.RoomID{}, []id.RoomID{}
	for range 4 {
		rooms, doors = append(rooms, alice.CreateRoom(r.Bot())), append(doors, alice.CreateRoom(r.Bot()))
	}
	for _, room := range slices.Concat(rooms, doors) {
		times[room] = 1
	}
	r.Settle()
	for i := range steps {
		switch n := d.IntN(100); {
		case n < 60:
			room := rooms[d.IntN(len(rooms))]
			text := fmt.Sprint("text ", i)
			if slices.Contains(r.Members(room), r.Bot()) {
				alice.Say(room, text)
				said[room] = append(said[room], text)
			}
		case n < 70:
			room := doors[d.IntN(len(doors))]
			if slices.Contains(r.Members(room), r.Bot()) {
				alice.Kick(room, r.Bot())
				alice.Invite(room, r.Bot())
				times[room]++
			}
		case n < 75:
			r.Kill()
		default:
			r.Pass(time.Duration(d.IntN(300)) * time.Second)
		}
	}
	r.Heal()
	r.Settle()
	r.Kill() // what was lost is found at the start
	r.Settle()
	for _, room := range rooms {
		exactlyOnce(t, r, r.Service().(*kit.Service), room, said[room])
	}
	invitations := 0
	for _, room := range slices.Concat(rooms, doors) {
		invitations += times[room]
		n, _, err := kit.One(t.Context(), r.Service().(*kit.Service), countInvitations, scanInt, room)
		if err != nil || n != times[room] || !slices.Contains(r.Members(room), r.Bot()) {
			t.Errorf("%d of %d invitations to %s were handled, whose members are %v, %v", n, times[room], room, r.Members(room), err)
		}
	}
	t.Logf("%d texts and %d invitations in %d lives of the service", steps, invitations, r.Lives())
}

// exactlyOnce compares what was said in a room with what was handled and answered.
func exactlyOnce(t *testing.T, r *kittest.Rig, q kit.Querier, room id.RoomID, said []string) {
	t.Helper()
	handled, err := kit.All(t.Context(), q, selectEntries, scanText, room)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]string, len(handled))
	for i, text := range handled {
		want[i] = fmt.Sprintf("%d: %s", i+1, text)
	}
	if got := r.Said(room); !slices.Equal(got, want) {
		t.Errorf("answered was %q, but handled %q", got, want)
	}
	slices.Sort(handled)
	slices.Sort(said)
	if !slices.Equal(handled, said) {
		t.Errorf("handled was %q, but said %q", handled, said)
	}
	reactions := 0
	for _, ev := range r.Events(room) {
		if ev.Type == event.EventReaction && ev.Sender == r.Bot() {
			reactions++
		}
	}
	if reactions != len(said) {
		t.Errorf("%d reactions to %d answers", reactions, len(said))
	}
}

// TestTakenIsStored: what the service took is safe, also if it is killed in the moment
// in which the homeserver has its answer, and though nobody ever tells of it again.
func TestTakenIsStored(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		r := kittest.Start(t, kittest.Options{Database: url, Open: openLedger})
		room := r.User("alice").CreateRoom(r.Bot())
		r.Settle()
		var said []string
		for i := range 10 {
			text := fmt.Sprint("text ", i)
			body := fmt.Sprintf(`{"events":[{"type":"m.room.message","event_id":"$only%d","room_id":"%s","sender":"@alice:test",
				"content":{"msgtype":"m.text","body":"%s"}}]}`, i, room, text)
			if code := r.Put(fmt.Sprint("only", i), body); code != http.StatusOK {
				t.Fatal("the transaction is answered with", code)
			}
			if err := r.Service().Close(); err != nil {
				t.Fatal(err)
			}
			r.Kill()
			r.Settle()
			said = append(said, text)
		}
		exactlyOnce(t, r, r.Service().(*kit.Service), room, said)
	})
}
