package push

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/roomstest"
)

func TestReadingRules(t *testing.T) {
	const master = `"rule_id":".m.rule.master"`
	each(t, func(g *rig) {
		for _, c := range []struct {
			path string
			code int
			has  string
		}{
			{"/v3/pushrules/", 200, `{"global":{"override":[{` + master},
			{"/v3/pushrules", 200, `{"global":{"override":[{` + master},
			{"/r0/pushrules/", 200, `{"global":{"override":[{` + master},
			{"/v3/pushrules/global/", 200, `{"override":[{` + master},
			{"/v3/pushrules/global", 200, `{"override":[{` + master},
			{"/v3/pushrules/global/override/", 200, `[{` + master},
			{"/v3/pushrules/global/sender", 200, `[]`},
			{"/v3/pushrules/global/underride/.m.rule.message", 200, `"actions":["notify"]`},
			{"/v3/pushrules/global/override/.m.rule.master/enabled", 200, `{"enabled":false}`},
			{"/v3/pushrules/global/override/.m.rule.tombstone/actions", 200, `{"actions":["notify",{"set_tweak":"highlight"}]}`},
			{"/v3/pushrules/global/override/.m.rule.message", 404, `M_NOT_FOUND`},
			{"/v3/pushrules/global/content/%2Fetc", 404, `M_NOT_FOUND`},
			{"/v3/pushrules/global/device/x", 404, `M_NOT_FOUND`},
			{"/v3/pushrules/global/device", 404, `M_NOT_FOUND`},
			{"/v3/pushrules/local", 404, `M_UNRECOGNIZED`},
			{"/v3/pushers", 200, `{"pushers":[]}`},
		} {
			code, body := g.Do("alice", "GET", c.path, "")
			if code != c.code || !strings.Contains(body, c.has) {
				t.Errorf("GET %s: %d %s", c.path, code, body)
			}
		}
	})
}

// ids lists the ids of a user's rules of a kind, those of the server left out.
func (g *rig) ids(user, kind string) string {
	g.Helper()
	var ids []string
	all := roomstest.Get[account](g.Rig, user, "/v3/pushrules/").Global
	for _, r := range *all.Kind(kind) {
		if r.Default != strings.HasPrefix(r.ID, ".") {
			g.Errorf("rule %s: default is %v", r.ID, r.Default)
		}
		if !r.Default {
			ids = append(ids, r.ID)
		}
	}
	return strings.Join(ids, " ")
}

func (g *rig) put(user, path, body string) {
	g.Helper()
	roomstest.Want[struct{}](g.Rig, user, "PUT", "/v3/pushrules/global/"+path, body)
}

func TestOrderOfRules(t *testing.T) {
	each(t, func(g *rig) {
		for _, kind := range kinds {
			const body = `{"actions":["notify"],"pattern":"tea"}`
			for _, step := range []struct{ rule, want string }{
				{"a", "a"}, {"b", "b a"}, {"c?before=a", "b c a"}, {"d?after=a", "b c a d"}, {"e?after=b", "b e c a d"},
				{"f?after=d&before=b", "f b e c a d"}, // before decides
				{"c", "f b e c a d"},                  // stays where it is
				{"c?before=f", "c f b e a d"}, {"c?after=d", "f b e a d c"}, {"b?after=b&before=f", "b f e a d c"},
			} {
				g.put("alice", kind+"/"+step.rule, body)
				if got := g.ids("alice", kind); got != step.want {
					t.Fatalf("%s %s: %s, not %s", kind, step.rule, got, step.want)
				}
			}
			g.Refused("alice", "PUT", "/v3/pushrules/global/"+kind+"/x?before=nope", body, 400, matrix.CodeUnknown)
			g.Refused("alice", "PUT", "/v3/pushrules/global/"+kind+"/x?after=nope", body, 400, matrix.CodeUnknown)
			g.Refused("alice", "PUT", "/v3/pushrules/global/"+kind+"/a?before=a", body, 400, matrix.CodeUnknown)
			g.Refused("alice", "PUT", "/v3/pushrules/global/"+kind+"/x?after=.m.rule.message", body, 400, matrix.CodeUnknown)
			if got := g.ids("alice", kind); got != "b f e a d c" {
				t.Errorf("what was refused left %s", got)
			}
			roomstest.Want[struct{}](g.Rig, "alice", "DELETE", "/v3/pushrules/global/"+kind+"/e", "")
			g.Refused("alice", "DELETE", "/v3/pushrules/global/"+kind+"/e", "", 404, matrix.CodeNotFound)
			if got := g.ids("alice", kind); got != "b f a d c" {
				t.Errorf("without e: %s", got)
			}
		}
		first := roomstest.Get[account](g.Rig, "alice", "/v3/pushrules/").Global.Override
		if first[0].ID != masterRule || first[1].ID != "b" || first[len(first)-1].ID != ".m.rule.suppress_edits" {
			t.Errorf("the override rules are %v", first)
		}
		if got := g.ids("bob", "room"); got != "" {
			t.Errorf("bob has %s", got)
		}
	})
}

func TestRulesCanBeChangedAndStay(t *testing.T) {
	each(t, func(g *rig) {
		const rule = `{"rule_id":"r","default":false,"enabled":true,` +
			`"conditions":[{"kind":"event_match","key":"type","pattern":"*"},{"kind":"org.example","x":[1.5]}],` +
			`"actions":["notify","dont_notify","coalesce",{"set_tweak":"sound","value":"a.wav"},{"set_tweak":"light","value":{"on":true}}]}`
		g.put("alice", "override/r", strings.Replace(rule, `["notify",`, `["notify", `, 1))
		check := func(path, want string) {
			t.Helper()
			for range 2 {
				if code, got := g.Do("alice", "GET", "/v3/pushrules/global/"+path, ""); code != 200 || strings.TrimSpace(got) != want {
					t.Errorf("%s: %d %s\nnot %s", path, code, got, want)
				}
				g.Reload()
			}
		}
		check("override/r", rule)
		g.put("alice", "override/r/enabled", `{"enabled":false}`)
		g.put("alice", "override/r/actions", `{"actions":[]}`)
		g.put("alice", "override/.m.rule.master/enabled", `{"enabled":true}`)
		g.put("alice", "underride/.m.rule.message/actions", `{"actions":["dont_notify"]}`)
		check("override/r/enabled", `{"enabled":false}`)
		check("override/r/actions", `{"actions":[]}`)
		check("override/.m.rule.master/enabled", `{"enabled":true}`)
		check("underride/.m.rule.message/actions", `{"actions":["dont_notify"]}`)
		g.put("alice", "override/r", `{"actions":["notify"]}`)
		check("override/r", `{"rule_id":"r","default":false,"enabled":false,"conditions":[],"actions":["notify"]}`)
		if got, _ := strings.CutPrefix(g.shown["@alice:test"], "m.push_rules "); !strings.Contains(got, `"rule_id":"r","default":false,"enabled":false`) ||
			!strings.Contains(got, `"rule_id":".m.rule.master","default":true,"enabled":true`) {
			t.Errorf("account data: %s", got)
		}
		delete(g.shown, "@alice:test")
		g.put("alice", "override/r", `{"actions":["notify"]}`)
		if g.shown["@alice:test"] != "" {
			t.Error("clients are told of a change that is none")
		}
		roomstest.Want[struct{}](g.Rig, "alice", "DELETE", "/v3/pushrules/global/override/r", "")
		if want := `"conditions":[]`; !strings.Contains(g.shown["@alice:test"], want) {
			t.Errorf("account data: %s", g.shown["@alice:test"])
		}
	})
}

func TestRuleRefusals(t *testing.T) {
	long := strings.Repeat("x", MaxPatternBytes+1)
	g := newRig(t, "sqlite")
	condition := func(c string) string { return `{"actions":[],"conditions":[` + c + `]}` }
	for _, c := range []struct {
		path, body string
		status     int
		code       matrix.Code
	}{
		{"override/.m.rule.mine", `{"actions":[]}`, 400, matrix.CodeInvalidParam},
		{"override/.m.rule.master", `{"actions":[]}`, 400, matrix.CodeInvalidParam},
		{"override/a%2Fb", `{"actions":[]}`, 400, matrix.CodeInvalidParam},
		{"override/a%5Cb", `{"actions":[]}`, 400, matrix.CodeInvalidParam},
		{"override/a%00b", `{"actions":[]}`, 400, matrix.CodeInvalidParam},
		{"override/" + strings.Repeat("x", maxRuleIDBytes+1), `{"actions":[]}`, 400, matrix.CodeInvalidParam},
		{"device/a", `{"actions":[]}`, 404, matrix.CodeNotFound},
		{"override/a", `{}`, 400, matrix.CodeMissingParam},
		{"override/a", `{"actions":null}`, 400, matrix.CodeBadJSON},
		{"override/a", `{"actions":"notify"}`, 400, matrix.CodeBadJSON},
		{"override/a", `{"actions":["shout"]}`, 400, matrix.CodeInvalidParam},
		{"override/a", `{"actions":[{"tweak":"sound"}]}`, 400, matrix.CodeInvalidParam},
		{"override/a", `{"actions":[{"set_tweak":5}]}`, 400, matrix.CodeInvalidParam},
		{"override/a", `{"actions":[null]}`, 400, matrix.CodeInvalidParam},
		{"override/a", `{"actions":[` + strings.Repeat(`"notify",`, maxActions) + `"notify"]}`, 400, matrix.CodeInvalidParam},
		{"content/a", `{"actions":[]}`, 400, matrix.CodeMissingParam},
		{"content/a", `{"actions":[],"pattern":5}`, 400, matrix.CodeBadJSON},
		{"content/a", `{"actions":[],"pattern":"` + long + `"}`, 400, matrix.CodeInvalidParam},
		{"override/a", `{"actions":[],"conditions":{}}`, 400, matrix.CodeBadJSON},
		{"override/a", condition(`5`), 400, matrix.CodeBadJSON},
		{"override/a", condition(`null`), 400, matrix.CodeMissingParam},
		{"override/a", condition(`{}`), 400, matrix.CodeMissingParam},
		{"override/a", condition(`{"kind":5}`), 400, matrix.CodeBadJSON},
		{"override/a", condition(`{"kind":"event_match","key":"type"}`), 400, matrix.CodeMissingParam},
		{"override/a", condition(`{"kind":"event_match","pattern":"x"}`), 400, matrix.CodeMissingParam},
		{"override/a", condition(`{"kind":"event_match","key":"type","pattern":5}`), 400, matrix.CodeBadJSON},
		{"override/a", condition(`{"kind":"event_match","key":"type","pattern":"` + long + `"}`), 400, matrix.CodeInvalidParam},
		{"override/a", condition(`{"kind":"event_match","key":"` + long + `","pattern":"a"}`), 400, matrix.CodeInvalidParam},
		{"override/a", condition(`{"kind":"event_property_is","key":"type"}`), 400, matrix.CodeMissingParam},
		{"override/a", condition(`{"kind":"event_property_is","key":"type","value":{}}`), 400, matrix.CodeInvalidParam},
		{"override/a", condition(`{"kind":"event_property_is","key":"type","value":1.5}`), 400, matrix.CodeInvalidParam},
		{"override/a", condition(`{"kind":"event_property_contains","key":"type","value":9007199254740992}`), 400, matrix.CodeInvalidParam},
		{"override/a", condition(`{"kind":"room_member_count","is":"many"}`), 400, matrix.CodeInvalidParam},
		{"override/a", condition(`{"kind":"sender_notification_permission"}`), 400, matrix.CodeMissingParam},
		{"override/a", condition(strings.Repeat(`{"kind":"x"},`, maxConditions) + `{"kind":"x"}`), 400, matrix.CodeInvalidParam},
		{"override/a", `{"actions":[],"x":"` + strings.Repeat("x", maxRuleBody) + `"}`, 413, matrix.CodeTooLarge},
		{"override/a/enabled", `{"enabled":true}`, 404, matrix.CodeNotFound},
		{"override/.m.rule.nope/enabled", `{"enabled":true}`, 404, matrix.CodeNotFound},
		{"underride/.m.rule.master/enabled", `{"enabled":true}`, 404, matrix.CodeNotFound},
		{"device/a/enabled", `{"enabled":true}`, 404, matrix.CodeNotFound},
		{"override/.m.rule.master/enabled", `{}`, 400, matrix.CodeMissingParam},
		{"override/.m.rule.master/enabled", `{"enabled":1}`, 400, matrix.CodeBadJSON},
		{"override/a/actions", `{"actions":[]}`, 404, matrix.CodeNotFound},
		{"device/a/actions", `{"actions":[]}`, 404, matrix.CodeNotFound},
		{"override/.m.rule.master/actions", `{}`, 400, matrix.CodeMissingParam},
	} {
		g.Refused("alice", "PUT", "/v3/pushrules/global/"+c.path, c.body, c.status, c.code)
	}
	g.Refused("alice", "DELETE", "/v3/pushrules/global/override/.m.rule.master", "", 400, matrix.CodeInvalidParam)
	g.Refused("alice", "DELETE", "/v3/pushrules/global/device/a", "", 404, matrix.CodeNotFound)
	g.Refused("alice", "GET", "/v3/pushrules/global/override/a", "", 404, matrix.CodeNotFound)
	if g.shown["@alice:test"] != "" {
		t.Error("what was refused is shown to clients")
	}
}

func TestRulesAreBounded(t *testing.T) {
	g := newRig(t, "sqlite")
	for i := range 200 {
		code, body := g.Do("alice", "PUT", fmt.Sprintf("/v3/pushrules/global/content/%d", i),
			`{"actions":[{"set_tweak":"x","value":"`+strings.Repeat("x", 1<<10)+`"}],"pattern":"x"}`)
		if code != 200 {
			if i < 100 || !strings.Contains(body, string(matrix.CodeTooLarge)) {
				t.Errorf("rule %d: %d %s", i, code, body)
			}
			return
		}
	}
	t.Error("the rules may become as large as they like")
}

// FuzzRules takes whatever a client may send as a rule, and evaluates what was
// taken.
func FuzzRules(f *testing.F) {
	f.Add("override", "r", `{"actions":["notify"],"conditions":[{"kind":"event_match","key":"content.body","pattern":"t?a*"}]}`, `{"body":"tea"}`)
	f.Add("content", "r", `{"actions":["notify",{"set_tweak":"sound","value":"x"}],"pattern":"*"}`, `{"body":"tea","m.mentions":{"user_ids":["@u:x"]}}`)
	f.Add("underride", "r", `{"actions":[],"conditions":[{"kind":"event_property_contains","key":"content.a\\.b","value":null}]}`, `{"a.b":[null,1]}`)
	f.Add("room", "!r:x", `{"actions":[{"set_tweak":"highlight","value":false}]}`, `{}`)
	f.Add("override", "r", `{"actions":["notify"],"conditions":[{"kind":"contains_display_name"},{"kind":"room_member_count","is":">=2"}]}`, `{"body":"K\u212a \u017f"}`)
	f.Fuzz(func(t *testing.T, kind, id, body, content string) {
		var q putRuleRequest
		if predefined.Kind(kind) == nil || checkRuleID(id) != nil || json.Unmarshal([]byte(body), &q) != nil {
			return
		}
		r, err := decodeRule(kind, id, &q)
		if err != nil {
			if matrix.AsError(err).Status == 500 {
				t.Errorf("%q: %v", body, err)
			}
			return
		}
		b := (&book{}).copy()
		if err := b.put(kind, r, place{}); err != nil {
			t.Fatal(err)
		}
		var again book
		if err := json.Unmarshal(b.encode(), &again); err != nil || string(again.encode()) != string(b.encode()) {
			t.Fatalf("%s is read back as %s, %v", b.encode(), again.encode(), err)
		}
		if !json.Valid(b.accountData("@u:x")) {
			t.Fatalf("account data: %s", b.accountData("@u:x"))
		}
		e, err := tryPDU("m.room.message", nil, "@s:x", content)
		if err != nil {
			return
		}
		s := subjectOf(e, RoomInfo{Members: 2})
		if one, other := compile(b, "@u:x").on(s, "\u212a"), compile(&again, "@u:x").on(s, "\u212a"); !one.same(other) {
			t.Errorf("%s and what is read back of it disagree", b.encode())
		}
	})
}
