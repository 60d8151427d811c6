package joining_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

type object = testrig.JSON

// some are the room versions that differ in what joining has to do with, on one
// of the databases; the other one is there to be stored in.
func some(t *testing.T) []string {
	if strings.HasSuffix(t.Name(), "postgres") {
		return []string{"1", "12"}
	}
	return []string{"1", "6", "10", "11", "12"}
}

// each runs f with servers "a", "b" and so on, on each database.
func each(t *testing.T, names []matrix.ServerName, f func(t *testing.T, s []*testrig.Server)) {
	t.Helper()
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { f(t, testrig.StartMany(t, kind, names...)) })
	}
}

var (
	two   = []matrix.ServerName{"a", "b"}
	three = []matrix.ServerName{"a", "b", "c"}
)

// member is a user's member event as a client reads it; empty if there is none
// that it may read.
func member(c *testrig.Client, room matrix.RoomID, of matrix.UserID) object {
	status, answer, err := c.Do(context.Background(), "GET", "/v3/rooms"+testrig.Path(room, "state", "m.room.member", string(of)), nil)
	if err != nil || status != 200 {
		return object{}
	}
	return answer
}

func membership(c *testrig.Client, room matrix.RoomID, of matrix.UserID) string {
	m, _ := member(c, room, of)["membership"].(string)
	return m
}

// joinVia joins through a server.
func joinVia(c *testrig.Client, room matrix.RoomID, via string) {
	c.Must("POST", "/v3/join"+testrig.Path(room)+"?via="+via, object{})
}

// host is a peer's room that others may join; what the test changes makes it
// hostile.
type host struct {
	*testrig.PeerRoom
	peer *testrig.Peer
	user matrix.UserID // who lets others in

	restricted bool // the template names who lets in
	refuseV2   bool // send_join is known in its first version only
	mu         sync.Mutex
	template   func(answer object)                      // changes the answer to make_join
	answer     func(answer object)                      // changes the answer to send_join
	raw        func(w http.ResponseWriter, body []byte) // writes the answer to send_join
	made       int                                      // templates
	sent       []*event.Event                           // what was handed in
}

var hosts atomic.Int64 // of all tests, so that no two rooms have the same id

// newHost makes a room of a version on a peer.
func newHost(t *testing.T, p *testrig.Peer, version string) *host {
	t.Helper()
	user := p.User(fmt.Sprintf("host%d", hosts.Add(1)))
	h := &host{PeerRoom: p.Create(version, user), peer: p, user: user}
	id := testrig.Path(h.ID)
	p.Handle("GET /_matrix/federation/v1/make_join"+id+"/{user}", func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.made++
		user := r.PathValue("user")
		content := object{"membership": "join"}
		if h.restricted {
			content["join_authorised_via_users_server"] = h.user
		}
		d := h.Draft(matrix.UserID(user), matrix.TypeMember, &user, content)
		answer := object{"room_version": version, "event": asObject(t, d.JSON(h.Version))}
		if h.template != nil {
			h.template(answer)
		}
		testrig.WriteJSON(w, 200, answer)
	})
	p.Handle("PUT /_matrix/federation/v2/send_join"+id+"/{event}", func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		var body json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		ev, err := event.Parse(h.Version, body)
		if err != nil {
			t.Error(err)
			return
		}
		if h.refuseV2 {
			testrig.WriteJSON(w, 404, object{"errcode": "M_UNRECOGNIZED", "error": "What?"})
			return
		}
		h.sent = append(h.sent, ev)
		if h.raw != nil {
			h.raw(w, body)
			return
		}
		answer := object{"state": h.state(), "auth_chain": h.state(), "origin": h.peer.Name}
		if h.answer != nil {
			h.answer(answer)
		}
		testrig.WriteJSON(w, 200, answer)
	})
	return h
}

// state is the room's, as JSON.
func (h *host) state() []any {
	var list []any
	for _, ev := range slices.SortedFunc(maps.Values(h.State), func(a, b *event.Event) int { return int(a.Depth - b.Depth) }) {
		list = append(list, json.RawMessage(ev.JSON))
	}
	return list
}

// lastSent is the last event that was handed in.
func (h *host) lastSent() *event.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.sent) == 0 {
		return nil
	}
	return h.sent[len(h.sent)-1]
}

func asObject(t testing.TB, raw []byte) object {
	t.Helper()
	o := object{}
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// put hands something in at a peer's hands, and gives the status and the code of
// an error. The first versions of the endpoints answer with lists.
func put(t testing.TB, p *testrig.Peer, to matrix.ServerName, path string, body any) (int, matrix.Code) {
	t.Helper()
	content, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Client.Do(context.Background(), transport.Request{
		Destination: to, Method: "PUT", Path: path, Content: content, Timeout: time.Minute,
	})
	if refused, ok := errors.AsType[*transport.RemoteError](err); ok {
		return refused.Status, refused.Code
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return 200, ""
}

// keep makes an event that was handed in the one that the next builds on.
func (h *host) keep(ev *event.Event) {
	h.State[auth.Key{Type: ev.Type, StateKey: ev.StateKey()}] = ev
	h.Tips = []*event.Event{ev}
}
