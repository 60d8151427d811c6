package server_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// doors are all the ways in which something of a room can be read.
func doors(room matrix.RoomID, event matrix.EventID) []string {
	v3, v1, ev := "/v3/rooms"+testrig.Path(room), "/v1/rooms"+testrig.Path(room), testrig.Path(event)
	return []string{
		v3 + "/event" + ev, v3 + "/context" + ev, v3 + "/messages?dir=b", v3 + "/messages?dir=f", v3 + "/messages?dir=b&from=t1_999999999",
		v3 + "/messages?dir=f&from=t1_1", v3 + "/state", v3 + "/state/", v3 + "/state/m.room.topic", v3 + "/state/m.room.topic/",
		v3 + "/state/m.room.topic/?format=event", v3 + "/members", v3 + "/members?at=s1_999999999_x_0_0", v3 + "/joined_members", v3 + "/initialSync",
		v3 + "/aliases", v1 + "/relations" + ev, v1 + "/relations" + ev + "/m.thread", v1 + "/relations" + ev + "/m.thread/m.room.message",
		v1 + "/threads", v1 + "/timestamp_to_event?dir=b&ts=99999999999999", v1 + "/hierarchy", "/v1/room_summary" + testrig.Path(room),
		"/v3/sync?timeout=0", "/v3/sync?timeout=0&full_state=true", "/v3/sync?timeout=0&filter=" + url.QueryEscape(`{"room":{"include_leave":true}}`),
		"/v3/sync?timeout=0&use_state_after=true&filter=" + url.QueryEscape(`{"room":{"include_leave":true}}`),
		"/v3/events?timeout=0", "/v3/events?timeout=0&from=t1_1", "/v3/events?timeout=0&room_id=" + url.QueryEscape(string(room)), "/v3/initialSync",
	}
}

// body is the raw answer, whatever it is.
func body(t testing.TB, s *testrig.Server, c *testrig.Client, method, path, send string) (int, string) {
	t.Helper()
	if !strings.HasPrefix(path, "/_") {
		path = "/_matrix/client" + path
	}
	req := httptest.NewRequest(method, path, strings.NewReader(send))
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	rec := httptest.NewRecorder()
	s.Handler("client").ServeHTTP(rec, req)
	return rec.Code, rec.Body.String()
}

// THREATS A4: after the end of a membership, however it ended, no door shows
// what happened since; not to a request that was open at that time either.
func TestNothingLeaksAfterTheEndOfAMembership(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, stranger := s.Register("alice"), s.Register("stranger")
		n := 0
		for _, visibility := range []string{"shared", "joined", "invited"} {
			for _, how := range []string{"leave", "kick", "ban", "forget", "refuse", "never"} {
				t.Run(visibility+" "+how, func(t *testing.T) {
					n++
					room := alice.CreateRoom(object{"preset": "private_chat", "initial_state": []object{
						{"type": "m.room.history_visibility", "content": object{"history_visibility": visibility}},
					}})
					path := "/v3/rooms" + testrig.Path(room)
					bob, root := s.Register(fmt.Sprint("bob", n)), matrix.EventID("$none")
					if how != "never" {
						alice.Must("POST", path+"/invite", object{"user_id": bob.User})
					}
					if how != "never" && how != "refuse" {
						bob.Join(room)
						root = alice.Say(room, "root", "what bob may read")
					}
					since := bob.Sync("", 0)["next_batch"].(string)
					quiet := "&filter=" + url.QueryEscape(`{"presence":{"types":[]}}`)
					open := later(t, bob, "GET", "/v3/sync?timeout=1500&since="+since+quiet, nil)
					listening := later(t, bob, "GET", "/v3/events?timeout=1500", nil)
					time.Sleep(50 * time.Millisecond)
					switch how {
					case "leave", "refuse":
						bob.Must("POST", path+"/leave", object{})
					case "forget":
						bob.Must("POST", path+"/leave", object{})
						bob.Must("POST", path+"/forget", object{})
					case "kick", "ban":
						alice.Must("POST", path+"/"+how, object{"user_id": bob.User})
					}
					hidden := []matrix.EventID{alice.Say(room, "after", "top secret")}
					if root != "$none" {
						hidden = append(hidden, matrix.EventID(alice.Must("PUT", path+"/send/m.room.message/t", object{"msgtype": "m.text", "body": "top secret",
							"m.relates_to": object{"rel_type": "m.thread", "event_id": root}})["event_id"].(string)))
						hidden = append(hidden, matrix.EventID(alice.Must("PUT", path+"/send/m.room.message/e", object{"msgtype": "m.text", "body": "top secret",
							"m.new_content": object{"body": "top secret"}, "m.relates_to": object{"rel_type": "m.replace", "event_id": root}})["event_id"].(string)))
					}
					alice.Must("PUT", path+"/state/m.room.topic/", object{"topic": "top secret"})
					alice.Must("POST", path+"/invite", object{"user_id": stranger.User, "reason": "top secret"})
					alice.Must("PUT", path+"/typing"+testrig.Path(alice.User), object{"typing": true, "timeout": 20000})
					alice.Must("POST", path+"/receipt/m.read"+testrig.Path(hidden[0]), object{})

					leaks := func(where, text string) {
						if strings.Contains(text, "top secret") || strings.Contains(text, string(hidden[0])) && !strings.Contains(where, string(hidden[0])) {
							t.Errorf("%s leaks: %s", where, text)
						}
						if strings.Contains(text, `"m.typing"`) || strings.Contains(text, `"m.receipt"`) {
							t.Errorf("%s tells who types or reads: %s", where, text)
						}
					}
					for name, ch := range map[string]<-chan reply{"the open sync": open, "the open events": listening} {
						raw, _ := json.Marshal(within(t, ch).body)
						leaks(name, string(raw))
					}
					again := s.Login(bob.User.Localpart())
					all := doors(room, root)
					for _, id := range hidden {
						all = append(all, doors(room, id)[:2]...)
						all = append(all, "/v1/rooms"+testrig.Path(room)+"/relations"+testrig.Path(id))
					}
					for _, door := range append(all, "/v3/sync?timeout=0&since="+since, "/v3/sync?timeout=0&full_state=true&since="+since) {
						for _, c := range []*testrig.Client{bob, again} {
							status, text := body(t, s, c, "GET", door, "")
							if status >= 500 {
								t.Errorf("%s: %d", door, status)
							}
							leaks(door, text)
							if how == "never" && strings.Contains(text, "m.room.create") {
								t.Errorf("%s shows a room's state to a stranger: %s", door, text)
							}
						}
					}
				})
			}
		}
	})
}

// THREATS F18: a page of nothing but hidden events leads on, in both directions
// and behind any token of /sync.
func TestHiddenPagesLeadOn(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob := s.Register("alice"), s.Register("bob")
		room := alice.CreateRoom(object{"preset": "public_chat"})
		path := "/v3/rooms" + testrig.Path(room)
		bob.Join(room)
		first := alice.Say(room, "first", "first")
		alice.Must("PUT", path+"/state/m.room.history_visibility/", object{"history_visibility": "joined"})
		bob.Must("POST", path+"/leave", object{})
		for i := range 60 {
			alice.Say(room, fmt.Sprint(i), "hidden")
		}
		bob.Join(room)
		last := alice.Say(room, "last", "last")
		for _, dir := range []string{"b", "f"} {
			var got []string
			for from, turns := "", 0; ; turns++ {
				a := bob.Must("GET", path+"/messages?limit=5&dir="+dir+from, nil)
				for _, ev := range list(a, "chunk") {
					got = append(got, fmt.Sprint(ev.(object)["event_id"]))
				}
				end, _ := a["end"].(string)
				if end == "" || dir == "f" && len(list(a, "chunk")) == 0 {
					break
				}
				if turns > 100 {
					t.Fatal("there is no end")
				}
				from = "&from=" + end
			}
			text := strings.Join(got, " ")
			if !strings.Contains(text, string(first)) || !strings.Contains(text, string(last)) {
				t.Errorf("dir=%s ends before it got to both ends: %d events", dir, len(got))
			}
		}
	})
}

// THREATS A14: to outsiders, a private room and one that does not exist are one.
func TestPrivateRoomsCannotBeProbed(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice, bob := s.Register("alice"), s.Register("bob")
	room := alice.CreateRoom(object{"preset": "private_chat"})
	event := alice.Say(room, "1", "x")
	none := matrix.RoomID("!" + strings.Repeat("A", len(room)-1))
	there, nowhere := doors(room, event), doors(none, "$none")
	for i := range there {
		if strings.HasPrefix(there[i], "/v3/sync") {
			continue
		}
		a, textA := body(t, s, bob, "GET", there[i], "")
		b, textB := body(t, s, bob, "GET", nowhere[i], "")
		if a != b || a >= 400 && textA != textB {
			t.Errorf("%s: %d %s, but where there is no room: %d %s", there[i], a, textA, b, textB)
		}
	}
}
