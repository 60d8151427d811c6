package syncapi

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

func TestSplitPath(t *testing.T) {
	for path, want := range map[string][]string{
		`content.body`:                   {"content", "body"},
		`type`:                           {"type"},
		`content.m\.relates_to.event_id`: {"content", "m.relates_to", "event_id"},
		`a\\.b`:                          {`a\`, "b"},
		`a\b`:                            {`a\b`},
		`a..b`:                           {"a", "", "b"},
		`a\`:                             {`a\`},
	} {
		if got := splitPath(path); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %q, not %q", path, got, want)
		}
	}
}

func TestPrune(t *testing.T) {
	const ev = `{"type":"m.x","content":{"body":"hi","m.relates_to":{"event_id":"$a","key":"k"},"n":null},"sender":"@a:x"}`
	for _, c := range []struct{ fields, want string }{
		{`["type"]`, `{"type":"m.x"}`},
		{`[]`, `{}`},
		{`["content.body","sender"]`, `{"content":{"body":"hi"},"sender":"@a:x"}`},
		{`["content.m\\.relates_to.key","content.body"]`, `{"content":{"body":"hi","m.relates_to":{"key":"k"}}}`},
		{`["content","content.body"]`, `{"content":{"body":"hi","m.relates_to":{"event_id":"$a","key":"k"},"n":null}}`},
		{`["content.n"]`, `{"content":{"n":null}}`},
		{`["content.body.deeper","type.x","unknown"]`, `{}`},
	} {
		f, err := parseFilter([]byte(`{"event_fields":` + c.fields + `}`))
		if err != nil {
			t.Fatal(err)
		}
		got, err := prune(json.RawMessage(ev), f.paths)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v, not %s", c.fields, got, err, c.want)
		}
	}
}

func TestFiltersThatAreRefused(t *testing.T) {
	for text, code := range map[string]matrix.Code{
		`{`:                                     matrix.CodeNotJSON,
		`[]`:                                    matrix.CodeBadJSON,
		`{"room":[]}`:                           matrix.CodeBadJSON,
		`{"room":{"timeline":{"limit":"ten"}}}`: matrix.CodeBadJSON,
		`{"room":{"timeline":{"limit":-1}}}`:    matrix.CodeInvalidParam,
		`{"presence":{"limit":-1}}`:             matrix.CodeInvalidParam,
		`{"event_format":"xml"}`:                matrix.CodeInvalidParam,
		`{"x":"` + strings.Repeat("x", 70000) + `"}`: matrix.CodeInvalidParam,
	} {
		if _, err := parseFilter([]byte(text)); !matrix.HasCode(err, code) {
			t.Errorf("%.60s: %v, not %s", text, err, code)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(`{"event_fields":["content.body","a\\.b"],"room":{"timeline":{"types":["m.*"],"limit":3}}}`, `{"content":{"body":1}}`)
	f.Fuzz(func(t *testing.T, text, ev string) {
		o, err := parseFilter([]byte(text))
		if err != nil {
			return
		}
		out, err := prune(json.RawMessage(ev), o.paths)
		if err == nil && !json.Valid(out) {
			t.Fatalf("%s pruned by %s is %s", ev, text, out)
		}
	})
}
