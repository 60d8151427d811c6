package transport

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/teahouse-chat/teahouse/internal/dialer"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	maxRatio   = 100     // of decompression
	ratioFloor = 1 << 20 // bytes that may come out of whatever is sent
)

// ErrBomb is read from a compressed answer that grows suspiciously.
var ErrBomb = errors.New("transport: the answer decompresses to far more than was sent")

// RemoteError is an error that another server answered with. It is not a
// *matrix.Error: what it says is true between servers, not of our client's
// request. Matrix turns it into one where that fits.
type RemoteError struct {
	Server     matrix.ServerName
	Status     int
	Code       matrix.Code // "" if the body was no standard error
	Text       string
	RetryAfter time.Duration   // when to come back, if it told
	Body       json.RawMessage // the error as it came, if it is JSON
}

func (e *RemoteError) Error() string {
	return fmt.Sprintf("%s answers with %d %s: %s", e.Server, e.Status, e.Code, e.Text)
}

// Matrix is the error for a client on whose behalf the server was asked. A
// refusal is passed on; other failures are the server's.
func (e *RemoteError) Matrix() *matrix.Error {
	if e.Code == "" || e.Status < 400 || e.Status > 499 || e.Status == http.StatusUnauthorized {
		return matrix.NewError(http.StatusBadGateway, matrix.CodeUnknown, "%s could not answer the request", e.Server).Because(e)
	}
	return matrix.NewError(e.Status, e.Code, "%s: %s", e.Server, e.Text).Because(e)
}

// remoteError reads the error of an answer and closes it.
// spec: client-server#standard-error-response
func remoteError(server matrix.ServerName, answer *http.Response) *RemoteError {
	e := &RemoteError{Server: server, Status: answer.StatusCode}
	defer func() { _ = answer.Body.Close() }()
	if seconds, err := strconv.ParseUint(answer.Header.Get("Retry-After"), 10, 16); err == nil {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	body, err := open(answer, maxErrorBody)
	if err != nil {
		return e
	}
	text, err := io.ReadAll(body)
	if err != nil || !json.Valid(text) {
		return e
	}
	e.Body = text
	var told struct {
		Code  matrix.Code `json:"errcode"`
		Text  string      `json:"error"`
		Retry float64     `json:"retry_after_ms"`
	}
	if json.Unmarshal(text, &told) == nil && len(told.Code) <= 100 {
		e.Code, e.Text = told.Code, printable(told.Text)
		if told.Retry > 0 && told.Retry < 1e9 {
			e.RetryAfter = time.Duration(told.Retry) * time.Millisecond
		}
	}
	return e
}

// printable makes a stranger's text fit for logs and answers.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + "…"
	}
	return s
}

// open bounds the body of an answer and decompresses it.
func open(answer *http.Response, limit int64) (io.ReadCloser, error) {
	switch encoding := strings.ToLower(answer.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
		if answer.ContentLength > limit {
			return nil, dialer.ErrTooLarge
		}
		return dialer.Capped(answer.Body, limit), nil
	case "gzip", "x-gzip":
		return dialer.Capped(&gunzip{sent: counter{Reader: answer.Body}, body: answer.Body}, limit), nil
	default:
		return nil, fmt.Errorf("transport: the answer is encoded as %q, which was not asked for", printable(encoding))
	}
}

// gunzip decompresses as long as the ratio is believable.
type gunzip struct {
	sent counter
	body io.Closer
	z    *gzip.Reader
	out  int64
	err  error
}

func (g *gunzip) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	if g.z == nil {
		if g.z, g.err = gzip.NewReader(&g.sent); g.err != nil {
			return 0, g.err
		}
	}
	n, err := g.z.Read(p)
	if g.out += int64(n); g.out > ratioFloor && g.out/maxRatio > g.sent.n {
		g.err = ErrBomb
		return 0, ErrBomb
	}
	return n, err
}

func (g *gunzip) Close() error { return g.body.Close() }

type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

// watched is the body of an answer that is given up when nothing comes.
type watched struct {
	io.ReadCloser
	stall *time.Timer
	end   func()
}

// Watch makes a body whose request is cancelled when nothing of it comes for some
// time, and that calls end when it is closed.
func Watch(body io.ReadCloser, cancel context.CancelFunc, end func()) io.ReadCloser {
	w := &watched{body, time.AfterFunc(stallTime, cancel), end}
	w.stall.Stop()
	return w
}

// Read lets the clock run while it waits for the server, not while its caller
// is busy with what came.
func (w *watched) Read(p []byte) (int, error) {
	w.stall.Reset(stallTime)
	defer w.stall.Stop()
	return w.ReadCloser.Read(p)
}

// Close gives the server's slot back. It may be called again.
func (w *watched) Close() error {
	w.stall.Stop()
	err := w.ReadCloser.Close()
	if w.end != nil {
		w.end()
		w.end = nil
	}
	return err
}
