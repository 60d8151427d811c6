package event

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"pgregory.net/rapid"
)

// anyDraft draws drafts that every version takes, with contents that redaction
// treats specially.
func anyDraft(t *rapid.T, v *Version) Draft {
	typ := rapid.SampledFrom([]string{
		matrix.TypeMessage, matrix.TypeMember, matrix.TypePowerLevels, matrix.TypeJoinRules, matrix.TypeAliases,
		matrix.TypeHistoryVisibility, matrix.TypeRedaction, "x\"\n\u2028é",
	}).Draw(t, "type")
	d := draft(v, typ, "")
	key := rapid.SampledFrom([]string{
		"membership", "join_rule", "allow", "aliases", "ban", "invite", "users", "history_visibility", "redacts", "third_party_invite",
		"join_authorised_via_users_server", "signed", "a", "b\x01", "é",
	})
	content := rapid.MapOfN(key, anyJSON(), 0, 6).Draw(t, "content")
	if rapid.Bool().Draw(t, "signed") {
		content["third_party_invite"] = map[string]any{"signed": anyJSON().Draw(t, "signed"), "x": 1}
	}
	d.Content = encode(t, nil, map[string]any(content))
	if rapid.Bool().Draw(t, "state") {
		d.StateKey = ptr(rapid.StringMatching(`[^\x00]{0,20}`).Draw(t, "state key"))
	}
	if typ == matrix.TypeRedaction {
		d.Redacts = "$target"
	}
	d.Depth = rapid.Int64Range(0, MaxDepth).Draw(t, "depth")
	d.PrevEvents = make([]Ref, rapid.IntRange(0, maxPrevEvents).Draw(t, "prev"))
	for i := range d.PrevEvents {
		d.PrevEvents[i].ID = matrix.EventID("$" + rapid.StringMatching(`[^\x00]{1,20}`).Draw(t, "id"))
	}
	return d
}

func TestEventProperties(t *testing.T) {
	key := testKey(t)
	for _, v := range Versions() {
		t.Run(v.ID, rapid.MakeCheck(func(t *rapid.T) {
			d := anyDraft(t, v)
			e, err := Build(v, d, "example.org", key)
			if err != nil {
				t.Fatal(err)
			}
			if !e.ContentHashOK() {
				t.Fatal("content hash")
			}
			// Any other spelling of the same PDU is the same event.
			var loose map[string]any
			dec := json.NewDecoder(strings.NewReader(string(e.JSON)))
			dec.UseNumber()
			if err := dec.Decode(&loose); err != nil {
				t.Fatal(err)
			}
			loose["unsigned"] = anyJSON().Draw(t, "unsigned")
			p, err := Parse(v, encode(t, nil, loose))
			if err != nil {
				t.Fatal(err)
			}
			if p.ID != e.ID || string(p.JSON) != string(e.JSON) || p.StateKey() != e.StateKey() || p.IsState() != e.IsState() || p.Depth != d.Depth || len(p.PrevEvents) != len(d.PrevEvents) {
				t.Fatalf("parsed as another event:\n%s\n%s", p.JSON, e.JSON)
			}
			checkInvariants(t, p)
			if err := p.Redact().Verify("example.org", key.ID, key.public()); err != nil {
				t.Fatal(err)
			}
		}))
	}
}

// checkInvariants holds for every event that Parse returns.
func checkInvariants(t fataler, e *Event) {
	t.Helper()
	if ok, err := check(e.JSON, e.Version.StrictJSON); err != nil || !ok {
		t.Fatalf("JSON is not canonical (%v): %s", err, e.JSON)
	}
	again, err := Parse(e.Version, e.JSON)
	if err != nil || again.ID != e.ID || &again.JSON[0] != &e.JSON[0] {
		t.Fatalf("does not parse again as %s: %v", e.ID, err)
	}
	loaded, err := Load(e.Version, e.ID, e.RoomID, e.JSON)
	if err != nil || loaded.Type != e.Type || loaded.StateKeyPtr() == nil != (e.StateKeyPtr() == nil) || loaded.Redacts != e.Redacts {
		t.Fatalf("does not load: %v", err)
	}
	r := e.Redact()
	if ok, err := check(r.JSON, e.Version.StrictJSON); err != nil || !ok {
		t.Fatalf("redacted JSON is not canonical (%v): %s", err, r.JSON)
	}
	p, err := Parse(e.Version, r.JSON)
	if err != nil || p.ID != e.ID || p.RoomID != e.RoomID || p.Redact() != p || p.Membership() != e.Membership() {
		t.Fatalf("the redacted %s parses as another: %v", e.ID, err)
	}
	for _, x := range []*Event{e, r} {
		if out := x.AppendClient(nil, ClientFormat{Unsigned: []byte(`{"age":1}`)}); !json.Valid(out) {
			t.Fatalf("client form is not JSON: %s", out)
		} else if _, err := check(out, false); err != nil {
			t.Fatalf("client form: %v: %s", err, out)
		}
		x.ContentHashOK()
		for _, s := range x.Signers() {
			for _, id := range x.KeyIDs(s) {
				_ = x.Verify(s, id, make([]byte, 32))
			}
		}
	}
}
