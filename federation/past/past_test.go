package past_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

type object = testrig.JSON

const never = "what was never said"

// world is a room of a server "host", which a user of "here" joins late. Servers
// of other characters have joined before; they are asked before the host, since
// their names come first.
type world struct {
	*testing.T
	host, here *testrig.Server
	alice, bob *testrig.Client
	room       matrix.RoomID
	said       []matrix.EventID
	dead, liar *testrig.Peer
	asked      map[*testrig.Peer]*atomic.Int64
	lies       func(pdu object) // what the liar makes of an event that it is asked for; nil: it has none
}

// meet fills a room with n messages before bob joins it.
func meet(t *testing.T, kind, visibility string, n int) *world {
	t.Helper()
	s := testrig.StartMany(t, kind, "host", "here")
	w := &world{T: t, host: s[0], here: s[1], alice: s[0].Register("alice"), bob: s[1].Register("bob")}
	w.room = w.alice.CreateRoom(object{"preset": "public_chat", "initial_state": []object{
		{"type": "m.room.history_visibility", "content": object{"history_visibility": visibility}},
	}})
	w.dead, w.liar = testrig.NewPeer(t, s[0].Network, "adead"), testrig.NewPeer(t, s[0].Network, "bliar")
	w.asked = map[*testrig.Peer]*atomic.Int64{w.dead: {}, w.liar: {}}
	for _, p := range []*testrig.Peer{w.dead, w.liar} {
		p.Join("host", w.room, p.User("u"))
	}
	w.dead.Handle("GET /_matrix/federation/", func(http.ResponseWriter, *http.Request) {
		w.asked[w.dead].Add(1)
		panic(http.ErrAbortHandler)
	})
	w.lies = func(pdu object) {
		if content := pdu["content"].(object); content["body"] != nil {
			content["body"] = never
			pdu["depth"] = pdu["depth"].(float64) + 1
		}
	}
	w.liar.Handle("GET /_matrix/federation/v1/backfill/{room}", w.lie)
	for i := range n {
		w.said = append(w.said, w.alice.Say(w.room, fmt.Sprint(i), fmt.Sprint("message ", i)))
	}
	w.bob.Must("POST", "/v3/join"+testrig.Path(w.room)+"?server_name=host", object{})
	return w
}

// lie answers with what the host tells, as the liar likes it.
func (w *world) lie(out http.ResponseWriter, r *http.Request) {
	w.asked[w.liar].Add(1)
	answer := object{"origin": w.liar.Name, "origin_server_ts": 1, "pdus": []any{}}
	if w.lies != nil {
		_, answer = w.liar.Ask(r.Context(), "host", "GET", r.URL.RequestURI(), nil)
		for _, pdu := range answer["pdus"].([]any) {
			w.lies(pdu.(object))
		}
	}
	testrig.WriteJSON(out, http.StatusOK, answer)
}

func (w *world) ids(list any) (ids []matrix.EventID) {
	w.Helper()
	events, _ := list.([]any)
	for _, ev := range events {
		if ev.(object)["content"].(object)["body"] == never {
			w.Errorf("%v was never said", ev)
		}
		ids = append(ids, matrix.EventID(ev.(object)["event_id"].(string)))
	}
	return ids
}

func (w *world) path(rest string) string { return "/v3/rooms" + testrig.Path(w.room) + rest }

// pages walks from a token to the end, and gives all that it met.
func (w *world) pages(dir, from string) (met []matrix.EventID) {
	w.Helper()
	for range 1000 {
		page := w.bob.Must("GET", w.path("/messages?dir="+dir+"&limit=25&from="+url.QueryEscape(from)), nil)
		chunk := w.ids(page["chunk"])
		met = append(met, chunk...)
		end, _ := page["end"].(string)
		if end == "" || len(chunk) == 0 && end == from {
			return met
		}
		from = end
	}
	w.Fatal("it never ends")
	return nil
}

// messages are those of the met events that were said before bob joined.
func (w *world) messages(met []matrix.EventID) (said []matrix.EventID) {
	for _, id := range met {
		if slices.Contains(w.said, id) {
			said = append(said, id)
		}
	}
	return said
}

func reversed[T any](list []T) []T {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

func each(t *testing.T, f func(t *testing.T, kind string)) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { f(t, kind) })
	}
}

// TestPaging pages back to a room's beginning where the first server that is asked
// hangs up, and the second one tells what was never said.
func TestPaging(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		w := meet(t, kind, "shared", 130)
		met := w.pages("b", "")
		if got := w.messages(met); !slices.Equal(got, reversed(w.said)) {
			t.Errorf("%d messages were met of %d: %v", len(got), len(w.said), got)
		}
		first := w.alice.Must("GET", w.path("/messages?dir=f&limit=1"), nil)
		if got := w.ids(first["chunk"]); len(got) != 1 || met[len(met)-1] != got[0] {
			t.Errorf("the last event is %s, not the room's first", met[len(met)-1])
		}
		for p, n := range w.asked {
			if n.Load() == 0 {
				t.Errorf("%s was not asked", p.Name)
			}
		}
		if got := w.messages(w.pages("f", "")); !slices.Equal(got, w.said) {
			t.Errorf("forwards %d messages of %d: %v", len(got), len(w.said), got)
		}
		w.sameTexts()
	})
}

// sameTexts checks that nothing is here that was never said.
func (w *world) sameTexts() {
	w.Helper()
	for i, id := range w.said {
		ev := w.bob.Must("GET", w.path("/event"+testrig.Path(id)), nil)
		if got := ev["content"].(object)["body"]; got != fmt.Sprint("message ", i) {
			w.Errorf("message %d is %q", i, got)
		}
	}
}

// TestNobodyTells has the server that knows a room's history go away, and come
// back: the end is no end until then.
func TestNobodyTells(t *testing.T) {
	w := meet(t, "sqlite", "shared", 10)
	w.lies = nil
	w.host.Stop()
	page := w.bob.Must("GET", w.path("/messages?dir=b&limit=50"), nil)
	end, _ := page["end"].(string)
	if got := w.messages(w.ids(page["chunk"])); len(got) > 0 || end == "" {
		t.Fatalf("%d messages were met, the way on is %q", len(got), end)
	}
	asked := w.asked[w.liar].Load()
	if page = w.bob.Must("GET", w.path("/messages?dir=b&limit=50&from="+url.QueryEscape(end)), nil); page["end"] != end {
		t.Errorf("then the way on is %v", page["end"])
	}
	if n := w.asked[w.liar].Load(); n != asked {
		t.Errorf("the same was asked again at once, %d times", n-asked)
	}
	w.host = w.host.Restart()
	w.alice = w.host.Login("alice")
	w.here.Clock.Advance(60_000_000_000)
	if got := w.messages(w.pages("b", end)); !slices.Equal(got, reversed(w.said)) {
		t.Errorf("later %d messages were met of %d", len(got), len(w.said))
	}
}

// TestJump finds an event by its time on another server, reads around it, and
// pages from there in both directions.
func TestJump(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		w := meet(t, kind, "shared", 150)
		at := w.said[40]
		then := w.alice.Must("GET", w.path("/event"+testrig.Path(at)), nil)["origin_server_ts"].(float64)
		for _, dir := range []string{"f", "b"} {
			found := w.bob.Must("GET", fmt.Sprintf("/v1/rooms%s/timestamp_to_event?dir=%s&ts=%.0f", testrig.Path(w.room), dir, then), nil)
			if found["origin_server_ts"] != then || !slices.Contains(w.said, matrix.EventID(found["event_id"].(string))) {
				t.Fatalf("%s: %v, want what was said at %.0f", dir, found, then)
			}
			at = matrix.EventID(found["event_id"].(string))
		}
		i := slices.Index(w.said, at)
		around := w.bob.Must("GET", w.path("/context"+testrig.Path(at)+"?limit=20"), nil)
		if got := w.messages(w.ids(around["events_before"])); !slices.Equal(got, reversed(w.said[i-10:i])) {
			t.Errorf("before it: %v, want %v", got, reversed(w.said[i-10:i]))
		}
		if got := w.messages(w.pages("b", around["start"].(string))); !slices.Equal(got, reversed(w.said[:i-10])) {
			t.Errorf("back from there: %d messages, want %d", len(got), i-10)
		}
		if got := w.messages(w.pages("b", "")); !slices.Equal(got, reversed(w.said)) {
			t.Errorf("back from the end: %d messages of %d", len(got), len(w.said))
		}
		around = w.bob.Must("GET", w.path("/context"+testrig.Path(at)+"?limit=20"), nil)
		if got := w.messages(w.ids(around["events_after"])); !slices.Equal(got, w.said[i+1:i+11]) {
			t.Errorf("after it: %v, want %v", got, w.said[i+1:i+11])
		}
		if got := w.messages(w.pages("f", around["end"].(string))); !slices.Equal(got, w.said[i+11:]) {
			t.Errorf("forward from there: %d messages, want %d", len(got), len(w.said)-i-11)
		}
		w.sameTexts()
	})
}

// TestHidden has a server tell what a room's history hides from those who came
// later: they do not get to see it by any door, and nobody is kept asking.
// THREATS F14, F18.
func TestHidden(t *testing.T) {
	for _, visibility := range []string{"joined", "invited"} {
		w := meet(t, "sqlite", visibility, 60)
		pass := func(out http.ResponseWriter, r *http.Request) {
			status, answer := w.liar.Ask(r.Context(), "host", "GET", r.URL.RequestURI(), nil)
			testrig.WriteJSON(out, status, answer)
		}
		w.lies = func(object) {} // no lies at all, but nothing that it should tell
		w.liar.Handle("GET /_matrix/federation/v1/state_ids/{room}", pass)
		w.liar.Handle("GET /_matrix/federation/v1/event/{event}", pass)
		if got := w.messages(w.pages("b", "")); len(got) > 0 {
			t.Errorf("%s: messages are shown: %v", visibility, got)
		}
		here := 0
		for _, id := range w.said {
			// The liar's user was there, and may see what is here.
			if status, _ := w.liar.Ask(t.Context(), "here", "GET", "/_matrix/federation/v1/event"+testrig.Path(id), nil); status == 200 {
				here++
			}
			for _, door := range []string{"/event" + testrig.Path(id), "/context" + testrig.Path(id)} {
				w.bob.Fails(404, "M_NOT_FOUND", "GET", w.path(door), nil)
			}
		}
		if here < len(w.said) {
			t.Errorf("%s: only %d of %d messages came that could be hidden", visibility, here, len(w.said))
		}
		status, answer, err := w.bob.Do(t.Context(), "GET", "/v1/rooms"+testrig.Path(w.room)+"/timestamp_to_event?dir=f&ts=1", nil)
		if err != nil || status == 200 && slices.Contains(w.said, matrix.EventID(fmt.Sprint(answer["event_id"]))) {
			t.Errorf("%s: by time: %d %v, %v", visibility, status, answer, err)
		}
	}
}
