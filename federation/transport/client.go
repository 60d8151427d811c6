package transport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/teahouse-chat/teahouse/federation/discovery"
	"github.com/teahouse-chat/teahouse/internal/dialer"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const (
	defaultTime      = 30 * time.Second
	defaultMaxAnswer = 10 << 20
	handshakeTime    = 10 * time.Second
	stallTime        = 30 * time.Second // without a byte of the answer's body
	pingTime         = 15 * time.Second // without an answer to it, a connection is dead
	idleTime         = 2 * time.Minute  // of a connection
	perDestination   = 16               // requests at a time
	maxErrorBody     = 64 << 10
)

// Options are what a Client is made of.
type Options struct {
	Server    matrix.ServerName // ourselves
	Key       event.SigningKey
	Discovery *discovery.Resolver
	Dialer    *dialer.Dialer
	RootCAs   *x509.CertPool // nil: the system's; see Authorities
	Insecure  bool           // certificates are not verified; for tests
	Policy    *Policy
	UserAgent string
	// PerDestination is how many requests to one server run at a time; 0 means 16.
	PerDestination int
}

// Client asks other servers. It is safe for concurrent use.
type Client struct {
	o     Options
	http  *http.Transport
	tls   *tls.Config
	slots slots
}

// Authorities gives the system's certificate authorities and those of a PEM file.
func Authorities(file string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return pool, nil
}

// New makes a client.
func New(o Options) *Client {
	if o.PerDestination == 0 {
		o.PerDestination = perDestination
	}
	c := &Client{o: o, slots: slots{limit: o.PerDestination, of: map[matrix.ServerName]*slot{}}}
	c.tls = &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs, InsecureSkipVerify: o.Insecure,
		NextProtos: []string{"h2", "http/1.1"}, ClientSessionCache: tls.NewLRUClientSessionCache(1000),
	}
	c.http = &http.Transport{
		DialTLSContext:         c.dial,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // decompressed here, with a cap on the ratio
		MaxIdleConns:           2000,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        idleTime,
		MaxResponseHeaderBytes: 64 << 10,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingTime, PingTimeout: pingTime},
	}
	return c
}

// Close drops the connections that are idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Request is what is asked of a server.
type Request struct {
	Destination matrix.ServerName
	Method      string
	Path        string // escaped; see Path
	Query       url.Values
	Content     []byte // a JSON object; nil for none
	Unsigned    bool   // for what everybody may ask
	Timeout     time.Duration
	MaxAnswer   int64 // bytes, decompressed; 0 means 10 MiB
}

// Path joins a prefix and the segments that follow it, escaped.
func Path(prefix string, segments ...string) string {
	var b strings.Builder
	b.WriteString(strings.TrimRight(prefix, "/"))
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(s))
	}
	return b.String()
}

// ErrNotAllowed is the failure of a request to a server that the policy excludes.
var ErrNotAllowed = errors.New("transport: there is no federation with this server")

// UnreachableError says that no answer came, or none that could be read.
type UnreachableError struct {
	Server matrix.ServerName
	Err    error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("%s cannot be reached: %v", e.Server, e.Err)
}

// Unwrap gives the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// JSON asks a server and decodes its answer, if answer is not nil. It fails with
// a *RemoteError, an *UnreachableError or ErrNotAllowed.
func (c *Client) JSON(ctx context.Context, r Request, answer any) error {
	text, err := c.Do(ctx, r)
	if err != nil || answer == nil {
		return err
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return &UnreachableError{r.Destination, fmt.Errorf("its answer is not what it should be: %w", err)}
	}
	return nil
}

// Do asks a server and gives the body of its answer.
func (c *Client) Do(ctx context.Context, r Request) ([]byte, error) {
	body, err := c.Stream(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, &UnreachableError{r.Destination, err}
	}
	return text, nil
}

// Stream asks a server and gives the body of its answer to be read piece by
// piece, and closed. Request.Timeout includes the reading.
func (c *Client) Stream(ctx context.Context, r Request) (io.ReadCloser, error) {
	reply, err := c.Open(ctx, r)
	if err != nil {
		return nil, err
	}
	return reply.Body, nil
}

// Reply is what a server answered with success.
type Reply struct {
	Header http.Header
	Body   io.ReadCloser
}

// Open is Stream for an answer that is no JSON, so that its header matters.
func (c *Client) Open(ctx context.Context, r Request) (*Reply, error) {
	if r.Destination == c.o.Server {
		return nil, fmt.Errorf("%w: it is this one", ErrNotAllowed)
	}
	if !c.o.Policy.Allows(r.Destination) {
		return nil, fmt.Errorf("%w: %s", ErrNotAllowed, r.Destination)
	}
	if r.Timeout == 0 {
		r.Timeout = defaultTime
	}
	if r.MaxAnswer == 0 {
		r.MaxAnswer = defaultMaxAnswer
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.Timeout, errSlow)
	release, err := c.slots.take(ctx, r.Destination)
	if err != nil {
		cancel()
		return nil, &UnreachableError{r.Destination, context.Cause(ctx)}
	}
	end := func() { cancel(); release() }
	answer, err := c.send(ctx, &r)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = errors.Join(cause, err)
		}
		end()
		return nil, &UnreachableError{r.Destination, err}
	}
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		err := remoteError(r.Destination, answer)
		end()
		return nil, err
	}
	body, err := open(answer, r.MaxAnswer)
	if err != nil {
		_ = answer.Body.Close()
		end()
		return nil, &UnreachableError{r.Destination, err}
	}
	return &Reply{answer.Header, Watch(body, cancel, end)}, nil
}

var errSlow = errors.New("transport: the answer takes too long")

// send tries the targets of a server until one can be connected to.
func (c *Client) send(ctx context.Context, r *Request) (*http.Response, error) {
	targets, err := c.o.Discovery.Resolve(ctx, r.Destination)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, t := range targets {
		request, err := c.request(ctx, r, t)
		if err != nil {
			return nil, err
		}
		answer, err := c.http.RoundTrip(request)
		if err == nil {
			return answer, nil
		}
		errs = append(errs, err)
		if _, ok := errors.AsType[*dialError](err); !ok || ctx.Err() != nil {
			return nil, errors.Join(errs...) // the server may have got it
		}
	}
	c.o.Discovery.Forget(r.Destination)
	return nil, errors.Join(errs...)
}

type targetKey struct{}

// request makes the HTTP request for a target. The URL's host only tells the
// connections of different targets apart; dial takes the target from the context.
func (c *Client) request(ctx context.Context, r *Request, t discovery.Target) (*http.Request, error) {
	target := r.Path
	if len(r.Query) > 0 {
		target += "?" + r.Query.Encode()
	}
	u, err := url.Parse("https://" + poolName(t) + target)
	if err != nil {
		return nil, err
	}
	var body io.Reader
	if r.Content != nil {
		body = bytes.NewReader(r.Content)
	}
	request, err := http.NewRequestWithContext(context.WithValue(ctx, targetKey{}, t), r.Method, u.String(), body)
	if err != nil {
		return nil, err
	}
	request.Host = t.Host
	h := request.Header
	h.Set("Accept-Encoding", "gzip")
	h.Set("User-Agent", c.o.UserAgent)
	if r.Content != nil {
		h.Set("Content-Type", "application/json")
	}
	if r.Method == http.MethodPut {
		h["Idempotency-Key"] = nil // sent again, without this header, if a kept connection turns out dead
	}
	if !r.Unsigned {
		l := line{Method: r.Method, URI: request.URL.RequestURI(), Origin: c.o.Server, Destination: r.Destination}
		header, err := sign(l, r.Content, c.o.Key)
		if err != nil {
			return nil, err
		}
		h.Set("Authorization", header)
	}
	return request, nil
}

func poolName(t discovery.Target) string {
	sum := sha256.Sum256([]byte(t.Address + "\x00" + t.TLSName))
	return hex.EncodeToString(sum[:16]) + ".invalid"
}

// dialError is a failure before anything was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// dial connects to the target of the context and verifies its certificate.
// spec: server-server#tls
func (c *Client) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	t, ok := ctx.Value(targetKey{}).(discovery.Target)
	if !ok {
		return nil, &dialError{errors.New("transport: no target to dial")}
	}
	raw, err := c.o.Dialer.DialContext(ctx, network, t.Address)
	if err != nil {
		return nil, &dialError{err}
	}
	config := c.tls.Clone()
	config.ServerName = t.TLSName
	conn := tls.Client(raw, config)
	limited, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	if err := conn.HandshakeContext(limited); err != nil {
		_ = raw.Close()
		return nil, &dialError{fmt.Errorf("TLS with %s as %s: %w", t.Address, t.TLSName, err)}
	}
	return conn, nil
}
