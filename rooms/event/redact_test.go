package event

import (
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// What redaction leaves of a content, by type and version.
// spec: client-server#redactions
func TestRedactContent(t *testing.T) {
	const (
		member = `{"displayname":"x","join_authorised_via_users_server":"@v:x","membership":"join","third_party_invite":{"display_name":"x","signed":{"mxid":"@a:b"}}}`
		levels = `{"ban":1,"events":{"a":1},"events_default":0,"historical":9,"invite":3,"kick":2,"notifications":{"room":20},"redact":5,"state_default":6,"users":{"@a:b":7},"users_default":8}`
		create = `{"creator":"@a:b","m.federate":false,"room_version":"x"}`
		rules  = `{"allow":[{"room_id":"!x:y"}],"extra":1,"join_rule":"restricted"}`
	)
	for _, c := range []struct{ versions, typ, content, want string }{
		{"1 5 6 11 12", matrix.TypeMessage, `{"body":"x","membership":"join"}`, `{}`},
		{"1 8", matrix.TypeMember, member, `{"membership":"join"}`},
		{"9 10", matrix.TypeMember, member, `{"join_authorised_via_users_server":"@v:x","membership":"join"}`},
		{"11 12", matrix.TypeMember, member, `{"join_authorised_via_users_server":"@v:x","membership":"join","third_party_invite":{"signed":{"mxid":"@a:b"}}}`},
		{"10", matrix.TypeMember, `{"membership":"invite","third_party_invite":{"signed":1}}`, `{"membership":"invite"}`},
		{"11", matrix.TypeMember, `{"third_party_invite":{"other":1}}`, `{"third_party_invite":{}}`},
		{"11", matrix.TypeMember, `{"third_party_invite":[{"signed":1}]}`, `{}`},
		{"1 10", matrix.TypeCreate, create, `{"creator":"@a:b"}`},
		{"11", matrix.TypeCreate, create, create},
		{"1 7", matrix.TypeJoinRules, rules, `{"join_rule":"restricted"}`},
		{"8 12", matrix.TypeJoinRules, rules, `{"allow":[{"room_id":"!x:y"}],"join_rule":"restricted"}`},
		{"1 10", matrix.TypePowerLevels, levels, `{"ban":1,"events":{"a":1},"events_default":0,"kick":2,"redact":5,"state_default":6,"users":{"@a:b":7},"users_default":8}`},
		{"11 12", matrix.TypePowerLevels, levels, `{"ban":1,"events":{"a":1},"events_default":0,"invite":3,"kick":2,"redact":5,"state_default":6,"users":{"@a:b":7},"users_default":8}`},
		{"1 5", matrix.TypeAliases, `{"aliases":["#a:b"],"x":1}`, `{"aliases":["#a:b"]}`},
		{"6 12", matrix.TypeAliases, `{"aliases":["#a:b"],"x":1}`, `{}`},
		{"1 12", matrix.TypeHistoryVisibility, `{"history_visibility":"shared","x":1}`, `{"history_visibility":"shared"}`},
		{"1 10", matrix.TypeRedaction, `{"reason":"x","redacts":"$y"}`, `{}`},
		{"11 12", matrix.TypeRedaction, `{"reason":"x","redacts":"$y"}`, `{"redacts":"$y"}`},
		{"1 12", matrix.TypeName, `{"name":"x"}`, `{}`},
	} {
		for _, id := range strings.Fields(c.versions) {
			v := version(t, id)
			d := draft(v, c.typ, c.content)
			d.StateKey = ptr("")
			e := build(t, v, d)
			r := e.Redact()
			if string(r.Content) != c.want {
				t.Errorf("version %s: %s %s redacts to %s, want %s", id, c.typ, c.content, r.Content, c.want)
			}
			if r.ID != e.ID || r.Redact() != r || r.Type != e.Type || r.StateKey() != e.StateKey() || r.Membership() != e.Membership() {
				t.Errorf("version %s: %s: redaction changed more than it should: %+v", id, c.typ, r)
			}
			if changed := c.want != c.content; r.ContentHashOK() == changed {
				t.Errorf("version %s: %s: content hash after redaction", id, c.typ)
			}
		}
	}
}

func TestRedactTopLevel(t *testing.T) {
	extra := map[string]string{
		"origin": `"o"`, "membership": `"join"`, "prev_state": `[]`, "redacts": `"$x"`, "age_ts": `1`, "unknown": `{"a":1}`,
		"type": `"m.room.redaction"`, "state_key": `"k"`, "event_id": `"$e:example.org"`,
	}
	for _, v := range Versions() {
		e, err := Parse(v, pdu(v, extra))
		if err != nil {
			t.Fatal(err)
		}
		r := e.Redact()
		want := "auth_events content depth event_id hashes"
		if v.RedactKeepsOrigin {
			want += " membership origin origin_server_ts prev_events prev_state room_id sender signatures state_key type"
		} else {
			want += " origin_server_ts prev_events room_id sender signatures state_key type"
		}
		var got []string
		for m := membersOf(r.JSON); m.more(); {
			got = append(got, string(m.key))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("version %s keeps %v, want %s", v.ID, got, want)
		}
		if r.Redacts != "" {
			t.Errorf("version %s: a redacted redaction redacts %s", v.ID, r.Redacts)
		}
	}
}

func TestRedacts(t *testing.T) {
	for _, v := range Versions() {
		d := draft(v, matrix.TypeRedaction, `{"reason":"spam","redacts":"$decoy"}`)
		d.Redacts = "$target"
		e := build(t, v, d)
		if e.Redacts != "$target" {
			t.Errorf("version %s: redacts %q", v.ID, e.Redacts)
		}
		if top := strings.Contains(string(e.JSON), `,"redacts":"$target","room_id"`); top == v.RedactsInContent {
			t.Errorf("version %s: %s", v.ID, e.JSON)
		}
		// Elsewhere the field means nothing.
		top, content := `"$t"`, `{"redacts":"$c"}`
		p, err := Parse(v, pdu(v, map[string]string{"redacts": top, "content": content}))
		if err != nil || p.Redacts != "" {
			t.Errorf("version %s: a message redacts %q (%v)", v.ID, p.Redacts, err)
		}
		p, err = Parse(v, pdu(v, map[string]string{"redacts": top, "content": content, "type": `"m.room.redaction"`}))
		if want := map[bool]matrix.EventID{true: "$c", false: "$t"}[v.RedactsInContent]; err != nil || p.Redacts != want {
			t.Errorf("version %s: redacts %q, want %q (%v)", v.ID, p.Redacts, want, err)
		}
		for _, bad := range []string{`5`, `"t"`, `"$"`, `{}`} {
			change := map[string]string{"content": `{"redacts":` + bad + `}`, "type": `"m.room.redaction"`}
			if !v.RedactsInContent && bad[0] == '"' {
				change["redacts"] = bad
			}
			if p, err := Parse(v, pdu(v, change)); err != nil || p.Redacts != "" {
				t.Errorf("version %s: %s redacts %q (%v)", v.ID, bad, p.Redacts, err)
			}
		}
	}
}
