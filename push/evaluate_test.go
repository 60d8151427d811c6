package push

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

func pdu(t interface{ Fatal(...any) }, typ string, stateKey *string, sender, content string) *event.Event {
	v, _ := event.Lookup("11")
	m := map[string]any{
		"type": typ, "sender": sender, "room_id": "!r:x", "content": json.RawMessage(content), "depth": 1,
		"origin_server_ts": 1, "prev_events": []string{}, "auth_events": []string{}, "hashes": map[string]string{"sha256": "AA"},
		"signatures": map[string]any{},
	}
	if stateKey != nil {
		m["state_key"] = *stateKey
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	raw, err = event.Canonical(raw)
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.Load(v, "$e", "!r:x", raw)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func key(s string) *string { return &s }

// room is a room in which "room" needs level 50.
func room(members int, senderLevel int64) RoomInfo {
	return RoomInfo{Members: members, SenderLevel: senderLevel, NotificationLevel: func(k string) int64 {
		if k == "room" {
			return 50
		}
		return 100
	}}
}

func TestPredefinedResults(t *testing.T) {
	var (
		nothing = Result{}
		noise   = Result{Notify: true}
		loud    = Result{Notify: true, Sound: "default"}
		mention = Result{Notify: true, Sound: "default", Highlight: true}
		all     = Result{Notify: true, Highlight: true}
		call    = Result{Notify: true, Sound: "ring"}
	)
	for _, c := range []struct {
		name     string
		typ      string
		stateKey *string
		content  string
		room     RoomInfo
		want     Result // for @u:x
	}{
		{"a message in a group", "m.room.message", nil, `{"msgtype":"m.text","body":"hi"}`, room(3, 0), noise},
		{"a message between two", "m.room.message", nil, `{"msgtype":"m.text","body":"hi"}`, room(2, 0), loud},
		{"an encrypted one in a group", "m.room.encrypted", nil, `{}`, room(3, 0), noise},
		{"an encrypted one between two", "m.room.encrypted", nil, `{}`, room(2, 0), loud},
		{"a notice", "m.room.message", nil, `{"msgtype":"m.notice","body":"hi"}`, room(2, 0), nothing},
		{"a mention", "m.room.message", nil, `{"body":"hi","m.mentions":{"user_ids":["@a:x","@u:x"]}}`, room(3, 0), mention},
		{"a mention of another", "m.room.message", nil, `{"body":"hi","m.mentions":{"user_ids":["@a:x"]}}`, room(3, 0), noise},
		{"the id in the text only", "m.room.message", nil, `{"body":"hi @u:x"}`, room(3, 0), noise},
		{"a mention in a notice", "m.room.message", nil, `{"msgtype":"m.notice","m.mentions":{"user_ids":["@u:x"]}}`, room(3, 0), nothing},
		{"a mention in an unknown type", "org.example", nil, `{"m.mentions":{"user_ids":["@u:x"]}}`, room(3, 0), mention},
		{"malformed mentions", "m.room.message", nil, `{"m.mentions":{"user_ids":"@u:x"}}`, room(3, 0), noise},
		{"mentions among other things", "m.room.message", nil, `{"m.mentions":{"user_ids":[1,null,["@u:x"],"@u:x"]}}`, room(3, 0), mention},
		{"the room by who may", "m.room.message", nil, `{"m.mentions":{"room":true}}`, room(3, 50), all},
		{"the room by who may not", "m.room.message", nil, `{"m.mentions":{"room":true}}`, room(3, 49), noise},
		{"the room, but not quite", "m.room.message", nil, `{"m.mentions":{"room":"true"}}`, room(3, 50), noise},
		{"an invite of the user", "m.room.member", key("@u:x"), `{"membership":"invite"}`, room(3, 0), loud},
		{"an invite of another", "m.room.member", key("@a:x"), `{"membership":"invite"}`, room(3, 0), nothing},
		{"a kick of the user", "m.room.member", key("@u:x"), `{"membership":"leave"}`, room(3, 0), nothing},
		{"a member event that mentions", "m.room.member", key("@a:x"), `{"membership":"join","m.mentions":{"user_ids":["@u:x"]}}`, room(3, 0), nothing},
		{"a tombstone", "m.room.tombstone", key(""), `{}`, room(3, 0), all},
		{"a tombstone that is no state", "m.room.tombstone", nil, `{}`, room(3, 0), nothing},
		{"a reaction", "m.reaction", nil, `{"m.relates_to":{"rel_type":"m.annotation"}}`, room(2, 0), nothing},
		{"an ACL", "m.room.server_acl", key(""), `{}`, room(2, 0), nothing},
		{"an edit", "m.room.message", nil, `{"body":"* hi","m.relates_to":{"rel_type":"m.replace","event_id":"$x"}}`, room(2, 0), nothing},
		{"an edit that mentions", "m.room.message", nil, `{"m.mentions":{"user_ids":["@u:x"]},"m.relates_to":{"rel_type":"m.replace"}}`, room(2, 0), mention},
		{"a call", "m.call.invite", nil, `{}`, room(2, 0), call},
		{"a topic", "m.room.topic", key(""), `{"topic":"t"}`, room(2, 0), nothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := pdu(t, c.typ, c.stateKey, "@s:x", c.content)
			rules := Predefined("@u:x")
			if got := Evaluate(&rules, e, c.room, Recipient{User: "@u:x"}); got != c.want {
				t.Errorf("Evaluate gives %+v, want %+v", got, c.want)
			}
			if got := Judge(e, c.room).For("@u:x"); got != c.want {
				t.Errorf("Judge gives %+v, want %+v", got, c.want)
			}
			if got := Judge(e, c.room).For("@s:x"); got != nothing {
				t.Errorf("the sender is notified: %+v", got)
			}
		})
	}
}

func TestJudgeAgreesWithEvaluate(t *testing.T) {
	users := []string{"@s:x", "@a:x", "@b:x", "@c:x"}
	user := rapid.SampledFrom(append([]string{"", "x", "1"}, users...))
	rapid.Check(t, func(t *rapid.T) {
		mentions, _ := json.Marshal(map[string]any{
			"user_ids": rapid.SliceOfN(user, 0, 4).Draw(t, "mentioned"), "room": rapid.Bool().Draw(t, "room"),
		})
		content := fmt.Sprintf(`{"msgtype":%q,"membership":%q,"m.mentions":%s,"m.relates_to":{"rel_type":%q}}`,
			rapid.SampledFrom([]string{"m.text", "m.notice"}).Draw(t, "msgtype"),
			rapid.SampledFrom([]string{"invite", "join"}).Draw(t, "membership"), mentions,
			rapid.SampledFrom([]string{"m.replace", "m.thread"}).Draw(t, "rel"))
		var stateKey *string
		if rapid.Bool().Draw(t, "state") {
			stateKey = key(user.Draw(t, "state key"))
		}
		typ := rapid.SampledFrom([]string{"m.room.message", "m.room.member", "m.room.tombstone", "m.reaction", "m.room.encrypted", "o.x"}).Draw(t, "type")
		e := pdu(t, typ, stateKey, rapid.SampledFrom(users).Draw(t, "sender"), content)
		in := room(rapid.IntRange(1, 3).Draw(t, "members"), rapid.Int64Range(49, 50).Draw(t, "level"))
		v := Judge(e, in)
		for _, u := range users {
			rules := Predefined(matrix.UserID(u))
			want := Evaluate(&rules, e, in, Recipient{User: matrix.UserID(u)})
			if got := v.For(matrix.UserID(u)); got != want {
				t.Fatalf("%s: Judge gives %+v, Evaluate %+v", u, got, want)
			}
		}
		if _, ok := v.Others[e.Sender]; ok {
			t.Fatal("the sender is among the others")
		}
	})
}

func TestConditions(t *testing.T) {
	p := func(s string) *string { return &s }
	e := pdu(t, "m.room.message", nil, "@s:x", `{"body":"Good morning, Ann*!","n":2,"nil":null,"t":true,"list":["a",1,null],"a.b":{"c\\d":"deep"}}`)
	for _, c := range []struct {
		name string
		cond Condition
		want bool
	}{
		{"unknown kind", Condition{Kind: "org.example"}, false},
		{"body by word", Condition{Kind: "event_match", Key: "content.body", Pattern: p("morn*g")}, true},
		{"body in a word", Condition{Kind: "event_match", Key: "content.body", Pattern: p("orn*")}, false},
		{"no string", Condition{Kind: "event_match", Key: "content.n", Pattern: p("*")}, false},
		{"absent", Condition{Kind: "event_match", Key: "content.x", Pattern: p("*")}, false},
		{"no pattern", Condition{Kind: "event_match", Key: "content.body"}, false},
		{"no state key", Condition{Kind: "event_match", Key: "state_key", Pattern: p("*")}, false},
		{"sender", Condition{Kind: "event_match", Key: "sender", Pattern: p("@S:*")}, true},
		{"escaped path", Condition{Kind: "event_match", Key: `content.a\.b.c\\d`, Pattern: p("DEEP")}, true},
		{"unescaped path", Condition{Kind: "event_match", Key: `content.a.b.c\d`, Pattern: p("deep")}, false},
		{"integer", Condition{Kind: "event_property_is", Key: "content.n", Value: json.Number("2")}, true},
		{"another integer", Condition{Kind: "event_property_is", Key: "content.n", Value: json.Number("3")}, false},
		{"null", Condition{Kind: "event_property_is", Key: "content.nil"}, true},
		{"null where nothing is", Condition{Kind: "event_property_is", Key: "content.nope"}, false},
		{"exact string", Condition{Kind: "event_property_is", Key: "type", Value: "m.room.message"}, true},
		{"exact, other case", Condition{Kind: "event_property_is", Key: "type", Value: "M.room.message"}, false},
		{"string for bool", Condition{Kind: "event_property_is", Key: "content.t", Value: "true"}, false},
		{"list has string", Condition{Kind: "event_property_contains", Key: "content.list", Value: "a"}, true},
		{"list has integer", Condition{Kind: "event_property_contains", Key: "content.list", Value: json.Number("1")}, true},
		{"list has null", Condition{Kind: "event_property_contains", Key: "content.list"}, true},
		{"list has not", Condition{Kind: "event_property_contains", Key: "content.list", Value: "b"}, false},
		{"no list", Condition{Kind: "event_property_contains", Key: "content.body", Value: "b"}, false},
		{"display name, as it is", Condition{Kind: "contains_display_name"}, true},
		{"members", Condition{Kind: "room_member_count", Is: "==7"}, true},
		{"power without levels", Condition{Kind: "sender_notification_permission", Key: "room"}, false},
	} {
		if got := fieldsOf(e).holds(&c.cond, RoomInfo{Members: 7}, Recipient{User: "@u:x", DisplayName: "ann*"}); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if fieldsOf(e).holds(&Condition{Kind: "contains_display_name"}, RoomInfo{}, Recipient{User: "@u:x"}) {
		t.Error("no display name is contained in a text")
	}
}

func TestCounts(t *testing.T) {
	for is, want := range map[string][3]bool{ // for 1, 2 and 3 members
		"2": {false, true, false}, "==2": {false, true, false}, "<2": {true, false, false}, ">2": {false, false, true},
		"<=2": {true, true, false}, ">=2": {false, true, true}, "": {}, "=2": {}, "<>2": {}, "two": {}, "2 ": {}, "<": {}, "-2": {},
	} {
		for i, w := range want {
			if got := counts(is, i+1); got != w {
				t.Errorf("counts(%q, %d) = %v", is, i+1, got)
			}
		}
	}
}

func TestKindsAreTriedInOrder(t *testing.T) {
	e := pdu(t, "m.room.message", nil, "@s:x", `{"body":"tea time"}`)
	loud := func(s string) []Action { return []Action{notify, {Tweak: "sound", Value: s}} }
	rules := Ruleset{
		Override:  []Rule{{ID: "o", Enabled: true, Actions: loud("override")}},
		Content:   []Rule{{ID: "c", Enabled: true, Pattern: "tea", Actions: loud("content")}},
		Room:      []Rule{{ID: "!r:x", Enabled: true, Actions: loud("room")}},
		Sender:    []Rule{{ID: "@s:x", Enabled: true, Actions: loud("sender")}},
		Underride: []Rule{{ID: "u", Enabled: true, Actions: loud("underride")}},
	}
	for _, kind := range []struct {
		name  string
		rules []Rule
	}{
		{"override", rules.Override}, {"content", rules.Content}, {"room", rules.Room}, {"sender", rules.Sender}, {"underride", rules.Underride},
	} {
		if got := Evaluate(&rules, e, RoomInfo{}, Recipient{User: "@u:x"}).Sound; got != kind.name {
			t.Errorf("%q decided, want %q", got, kind.name)
		}
		kind.rules[0].Enabled = false
	}
	if got := Evaluate(&rules, e, RoomInfo{}, Recipient{User: "@u:x"}); got != (Result{}) {
		t.Errorf("without rules: %+v", got)
	}
}

func BenchmarkJudge(b *testing.B) {
	for name, mentions := range map[string]string{"plain": "", "mention": `,"m.mentions":{"user_ids":["@a:x"]}`} {
		b.Run(name, func(b *testing.B) {
			e := pdu(b, "m.room.message", nil, "@s:x", `{"msgtype":"m.text","body":"`+strings.Repeat("tea ", 50)+`"`+mentions+`}`)
			in := room(200, 0)
			b.ReportAllocs()
			for b.Loop() {
				Judge(e, in)
			}
		})
	}
}
