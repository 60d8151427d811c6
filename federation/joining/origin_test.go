package joining_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const federation = "/_matrix/federation"

// door is one of the endpoints at which a server hands a member event in.
type door struct {
	membership, path string // before room and event
	version          string // of the room
	rule             string // join rule
}

var doors = []door{
	{"join", "/v1/send_join", "1", "public"}, {"join", "/v2/send_join", "6", "public"}, {"join", "/v2/send_join", "12", "public"},
	{"leave", "/v1/send_leave", "1", "public"}, {"leave", "/v2/send_leave", "12", "public"},
	{"knock", "/v1/send_knock", "7", "knock"}, {"knock", "/v1/send_knock", "12", "knock"},
}

// TestHostileOrigins hands events in that are not what the door is for: nothing
// of it gets into the room (F1, F2, F7, F15).
func TestHostileOrigins(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		n := testrig.NewNetwork()
		s := testrig.Start(t, testrig.Options{Name: "here", Network: n, Federate: true, Database: dbtest.URL(t, kind)})
		alice := s.Register("alice")
		p, accomplice := testrig.NewPeer(t, n, "evil"), testrig.NewPeer(t, n, "accomplice")
		for _, d := range doors {
			for name, c := range crimes {
				room := d.room(alice)
				r, ev := d.prepare(t, p, room)
				hand := c.commit(&attempt{t, d, p, accomplice, alice, r, ev})
				status, code := put(t, hand.by, "here", federation+hand.path, hand.body)
				if status < 400 || status > 404 || code == "" {
					t.Errorf("%s, %+v, %s: %d %s", kind, d, name, status, code)
				}
				want := ""
				if d.membership == "leave" {
					want = "join"
				}
				if got := membership(alice, room, p.User("eve")); got != want {
					t.Errorf("%s, %+v, %s: eve's membership is %s", kind, d, name, got)
				}
				// Unless the room has come to be closed, the honest one is welcome.
				if c.closes {
					continue
				}
				path := federation + d.path + testrig.Path(room, ev.ID)
				if status, code := put(t, p, "here", path, json.RawMessage(ev.JSON)); status != 200 {
					t.Errorf("%s, %+v after %s: %d %s", kind, d, name, status, code)
				}
				if got := membership(alice, room, p.User("eve")); got != d.membership {
					t.Errorf("%s, %+v after %s: eve's membership is %s", kind, d, name, got)
				}
			}
		}
	}
}

// room makes the room that somebody wants in or out of.
func (d *door) room(c *testrig.Client) matrix.RoomID {
	return c.CreateRoom(object{"room_version": d.version, "initial_state": []any{
		object{"type": "m.room.join_rules", "state_key": "", "content": object{"join_rule": d.rule}},
	}})
}

// prepare makes the honest event of eve's, from a template.
func (d *door) prepare(t *testing.T, p *testrig.Peer, room matrix.RoomID) (*testrig.PeerRoom, *event.Event) {
	t.Helper()
	eve := p.User("eve")
	switch d.membership {
	case "join":
		return p.TryJoin("here", room, eve)
	case "leave":
		p.Join("here", room, eve)
	}
	return p.Try("here", room, eve, d.membership)
}

// attempt is what a crime is made of.
type attempt struct {
	t             *testing.T
	d             door
	p, accomplice *testrig.Peer
	alice         *testrig.Client // of the server that is attacked
	room          *testrig.PeerRoom
	event         *event.Event // the honest one
}

// hand is a request.
type hand struct {
	by   *testrig.Peer
	path string
	body any
}

// as sends an event to where it belongs.
func (a *attempt) as(ev *event.Event) hand {
	return hand{a.p, a.d.path + testrig.Path(a.room.ID, ev.ID), json.RawMessage(ev.JSON)}
}

// like builds an event like the honest one, but for a change.
func (a *attempt) like(change func(d *event.Draft)) *event.Event {
	a.t.Helper()
	d := a.room.Like(a.event)
	change(&d)
	return a.room.Build(d)
}

// crimes are the ways to misuse a door. closes tells that the room lets the
// origin in no more.
var crimes = map[string]struct {
	commit func(a *attempt) hand
	closes bool
}{
	"another room in the path": {commit: func(a *attempt) hand {
		h := a.as(a.event)
		h.path = a.d.path + testrig.Path(a.d.room(a.alice), a.event.ID)
		return h
	}},
	"an unknown room": {commit: func(a *attempt) hand {
		h := a.as(a.event)
		h.path = a.d.path + testrig.Path("!nowhere:here", a.event.ID)
		return h
	}},
	"no room": {commit: func(a *attempt) hand {
		h := a.as(a.event)
		h.path = a.d.path + testrig.Path("nowhere", a.event.ID)
		return h
	}},
	"another event in the path": {commit: func(a *attempt) hand {
		h := a.as(a.event)
		h.path = a.d.path + testrig.Path(a.room.ID, "$other:evil")
		return h
	}},
	"another room": {commit: func(a *attempt) hand {
		return a.as(a.like(func(d *event.Draft) { d.RoomID = a.d.room(a.alice) }))
	}},
	"another membership": {commit: func(a *attempt) hand {
		return a.as(a.like(func(d *event.Draft) { d.Content = []byte(`{"membership":"invite"}`) }))
	}},
	"no membership": {commit: func(a *attempt) hand {
		return a.as(a.like(func(d *event.Draft) { d.Content = []byte(`{}`) }))
	}},
	"another type": {commit: func(a *attempt) hand {
		return a.as(a.like(func(d *event.Draft) { d.Type = "m.room.topic" }))
	}},
	"no state": {commit: func(a *attempt) hand {
		return a.as(a.like(func(d *event.Draft) { d.StateKey = nil }))
	}},
	"about somebody else": {commit: func(a *attempt) hand {
		key := string(a.p.User("other"))
		return a.as(a.like(func(d *event.Draft) { d.StateKey = &key }))
	}},
	"by a user of ours": {commit: func(a *attempt) hand {
		key := string(a.alice.User)
		return a.as(a.like(func(d *event.Draft) { d.StateKey, d.Sender = &key, a.alice.User }))
	}},
	"by another server": {commit: func(a *attempt) hand {
		h := a.as(a.event)
		h.by = a.accomplice
		return h
	}},
	"for another server": {commit: func(a *attempt) hand {
		key := string(a.accomplice.User("eve"))
		ev := a.like(func(d *event.Draft) { d.StateKey, d.Sender = &key, a.accomplice.User("eve") })
		signed, err := ev.Sign(a.accomplice.Name, a.accomplice.Key)
		if err != nil {
			a.t.Fatal(err)
		}
		return a.as(signed)
	}},
	"unsigned": {commit: func(a *attempt) hand {
		h := a.as(a.event)
		e := asObject(a.t, a.event.JSON)
		e["signatures"] = object{}
		h.body = e
		return h
	}},
	"wrongly signed": {commit: func(a *attempt) hand {
		forged, err := event.Build(a.event.Version, a.room.Like(a.event), a.p.Name, event.SigningKey{ID: a.p.Key.ID, Private: a.accomplice.Key.Private})
		if err != nil {
			a.t.Fatal(err)
		}
		return a.as(forged)
	}},
	"a wrong hash": {commit: func(a *attempt) hand {
		h := a.as(a.event)
		e := asObject(a.t, a.event.JSON)
		e["content"].(object)["displayname"] = "Eve"
		h.body = e
		return h
	}},
	"no event": {commit: func(a *attempt) hand {
		h := a.as(a.event)
		h.body = object{"room_id": a.room.ID}
		return h
	}},
	"an unknown past": {commit: func(a *attempt) hand {
		return a.as(a.like(func(d *event.Draft) {
			d.PrevEvents = []event.Ref{{ID: matrix.EventID("$" + fmt.Sprintf("%043d", 1))}}
			if a.event.Version.EventIDs == event.IDText {
				d.PrevEvents[0].ID = "$unknown:evil"
			}
		}))
	}},
	"denied": {closes: true, commit: func(a *attempt) hand {
		a.alice.Must("PUT", "/v3/rooms"+testrig.Path(a.room.ID, "state", "m.room.server_acl", ""), object{"allow": []any{"*"}, "deny": []any{"EVIL"}})
		return a.as(a.event)
	}},
	"everybody has left": {closes: true, commit: func(a *attempt) hand {
		a.alice.Must("POST", "/v3/rooms"+testrig.Path(a.room.ID, "leave"), object{})
		return a.as(a.event)
	}},
}
