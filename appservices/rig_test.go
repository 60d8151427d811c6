package appservices_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// bridge is an application service that the test plays.
type bridge struct {
	t    testing.TB
	id   string
	http *http.Server

	mu       sync.Mutex
	answer   func(r *http.Request, body string) (int, string) // to everything; nil: 200 {}
	tokens   []string                                         // the homeserver's, the newest last
	rotating bool                                             // there is one more, which the service was not told of yet: it refuses that
	location string                                           // that answers redirect to
	asked    []string                                         // "METHOD path?query"
	bodies   map[string]string                                // of transactions, by id
	ids      []string                                         // of events, in the order of their first arrival
	seen     map[string]bool
	taken    map[string]bool // transactions
	events   []testrig.JSON
	order    []testrig.JSON // the transactions that were taken, each once
	changed  chan struct{}
}

// newBridge opens a service at http://<id>:80 on the network.
func newBridge(t testing.TB, network *testrig.Network, id string) *bridge {
	t.Helper()
	b := &bridge{t: t, id: id, tokens: []string{"Bearer hs-" + id}, bodies: map[string]string{}, seen: map[string]bool{}, taken: map[string]bool{}, changed: make(chan struct{}, 1)}
	l, err := network.Listen("tcp", id+":80")
	if err != nil {
		t.Fatal(err)
	}
	b.http = &http.Server{Handler: http.HandlerFunc(b.serve)}
	go func() { _ = b.http.Serve(l) }()
	t.Cleanup(func() { _ = b.http.Close() })
	return b
}

// registration is the text of the service's registration.
func (b *bridge) registration(namespaces string, more ...string) string {
	return fmt.Sprintf("id: %s\nurl: http://%s:80\nas_token: as-%s\nhs_token: hs-%s\nsender_localpart: _%s\nrate_limited: false\nnamespaces: %s\n%s",
		b.id, b.id, b.id, b.id, b.id, namespaces, strings.Join(more, "\n"))
}

// mine claims all users whose names begin with the service's id.
func (b *bridge) mine() string {
	return fmt.Sprintf(`{users: [{regex: '@_%s_.*:test', exclusive: true}], aliases: [{regex: '#_%s_.*:test', exclusive: true}]}`, b.id, b.id)
}

// Ways of a service to answer that are no status.
const (
	answerLost  = -1 // it takes the request, but nobody hears of it
	nothingSaid = -2 // it fails in the middle
)

func (b *bridge) serve(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	body := string(raw)
	b.mu.Lock()
	defer b.mu.Unlock()
	if token := r.Header.Get("Authorization"); !slices.Contains(b.tokens, token) {
		if !b.rotating {
			b.t.Errorf("%s %s comes with the token %q", r.Method, r.URL, token)
		}
		w.WriteHeader(http.StatusForbidden)
		return
	}
	b.asked = append(b.asked, r.Method+" "+r.URL.RequestURI())
	status, answer := 200, "{}"
	if b.answer != nil {
		status, answer = b.answer(r, body)
	}
	if txn, ok := strings.CutPrefix(r.URL.Path, "/_matrix/app/v1/transactions/"); ok {
		b.transaction(txn, body, status == 200 || status == answerLost)
	}
	if status == answerLost || status == nothingSaid {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = conn.Close()
		}
		return
	}
	if b.location != "" {
		w.Header().Set("Location", b.location)
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer)
}

func (b *bridge) transaction(txn, body string, taken bool) {
	if before, ok := b.bodies[txn]; ok && before != body {
		b.t.Errorf("transaction %s is %s, and was %s", txn, body, before)
	}
	b.bodies[txn] = body
	if !taken || b.taken[txn] {
		return
	}
	b.taken[txn] = true
	var content testrig.JSON
	if err := json.Unmarshal([]byte(body), &content); err != nil {
		b.t.Errorf("a transaction is no JSON: %v", err)
	}
	b.order = append(b.order, content)
	for _, raw := range content["events"].([]any) {
		ev := raw.(testrig.JSON)
		id := ev["event_id"].(string)
		if b.seen[id] {
			b.t.Errorf("the event %s is taken twice", id)
			continue
		}
		b.seen[id] = true
		b.ids, b.events = append(b.ids, id), append(b.events, ev)
	}
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// answers sets how the service answers from now on.
func (b *bridge) answers(f func(r *http.Request, body string) (int, string)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = f
}

// redirect has answers name another place.
func (b *bridge) redirect(to string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.location = to
}

// status answers everything with a status.
func status(n int) func(*http.Request, string) (int, string) {
	return func(*http.Request, string) (int, string) { return n, `{"errcode": "M_UNKNOWN"}` }
}

// until waits for a condition, which is looked at while the service is still.
func (b *bridge) until(what string, ok func() bool) {
	b.t.Helper()
	deadline := time.After(time.Minute)
	for {
		b.mu.Lock()
		done := ok()
		b.mu.Unlock()
		if done {
			return
		}
		select {
		case <-b.changed:
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			b.t.Fatalf("%s never happens; the service was asked %v and has %v", what, b.asked, b.ids)
		}
	}
}

// gets waits until the service has taken these events, and no others, in this order.
func (b *bridge) gets(want ...matrix.EventID) {
	b.t.Helper()
	texts := make([]string, len(want))
	for i, id := range want {
		texts[i] = string(id)
	}
	b.until(fmt.Sprintf("that the service has %v", want), func() bool { return len(b.ids) >= len(want) })
	b.mu.Lock()
	defer b.mu.Unlock()
	if fmt.Sprint(b.ids) != fmt.Sprint(texts) {
		b.t.Fatalf("the service has %v and not %v", b.ids, texts)
	}
}

// client acts with the service's token, as its own user.
func (b *bridge) client(s *testrig.Server) *testrig.Client {
	c := s.Anonymous()
	c.Token = "as-" + b.id
	return c
}

// register adds a service to a server.
func register(t testing.TB, s *testrig.Server, text string) {
	t.Helper()
	if _, err := s.Appservices.Add(t.Context(), "registration", []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what is not seen by a service.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s never happens", what)
		}
	}
}
