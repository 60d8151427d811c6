package joining_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// here starts a server beside a peer.
func here(t *testing.T, kind string) (*testrig.Server, *testrig.Client, *testrig.Peer) {
	t.Helper()
	n := testrig.NewNetwork()
	s := testrig.Start(t, testrig.Options{Name: "here", Network: n, Federate: true, Database: dbtest.URL(t, kind)})
	return s, s.Register("bob"), testrig.NewPeer(t, n, "evil")
}

// TestTemplatesAreNotSigned gives templates that say more than, or other things
// than, a join (F1): what is signed is our own words, or nothing.
func TestTemplatesAreNotSigned(t *testing.T) {
	_, bob, p := here(t, "sqlite")
	tricks := map[string]struct {
		change func(answer, event, content object)
		signed bool // a join is signed all the same
	}{
		"another room":         {func(_, e, _ object) { e["room_id"] = "!other:evil" }, false},
		"another sender":       {func(_, e, _ object) { e["sender"] = "@alice:here" }, false},
		"another state key":    {func(_, e, _ object) { e["state_key"] = "@alice:here" }, false},
		"no state key":         {func(_, e, _ object) { delete(e, "state_key") }, false},
		"another type":         {func(_, e, _ object) { e["type"] = "m.room.power_levels" }, false},
		"another membership":   {func(_, _, c object) { c["membership"] = "ban" }, false},
		"no membership":        {func(_, _, c object) { delete(c, "membership") }, false},
		"an unknown version":   {func(a, _, _ object) { a["room_version"] = "99" }, false},
		"no event":             {func(a, _, _ object) { delete(a, "event") }, false},
		"nothing before":       {func(_, e, _ object) { e["prev_events"] = []any{} }, false},
		"no ids before":        {func(_, e, _ object) { e["prev_events"] = []any{1} }, false},
		"many before":          {func(_, e, _ object) { e["prev_events"] = many(21) }, false},
		"many auth events":     {func(_, e, _ object) { e["auth_events"] = many(11) }, false},
		"ids of another sort":  {func(_, e, _ object) { e["prev_events"] = []any{"#alias:evil"} }, false},
		"a negative depth":     {func(_, e, _ object) { e["depth"] = -1 }, false},
		"a depth that is none": {func(_, e, _ object) { e["depth"] = "deep" }, false},
		"a fractional depth":   {func(_, e, _ object) { e["depth"] = 1.5 }, false},
		"no user lets in":      {func(_, _, c object) { c["join_authorised_via_users_server"] = "nobody" }, false},
		"more in the content": {func(_, _, c object) {
			c["displayname"], c["org.example"], c["third_party_invite"] = "Mallory", true, object{}
		}, true},
		"more in the event": {func(_, e, _ object) {
			e["redacts"], e["org.example"], e["origin"], e["hashes"] = "$x", true, "here", object{"sha256": "x"}
			e["signatures"] = object{"here": object{"ed25519:1": "x"}}
			e["origin_server_ts"] = 1
		}, true},
	}
	for _, version := range []string{"1", "6", "12"} {
		for name, c := range tricks {
			if version != "12" && name == "no user lets in" {
				continue // nobody looks at it
			}
			h := newHost(t, p, version)
			h.template = func(answer object) {
				e := answer["event"].(object)
				c.change(answer, e, e["content"].(object))
			}
			if c.signed {
				joinVia(bob, h.ID, "evil")
			} else {
				bob.Fails(502, matrix.CodeUnknown, "POST", "/v3/join"+testrig.Path(h.ID)+"?via=evil", object{})
			}
			ev := h.lastSent()
			if !c.signed {
				if ev != nil {
					t.Errorf("version %s, %s: signed %s", version, name, ev.JSON)
				}
				continue
			}
			got := asObject(t, ev.JSON)
			for _, k := range []string{"auth_events", "depth", "event_id", "hashes", "origin_server_ts", "prev_events", "room_id", "sender", "signatures", "state_key", "type"} {
				delete(got, k)
			}
			if fmt.Sprint(got) != "map[content:map[displayname:bob membership:join]]" || ev.OriginServerTS == 1 {
				t.Errorf("version %s, %s: signed %s", version, name, ev.JSON)
			}
		}
	}
}

func many(n int) []any {
	list := make([]any, n)
	for i := range list {
		list[i] = fmt.Sprintf("$event%d", i)
	}
	return list
}

// TestHostileResidents answer send_join with what is no room, or not theirs: the
// join fails, and the server has not changed (F7).
func TestHostileResidents(t *testing.T) {
	s, bob, p := here(t, "sqlite")
	for _, version := range []string{"1", "6", "12"} {
		other := p.Create(version, p.User("host"))
		without := func(list any, typ string) []any {
			var kept []any
			for _, raw := range list.([]any) {
				if !strings.Contains(string(raw.(json.RawMessage)), `"type":"`+typ+`"`) {
					kept = append(kept, raw)
				}
			}
			return kept
		}
		for name, change := range map[string]func(h *host, a object){
			"no state":        func(_ *host, a object) { delete(a, "state") },
			"null":            func(_ *host, a object) { a["state"], a["auth_chain"] = nil, nil },
			"no list":         func(_ *host, a object) { a["state"] = object{} },
			"no create event": func(_ *host, a object) { a["state"] = without(a["state"], "m.room.create") },
			"create in chain": func(_ *host, a object) { a["state"] = without(a["state"], "m.room.create") },
			"no power levels": func(_ *host, a object) {
				a["state"], a["auth_chain"] = without(a["state"], "m.room.power_levels"), []any{}
			},
			"members left out": func(_ *host, a object) { a["members_omitted"] = true },
			"another create": func(_ *host, a object) {
				a["state"] = append(without(a["state"], "m.room.create"), json.RawMessage(other.Events[0].JSON))
			},
			"two create events": func(h *host, a object) { a["auth_chain"] = append(a["auth_chain"].([]any), h.create(version, "")) },
			"another version":   func(h *host, a object) { a["state"] = append(without(a["state"], "m.room.create"), h.create("5", "")) },
		} {
			h := newHost(t, p, version)
			h.answer = func(answer object) { change(h, answer) }
			status, answer, err := bob.Do(t.Context(), "POST", "/v3/join"+testrig.Path(h.ID)+"?via=evil", object{})
			if version == "12" && name == "two create events" {
				// The other one is that of another room, and so left out.
				if status != 200 {
					t.Errorf("version %s, %s: %d %v, %v", version, name, status, answer, err)
				}
				continue
			}
			if err != nil || status < 400 || status == 500 || membership(bob, h.ID, bob.User) != "" {
				t.Errorf("version %s, %s: %d %v, %v", version, name, status, answer, err)
			}
		}
	}
	if err := s.CheckConsistency(t.Context()); err != nil {
		t.Error(err)
	}
}

// create is another create event for the room.
func (h *host) create(version, key string) json.RawMessage {
	d := h.Draft(h.user, matrix.TypeCreate, &key, object{"room_version": version, "creator": h.user, "other": true})
	d.PrevEvents, d.AuthEvents, d.Depth = nil, nil, 1
	if h.Version.RoomIDHash {
		d.RoomID = ""
	}
	return h.Build(d).JSON
}

// TestGarbageIsDropped joins although most of what a server tells is rubbish.
func TestGarbageIsDropped(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		_, bob, p := here(t, kind)
		h := newHost(t, p, "12")
		stranger := testrig.NewPeer(t, testrig.NewNetwork(), "stranger") // nobody can get its keys
		alien := stranger.Create("12", stranger.User("alien"))
		unsigned := h.Build(h.Draft(stranger.User("alien"), "m.room.topic", new(string), object{}))
		h.answer = func(a object) {
			garbage := []any{1, nil, "x", []any{}, object{}, json.RawMessage(alien.Events[0].JSON), json.RawMessage(unsigned.JSON), object{"type": strings.Repeat("x", 70000)}}
			for range 1250 {
				a["auth_chain"] = append(garbage, a["auth_chain"].([]any)...)
			}
			a["state"] = append(garbage, a["state"].([]any)...)
			a["state"] = append(a["state"].([]any), garbage...)
			a["servers_in_room"] = []any{1}
			delete(a, "servers_in_room")
			a["org.example"] = []any{object{"deep": []any{[]any{}}}}
		}
		joinVia(bob, h.ID, "evil")
		list := bob.Must("GET", "/v3/rooms"+testrig.Path(h.ID, "members"), nil)["chunk"].([]any)
		if len(list) != 2 {
			t.Errorf("%s: members %v", kind, list)
		}
		bob.Fails(404, matrix.CodeNotFound, "GET", "/v3/rooms"+testrig.Path(h.ID, "state", "m.room.topic", ""), nil)
	}
}

// TestTornAnswers come in pieces, or never end: the join fails in time, and in
// bounded memory.
func TestTornAnswers(t *testing.T) {
	_, bob, p := here(t, "sqlite")
	h := newHost(t, p, "12")
	good, err := json.Marshal(object{"state": h.state(), "auth_chain": h.state()})
	if err != nil {
		t.Fatal(err)
	}
	endless := func(w io.Writer, text string) {
		for {
			if _, err := io.WriteString(w, text); err != nil {
				return
			}
		}
	}
	for name, raw := range map[string]func(w http.ResponseWriter, body []byte){
		"nothing":         func(http.ResponseWriter, []byte) {},
		"no JSON":         func(w http.ResponseWriter, _ []byte) { _, _ = io.WriteString(w, "<html>") },
		"a number":        func(w http.ResponseWriter, _ []byte) { _, _ = io.WriteString(w, "200") },
		"a list":          func(w http.ResponseWriter, _ []byte) { _, _ = io.WriteString(w, `["x",{}]`) },
		"cut":             func(w http.ResponseWriter, _ []byte) { _, _ = w.Write(good[:len(good)/2]) },
		"cut at the end":  func(w http.ResponseWriter, _ []byte) { _, _ = w.Write(good[:len(good)-1]) },
		"a cut list":      func(w http.ResponseWriter, _ []byte) { _, _ = io.WriteString(w, "[200,"+string(good)) },
		"connection lost": func(w http.ResponseWriter, _ []byte) { _, _ = w.Write(good[:300]); panic(http.ErrAbortHandler) },
		"an endless event": func(w http.ResponseWriter, _ []byte) {
			_, _ = io.WriteString(w, `{"state":[{"type":"`)
			endless(w, strings.Repeat("x", 64<<10))
		},
		"an endless name": func(w http.ResponseWriter, _ []byte) {
			_, _ = io.WriteString(w, `{"`)
			endless(w, strings.Repeat("x", 64<<10))
		},
		"endless nesting": func(w http.ResponseWriter, _ []byte) {
			_, _ = io.WriteString(w, `{"x":`)
			endless(w, strings.Repeat("[", 64<<10))
		},
		"endless events": func(w http.ResponseWriter, _ []byte) {
			_, _ = io.WriteString(w, `{"state":[{}`)
			endless(w, strings.Repeat(",{}", 20<<10))
		},
		"endless servers": func(w http.ResponseWriter, _ []byte) {
			_, _ = io.WriteString(w, `{"servers_in_room":[""`)
			endless(w, strings.Repeat(`,"x"`, 20<<10))
		},
	} {
		h.raw = raw
		if status, answer, err := bob.Do(t.Context(), "POST", "/v3/join"+testrig.Path(h.ID)+"?via=evil", object{}); err != nil || status != 502 {
			t.Errorf("%s: %d %v, %v", name, status, answer, err)
		}
	}
	h.raw = func(w http.ResponseWriter, _ []byte) { _, _ = io.WriteString(w, "[200,"+string(good)+"]") }
	joinVia(bob, h.ID, "evil")
}

// TestSpoiltRestrictedJoins have no signature of the server that lets the user
// in, or another event in the place of ours.
func TestSpoiltRestrictedJoins(t *testing.T) {
	_, bob, p := here(t, "sqlite")
	for _, version := range []string{"8", "12"} {
		for name, c := range map[string]struct {
			event func(h *host, ours *event.Event) any
			ok    bool
		}{
			"signed":   {func(h *host, ours *event.Event) any { return h.signed(t, ours) }, true},
			"nothing":  {func(*host, *event.Event) any { return nil }, false},
			"unsigned": {func(_ *host, ours *event.Event) any { return json.RawMessage(ours.JSON) }, false},
			"another": {func(h *host, ours *event.Event) any {
				d := h.Draft(ours.Sender, matrix.TypeMember, ours.StateKeyPtr(), object{"membership": "join", "displayname": "Mallory"})
				return json.RawMessage(h.Build(d).JSON)
			}, false},
			"changed": {func(h *host, ours *event.Event) any {
				e := asObject(t, h.signed(t, ours))
				e["content"].(object)["displayname"] = "Mallory"
				return e
			}, false},
		} {
			h := newHost(t, p, version)
			h.Set(h.user, matrix.TypeJoinRules, "", object{"join_rule": "restricted", "allow": []any{}})
			h.restricted = true
			h.answer = func(a object) { a["event"] = c.event(h, h.sent[len(h.sent)-1]) }
			status, answer, err := bob.Do(t.Context(), "POST", "/v3/join"+testrig.Path(h.ID)+"?via=evil", object{})
			if err != nil || (status == 200) != c.ok {
				t.Errorf("version %s, %s: %d %v, %v", version, name, status, answer, err)
			}
			if c.ok && member(bob, h.ID, bob.User)["join_authorised_via_users_server"] != string(h.user) {
				t.Errorf("version %s, %s: %v", version, name, member(bob, h.ID, bob.User))
			}
		}
	}
}

// signed is an event with the host's signature, too.
func (h *host) signed(t testing.TB, ev *event.Event) json.RawMessage {
	t.Helper()
	signed, err := ev.Sign(h.peer.Name, h.peer.Key)
	if err != nil {
		t.Fatal(err)
	}
	return signed.JSON
}
