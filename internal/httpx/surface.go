package httpx

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// surfaceDef is a part of the API that a listener may serve. A prefix without a
// slash at its end is one path.
type surfaceDef struct {
	name     string
	prefixes []string
	cors     bool // browsers of any origin may use it
}

var surfaceDefs = []surfaceDef{
	{"client", []string{"/_matrix/client/"}, true},
	{"federation", []string{"/_matrix/federation/"}, false},
	{"media", []string{"/_matrix/media/", "/_matrix/client/v1/media/"}, true},
	{"keys", []string{"/_matrix/key/"}, false},
	{"admin", []string{"/_synapse/admin/", "/_teahouse/"}, true},
	{"wellknown", []string{"/.well-known/matrix/"}, true},
	{"health", []string{"/health"}, false},
	{"metrics", []string{"/metrics"}, false},
}

// surface serves the routes of one part of the API.
type surface struct {
	surfaceDef
	edge   *Edge
	mux    *http.ServeMux
	routes []Route
}

// served is a route at its place.
type served struct {
	Route
	surface *surface
	names   []string // of the wildcards
	observe func(status int, took time.Duration)
}

func newSurface(e *Edge, def surfaceDef) *surface {
	s := &surface{surfaceDef: def, edge: e, mux: http.NewServeMux()}
	s.mux.HandleFunc("/", s.unrecognized)
	return s
}

func (s *surface) add(rt Route) {
	if !slices.ContainsFunc(s.prefixes, func(p string) bool {
		return rt.Path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(rt.Path, p)
	}) {
		panic(fmt.Sprintf("httpx: %s does not belong to the surface %s", rt.Path, s.name))
	}
	sv := &served{Route: rt, surface: s, names: pathNames(rt.Path), observe: s.edge.metrics.Route(s.name, rt.Method, rt.Path)}
	for _, p := range rt.paths() {
		s.mux.HandleFunc(rt.Method+" "+p, sv.serve)
	}
	s.routes = append(s.routes, rt)
}

// ServeHTTP is the frame around every request.
func (s *surface) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := s.edge
	x := &exchange{ResponseWriter: w, edge: e, id: e.lastID.Add(1), start: e.now()}
	x.ctx = requestContext{r.Context(), x}
	x.caller.Addr = e.proxies.client(r)
	defer x.finish(r)
	if s.cors && s.setCORS(w.Header(), r) {
		x.WriteHeader(http.StatusNoContent)
		return
	}
	e.metrics.InFlight(1)
	if x.err = x.checkPath(r); x.err == nil {
		s.mux.ServeHTTP(x, r)
	}
}

// serve runs a route: token, limit, then the binding and the handler.
func (sv *served) serve(w http.ResponseWriter, r *http.Request) {
	x := w.(*exchange)
	x.route = sv
	if x.slash {
		for _, name := range sv.names {
			r.SetPathValue(name, strings.ReplaceAll(r.PathValue(name), loneSlash, "/"))
		}
	}
	x.err = x.edge.authenticate(x, r, &sv.Route)
	if x.err == nil && sv.limit != "" {
		x.err = x.edge.limits.Take(sv.limit, &x.caller)
	}
	if x.err == nil {
		x.err = sv.call(x, r)
	}
}

// loneSlash stands for a path segment that is "/" after decoding. http.ServeMux
// takes such a segment for the end of the path. No request can hold it, since
// NUL is refused.
const loneSlash = "\x00/"

// checkPath refuses paths that http.ServeMux would redirect, and text that is
// none.
func (x *exchange) checkPath(r *http.Request) error {
	path := sentPath(r)
	if strings.Contains(path, "//") || strings.Contains(path, "/./") || strings.Contains(path, "/../") ||
		strings.HasSuffix(path, "/.") || strings.HasSuffix(path, "/..") {
		return matrix.Unrecognized(http.StatusNotFound)
	}
	if !isText(r.URL.Path) {
		return matrix.InvalidParam("The path holds text that is not valid UTF-8 or has the character U+0000")
	}
	if r.URL.RawPath == "" {
		return nil
	}
	lone := strings.Contains(path, "/%2F/") || strings.Contains(path, "/%2f/") ||
		strings.HasSuffix(path, "/%2F") || strings.HasSuffix(path, "/%2f")
	if lone || r.URL.EscapedPath() != path {
		return x.rewritePath(r, path)
	}
	return nil
}

// rewritePath encodes a path again, segment by segment. http.ServeMux could not
// tell its segments as they came: one is a lone slash, or there is a character
// such as # that clients should have encoded, which makes net/url forget which
// slashes were.
func (x *exchange) rewritePath(r *http.Request, path string) error {
	segs := strings.Split(path, "/")
	for i, seg := range segs {
		text, err := url.PathUnescape(seg)
		if err != nil {
			return matrix.InvalidParam("The path is not valid percent-encoded text").Because(err)
		}
		if text == "/" {
			text, x.slash = loneSlash, true
		}
		segs[i] = url.PathEscape(text)
		if text == "." || text == ".." {
			segs[i] = strings.ReplaceAll(text, ".", "%2E") // a name, not a step
		}
	}
	rewritten := *r.URL
	rewritten.RawPath = strings.Join(segs, "/")
	var err error
	if rewritten.Path, err = url.PathUnescape(rewritten.RawPath); err != nil {
		return matrix.InvalidParam("The path is not valid percent-encoded text").Because(err)
	}
	r.URL = &rewritten
	return nil
}

// sentPath is the path with its encoded slashes as they came. net/url keeps
// RawPath only where it differs from the usual encoding of Path, and then an
// encoded slash is in it.
func sentPath(r *http.Request) string {
	if r.URL.RawPath != "" {
		return r.URL.RawPath
	}
	return r.URL.Path
}

// unrecognized answers for paths and methods that nobody serves.
// spec: client-server#common-error-codes
func (s *surface) unrecognized(w http.ResponseWriter, r *http.Request) {
	x := w.(*exchange)
	var allowed []string
	probe := *r
	for _, m := range []string{"DELETE", "GET", "PATCH", "POST", "PUT"} {
		probe.Method = m
		if _, pattern := s.mux.Handler(&probe); pattern != "/" {
			allowed = append(allowed, m)
		}
	}
	if len(allowed) == 0 {
		x.err = matrix.Unrecognized(http.StatusNotFound)
		return
	}
	if s.cors {
		allowed = append(allowed, "OPTIONS")
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	x.err = matrix.Unrecognized(http.StatusMethodNotAllowed)
}

var (
	corsOrigin  = []string{"*"}
	corsMethods = []string{"GET, POST, PUT, DELETE, OPTIONS"}
	corsHeaders = []string{"X-Requested-With, Content-Type, Authorization"}

	// Uploads in parts, by the tus protocol, need more.
	resumablePrefix  = "/_matrix/media/unstable/"
	resumableMethods = []string{"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}
	resumableHeaders = []string{"X-Requested-With, Content-Type, Authorization, Tus-Resumable, Upload-Length, Upload-Metadata, Upload-Offset"}
	resumableExposed = []string{"Location, Tus-Resumable, Upload-Length, Upload-Offset, Matrix-Content-Uri"}
)

// setCORS opens an answer to web pages of every origin and tells whether the
// request was nothing but the question.
// spec: client-server#web-browser-clients
func (s *surface) setCORS(h http.Header, r *http.Request) bool {
	h["Access-Control-Allow-Origin"] = corsOrigin
	if s.name == "media" && strings.HasPrefix(r.URL.Path, resumablePrefix) {
		h["Access-Control-Allow-Methods"], h["Access-Control-Allow-Headers"] = resumableMethods, resumableHeaders
		h["Access-Control-Expose-Headers"] = resumableExposed
	} else {
		h["Access-Control-Allow-Methods"], h["Access-Control-Allow-Headers"] = corsMethods, corsHeaders
	}
	return r.Method == http.MethodOptions
}

func health(ok func(context.Context) error) Route {
	return Raw("GET", "/health", func(w http.ResponseWriter, r *http.Request, _ *Caller) error {
		x := fromContext(r.Context())
		select {
		case <-x.edge.draining:
			return matrix.NewError(http.StatusServiceUnavailable, matrix.CodeUnknown, "The server is shutting down")
		default:
		}
		if ok != nil {
			if err := ok(r.Context()); err != nil {
				return matrix.NewError(http.StatusServiceUnavailable, matrix.CodeUnknown, "The server is not healthy; see its log").Because(err)
			}
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, err := w.Write([]byte("OK"))
		return err
	}, NoAuth)
}
