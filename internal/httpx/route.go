package httpx

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
)

// DefaultMaxBody is the largest request body of a route without MaxBody.
const DefaultMaxBody = 1 << 20

// Route is one endpoint: made by JSON or Raw, served once Edge.Add has it.
type Route struct {
	Method string
	Path   string // in full, in http.ServeMux syntax: "/_matrix/client/v3/rooms/{roomId}/leave"

	access    access
	guests    bool
	admin     bool
	emptyBody bool
	limit     string // rate-limit class, "" for none
	maxBody   int64
	versions  []string // further version segments under which the path is known
	slash     bool     // the path is known with a trailing slash, too
	call      func(x *exchange, r *http.Request) error
}

type access uint8

const (
	tokenNeeded access = iota
	tokenOptional
	tokenIgnored
)

// Option changes how a route is served.
type Option func(*Route)

// NoAuth serves everybody and looks at no token.
func NoAuth(r *Route) { r.access = tokenIgnored }

// OptionalAuth serves everybody; a token that is given must be valid.
func OptionalAuth(r *Route) { r.access = tokenOptional }

// GuestsAllowed opens the route to guests.
// spec: client-server#guest-access
func GuestsAllowed(r *Route) { r.guests = true }

// AdminOnly closes the route to all but the server's administrators.
func AdminOnly(r *Route) { r.admin = true }

// EmptyBodyOK takes an absent body as {}.
func EmptyBodyOK(r *Route) { r.emptyBody = true }

// TrailingSlash makes the path followed by "/" the same route.
func TrailingSlash(r *Route) { r.slash = true }

// Limit puts the route into a rate-limit class such as "send".
func Limit(class string) Option { return func(r *Route) { r.limit = class } }

// MaxBody caps the request body at n bytes.
func MaxBody(n int64) Option { return func(r *Route) { r.maxBody = n } }

// Versions makes the path known under further version segments: a route at
// /_matrix/client/v3/x with Versions("unstable/org.example") is served at
// /_matrix/client/unstable/org.example/x as well. Routes at v3 are always
// served at r0 too, which older clients use.
func Versions(v ...string) Option {
	return func(r *Route) { r.versions = append(r.versions, v...) }
}

// JSON makes a route that takes and gives JSON.
//
// Q is a struct. Its fields are tagged `path:"roomId"`, `query:"limit"` (string
// kinds, integers, bool, pointers to them, slices of string kinds) or
// `json:"name"` (a member of the body). One field of type json.RawMessage
// tagged `body:"raw"` takes the whole body, a JSON object. Embedded structs are
// looked into. Identifiers of internal/matrix in path and query are checked
// against their grammar.
//
// The answer is marshalled, unless *A is one of these: RawJSON, which is
// written as it is; a json.Marshaler, whose output is written as it is; an
// io.WriterTo, which streams JSON. A method `HTTPStatus() int` on A sets the
// status; it is 200 otherwise. A nil answer is {}.
func JSON[Q, A any](method, path string, h func(ctx context.Context, c *Caller, q *Q) (*A, error), opts ...Option) Route {
	rt := newRoute(method, path, opts)
	b := compile(reflect.TypeFor[Q](), path)
	rt.call = func(x *exchange, r *http.Request) error {
		q := new(Q)
		if err := b.bind(x, r, &rt, reflect.ValueOf(q).Elem()); err != nil {
			return err
		}
		a, err := h(&x.ctx, &x.caller, q)
		if err != nil {
			return err
		}
		if a == nil {
			return x.writeJSON(nil)
		}
		return x.writeJSON(a)
	}
	return rt
}

// Raw makes a route whose handler reads the request and writes the answer by
// itself. An error becomes the answer if nothing was written yet. The body is
// capped; path values come from r.PathValue.
func Raw(method, path string, h func(w http.ResponseWriter, r *http.Request, c *Caller) error, opts ...Option) Route {
	rt := newRoute(method, path, opts)
	rt.call = func(x *exchange, r *http.Request) error {
		r = r.WithContext(&x.ctx)
		r.Body = http.MaxBytesReader(x, r.Body, rt.maxBody)
		return h(x, r, &x.caller)
	}
	return rt
}

func newRoute(method, path string, opts []Option) Route {
	if method == "" || !strings.HasPrefix(path, "/") {
		panic(fmt.Sprintf("httpx: a route needs a method and a full path: %q %q", method, path))
	}
	rt := Route{Method: method, Path: path, maxBody: DefaultMaxBody}
	for _, o := range opts {
		o(&rt)
	}
	return rt
}

// paths lists every path under which the route is known, the first one being
// its own.
func (r *Route) paths() []string {
	all := []string{r.Path}
	root, rest, versioned := splitVersion(r.Path)
	if versioned {
		versions := r.versions
		if strings.HasPrefix(r.Path, root+"v3/") {
			versions = append([]string{"r0"}, versions...)
		}
		for _, v := range versions {
			all = append(all, root+v+"/"+rest)
		}
	} else if len(r.versions) > 0 {
		panic(fmt.Sprintf("httpx: %s has no version segment", r.Path))
	}
	if r.slash {
		for _, p := range slices.Clone(all) {
			all = append(all, p+"/{$}")
		}
	}
	slices.Sort(all[1:])
	return slices.Compact(all)
}

// splitVersion parts "/_matrix/client/v3/x" into "/_matrix/client/" and "x".
func splitVersion(path string) (root, rest string, ok bool) {
	parts := strings.SplitN(path, "/", 5)
	if len(parts) < 5 || parts[1] != "_matrix" {
		return "", "", false
	}
	return "/_matrix/" + parts[2] + "/", parts[4], true
}
