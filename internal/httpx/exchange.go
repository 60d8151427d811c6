package httpx

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// exchange is one request and its answer: the response writer, the context and
// the caller of a handler in one allocation.
type exchange struct {
	http.ResponseWriter
	ctx    requestContext
	edge   *Edge
	route  *served
	caller Caller
	id     uint64
	status int // 0 until the answer begins
	start  time.Time
	err    error // what the handler failed with
	slash  bool  // a path segment is a lone %2F
}

// requestContext lets the exchange be found from a handler's context without
// another copy of the request.
type requestContext struct {
	context.Context
	x *exchange
}

type exchangeKey struct{}

func (c *requestContext) Value(key any) any {
	if _, ok := key.(exchangeKey); ok {
		return c.x
	}
	return c.Context.Value(key)
}

func fromContext(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// RequestID names the request that ctx belongs to, as it stands in the log; ""
// outside of a request.
func RequestID(ctx context.Context) string {
	if x := fromContext(ctx); x != nil {
		return x.requestID()
	}
	return ""
}

// RemoteAddr is the address of the client, behind trusted proxies; the zero
// address outside of a request.
func RemoteAddr(ctx context.Context) netip.Addr {
	if x := fromContext(ctx); x != nil {
		return x.caller.Addr
	}
	return netip.Addr{}
}

// Draining is closed when the server begins to shut down. A long poll that
// waits should then answer with what it has. Outside of a request it is nil,
// which never is ready.
func Draining(ctx context.Context) <-chan struct{} {
	if x := fromContext(ctx); x != nil {
		return x.edge.draining
	}
	return nil
}

func (x *exchange) requestID() string {
	return x.edge.idPrefix + strconv.FormatUint(x.id, 36)
}

// WriteHeader notes the status for log and metrics.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 && status >= 200 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	return x.ResponseWriter.Write(b)
}

// ReadFrom keeps the way open for the kernel to copy files.
func (x *exchange) ReadFrom(r io.Reader) (int64, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	return io.Copy(x.ResponseWriter, r)
}

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// finish runs deferred: it turns a panic into a 500, answers with the error if
// there is one, logs and counts.
func (x *exchange) finish(r *http.Request) {
	panicked := recover()
	if panicked == http.ErrAbortHandler {
		x.count()
		panic(panicked)
	}
	if panicked != nil {
		x.edge.metrics.Panicked()
		x.err = matrix.Internal(nil)
		x.edge.log.ErrorContext(&x.ctx, "A request panicked; this is a bug in the server",
			"method", r.Method, "route", x.pattern(), "panic", panicked, "stack", string(debug.Stack()))
	}
	broken := x.status != 0 && x.err != nil
	if x.err != nil && !broken {
		x.writeError(x.cutOff(r, x.err))
	}
	if x.status == 0 {
		x.status = http.StatusOK // net/http sends it for a silent handler
	}
	x.count()
	x.logAccess(r, panicked != nil)
	if broken {
		panic(http.ErrAbortHandler) // so that the client sees the answer is torn
	}
}

// cutOff tells a failure that comes from the end of the request, because the
// client left or the server ends, from one that is a fault.
func (x *exchange) cutOff(r *http.Request, err error) error {
	if e := matrix.AsError(err); e.Status < http.StatusInternalServerError || r.Context().Err() == nil {
		return err
	}
	return matrix.NewError(http.StatusServiceUnavailable, matrix.CodeUnknown, "The request was cut off; try again").Because(err)
}

func (x *exchange) count() {
	x.edge.metrics.InFlight(-1)
	observe := x.edge.unknown
	if x.route != nil {
		observe = x.route.observe
	}
	observe(x.status, x.edge.now().Sub(x.start))
}

// logAccess writes one line for the request: an error for a 5xx, debug
// otherwise. Of the URL only the path is logged: a query can hold the token.
func (x *exchange) logAccess(r *http.Request, logged bool) {
	level, text := slog.LevelDebug, "Request"
	if x.status >= 500 && !logged && r.Context().Err() == nil {
		level, text = slog.LevelError, "Request failed"
	}
	if !x.edge.log.Enabled(&x.ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 8)
	attrs = append(attrs, slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", x.status),
		slog.Duration("took", x.edge.now().Sub(x.start)), slog.String("addr", x.caller.Addr.String()))
	if x.caller.User != "" {
		attrs = append(attrs, slog.String("user", string(x.caller.User)))
	}
	if x.err != nil {
		attrs = append(attrs, slog.String("error", x.err.Error()))
	}
	x.edge.log.LogAttrs(&x.ctx, level, text, attrs...)
}

func (x *exchange) pattern() string {
	if x.route == nil {
		return ""
	}
	return x.route.Path
}
