package content_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/federation/content"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/dialer"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// maxFile is the largest file that is taken in these tests.
const maxFile = 1000

// world is a fetcher, and the server "there" that it asks.
type world struct {
	*content.Fetcher
	t       *testing.T
	network *testrig.Network
	there   *testrig.Peer

	mu    sync.Mutex
	asked map[string]int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	n := testrig.NewNetwork()
	w := &world{t: t, network: n, there: testrig.NewPeer(t, n, "there"), asked: map[string]int{}}
	roots, err := transport.Authorities(n.Authority(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	d := dialer.New(dialer.Options{Resolve: n.Resolve, Dial: n.Dial})
	w.Fetcher = content.New(testrig.NewPeer(t, n, "here").Client, d, &tls.Config{RootCAs: roots}, maxFile)
	return w
}

// answer has the server answer for its files; h finds the id in the path.
func (w *world) answer(h http.HandlerFunc) {
	w.there.Handle("GET /_matrix/federation/v1/media/download/{id}", func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.asked[r.PathValue("id")]++
		w.mu.Unlock()
		h(rw, r)
	})
}

// times is how often a file was asked for.
func (w *world) times(id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[id]
}

// site opens a web server with a certificate for a name that may be another.
func (w *world) site(host, certified string, h http.HandlerFunc) {
	w.t.Helper()
	l, err := w.network.Listen("tcp", host+":443")
	if err != nil {
		w.t.Fatal(err)
	}
	cert, key := w.network.Certificate(w.t, w.t.TempDir(), certified)
	srv := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	go func() { _ = srv.ServeTLS(l, cert, key) }()
	w.t.Cleanup(func() { _ = srv.Close() })
}

// fetch downloads a file. What became of it is its bytes, the error that the user
// gets, or "cut" if it began and did not come whole.
func (w *world) fetch(id string) (string, http.Header) {
	w.t.Helper()
	file, err := w.Download(w.t.Context(), "there", id, time.Second)
	if refused, ok := errors.AsType[*matrix.Error](err); ok {
		return fmt.Sprint(refused.Status, " ", refused.Code), nil
	}
	if err != nil {
		w.t.Fatalf("%s: %v is no error for a user", id, err)
	}
	defer file.Body.Close()
	data, err := io.ReadAll(file.Body)
	if err != nil {
		return "cut", file.Header
	}
	return string(data), file.Header
}

// write answers with a text of a type.
func write(w http.ResponseWriter, contentType, text string) {
	w.Header().Set("Content-Type", contentType)
	_, _ = io.WriteString(w, text)
}

const mixed = "multipart/mixed; boundary=xx"

// parts is a multipart answer around a header and a file.
func parts(header, file string) string {
	return "--xx\r\nContent-Type: application/json\r\n\r\n{}\r\n--xx\r\n" + header + "\r\n\r\n" + file + "\r\n--xx--\r\n"
}
