package filter

import (
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// TestTakes decides on one event by filters of all kinds.
func TestTakes(t *testing.T) {
	const typ, sender = "m.room.message", matrix.UserID("@a:x")
	for _, c := range []struct {
		filter, content string
		takes           bool
	}{
		{``, `{}`, true},
		{`{}`, `{}`, true},
		{`{"types":[]}`, `{}`, false},
		{`{"types":["m.room.message"]}`, `{}`, true},
		{`{"types":["m.room"]}`, `{}`, false},
		{`{"types":["m.*"]}`, `{}`, true},
		{`{"types":["*e*e"]}`, `{}`, true},
		{`{"types":["*x*"]}`, `{}`, false},
		{`{"types":["m.room.message*"]}`, `{}`, true},
		{`{"types":["m.room.messages*"]}`, `{}`, false},
		{`{"types":["*"],"not_types":["m.room.*"]}`, `{}`, false},
		{`{"not_types":["m.room.member"]}`, `{}`, true},
		{`{"senders":["@a:x"]}`, `{}`, true},
		{`{"senders":["@b:x"]}`, `{}`, false},
		{`{"senders":[]}`, `{}`, false},
		{`{"senders":["@a:x"],"not_senders":["@a:x"]}`, `{}`, false},
		{`{"contains_url":true}`, `{}`, false},
		{`{"contains_url":true}`, `{"url":"mxc://x/y"}`, true},
		{`{"contains_url":true}`, `{"url":1}`, false},
		{`{"contains_url":true}`, `{"info":{"url":"mxc://x/y"}}`, false},
		{`{"contains_url":false}`, `{"url":"mxc://x/y"}`, false},
		{`{"contains_url":false}`, `{}`, true},
	} {
		f, err := Parse(c.filter)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Takes(typ, sender, []byte(c.content)); got != c.takes {
			t.Errorf("%s of %s: %v", c.filter, c.content, got)
		}
	}
}

// TestRooms decides on rooms and relations.
func TestRooms(t *testing.T) {
	for filter, want := range map[string][3]bool{
		`{}`:                 {true, true, false},
		`{"rooms":["!a:x"]}`: {true, false, false},
		`{"rooms":[]}`:       {false, false, false},
		`{"rooms":["!a:x"],"not_rooms":["!a:x"]}`: {false, false, false},
		`{"not_rooms":["!a:x"]}`:                  {false, true, false},
		`{"related_by_senders":["@b:x"]}`:         {true, true, true},
		`{"related_by_rel_types":["m.thread"]}`:   {true, true, true},
	} {
		f, err := Parse(filter)
		if err != nil {
			t.Fatal(err)
		}
		if got := [3]bool{f.TakesRoom("!a:x"), f.TakesRoom("!b:x"), f.Related()}; got != want {
			t.Errorf("%s: %v", filter, got)
		}
		if f.Related() && (!f.TakesRelation("m.thread", "@b:x") || f.TakesRelation("m.reference", "@c:x")) {
			t.Errorf("%s picks by the wrong relation", filter)
		}
	}
}

// TestParseRefuses gives 400 for what is no filter.
func TestParseRefuses(t *testing.T) {
	for text, code := range map[string]matrix.Code{
		`{`:                               matrix.CodeNotJSON,
		`[]`:                              matrix.CodeBadJSON,
		`{"types":"m.room.message"}`:      matrix.CodeBadJSON,
		`{"limit":-1}`:                    matrix.CodeInvalidParam,
		strings.Repeat(" ", MaxBytes+1):   matrix.CodeInvalidParam,
		`{"contains_url":"yes"}`:          matrix.CodeBadJSON,
		`{"lazy_load_members":1}`:         matrix.CodeBadJSON,
		`{"related_by_rel_types":[true]}`: matrix.CodeBadJSON,
	} {
		if _, err := Parse(text); !matrix.HasCode(err, code) {
			t.Errorf("%.40s: %v", text, err)
		}
	}
}
