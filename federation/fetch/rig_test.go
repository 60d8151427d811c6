package fetch_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/federation/fetch"
	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// remotes are servers that answer as they are told. They are the Asker of the
// client and the Fetcher of its key ring.
type remotes struct {
	t      testing.TB
	keys   map[matrix.ServerName]event.SigningKey
	until  map[matrix.ServerName]time.Time // their keys count
	client *fetch.Client

	mu      sync.Mutex
	answers map[matrix.ServerName]func(r transport.Request) (io.Reader, error)
	asked   []transport.Request
}

func newRemotes(t testing.TB, names ...matrix.ServerName) *remotes {
	t.Helper()
	r := &remotes{
		t: t, keys: map[matrix.ServerName]event.SigningKey{}, until: map[matrix.ServerName]time.Time{},
		answers: map[matrix.ServerName]func(transport.Request) (io.Reader, error){},
	}
	for _, n := range append(names, "us") {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		r.keys[n] = event.SigningKey{ID: "ed25519:1", Private: private}
		r.until[n] = time.Now().Add(time.Hour)
	}
	ring, err := keys.New(keys.Options{
		DB: dbtest.Open(t, "sqlite"), Server: "us", Keys: keys.File{Current: r.keys["us"]}, Fetcher: r, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ring.Close)
	r.client = fetch.New(r, ring, slog.New(slog.DiscardHandler))
	return r
}

func (r *remotes) ServerKeys(_ context.Context, server matrix.ServerName) ([]byte, error) {
	key, ok := r.keys[server]
	if !ok {
		return nil, errors.New("no such host")
	}
	public := base64.RawStdEncoding.EncodeToString(key.Private.Public().(ed25519.PublicKey))
	return event.SignJSON(fmt.Appendf(nil, `{"server_name":%q,"valid_until_ts":%d,"verify_keys":{%q:{"key":%q}},"old_verify_keys":{}}`,
		server, r.until[server].UnixMilli(), key.ID, public), string(server), key)
}

func (r *remotes) QueryKeys(context.Context, matrix.ServerName, []byte) ([]byte, error) {
	return nil, errors.New("no notary")
}

func (r *remotes) Stream(ctx context.Context, q transport.Request) (io.ReadCloser, error) {
	r.mu.Lock()
	r.asked = append(r.asked, q)
	answer := r.answers[q.Destination]
	r.mu.Unlock()
	if answer == nil {
		return nil, &transport.UnreachableError{Server: q.Destination, Err: errors.New("no such host")}
	}
	body, err := answer(q)
	if err != nil {
		return nil, err
	}
	return &capped{ctx: ctx, r: body, left: q.MaxAnswer}, nil
}

// capped is a body that is bounded as the transport bounds it.
type capped struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, c.ctx.Err()
	}
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, errors.New("the answer is too large")
	}
	return n, err
}

func (c *capped) Close() error { return nil }

// says lets a server give the same answer to everything.
func (r *remotes) says(server matrix.ServerName, text string) {
	r.answer(server, func(transport.Request) (io.Reader, error) { return strings.NewReader(text), nil })
}

func (r *remotes) answer(server matrix.ServerName, with func(transport.Request) (io.Reader, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers[server] = with
}

func (r *remotes) requests() []transport.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

func roomOf(version string) fetch.Room {
	v, _ := event.Lookup(version)
	id := matrix.RoomID("!room:a.org")
	if v.RoomIDHash {
		id = matrix.RoomID("!" + strings.Repeat("r", 43))
	}
	return fetch.Room{ID: id, Version: v}
}

// message makes an event of a user, signed by a server's key in the name of the
// user's server.
func (r *remotes) message(room fetch.Room, sender matrix.UserID, by matrix.ServerName, text string) *event.Event {
	r.t.Helper()
	ev, err := event.Build(room.Version, event.Draft{
		RoomID: room.ID, Type: matrix.TypeMessage, Sender: sender, Content: fmt.Appendf(nil, `{"body":%q}`, text), Depth: 5,
		OriginServerTS: time.Now().UnixMilli(), PrevEvents: []event.Ref{{ID: "$before:a.org"}}, AuthEvents: []event.Ref{{ID: "$create:a.org"}},
	}, sender.Server(), r.keys[by])
	if err != nil {
		r.t.Fatal(err)
	}
	return ev
}

// pdus makes an answer with lists of events.
func pdus(t testing.TB, lists map[string][]string) string {
	t.Helper()
	raw := map[string][]json.RawMessage{}
	for name, events := range lists {
		raw[name] = []json.RawMessage{}
		for _, ev := range events {
			raw[name] = append(raw[name], json.RawMessage(ev))
		}
	}
	text, err := json.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func remoteError(server matrix.ServerName, status int) error {
	return &transport.RemoteError{Server: server, Status: status, Code: matrix.CodeNotFound, Text: http.StatusText(status)}
}
