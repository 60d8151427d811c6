package httpx

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzPath: what a client escapes is what a handler sees, or the request is
// refused; and no request line leads to a 5xx.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"a", "", "/", "//", "/a", "a/", "%2F", "%", "..", ".", "é", "\x00", "\x00/", "\xff", "a b+c", "?", "#x", "{b}", "$"} {
		f.Add(s, "x", "q")
		f.Add("x", s, s)
		f.Add(s+"%2F#", "#"+s, s)
		f.Add("%2e%2e", "#"+s, s)
	}
	type request struct {
		A string  `path:"a"`
		B string  `path:"b"`
		Q *string `query:"q"`
	}
	var got *request
	h := serving(Options{},
		JSON("GET", "/_matrix/client/v3/x/{a}/y/{b}", func(_ context.Context, _ *Caller, q *request) (*struct{}, error) { got = q; return nil, nil }, NoAuth, TrailingSlash),
		JSON("GET", "/_matrix/client/v3/x/{a}", func(context.Context, *Caller, *struct {
			A string `path:"a"`
		}) (*struct{}, error) {
			return nil, nil
		}, NoAuth))
	f.Fuzz(func(t *testing.T, a, b, q string) {
		do := func(u *url.URL) int {
			got = nil
			w := httptest.NewRecorder()
			h.ServeHTTP(w, &http.Request{Method: "GET", URL: u, Header: http.Header{}, RemoteAddr: "192.0.2.1:1", Body: http.NoBody})
			if w.Code >= 500 || w.Code >= 300 && w.Code < 400 {
				t.Fatalf("%q: status %d: %s", u, w.Code, w.Body)
			}
			return w.Code
		}
		if u, err := url.ParseRequestURI("/_matrix/client/v3/x/" + a + "/y/" + b + "?" + q); err == nil {
			do(u)
			// Encoded in part only, as sloppy clients do: nothing is decoded twice.
			if got != nil && !strings.ContainsAny(a+b, "/?") {
				wantA, _ := url.PathUnescape(a)
				wantB, _ := url.PathUnescape(b)
				if got.A != wantA || got.B != wantB {
					t.Fatalf("%q: seen %+v", u, got)
				}
			}
		}
		u, err := url.ParseRequestURI("/_matrix/client/v3/x/" + url.PathEscape(a) + "/y/" + url.PathEscape(b) + "?q=" + url.QueryEscape(q))
		if err != nil {
			t.Fatal(err)
		}
		status := do(u)
		switch {
		case !isText(a) || !isText(b) || !isText(q):
			if got != nil || status != 400 && status != 404 {
				t.Fatalf("%q %q %q: status %d, seen %+v", a, b, q, status, got)
			}
		case a == "" || b == "" || a == "." || a == ".." || b == "." || b == "..":
			if got != nil {
				t.Fatalf("%q %q: seen %+v", a, b, got)
			}
		case got == nil || got.A != a || got.B != b || *got.Q != q || !utf8.ValidString(got.A):
			t.Fatalf("%q %q %q: status %d, seen %+v", a, b, q, status, got)
		}
	})
}
