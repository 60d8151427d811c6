package httpx

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Options are what an Edge is made of.
type Options struct {
	Auth           Authenticator                   // nil: no token is known
	Log            *slog.Logger                    // nil: slog.Default()
	Metrics        Metrics                         // nil: nothing is counted
	Limits         *Limiter                        // nil: no rate limits
	TrustedProxies []netip.Prefix                  // whose X-Forwarded-For is believed
	NoQueryToken   bool                            // refuse ?access_token=
	Now            func() time.Time                // nil: time.Now
	Health         func(ctx context.Context) error // asked by /health; nil: always healthy
}

// Edge routes requests to the features. Add everything before serving.
type Edge struct {
	auth      Authenticator
	log       *slog.Logger
	metrics   Metrics
	unknown   func(int, time.Duration) // counts requests of no route
	limits    *Limiter
	proxies   proxies
	noQuery   bool
	now       func() time.Time
	surfaces  map[string]*surface
	nowhere   *surface // answers for the paths of no surface
	idPrefix  string
	lastID    atomic.Uint64
	draining  chan struct{}
	drainOnce sync.Once
}

// New makes an edge that serves /health only.
func New(o Options) *Edge {
	e := &Edge{
		auth: o.Auth, log: o.Log, metrics: o.Metrics, limits: o.Limits, proxies: o.TrustedProxies, noQuery: o.NoQueryToken,
		now: o.Now, surfaces: make(map[string]*surface), idPrefix: rand.Text()[:6] + "-", draining: make(chan struct{}),
	}
	if e.log == nil {
		e.log = slog.Default()
	}
	if _, ok := e.log.Handler().(logHandler); !ok {
		e.log = slog.New(LogHandler(e.log.Handler()))
	}
	if e.now == nil {
		e.now = time.Now
	}
	if e.metrics == nil {
		e.metrics = noMetrics{}
	}
	e.unknown = e.metrics.Route("unknown", "", "unknown")
	for _, def := range surfaceDefs {
		e.surfaces[def.name] = newSurface(e, def)
	}
	e.nowhere = newSurface(e, surfaceDef{name: "unknown", cors: true})
	e.Add("health", health(o.Health))
	return e
}

// Add gives routes to a surface. A route that is malformed, outside of the
// surface's prefixes or there already is a panic: a mistake in the program.
func (e *Edge) Add(surface string, routes ...Route) {
	s := e.surfaces[surface]
	if s == nil {
		panic(fmt.Sprintf("httpx: there is no surface %q", surface))
	}
	for _, rt := range routes {
		s.add(rt)
	}
}

// Drain tells the long polls to end. It may be called more than once.
func (e *Edge) Drain() { e.drainOnce.Do(func() { close(e.draining) }) }

// Surfaces lists the names that Handler takes.
func Surfaces() []string {
	names := make([]string, 0, len(surfaceDefs))
	for _, def := range surfaceDefs {
		names = append(names, def.name)
	}
	return names
}

// Handler serves the named surfaces and those that belong to them: client
// brings wellknown and admin, federation brings keys and wellknown, and all
// bring health.
func (e *Edge) Handler(serves ...string) http.Handler {
	wanted := append([]string{"health"}, serves...)
	if slices.Contains(serves, "client") {
		wanted = append(wanted, "wellknown", "admin")
	}
	if slices.Contains(serves, "federation") {
		wanted = append(wanted, "keys", "wellknown")
	}
	var mounts []mount
	for _, def := range surfaceDefs {
		if slices.Contains(wanted, def.name) {
			for _, p := range def.prefixes {
				mounts = append(mounts, mount{p, e.surfaces[def.name]})
			}
		}
	}
	// The first match counts: the longer prefix goes first.
	slices.SortStableFunc(mounts, func(a, b mount) int { return len(b.prefix) - len(a.prefix) })
	router := mux.NewRouter()
	for _, m := range mounts {
		router.MatcherFunc(m.matches).Handler(m.s)
	}
	return &entrance{router, e.nowhere}
}

// mount is a surface at a prefix.
type mount struct {
	prefix string
	s      *surface
}

// matches compares with the path as it was sent: an encoded slash is none.
func (m mount) matches(r *http.Request, _ *mux.RouteMatch) bool {
	path := sentPath(r)
	return path == m.prefix || strings.HasSuffix(m.prefix, "/") && strings.HasPrefix(path, m.prefix)
}

// entrance asks the router for the surface and calls it. The router's own
// ServeHTTP would copy every request twice for variables that nobody reads.
type entrance struct {
	router  *mux.Router
	nowhere *surface
}

func (t *entrance) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var m mux.RouteMatch
	if t.router.Match(r, &m) {
		m.Handler.ServeHTTP(w, r)
		return
	}
	t.nowhere.ServeHTTP(w, r)
}

// token finds the access token of a request.
// spec: client-server#using-access-tokens
func (e *Edge) token(r *http.Request) string {
	if header := r.Header["Authorization"]; len(header) > 0 {
		scheme, token, _ := strings.Cut(header[0], " ")
		if strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token)
		}
	}
	if e.noQuery || r.URL.RawQuery == "" {
		return ""
	}
	return queryValue(r.URL.RawQuery, "access_token")
}

// authenticate fills x.caller.
func (e *Edge) authenticate(x *exchange, r *http.Request, rt *Route) error {
	if rt.access == tokenIgnored {
		return nil
	}
	token := e.token(r)
	if token == "" {
		if rt.access == tokenOptional {
			return nil
		}
		return matrix.MissingToken()
	}
	if e.auth == nil {
		return matrix.UnknownToken(false)
	}
	c, err := e.auth.Authenticate(&x.ctx, r, token)
	if err != nil {
		return err
	}
	addr := x.caller.Addr
	x.caller = *c
	x.caller.Addr = addr
	if c.Guest && !rt.guests {
		return matrix.NewError(http.StatusForbidden, matrix.CodeGuestAccessForbidden, "Guests may not do this; register an account")
	}
	if rt.admin && !c.Admin {
		return matrix.Forbidden("Only an administrator of the server can do that")
	}
	return nil
}
