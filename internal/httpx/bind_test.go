package httpx

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

type nested struct {
	Kind  string   `json:"kind"`
	Names []string `json:"names"`
}

type everything struct {
	Room   matrix.RoomID       `path:"roomId"`
	Key    string              `path:"key"`
	Limit  int                 `query:"limit"`
	At     *int64              `query:"at"`
	Full   bool                `query:"full"`
	Via    []matrix.ServerName `query:"via"`
	Word   *string             `query:"word"`
	Text   string              `json:"text"`
	Count  *int64              `json:"count"`
	Nested nested              `json:"nested"`
	Any    json.RawMessage     `json:"any"`
	Whole  json.RawMessage     `body:"raw"`
	common
}

type common struct {
	Reason string `json:"reason"`
}

const everyPath = "/_matrix/client/v3/rooms/{roomId}/put/{key}"

func everyRoute(see func(*everything), opts ...Option) Route {
	return JSON("PUT", everyPath, func(_ context.Context, _ *Caller, q *everything) (*struct{}, error) {
		see(q)
		return nil, nil
	}, opts...)
}

// everyRaw binds by itself what everyRoute has bound.
func everyRaw(see func(*everything), opts ...Option) Route {
	bind := Bind[everything](everyPath)
	return Raw("PUT", everyPath, func(w http.ResponseWriter, r *http.Request, _ *Caller) error {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return matrix.TooLarge("The body is larger than 128 bytes")
		}
		q, err := bind(r, body)
		if err != nil {
			return err
		}
		see(q)
		return Write(w, nil)
	}, opts...)
}

func TestBind(t *testing.T) {
	const path = "/_matrix/client/v3/rooms/!r:here/put/k"
	cases := []struct {
		name, target, body string
		want               func(q *everything) bool
	}{
		{"path", path, `{}`, func(q *everything) bool { return q.Room == "!r:here" && q.Key == "k" }},
		{"encoded slash stays inside", "/_matrix/client/v3/rooms/!r:here/put/a%2Fb%252F", `{}`, func(q *everything) bool { return q.Key == "a/b%2F" }},
		{"a lone slash is a key", "/_matrix/client/v3/rooms/!r:here/put/%2F", `{}`, func(q *everything) bool { return q.Key == "/" }},
		{"encoded percent", "/_matrix/client/v3/rooms/!r:here/put/%252F", `{}`, func(q *everything) bool { return q.Key == "%2F" }},
		{"encoded dots", "/_matrix/client/v3/rooms/!r:here/put/%2e%2e", `{}`, func(q *everything) bool { return q.Key == ".." }},
		{"text beyond ASCII", "/_matrix/client/v3/rooms/!r:here/put/%C3%A9%20x", `{}`, func(q *everything) bool { return q.Key == "é x" }},
		{"version 12 room id", "/_matrix/client/v3/rooms/!hash/put/k", `{}`, func(q *everything) bool { return q.Room == "!hash" }},
		{"plus in a path is a plus", "/_matrix/client/v3/rooms/!r:here/put/a+b", `{}`, func(q *everything) bool { return q.Key == "a+b" }},
		{"r0 alias", "/_matrix/client/r0/rooms/!r:here/put/k", `{}`, func(q *everything) bool { return q.Key == "k" }},
		{"query", path + "?limit=-5&at=7&full=true&via=a.org&via=b.org:1&word=x+y%26&unknown=%20", `{}`, func(q *everything) bool {
			return q.Limit == -5 && *q.At == 7 && q.Full && fmt.Sprint(q.Via) == "[a.org b.org:1]" && *q.Word == "x y&"
		}},
		{"absent query", path, `{}`, func(q *everything) bool { return q.Limit == 0 && q.At == nil && q.Word == nil && q.Via == nil }},
		{"first scalar counts", path + "?limit=1&limit=2", `{}`, func(q *everything) bool { return q.Limit == 1 }},
		{"empty but there", path + "?word=", `{}`, func(q *everything) bool { return q.Word != nil && *q.Word == "" }},
		{"body", path, ` {"text":"hé\n\u00e9","count":3,"nested":{"kind":"k","names":["a","b"]},"any":[1, {"x":"\u0000"}],"reason":"r","more":{"}":"]"}} `, func(q *everything) bool {
			return q.Text == "hé\né" && *q.Count == 3 && q.Nested.Kind == "k" && len(q.Nested.Names) == 2 &&
				string(q.Any) == `[1, {"x":"\u0000"}]` && q.Reason == "r" && strings.HasPrefix(string(q.Whole), `{"text"`) && strings.HasSuffix(string(q.Whole), "}")
		}},
		{"null is absent", path, `{"text":null,"count":null,"nested":null,"any":null}`, func(q *everything) bool {
			return q.Text == "" && q.Count == nil && q.Nested.Kind == "" && string(q.Any) == "null"
		}},
		{"last duplicate counts, whole", path, `{"nested":{"kind":"a"},"text":"1","nested":{"names":[]},"text":"2"}`, func(q *everything) bool {
			return q.Text == "2" && q.Nested.Kind == ""
		}},
		{"names are exact", path, `{"TEXT":"x","Text":"y","Reason":"z"}`, func(q *everything) bool { return q.Text == "" && q.Reason == "" }},
		{"escaped name", path, `{"te\u0078t":"x"}`, func(q *everything) bool { return q.Text == "x" }},
		{"the body cannot set path or query", path + "?limit=1", `{"roomId":"!evil:x","Room":"!evil:x","Limit":9,"limit":9,"Via":["x"]}`, func(q *everything) bool {
			return q.Room == "!r:here" && q.Limit == 1 && q.Via == nil
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, route := range []func(func(*everything), ...Option) Route{everyRoute, everyRaw} {
				var got *everything
				h := serving(Options{}, route(func(q *everything) { got = q }))
				ask(t, h, "PUT", c.target, c.body, asAlice).wantBody("{}")
				if !c.want(got) {
					t.Fatalf("bound to %+v", got)
				}
			}
		})
	}
}

func TestBindRefuses(t *testing.T) {
	const path = "/_matrix/client/v3/rooms/!r:here/put/k"
	cases := []struct {
		name, target, body string
		status             int
		code               matrix.Code
		says               string
	}{
		{"room id", "/_matrix/client/v3/rooms/r:here/put/k", `{}`, 400, matrix.CodeInvalidParam, "roomId"},
		{"NUL in path", "/_matrix/client/v3/rooms/!r:here/put/a%00b", `{}`, 400, matrix.CodeInvalidParam, "U+0000"},
		{"forged slash mark", "/_matrix/client/v3/rooms/!r:here/put/%00%2F", `{}`, 400, matrix.CodeInvalidParam, "U+0000"},
		{"bad UTF-8 in path", "/_matrix/client/v3/rooms/!r:here/put/%ff", `{}`, 400, matrix.CodeInvalidParam, "UTF-8"},
		{"integer", path + "?limit=ten", `{}`, 400, matrix.CodeInvalidParam, "limit"},
		{"integer range", path + "?at=99999999999999999999", `{}`, 400, matrix.CodeInvalidParam, "at"},
		{"bool", path + "?full=1", `{}`, 400, matrix.CodeInvalidParam, "true or false"},
		{"server name in a list", path + "?via=a.org&via=b_c", `{}`, 400, matrix.CodeInvalidParam, "via"},
		{"NUL in query", path + "?word=%00", `{}`, 400, matrix.CodeInvalidParam, "word"},
		{"NUL in a query nobody reads", path + "?other=%00", `{}`, 400, matrix.CodeInvalidParam, "other"},
		{"bad escape in query", path + "?word=%zz", `{}`, 400, matrix.CodeInvalidParam, "word"},
		{"bad UTF-8 in query", path + "?word=%ff", `{}`, 400, matrix.CodeInvalidParam, "word"},
		{"no body", path, ``, 400, matrix.CodeNotJSON, ""},
		{"spaces", path, "  \n", 400, matrix.CodeNotJSON, ""},
		{"not JSON", path, `{"text":`, 400, matrix.CodeNotJSON, ""},
		{"form", path, `text=1`, 400, matrix.CodeNotJSON, ""},
		{"trailing garbage", path, `{} {}`, 400, matrix.CodeNotJSON, ""},
		{"not UTF-8", path, "{\"text\":\"\xff\"}", 400, matrix.CodeNotJSON, "UTF-8"},
		{"array", path, `[]`, 400, matrix.CodeBadJSON, "object"},
		{"string", path, `"x"`, 400, matrix.CodeBadJSON, "object"},
		{"null", path, `null`, 400, matrix.CodeBadJSON, "object"},
		{"string wanted", path, `{"text":5}`, 400, matrix.CodeBadJSON, `"text" must be a string`},
		{"integer wanted", path, `{"count":"5"}`, 400, matrix.CodeBadJSON, `"count" must be an integer`},
		{"fraction", path, `{"count":1.5}`, 400, matrix.CodeBadJSON, `"count" must be an integer`},
		{"nested", path, `{"nested":{"names":"a"}}`, 400, matrix.CodeBadJSON, `"nested.names" must be an array`},
		{"object wanted", path, `{"nested":[]}`, 400, matrix.CodeBadJSON, `"nested" must be an object, not an array`},
		{"NUL in text", path, `{"text":"a\u0000"}`, 400, matrix.CodeBadJSON, `"text"`},
		{"NUL deeper", path, `{"nested":{"names":["a","\u0000"]}}`, 400, matrix.CodeBadJSON, `"nested"`},
		{"too large", path, `{"text":"` + strings.Repeat("x", 200) + `"}`, 413, matrix.CodeTooLarge, "128"},
		{"depth", path, `{"any":` + strings.Repeat("[", 20) + `}`, 400, matrix.CodeNotJSON, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, route := range []func(func(*everything), ...Option) Route{everyRoute, everyRaw} {
				h := serving(Options{}, route(func(*everything) { t.Error("the handler was called") }, MaxBody(128)))
				a := ask(t, h, "PUT", c.target, c.body, asAlice).want(c.status, c.code)
				if text := a.Body.String(); !strings.Contains(strings.ReplaceAll(text, `\"`, `"`), c.says) {
					t.Fatalf("%s does not say %q", text, c.says)
				}
			}
		})
	}
}

// A body of unknown length is capped as well.
func TestBodyWithoutLength(t *testing.T) {
	h := serving(Options{}, everyRoute(func(*everything) {}, MaxBody(5000)))
	unknown := func(r *http.Request) { r.ContentLength = -1 }
	const path = "/_matrix/client/v3/rooms/!r:here/put/k"
	ask(t, h, "PUT", path, `{"text":"`+strings.Repeat("x", 4000)+`"}`, asAlice, unknown).want(200, "")
	ask(t, h, "PUT", path, `{"text":"`+strings.Repeat("x", 6000)+`"}`, asAlice, unknown).want(413, matrix.CodeTooLarge)
}

func TestEmptyBodyOK(t *testing.T) {
	var got string
	h := serving(Options{}, everyRoute(func(q *everything) { got = string(q.Whole) }, EmptyBodyOK))
	ask(t, h, "PUT", "/_matrix/client/v3/rooms/!r:here/put/k", "", asAlice).wantBody("{}")
	if got != "{}" {
		t.Fatalf("the raw body is %q", got)
	}
}

// A route whose request has no body fields does not care about the body.
func TestBodyNotWanted(t *testing.T) {
	h := serving(Options{}, JSON("POST", "/_matrix/client/v3/logout", func(context.Context, *Caller, *struct{}) (*struct{}, error) { return nil, nil }))
	ask(t, h, "POST", "/_matrix/client/v3/logout", "rubbish", asAlice).wantBody("{}")
}

func TestCompileRefuses(t *testing.T) {
	mustPanic := func(name string, f func()) {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
	mustPanic("untagged field", func() {
		JSON("GET", "/x", func(context.Context, *Caller, *struct{ A string }) (*struct{}, error) { return nil, nil })
	})
	mustPanic("no such wildcard", func() {
		JSON("GET", "/x", func(context.Context, *Caller, *struct {
			A string `path:"a"`
		}) (*struct{}, error) {
			return nil, nil
		})
	})
	mustPanic("wildcard without field", func() {
		JSON("GET", "/x/{a}", func(context.Context, *Caller, *struct{}) (*struct{}, error) { return nil, nil })
	})
	mustPanic("kind", func() {
		JSON("GET", "/x", func(context.Context, *Caller, *struct {
			A map[string]string `query:"a"`
		}) (*struct{}, error) {
			return nil, nil
		})
	})
	mustPanic("surface", func() {
		New(Options{}).Add("client", JSON("GET", "/_matrix/federation/v1/version", func(context.Context, *Caller, *struct{}) (*struct{}, error) { return nil, nil }))
	})
}

// FuzzDecode compares the binding of bodies with encoding/json's.
func FuzzDecode(f *testing.F) {
	type req struct {
		Text  string          `json:"text"`
		Count int64           `json:"count"`
		Raw   json.RawMessage `json:"raw"`
		List  []string        `json:"list"`

		Tree *map[matrix.UserID]map[string]json.RawMessage `json:"tree"`
	}
	for _, s := range []string{`{}`, `{"text":"a","count":1,"raw":{"a":[1,"]}"]},"list":["x"]}`, `{"text":"\u0000"}`, `{"a":1 , "text" : "\"" }`,
		`{"text":1}`, `[]`, ``, `{"te\u0078t":"x"}`, `{"count":1e2}`, "{\"raw\":-0.1\n}", `{"text":"a","text":null}`,
		`{"tree":null}`, `{"tree":{"@a:b":{"x":{"y":[1]},"x":null,"\u0078": "}"}, "@c:d":{} }}`, `{"tree":{"a":null}}`, `{"tree":{"a":1}}`, `{"tree":{"\ud800":{"a":[ ]}}}`} {
		f.Add([]byte(s))
	}
	var got *req
	rt := JSON("POST", "/_matrix/client/v3/x", func(_ context.Context, _ *Caller, q *req) (*struct{}, error) { got = q; return nil, nil }, NoAuth)
	h := serving(Options{}, rt)
	f.Fuzz(func(t *testing.T, body []byte) {
		got = nil
		a := ask(t, h, "POST", "/_matrix/client/v3/x", string(body))
		if a.Code != 200 {
			if a.Code != 400 || a.code() == "" {
				t.Fatalf("status %d: %s", a.Code, a.Body)
			}
			return
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(body, &members); err != nil {
			t.Fatalf("accepted %q: %v", body, err)
		}
		var want req
		for name, dst := range map[string]any{"text": &want.Text, "count": &want.Count, "raw": &want.Raw, "list": &want.List, "tree": &want.Tree} {
			if v, ok := members[name]; ok {
				if err := json.Unmarshal(v, dst); err != nil {
					t.Fatalf("accepted %q: %v", body, err)
				}
			}
		}
		if !reflect.DeepEqual(*got, want) || strings.Contains(got.Text, "\x00") {
			t.Fatalf("%+v: got %+v, want %+v", body, *got, want)
		}
	})
}
