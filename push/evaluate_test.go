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
	e, err := tryPDU(typ, stateKey, sender, content)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func tryPDU(typ string, stateKey *string, sender, content string) (*event.Event, error) {
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
		return nil, err
	}
	if raw, err = event.Canonical(raw); err != nil {
		return nil, err
	}
	return event.Load(v, "$e", "!r:x", raw)
}

func key(s string) *string { return &s }

// room is a room in which "room" needs level 50.
func room(members int, senderLevel int64) RoomInfo {
	return RoomInfo{Members: members, Allowed: func(k string) bool { return k == "room" && senderLevel >= 50 }}
}

// effect is what a result comes to.
type effect struct {
	Notify, Highlight bool
	Sound             string
}

func effectOf(r Result) effect {
	sound, _ := stringOf(r.tweaks()["sound"])
	return effect{r.Notify, r.Highlight, sound}
}

// evaluate applies the rules of a book for a user alone.
func evaluate(b *book, e *event.Event, in RoomInfo, user matrix.UserID) effect {
	return effectOf(compile(b, user).on(subjectOf(e, in), ""))
}

func TestPredefinedResults(t *testing.T) {
	var (
		nothing = effect{}
		noise   = effect{Notify: true}
		loud    = effect{Notify: true, Sound: "default"}
		mention = effect{Notify: true, Sound: "default", Highlight: true}
		all     = effect{Notify: true, Highlight: true}
		call    = effect{Notify: true, Sound: "ring"}
	)
	for _, c := range []struct {
		name     string
		typ      string
		stateKey *string
		content  string
		room     RoomInfo
		want     effect // for @u:x
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
			if got := evaluate(&book{}, e, c.room, "@u:x"); got != c.want {
				t.Errorf("the rules give %+v, want %+v", got, c.want)
			}
			if got := effectOf(judge(subjectOf(e, c.room)).For("@u:x")); got != c.want {
				t.Errorf("Judge gives %+v, want %+v", got, c.want)
			}
			if got := effectOf(judge(subjectOf(e, c.room)).For("@s:x")); got != nothing {
				t.Errorf("the sender is notified: %+v", got)
			}
			if got := Counts(e, c.room.Allowed); got != effectOf(judge(subjectOf(e, c.room)).Common).Notify {
				t.Errorf("Counts gives %v", got)
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
		v := judge(subjectOf(e, in))
		for _, u := range users {
			want := evaluate(&book{}, e, in, matrix.UserID(u))
			if got := effectOf(v.For(matrix.UserID(u))); got != want {
				t.Fatalf("%s: Judge gives %+v, the rules %+v", u, got, want)
			}
		}
		if _, ok := v.Others[e.Sender]; ok {
			t.Fatal("the sender is among the others")
		}
	})
}

func TestConditions(t *testing.T) {
	e := pdu(t, "m.room.message", nil, "@s:x", `{"body":"Good morning, Ann*!","n":2,"nil":null,"t":true,"list":["a",1,null],"a.b":{"c\\d":"deep"}}`)
	for _, c := range []struct {
		name, cond string
		want       bool
	}{
		{"unknown kind", `{"kind":"org.example"}`, false},
		{"a feature that no room version has", `{"kind":"org.matrix.msc3931.room_version_supports","feature":"org.matrix.msc3932.extensible_events"}`, false},
		{"body by word", `{"kind":"event_match","key":"content.body","pattern":"morn*g"}`, true},
		{"body by plain word", `{"kind":"event_match","key":"content.body","pattern":"MORNING"}`, true},
		{"body by two words", `{"kind":"event_match","key":"content.body","pattern":"good morning"}`, true},
		{"body in a word", `{"kind":"event_match","key":"content.body","pattern":"orn*"}`, false},
		{"body plainly in a word", `{"kind":"event_match","key":"content.body","pattern":"orning"}`, false},
		{"no string", `{"kind":"event_match","key":"content.n","pattern":"*"}`, false},
		{"absent", `{"kind":"event_match","key":"content.x","pattern":"*"}`, false},
		{"no state key", `{"kind":"event_match","key":"state_key","pattern":"*"}`, false},
		{"sender", `{"kind":"event_match","key":"sender","pattern":"@S:*"}`, true},
		{"escaped path", `{"kind":"event_match","key":"content.a\\.b.c\\\\d","pattern":"DEEP"}`, true},
		{"unescaped path", `{"kind":"event_match","key":"content.a.b.c\\d","pattern":"deep"}`, false},
		{"integer", `{"kind":"event_property_is","key":"content.n","value":2}`, true},
		{"another integer", `{"kind":"event_property_is","key":"content.n","value":3}`, false},
		{"null", `{"kind":"event_property_is","key":"content.nil","value":null}`, true},
		{"null where nothing is", `{"kind":"event_property_is","key":"content.nope","value":null}`, false},
		{"exact string", `{"kind":"event_property_is","key":"type","value":"m.room.message"}`, true},
		{"exact, other case", `{"kind":"event_property_is","key":"type","value":"M.room.message"}`, false},
		{"exact, other escapes", `{"kind":"event_property_is","key":"type","value":"m.room.mess\u0061ge"}`, true},
		{"string for boolean", `{"kind":"event_property_is","key":"content.t","value":"true"}`, false},
		{"list has string", `{"kind":"event_property_contains","key":"content.list","value":"a"}`, true},
		{"list has integer", `{"kind":"event_property_contains","key":"content.list","value":1}`, true},
		{"list has null", `{"kind":"event_property_contains","key":"content.list","value":null}`, true},
		{"list has not", `{"kind":"event_property_contains","key":"content.list","value":"b"}`, false},
		{"no list", `{"kind":"event_property_contains","key":"content.body","value":"b"}`, false},
		{"display name, as it is", `{"kind":"contains_display_name"}`, true},
		{"members", `{"kind":"room_member_count","is":"==7"}`, true},
		{"fewer members", `{"kind":"room_member_count","is":"<7"}`, false},
		{"power without levels", `{"kind":"sender_notification_permission","key":"room"}`, false},
	} {
		conditions, err := decodeConditions(json.RawMessage("[" + c.cond + "]"))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		b := &book{Own: Ruleset{Override: []Rule{{ID: "r", Enabled: true, Conditions: conditions, Actions: []Action{notify, highlight}}}}}
		if got := compile(b, "@u:x").on(subjectOf(e, RoomInfo{Members: 7}), "ann*"); got.Highlight != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if kept, err := json.Marshal(conditions[0]); err != nil || normal(t, kept) != normal(t, []byte(c.cond)) {
			t.Errorf("%s becomes %s %v", c.cond, kept, err)
		}
	}
	named := condition{kind: containsName}
	if subjectOf(e, RoomInfo{}).holds(&named, "@u:x", "") {
		t.Error("no display name is contained in a text")
	}
}

func TestCounts(t *testing.T) {
	for is, want := range map[string][3]bool{ // for 1, 2 and 3 members
		"2": {false, true, false}, "==2": {false, true, false}, "<2": {true, false, false}, ">2": {false, false, true},
		"<=2": {true, true, false}, ">=2": {false, true, true},
	} {
		c, ok := parseCount(is)
		for i, w := range want {
			if got := c.holds(i + 1); got != w || !ok {
				t.Errorf("%q, %d: %v %v", is, i+1, got, ok)
			}
		}
	}
	for _, is := range []string{"", "=2", "<>2", "two", "2 ", "<", "-2", "+2", "99999999999999999999"} {
		if c, ok := parseCount(is); ok {
			t.Errorf("%q is %+v", is, c)
		}
	}
}

func TestKindsAreTriedInOrder(t *testing.T) {
	e := pdu(t, "m.room.message", nil, "@s:x", `{"body":"tea time"}`)
	loud := func(s string) []Action { return []Action{notify, {Tweak: "sound", Value: quoted(s)}} }
	tea := "tea"
	b := &book{Own: Ruleset{
		Override:  []Rule{{ID: "o", Enabled: true, Actions: loud("override")}},
		Content:   []Rule{{ID: "c", Enabled: true, Pattern: &tea, Actions: loud("content")}},
		Room:      []Rule{{ID: "!r:x", Enabled: true, Actions: loud("room")}},
		Sender:    []Rule{{ID: "@s:x", Enabled: true, Actions: loud("sender")}},
		Underride: []Rule{{ID: "u", Enabled: true, Actions: loud("underride")}},
	}}
	for _, kind := range kinds {
		if got := evaluate(b, e, RoomInfo{}, "@u:x").Sound; got != kind {
			t.Errorf("%q decided, want %q", got, kind)
		}
		(*b.Own.Kind(kind))[0].Enabled = false
	}
	if got := evaluate(b, e, RoomInfo{}, "@u:x"); got != (effect{Notify: true}) {
		t.Errorf("without rules of the user's: %+v", got)
	}
	on := true
	b.Changed = map[string]change{masterRule: {Enabled: &on}}
	(*b.Own.Kind("override"))[0].Enabled = true
	if got := evaluate(b, e, RoomInfo{}, "@u:x"); got != (effect{}) {
		t.Errorf("under the master rule: %+v", got)
	}
}

func BenchmarkJudge(b *testing.B) {
	for name, mentions := range map[string]string{"plain": "", "mention": `,"m.mentions":{"user_ids":["@a:x"]}`} {
		b.Run(name, func(b *testing.B) {
			e := pdu(b, "m.room.message", nil, "@s:x", `{"msgtype":"m.text","body":"`+strings.Repeat("tea ", 50)+`"`+mentions+`}`)
			in := room(200, 0)
			b.ReportAllocs()
			for b.Loop() {
				judge(subjectOf(e, in))
			}
		})
	}
}
