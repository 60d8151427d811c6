package server_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// elsewhere is a room of another server's.
const elsewhere matrix.RoomID = "!elsewhere:other"

// told lets a server hear of a membership of its user in a room elsewhere.
func told(t *testing.T, s *testrig.Server, user matrix.UserID, membership string, stripped ...string) *event.Event {
	t.Helper()
	v, _ := event.Lookup("10")
	sender := matrix.UserID("@host:other")
	if membership == "knock" || membership == "leave" {
		sender = user
	}
	key := string(user)
	ev, err := event.Build(v, event.Draft{
		RoomID: elsewhere, Type: matrix.TypeMember, StateKey: &key, Sender: sender, Depth: 7, OriginServerTS: time.Now().UnixNano() / 1000,
		Content:    fmt.Appendf(nil, `{"membership":%q}`, membership),
		PrevEvents: []event.Ref{{ID: "$prev"}}, AuthEvents: []event.Ref{{ID: "$auth"}},
	}, "other", event.SigningKey{ID: "ed25519:x", Private: ed25519.NewKeyFromSeed(make([]byte, 32))})
	if err != nil {
		t.Fatal(err)
	}
	var state []json.RawMessage
	for _, text := range stripped {
		state = append(state, json.RawMessage(text))
	}
	if _, err := s.Rooms().StoreOutside(t.Context(), v, ev, state); err != nil {
		t.Fatal(err)
	}
	return ev
}

// shownOf is what an answer of /sync says of the room elsewhere.
func shownOf(answer object, name string) object {
	rooms, _ := answer["rooms"].(object)
	list, _ := rooms[name].(object)
	found, _ := list[string(elsewhere)].(object)
	return found
}

func jsonOf(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// THREATS F21: whatever state another server sends along with an invite, and
// whatever becomes of the invite, the user can sync; a request that is open hears
// of it at once.
func TestMembershipsFromOutsideAreShown(t *testing.T) {
	const name = `{"type":"m.room.name","state_key":"","sender":"@host:other","content":{"name":"Tea elsewhere"}}`
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		bob := s.Register("bob")
		since := bob.Sync("", 0)["next_batch"].(string)
		// step lets something happen and returns what an open request hears, and what
		// a new client does.
		step := func(do func()) (heard, whole object) {
			answers := make(chan object, 1)
			go func() {
				for from := since; ; {
					_, answer, err := bob.Do(context.WithoutCancel(t.Context()), "GET", "/v3/sync?timeout=60000&set_presence=offline&since="+from, nil)
					if err != nil {
						answer = object{"error": err.Error()}
					}
					// What else is new, such as the device of a login, may come first.
					if err != nil || strings.Contains(jsonOf(answer["rooms"]), string(elsewhere)) {
						answers <- answer
						return
					}
					from, _ = answer["next_batch"].(string)
				}
			}()
			do()
			heard = <-answers
			since, _ = heard["next_batch"].(string)
			return heard, bob.Sync("", 0)
		}
		for round := range 2 {
			heard, whole := step(func() { told(t, s, bob.User, "invite", name, `{"type":3}`, `nonsense`, strings.Repeat("[", 1<<19)) })
			for _, answer := range []object{heard, whole} {
				got := jsonOf(shownOf(answer, "invite"))
				if !strings.Contains(got, "Tea elsewhere") || !strings.Contains(got, `"membership":"invite"`) || strings.Count(got, `"type"`) != 2 {
					t.Errorf("round %d: the invite is shown as %s", round, jsonOf(answer["rooms"]))
				}
			}
			for _, door := range doors(elsewhere, "$prev") {
				code, got := body(t, s, bob, "GET", door, "")
				if code >= 500 || code == 200 && !strings.Contains(door, "sync") && !strings.Contains(door, "/v3/events") && !strings.Contains(door, "initialSync") {
					t.Errorf("%s: %d %.200s", door, code, got)
				}
			}
			heard, whole = step(func() { told(t, s, bob.User, "leave") })
			if got := jsonOf(shownOf(heard, "leave")); !strings.Contains(got, `"membership":"leave"`) || strings.Contains(got, "Tea") {
				t.Errorf("round %d: the leave is shown as %s", round, jsonOf(heard["rooms"]))
			}
			if got := jsonOf(whole["rooms"]); strings.Contains(got, string(elsewhere)) {
				t.Errorf("round %d: a new client is shown %s", round, got)
			}
			with := bob.Must("GET", `/v3/sync?timeout=0&filter={"room":{"include_leave":true}}`, nil)
			if got := jsonOf(shownOf(with, "leave")); !strings.Contains(got, `"membership":"leave"`) {
				t.Errorf("round %d: a client that asks for left rooms is shown %s", round, jsonOf(with["rooms"]))
			}
			bob.Must("POST", "/v3/rooms"+testrig.Path(elsewhere)+"/forget", object{})
			heard, _ = step(func() { told(t, s, bob.User, "knock", name) })
			if got := jsonOf(shownOf(heard, "knock")); !strings.Contains(got, "Tea elsewhere") || !strings.Contains(got, `"membership":"knock"`) {
				t.Errorf("round %d: the knock is shown as %s", round, jsonOf(heard["rooms"]))
			}
			heard, _ = step(func() { told(t, s, bob.User, "ban") })
			if got := jsonOf(shownOf(heard, "leave")); !strings.Contains(got, `"membership":"ban"`) {
				t.Errorf("round %d: the ban is shown as %s", round, jsonOf(heard["rooms"]))
			}
			s = s.Restart()
			again := s.Login("bob")
			bob = again
		}
	})
}
