package joining_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// readInvited reads the invitation that a peer gets, in either version of the
// interface.
func readInvited(t *testing.T, r *http.Request, version string) *event.Event {
	t.Helper()
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	var q struct {
		Version string          `json:"room_version"`
		Event   json.RawMessage `json:"event"`
	}
	if strings.Contains(r.URL.Path, "/v2/") {
		if err := json.Unmarshal(raw, &q); err != nil || q.Version != version {
			t.Errorf("invited to a room of version %s: %v", q.Version, err)
		}
		raw = q.Event
	}
	v, _ := event.Lookup(version)
	ev, err := event.Parse(v, raw)
	if err != nil {
		t.Error(err)
	}
	return ev
}

// TestHostileInvitees answer an invitation by something else than it with their
// signature: nothing comes into the room (F1, F20).
func TestHostileInvitees(t *testing.T) {
	for _, version := range []string{"1", "6", "12"} {
		s, bob, p := here(t, "sqlite")
		other := testrig.NewPeer(t, s.Network, "other")
		room := bob.CreateRoom(object{"room_version": version})
		aside := p.Create(version, p.User("x"))
		signed := func(ev *event.Event, by *testrig.Peer) json.RawMessage {
			ev, err := ev.Sign(by.Name, by.Key)
			if err != nil {
				t.Error(err)
			}
			return ev.JSON
		}
		answers := map[string]func(ev *event.Event) any{
			"nothing":           func(*event.Event) any { return object{} },
			"null":              func(*event.Event) any { return object{"event": nil} },
			"no event":          func(*event.Event) any { return object{"event": object{}} },
			"not signed":        func(ev *event.Event) any { return object{"event": json.RawMessage(ev.JSON)} },
			"signed by another": func(ev *event.Event) any { return object{"event": signed(ev, other)} },
			"another event": func(ev *event.Event) any {
				d := aside.Like(ev)
				d.RoomID, d.Content = ev.RoomID, []byte(`{"membership":"join"}`)
				return object{"event": signed(aside.Build(d), p)}
			},
			"changed": func(ev *event.Event) any {
				e := asObject(t, signed(ev, p))
				e["content"].(object)["displayname"] = "Mallory"
				return object{"event": e}
			},
			"our signature is missing": func(ev *event.Event) any {
				e := asObject(t, signed(ev, p))
				delete(e["signatures"].(object), "here")
				return object{"event": e}
			},
		}
		answer := ""
		p.Handle("PUT /_matrix/federation/v2/invite/{room}/{event}", func(w http.ResponseWriter, r *http.Request) {
			testrig.WriteJSON(w, 200, answers[answer](readInvited(t, r, version)))
		})
		for answer = range answers {
			bob.Fails(502, matrix.CodeUnknown, "POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": p.User("eve")})
			if got := membership(bob, room, p.User("eve")); got != "" {
				t.Errorf("version %s, %s: eve's membership is %s", version, answer, got)
			}
		}
	}
}

// TestOldServers know the first versions of the endpoints only.
func TestOldServers(t *testing.T) {
	_, bob, p := here(t, "sqlite")
	unrecognized := func(w http.ResponseWriter, _ *http.Request) {
		testrig.WriteJSON(w, 404, object{"errcode": "M_UNRECOGNIZED", "error": "What?"})
	}
	p.Handle("PUT /_matrix/federation/v2/invite/{room}/{event}", unrecognized)
	p.Handle("PUT /_matrix/federation/v1/invite/{room}/{event}", func(w http.ResponseWriter, r *http.Request) {
		signed, err := readInvited(t, r, "1").Sign(p.Name, p.Key)
		if err != nil {
			t.Error(err)
		}
		testrig.WriteJSON(w, 200, []any{200, object{"event": json.RawMessage(signed.JSON)}})
	})
	old := bob.CreateRoom(object{"room_version": "1"})
	bob.Must("POST", "/v3/rooms"+testrig.Path(old, "invite"), object{"user_id": p.User("eve")})
	if got := membership(bob, old, p.User("eve")); got != "invite" {
		t.Errorf("eve's membership is %s", got)
	}
	bob.Fails(502, matrix.CodeUnknown, "POST", "/v3/rooms"+testrig.Path(bob.CreateRoom(object{"room_version": "3"}), "invite"), object{"user_id": p.User("eve")})

	h := newHost(t, p, "1")
	h.refuseV2 = true
	p.Handle("PUT /_matrix/federation/v1/send_join"+testrig.Path(h.ID)+"/{event}", func(w http.ResponseWriter, _ *http.Request) {
		testrig.WriteJSON(w, 200, []any{200, object{"state": h.state(), "auth_chain": h.state(), "origin": p.Name}})
	})
	joinVia(bob, h.ID, "evil")
	if got := membership(bob, h.ID, bob.User); got != "join" {
		t.Errorf("bob's membership is %s", got)
	}
}
