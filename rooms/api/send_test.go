package api_test

import (
	"sync"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// TestSendingAgain sends requests again, in turn and at the same time, before
// and after a restart.
func TestSendingAgain(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice := s.Register("alice")
		room, other := alice.CreateRoom(object{}), alice.CreateRoom(object{})
		first := alice.Say(room, "1", "hello")
		if again := alice.Say(room, "1", "something else"); again != first {
			t.Errorf("sent again: %s, not %s", again, first)
		}
		if alice.Say(other, "1", "hello") == first || alice.Say(room, "2", "hello") == first {
			t.Error("another room or transaction got the same event")
		}
		phone := s.Login("alice")
		if phone.Say(room, "1", "hello") == first {
			t.Error("another device got the same event")
		}
		ids := make([]matrix.EventID, 8)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() { ids[i] = alice.Say(room, "at once", "hello") })
		}
		wg.Wait()
		for _, id := range ids {
			if id != ids[0] {
				t.Errorf("sent at once: %v", ids)
				break
			}
		}
		token := alice.Token
		s = s.Restart()
		alice = s.Anonymous()
		alice.Token = token
		if again := alice.Say(room, "1", "hello"); again != first {
			t.Errorf("sent again after a restart: %s, not %s", again, first)
		}
	})
}

func TestStateIsSetOnce(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice, bob := s.Register("alice"), s.Register("bob")
	room := alice.CreateRoom(object{"preset": "public_chat"})
	bob.Join(room)
	set := func(c *testrig.Client, typ, key string, body object) any {
		t.Helper()
		return c.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", typ, key), body)["event_id"]
	}
	first := set(alice, "m.room.topic", "", object{"topic": "tea", "extra": 1})
	if set(alice, "m.room.topic", "", object{"extra": 1, "topic": "tea"}) != first {
		t.Error("the same topic made a new event")
	}
	if set(alice, "m.room.topic", "", object{"topic": "coffee"}) == first {
		t.Error("another topic made no new event")
	}
	// State keys are any text, the empty one with and without a slash behind it.
	set(alice, "org.example", "a/b%2F c", object{"x": "y"})
	if content(alice, room, "org.example", "a/b%2F c")["x"] != "y" {
		t.Error("a state key with a slash is lost")
	}
	alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.name"), object{"name": "A"})
	if content(alice, room, "m.room.name", "")["name"] != "A" {
		t.Error("state without a key is lost")
	}
	bob.Fails(403, matrix.CodeForbidden, "PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.name", ""), object{"name": "B"})
	alice.Fails(403, matrix.CodeForbidden, "PUT", "/v3/rooms"+testrig.Path(room, "state", "org.example", "@bob:test"), object{})
	alice.Fails(400, matrix.CodeBadAlias, "PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.canonical_alias", ""), object{"alias": "#nowhere:test"})
}

func TestRedaction(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob, carol := s.Register("alice"), s.Register("bob"), s.Register("carol")
		for _, version := range []string{"1", "3", "11", "12"} {
			room := alice.CreateRoom(object{"preset": "public_chat", "room_version": version})
			bob.Join(room)
			carol.Join(room)
			said := bob.Say(room, "said", "oops")
			redact := func(txn string) string { return "/v3/rooms" + testrig.Path(room, "redact", said, txn) }
			carol.Fails(403, matrix.CodeForbidden, "PUT", redact("1"), object{})
			carol.Fails(403, matrix.CodeForbidden, "PUT", "/v3/rooms"+testrig.Path(room, "send", "m.room.redaction", "2"), object{"redacts": said})
			by := bob.Must("PUT", redact("1"), object{"reason": "typo"})["event_id"]
			if again := bob.Must("PUT", redact("1"), object{})["event_id"]; again != by {
				t.Errorf("version %s: redacted again by %v", version, again)
			}
			ev := alice.Must("GET", "/v3/rooms"+testrig.Path(room, "event", said), nil)
			because, _ := ev["unsigned"].(object)["redacted_because"].(object)
			if len(ev["content"].(object)) != 0 || because["event_id"] != by {
				t.Errorf("version %s: the redacted event is %v", version, ev)
			}
			got := alice.Must("GET", "/v3/rooms"+testrig.Path(room, "event", by), nil)
			if got["redacts"] != string(said) || got["content"].(object)["redacts"] != string(said) || got["content"].(object)["reason"] != "typo" {
				t.Errorf("version %s: the redaction is %v", version, got)
			}
			alice.Fails(404, matrix.CodeNotFound, "PUT", "/v3/rooms"+testrig.Path(room, "redact", "$nothing", "3"), object{})
			carols := carol.Say(room, "said", "rude")
			alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "redact", carols, "4"), object{})
		}
	})
}

func TestRelationsThatCannotBe(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice := s.Register("alice")
	room := alice.CreateRoom(object{})
	root := alice.Say(room, "root", "tea?")
	relate := func(typ, txn string, rel object) string {
		return "/v3/rooms" + testrig.Path(room, "send", typ, txn)
	}
	like := object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": root, "key": "+"}}
	first := alice.Must("PUT", relate("m.reaction", "1", nil), like)["event_id"]
	if again := alice.Must("PUT", relate("m.reaction", "1", nil), like)["event_id"]; again != first {
		t.Errorf("the same request: %v", again)
	}
	alice.Fails(400, matrix.CodeDuplicateAnnotation, "PUT", relate("m.reaction", "2", nil), like)
	alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "redact", first, "3"), object{})
	alice.Must("PUT", relate("m.reaction", "4", nil), like)

	reply := alice.Must("PUT", relate("m.room.message", "5", nil), object{
		"msgtype": "m.text", "body": "yes", "m.relates_to": object{"rel_type": "m.thread", "event_id": root},
	})["event_id"]
	alice.Fails(400, matrix.CodeUnknown, "PUT", relate("m.room.message", "6", nil), object{
		"msgtype": "m.text", "body": "nested", "m.relates_to": object{"rel_type": "m.thread", "event_id": reply},
	})
}
