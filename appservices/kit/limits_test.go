package kit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/dialer"
)

// hostile is a server that answers as it is told to, and counts what it could send.
type hostile struct {
	*httptest.Server
	how  atomic.Value // string
	sent atomic.Int64
}

var ways = []string{"endless", "slow", "silent", "huge", "header", "endless error"}

func newHostile(t *testing.T) *hostile {
	h := &hostile{}
	h.how.Store("")
	h.Server = httptest.NewServer(h)
	t.Cleanup(h.Close)
	return h
}

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	switch h.how.Load() {
	case "huge":
		w.Header().Set("Content-Length", "99999999999")
		_, _ = w.Write([]byte(`{"`))
	case "header":
		w.Header().Set("X", strings.Repeat("x", 32<<20))
	case "silent":
		<-r.Context().Done()
	case "slow":
		h.write(r, w, " ", 2*time.Millisecond)
	case "endless error":
		w.WriteHeader(http.StatusBadGateway)
		h.write(r, w, strings.Repeat(" ", 64<<10), 0)
	case "endless":
		h.write(r, w, strings.Repeat(" ", 64<<10), 0)
	}
}

// write sends a text again and again, until the client has gone.
func (h *hostile) write(r *http.Request, w http.ResponseWriter, text string, every time.Duration) {
	for r.Context().Err() == nil {
		n, err := io.WriteString(w, text)
		if h.sent.Add(int64(n)); err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		if every > 0 {
			select {
			case <-time.After(every):
			case <-r.Context().Done():
			}
		}
	}
}

// alone is a service that does not run, whose homeserver is at an address.
func alone(t *testing.T, kind, homeserver string) *Service {
	s, err := Open(t.Context(), Config{
		ID: "bot", User: "@bot:test", ASToken: "as", HSToken: "hs", Homeserver: homeserver, Database: dbtest.EmptyURL(t, kind), PublicURL: "http://bot.test",
		Log: slog.New(slog.DiscardHandler), Dialer: dialer.New(dialer.Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// buffers is what lies on the way between two programs.
const buffers = 16 << 20

// THREATS S2: no answer of a homeserver takes memory or time without end.
func TestHostileHomeserver(t *testing.T) {
	h := newHostile(t)
	s := alone(t, "sqlite", h.URL)
	if s.client.Client.Timeout != askTimeout {
		t.Errorf("a homeserver may take %v", s.client.Client.Timeout)
	}
	for name, c := range map[string]struct {
		limit int64
		ask   func(ctx context.Context) error
	}{
		"send": {maxReceipt, func(ctx context.Context) error {
			_, err := s.put(ctx, []byte("{}"), "rooms", "!a", "send", "x", "1")
			return err
		}},
		"join": {maxReceipt, func(ctx context.Context) error {
			_, err := s.join(ctx, item{room: "!a", content: []byte(`[]`)})
			return err
		}},
		"openid":      {maxReceipt, func(ctx context.Context) error { _, err := s.OpenID(ctx, "token"); return err }},
		"create":      {maxAnswer, func(ctx context.Context) error { _, err := s.createDirect(ctx, item{}, "@a:test"); return err }},
		"rooms":       {maxAnswer, func(ctx context.Context) error { _, err := s.joinedRooms(ctx); return err }},
		"history":     {maxAnswer, func(ctx context.Context) error { _, err := s.page(ctx, "!a", ""); return err }},
		"invitations": {maxAnswer, func(ctx context.Context) error { _, _, err := s.invited(ctx, nil); return err }},
		"greeting":    {maxAnswer, s.greet},
		"media": {maxAnswer, func(ctx context.Context) error {
			_, err := s.client.UploadBytes(ctx, []byte("x"), "text/plain")
			return err
		}},
	} {
		for _, how := range ways {
			s.client.Client.Timeout = 20 * time.Second
			if how == "slow" || how == "silent" {
				s.client.Client.Timeout = 300 * time.Millisecond
			}
			h.how.Store(how)
			h.sent.Store(0)
			began := time.Now()
			if err := c.ask(t.Context()); err == nil {
				t.Errorf("%s: an answer that is %s is good", name, how)
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("%s: an answer that is %s takes %v", name, how, took)
			}
			if sent := h.sent.Load(); sent > c.limit+buffers {
				t.Errorf("%s: of an answer that is %s %d bytes are read", name, how, sent)
			}
		}
	}
}

// THREATS S2: of a webhook's answer the status counts, and nothing else is read.
func TestHostileWebhooks(t *testing.T) {
	h := newHostile(t)
	s := alone(t, "sqlite", h.URL)
	if s.web.Timeout != hookTimeout {
		t.Errorf("a webhook may take %v", s.web.Timeout)
	}
	for _, how := range ways {
		s.web.Timeout = 20 * time.Second
		if how == "silent" {
			s.web.Timeout = 300 * time.Millisecond
		}
		h.how.Store(how)
		h.sent.Store(0)
		began := time.Now()
		_, err := s.callHook(t.Context(), item{lane: h.URL + "/hook", content: []byte(`{}`)})
		if taken := how == "endless" || how == "slow" || how == "huge"; (err == nil) != taken {
			t.Errorf("a webhook whose answer is %s gives %v", how, err)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("an answer that is %s takes %v", how, took)
		}
		if sent := h.sent.Load(); sent > buffers {
			t.Errorf("of an answer that is %s %d bytes are read", how, sent)
		}
	}
}

// pour sends a request whose body goes on and on, and gives the status that it is
// answered with, or 0 if it is cut, and what was sent.
func pour(t *testing.T, address, header, text string, every time.Duration) (status int, sent int64) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		n, err := io.WriteString(conn, strings.ReplaceAll(header, "\n", "\r\n")+"\r\n")
		for err == nil && text != "" {
			sent += int64(n)
			n, err = io.WriteString(conn, text)
			time.Sleep(every)
		}
	}()
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fscanf(conn, "HTTP/1.1 %d", &status)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		t.Errorf("%.60q is neither answered nor cut", header)
	}
	conn.Close()
	<-stopped
	return status, sent
}

// THREATS S2: no request takes memory or time without end, whoever sends it.
func TestHostileRequests(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		s := alone(t, kind, "http://homeserver.test")
		server := s.server()
		if server.ReadTimeout != time.Minute || server.WriteTimeout == 0 {
			t.Errorf("a request may take %v and %v", server.ReadTimeout, server.WriteTimeout)
		}
		server.ReadTimeout = 3 * time.Second
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(func() { _ = server.Close() })
		link := ""
		if err := s.Do(t.Context(), func(tx *Tx) error {
			link = strings.TrimPrefix(tx.Link("@a:test", id.RoomID("!a:test"), Action{Name: "x"}), "http://bot.test")
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		const chunked, huge = "Transfer-Encoding: chunked\n", "Content-Length: 99999999999\n"
		chunk := fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat(" ", 64<<10))
		for _, c := range []struct {
			what, header, text string
			every              time.Duration
			status             int
			limit              int64
		}{
			{"huge", "PUT /_matrix/app/v1/transactions/1 HTTP/1.1\nHost: x\nAuthorization: Bearer hs\n" + huge, " ", time.Millisecond, 413, buffers},
			{"endless", "PUT /_matrix/app/v1/transactions/1 HTTP/1.1\nHost: x\nAuthorization: Bearer hs\n" + chunked, chunk, 0, 413, maxTransaction + buffers},
			{"slow", "PUT /_matrix/app/v1/transactions/1 HTTP/1.1\nHost: x\nAuthorization: Bearer hs\nContent-Length: 9999999\n", " ", time.Millisecond, 0, buffers},
			{"a stranger's", "PUT /_matrix/app/v1/transactions/1 HTTP/1.1\nHost: x\nAuthorization: Bearer guess\n" + chunked, chunk, 0, 403, buffers},
			{"a ping", "POST /_matrix/app/v1/ping HTTP/1.1\nHost: x\nAuthorization: Bearer hs\n" + chunked, chunk, 0, 200, buffers},
			{"a dead link", "POST /link/none HTTP/1.1\nHost: x\n" + chunked, chunk, 0, 410, buffers},
			{"a link", "GET " + link + " HTTP/1.1\nHost: x\n" + huge, " ", time.Millisecond, 200, buffers},
			{"a header", "GET /link/none HTTP/1.1\nHost: x\nX: " + strings.Repeat("x", 2<<20) + "\n", "", 0, 431, buffers},
		} {
			status, sent := pour(t, l.Addr().String(), c.header, c.text, c.every)
			if status != c.status && !(c.status == 0 && status >= 400) || sent > c.limit {
				t.Errorf("%s: answered with %d after %d bytes", c.what, status, sent)
			}
		}
	}
}
