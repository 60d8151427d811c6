package testrig

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/federation/discovery"
	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/dialer"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// Peer is a server that the test plays itself. It publishes its keys, signs what
// it sends, and answers as the test says; nothing keeps it from being hostile.
type Peer struct {
	Name   matrix.ServerName
	Key    event.SigningKey
	Client *transport.Client // asks others, with its signature

	t   testing.TB
	mux *http.ServeMux
}

// NewPeer puts a server on the network that knows nothing but its keys, and takes
// every transaction. It is gone when the test ends.
func NewPeer(t testing.TB, n *Network, name matrix.ServerName) *Peer {
	t.Helper()
	key, err := keys.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &Peer{Name: name, Key: key, t: t, mux: http.NewServeMux()}
	p.connect(n)
	p.publish()
	p.serve(n)
	return p
}

// connect makes the client by which the peer asks others.
func (p *Peer) connect(n *Network) {
	p.t.Helper()
	dial := dialer.New(dialer.Options{Resolve: n.Resolve, Dial: n.Dial})
	roots, err := transport.Authorities(n.Authority(p.t, p.t.TempDir()))
	if err != nil {
		p.t.Fatal(err)
	}
	web := discovery.ClientOptions()
	web.TLS = &tls.Config{RootCAs: roots}
	resolver, err := discovery.New(discovery.Options{
		HTTP: dial.Client(web), LookupSRV: n.LookupSRV, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.Client = transport.New(transport.Options{
		Server: p.Name, Key: p.Key, Discovery: resolver, Dialer: dial, RootCAs: roots, UserAgent: "peer",
	})
	p.t.Cleanup(p.Client.Close)
}

// publish answers for the peer's keys.
func (p *Peer) publish() {
	ring, err := keys.New(keys.Options{Server: p.Name, Keys: keys.File{Current: p.Key}, Now: time.Now})
	if err != nil {
		p.t.Fatal(err)
	}
	p.mux.HandleFunc("GET /_matrix/key/v2/server", func(w http.ResponseWriter, _ *http.Request) {
		answer, err := ring.Published()
		if err != nil {
			p.t.Error(err)
		}
		_, _ = w.Write(answer)
	})
}

func (p *Peer) serve(n *Network) {
	p.t.Helper()
	l, err := n.Listen("tcp", p.Name.Host()+":8448")
	if err != nil {
		p.t.Fatal(err)
	}
	cert, key := n.Certificate(p.t, p.t.TempDir(), p.Name.Host())
	srv := &http.Server{Handler: p.mux, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	go func() { _ = srv.ServeTLS(l, cert, key) }()
	p.t.Cleanup(func() { _ = srv.Close() })
}

// Handle answers a request, "GET /_matrix/federation/v1/event/{eventId}". Who
// asks is not checked.
func (p *Peer) Handle(pattern string, h http.HandlerFunc) { p.mux.HandleFunc(pattern, h) }

// Answers is Handle for JSON that does not depend on the request.
func (p *Peer) Answers(pattern string, answer any) {
	p.Handle(pattern, func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, http.StatusOK, answer) })
}

// WriteJSON writes an answer.
func WriteJSON(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

// Ask sends a signed request. path is escaped, and may have a query; content may
// be nil.
func (p *Peer) Ask(ctx context.Context, to matrix.ServerName, method, path string, content any) (int, JSON) {
	p.t.Helper()
	r := transport.Request{Destination: to, Method: method, Timeout: time.Minute}
	u, err := url.Parse(path)
	if err != nil {
		p.t.Fatal(err)
	}
	r.Path, r.Query = u.EscapedPath(), u.Query()
	if content != nil {
		if r.Content, err = json.Marshal(content); err != nil {
			p.t.Fatal(err)
		}
	}
	answer := JSON{}
	err = p.Client.JSON(ctx, r, &answer)
	if refused, ok := errors.AsType[*transport.RemoteError](err); ok {
		_ = json.Unmarshal(refused.Body, &answer)
		return refused.Status, answer
	}
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	return http.StatusOK, answer
}
