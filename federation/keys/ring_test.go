package keys

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// world is servers that tell their keys. It is the Fetcher of all of them.
type world struct {
	mu    sync.Mutex
	now   time.Time
	files map[matrix.ServerName]File
	down  map[matrix.ServerName]bool
	lies  map[matrix.ServerName]string // told instead
	rings map[matrix.ServerName]*Ring  // notaries
	valid time.Duration
	asked map[string]int
	wait  chan struct{} // a fetch waits for it, if it is not nil
}

func newWorld(t testing.TB, names ...matrix.ServerName) *world {
	w := &world{
		now: day, files: map[matrix.ServerName]File{}, down: map[matrix.ServerName]bool{}, lies: map[matrix.ServerName]string{},
		rings: map[matrix.ServerName]*Ring{}, valid: 24 * time.Hour, asked: map[string]int{},
	}
	for _, n := range names {
		w.files[n] = newFile(t)
	}
	return w
}

func (w *world) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) count(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[what]
}

func (w *world) ServerKeys(ctx context.Context, server matrix.ServerName) ([]byte, error) {
	w.mu.Lock()
	w.asked[string(server)]++
	file, known := w.files[server]
	lie, down, until, wait := w.lies[server], w.down[server], w.now.Add(w.valid), w.wait
	w.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	switch {
	case lie != "":
		return []byte(lie), nil
	case down || !known:
		return nil, errors.New("connection refused")
	}
	return publish(server, file, until)
}

func (w *world) QueryKeys(ctx context.Context, notary matrix.ServerName, query []byte) ([]byte, error) {
	w.mu.Lock()
	w.asked["notary "+string(notary)]++
	ring, down := w.rings[notary], w.down[notary]
	w.mu.Unlock()
	if down || ring == nil {
		return nil, errors.New("connection refused")
	}
	e := httpx.New(httpx.Options{Log: slog.New(slog.DiscardHandler)})
	e.Add("keys", ring.Routes()...)
	answer := httptest.NewRecorder()
	e.Handler("keys").ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodPost, "/_matrix/key/v2/query", strings.NewReader(string(query))))
	if answer.Code != http.StatusOK {
		return nil, fmt.Errorf("status %d: %s", answer.Code, answer.Body)
	}
	return io.ReadAll(answer.Body)
}

func (w *world) ring(t testing.TB, d *db.DB, server matrix.ServerName, notaries ...matrix.ServerName) *Ring {
	t.Helper()
	r, err := New(Options{DB: d, Server: server, Keys: w.files[server], Fetcher: w, Notaries: notaries, Now: w.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	w.rings[server] = r
	return r
}

func (w *world) sign(t testing.TB, server matrix.ServerName) []byte {
	t.Helper()
	return signed(t, string(server), `{"a":1}`, w.files[server].Current)
}

// event makes an event that a server signed at a time.
func (w *world) event(t testing.TB, version string, server matrix.ServerName, key event.SigningKey, at time.Time) *event.Event {
	t.Helper()
	v, _ := event.Lookup(version)
	room := matrix.RoomID("!r:here")
	if v.RoomIDHash {
		room = matrix.RoomID("!" + strings.Repeat("h", 43))
	}
	e, err := event.Build(v, event.Draft{
		RoomID: room, Type: "m.room.message", Sender: matrix.NewUserID("u", server), Content: []byte(`{"body":"x"}`), Depth: 5,
		OriginServerTS: at.UnixMilli(), PrevEvents: []event.Ref{{ID: "$p"}}, AuthEvents: []event.Ref{{ID: "$a"}},
	}, server, key)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (r *Ring) one(t testing.TB, c Check) error {
	t.Helper()
	return r.Verify(t.Context(), []Check{c})[0]
}

func TestVerifyInBulk(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		var names []matrix.ServerName
		for i := range 50 {
			names = append(names, matrix.ServerName(fmt.Sprintf("s%d.org", i)))
		}
		w := newWorld(t, append(names, "here")...)
		w.down["s7.org"] = true
		r := w.ring(t, d, "here")
		var checks []Check
		var want []error
		for i := range 400 {
			s := names[i%len(names)]
			c, err := Check{Server: s, Event: w.event(t, "10", s, w.files[s].Current, day)}, error(nil)
			switch {
			case s == "s7.org":
				err = ErrNoKey
			case i%9 == 0:
				c = Check{Server: s, JSON: []byte(strings.Replace(string(w.sign(t, s)), `"a":1`, `"a":2`, 1))}
				err = event.ErrBadSignature
			case i%11 == 0:
				c.Server, err = "s1.org", event.ErrNotSigned
				if s == "s1.org" {
					err = nil
				}
			}
			checks, want = append(checks, c), append(want, err)
		}
		checks = append(checks, Check{Server: "here", JSON: w.sign(t, "here")}, Check{Server: "not a name", JSON: signed(t, "not a name", "{}", w.files["here"].Current)})
		want = append(want, nil, event.ErrNotSigned)
		for range 2 { // fetched, and known
			for i, err := range r.Verify(t.Context(), checks) {
				if !errors.Is(err, want[i]) {
					t.Errorf("check %d: %v, want %v", i, err, want[i])
				}
			}
		}
		for _, n := range names {
			if w.count(string(n)) != 1 {
				t.Errorf("%s was asked %d times", n, w.count(string(n)))
			}
		}
		if w.count("here") != 0 {
			t.Error("we asked ourselves")
		}
		// After a restart nobody has to be asked, whoever is down.
		r.Close()
		if err := d.Write(t.Context(), func(*db.Tx) error { return nil }); err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			w.down[n] = true
		}
		again := w.ring(t, d, "here")
		if err := again.one(t, Check{Server: "s3.org", JSON: w.sign(t, "s3.org"), At: day.UnixMilli()}); err != nil || w.count("s3.org") != 1 {
			t.Errorf("after a restart: %v, asked %d times", err, w.count("s3.org"))
		}
	})
}

// valid_until_ts counts from room version 5 on, and old keys count for what is
// older than they are.
func TestValidityByRoomVersion(t *testing.T) {
	d := dbtest.Open(t, "sqlite")
	w := newWorld(t, "here", "x.org")
	r := w.ring(t, d, "here")
	before := w.files["x.org"].Current
	rotated, err := w.files["x.org"].Rotate(rand.Reader, day)
	if err != nil {
		t.Fatal(err)
	}
	w.files["x.org"] = rotated
	week := 7 * 24 * time.Hour
	w.valid = 30 * 24 * time.Hour
	for _, c := range []struct {
		version string
		key     event.SigningKey
		at      time.Time
		want    error
	}{
		{"4", rotated.Current, day.Add(365 * 24 * time.Hour), nil},
		{"5", rotated.Current, day, nil},
		{"5", rotated.Current, day.Add(-365 * 24 * time.Hour), nil},
		{"12", rotated.Current, day.Add(week), nil},
		{"12", rotated.Current, day.Add(week + time.Millisecond), ErrExpired}, // far-off validity is cut to seven days
		{"5", rotated.Current, day.Add(20 * 24 * time.Hour), ErrExpired},
		{"4", before, day.Add(time.Hour), nil},
		{"5", before, day.Add(-time.Millisecond), nil},
		{"12", before, day, ErrExpired},
		{"5", before, day.Add(time.Hour), ErrExpired},
		{"5", before, time.UnixMilli(0), nil},
	} {
		e := w.event(t, c.version, "x.org", c.key, c.at)
		if err := r.VerifyEvents(t.Context(), []*event.Event{e})[0]; !errors.Is(err, c.want) {
			t.Errorf("version %s, %s at %v: %v, want %v", c.version, c.key.ID, c.at, err, c.want)
		}
	}
	// Requests are signed by keys that are published, never by old ones.
	if err := r.one(t, Check{Server: "x.org", JSON: signed(t, "x.org", "{}", before), At: day.UnixMilli()}); !errors.Is(err, ErrExpired) {
		t.Errorf("a request by an old key: %v", err)
	}
}

func TestExpiredKeyIsAskedForAgain(t *testing.T) {
	d := dbtest.Open(t, "sqlite")
	w := newWorld(t, "here", "x.org")
	r := w.ring(t, d, "here")
	check := func() error {
		return r.one(t, Check{Server: "x.org", JSON: w.sign(t, "x.org"), At: w.Now().UnixMilli()})
	}
	if err := check(); err != nil {
		t.Fatal(err)
	}
	w.pass(25 * time.Hour)
	if err := check(); err != nil || w.count("x.org") != 2 {
		t.Fatalf("%v, asked %d times", err, w.count("x.org"))
	}
	w.pass(25 * time.Hour)
	w.down["x.org"] = true
	if err := check(); !errors.Is(err, ErrNoKey) {
		t.Fatalf("a stale key of a server that is down: %v", err)
	}
}

// A new key is found at the next asking, which is not at once.
func TestUnknownKeyIsAskedForOnceAMinute(t *testing.T) {
	d := dbtest.Open(t, "sqlite")
	w := newWorld(t, "here", "x.org")
	r := w.ring(t, d, "here")
	if err := r.one(t, Check{Server: "x.org", JSON: w.sign(t, "x.org")}); err != nil {
		t.Fatal(err)
	}
	rotated, _ := w.files["x.org"].Rotate(rand.Reader, w.Now())
	w.files["x.org"] = rotated
	for range 10 {
		if err := r.one(t, Check{Server: "x.org", JSON: w.sign(t, "x.org")}); !errors.Is(err, ErrNoKey) {
			t.Fatal(err)
		}
	}
	if n := w.count("x.org"); n != 1 {
		t.Fatalf("asked %d times within a minute", n)
	}
	w.pass(askAgain)
	if err := r.one(t, Check{Server: "x.org", JSON: w.sign(t, "x.org")}); err != nil {
		t.Fatal(err)
	}
}

func TestFailuresBackOff(t *testing.T) {
	d := dbtest.Open(t, "sqlite")
	w := newWorld(t, "here", "x.org")
	w.down["x.org"] = true
	r := w.ring(t, d, "here")
	check := func() error { return r.one(t, Check{Server: "x.org", JSON: w.sign(t, "x.org")}) }
	for range 24 * 60 * 4 { // a day in steps of 15 s
		if err := check(); !errors.Is(err, ErrNoKey) {
			t.Fatal(err)
		}
		w.pass(15 * time.Second)
	}
	if n := w.count("x.org"); n < 140 || n > 160 {
		t.Errorf("a dead server was asked %d times in a day", n)
	}
	w.down["x.org"] = false
	r.Retry("x.org")
	if err := check(); err != nil {
		t.Errorf("after a sign of life: %v", err)
	}
}

func TestOneRequestForManyWaiters(t *testing.T) {
	d := dbtest.Open(t, "sqlite")
	w := newWorld(t, "here", "x.org")
	w.wait = make(chan struct{})
	r := w.ring(t, d, "here")
	text := w.sign(t, "x.org")
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := r.one(t, Check{Server: "x.org", JSON: text}); err != nil {
				t.Error(err)
			}
		})
	}
	// Who does not want to wait any longer takes nothing from the others.
	hasty, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Verify(hasty, []Check{{Server: "x.org", JSON: text}})[0]; err == nil {
		t.Error("verified without a key")
	}
	for w.count("x.org") == 0 {
		time.Sleep(time.Millisecond)
	}
	close(w.wait)
	all.Wait()
	if n := w.count("x.org"); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestNotaryStandsIn(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, "here", "notary", "liar", "gone.org", "never.org", "up.org")
		notary := w.ring(t, dbtest.Open(t, "sqlite"), "notary")
		if err := notary.one(t, Check{Server: "gone.org", JSON: w.sign(t, "gone.org")}); err != nil {
			t.Fatal(err)
		}
		w.down["gone.org"], w.down["never.org"], w.down["liar"] = true, true, true
		r := w.ring(t, d, "here", "liar", "notary")
		checks := []Check{
			{Server: "gone.org", JSON: w.sign(t, "gone.org"), At: day.UnixMilli()},
			{Server: "never.org", JSON: w.sign(t, "never.org")}, {Server: "up.org", JSON: w.sign(t, "up.org")},
		}
		for i, err := range r.Verify(t.Context(), checks) {
			if want := []error{nil, ErrNoKey, nil}[i]; !errors.Is(err, want) {
				t.Errorf("%s: %v", checks[i].Server, err)
			}
		}
		if n := w.count("notary notary"); n != 1 {
			t.Errorf("the notary was asked %d times", n)
		}
		for range 5 {
			_ = r.Verify(t.Context(), checks)
		}
		if n := w.count("notary notary"); n != 1 {
			t.Errorf("the notary was asked %d times about what it does not know", n)
		}
	})
}

// What a notary did not sign, or the server did not sign, is not believed.
func TestNotaryIsChecked(t *testing.T) {
	w := newWorld(t, "here", "notary", "gone.org", "other")
	w.down["gone.org"] = true
	real, err := publish("gone.org", w.files["gone.org"], day.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := publish("gone.org", w.files["other"], day.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	unsigned := strings.Replace(string(foreign), string(w.files["other"].Current.ID), string(w.files["gone.org"].Current.ID), 1)
	by := func(text, name string, f File) string { return string(signed(t, name, text, f.Current)) }
	for name, c := range map[string]struct {
		answer string
		good   bool
	}{
		"signed":            {by(string(real), "notary", w.files["notary"]), true},
		"by nobody":         {string(real), false},
		"by another's key":  {by(string(real), "notary", w.files["other"]), false},
		"by another notary": {by(string(real), "other", w.files["other"]), false},
		"not by the server": {by(unsigned, "notary", w.files["notary"]), false},
	} {
		r := w.ring(t, dbtest.Open(t, "sqlite"), "here", "notary")
		r.o.Fetcher = &told{w, `{"server_keys":[{"server_name":7},[],` + c.answer + `]}`}
		err := r.one(t, Check{Server: "gone.org", JSON: w.sign(t, "gone.org")})
		if (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// told answers queries by one text.
type told struct {
	*world
	text string
}

func (f *told) QueryKeys(context.Context, matrix.ServerName, []byte) ([]byte, error) {
	return []byte(f.text), nil
}

func TestLiesOfServers(t *testing.T) {
	d := dbtest.Open(t, "sqlite")
	w := newWorld(t, "here", "x.org", "y.org")
	r := w.ring(t, d, "here")
	other, _ := publish("y.org", w.files["y.org"], day.Add(time.Hour))
	for _, lie := range []string{string(other), "{}", "null", "<html>", `{"server_name":"x.org"}`} {
		w.lies["x.org"] = lie
		r.Retry("x.org")
		if err := r.one(t, Check{Server: "x.org", JSON: w.sign(t, "x.org")}); !errors.Is(err, ErrNoKey) {
			t.Errorf("%s: %v", lie, err)
		}
	}
	if n := w.count("x.org"); n != 5 {
		t.Errorf("asked %d times", n)
	}
}

func TestSeveralSignatures(t *testing.T) {
	d := dbtest.Open(t, "sqlite")
	w := newWorld(t, "here", "x.org")
	r := w.ring(t, d, "here")
	known, unknown := w.files["x.org"].Current, newFile(t).Current
	wrong := event.SigningKey{ID: known.ID, Private: unknown.Private}
	for name, c := range map[string]struct {
		keys []event.SigningKey
		want error
	}{
		"known":             {[]event.SigningKey{known}, nil},
		"known and unknown": {[]event.SigningKey{known, unknown}, nil},
		"unknown":           {[]event.SigningKey{unknown}, ErrNoKey},
		"wrong":             {[]event.SigningKey{wrong}, event.ErrBadSignature},
		"wrong and unknown": {[]event.SigningKey{wrong, unknown}, event.ErrBadSignature},
		"none":              {nil, event.ErrNotSigned},
	} {
		if err := r.one(t, Check{Server: "x.org", JSON: signed(t, "x.org", "{}", c.keys...)}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An event of several signers needs all of them.
func TestAllSignersCount(t *testing.T) {
	d := dbtest.Open(t, "sqlite")
	w := newWorld(t, "here", "x.org", "resident.org")
	r := w.ring(t, d, "here")
	v, _ := event.Lookup("10")
	who := "@u:x.org"
	e, err := event.Build(v, event.Draft{
		RoomID: "!r:here", Type: "m.room.member", StateKey: &who, Sender: "@u:x.org", Depth: 5, OriginServerTS: day.UnixMilli(),
		Content: []byte(`{"membership":"join","join_authorised_via_users_server":"@a:resident.org"}`), PrevEvents: []event.Ref{{ID: "$p"}},
	}, "x.org", w.files["x.org"].Current)
	if err != nil {
		t.Fatal(err)
	}
	both, err := e.Sign("resident.org", w.files["resident.org"].Current)
	if err != nil {
		t.Fatal(err)
	}
	r.Prefetch(t.Context(), []*event.Event{both})
	if w.count("x.org") != 1 || w.count("resident.org") != 1 {
		t.Error("keys were not fetched before")
	}
	errs := r.VerifyEvents(t.Context(), []*event.Event{e, both})
	if !errors.Is(errs[0], event.ErrNotSigned) || errs[1] != nil {
		t.Error(errs)
	}
}

// Whoever makes us ask as a notary fills no table.
func TestNotaryKeepsNothingOfStrangers(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, "here", "x.org", "friend.org")
		r := w.ring(t, d, "here")
		if err := r.one(t, Check{Server: "friend.org", JSON: w.sign(t, "friend.org")}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.QueryKeys(t.Context(), "here", []byte(`{"server_keys":{"x.org":{},"friend.org":{}}}`)); err != nil {
			t.Fatal(err)
		}
		if err := d.Write(t.Context(), func(*db.Tx) error { return nil }); err != nil {
			t.Fatal(err)
		}
		kept, err := loadRecords(t.Context(), d, []matrix.ServerName{"x.org", "friend.org"})
		if err != nil || kept["x.org"] != nil || kept["friend.org"] == nil {
			t.Fatalf("%v, %v", kept, err)
		}
		// Once it matters it is kept, without being asked again.
		if err := r.one(t, Check{Server: "x.org", JSON: w.sign(t, "x.org")}); err != nil || w.count("x.org") != 1 {
			t.Fatalf("%v, asked %d times", err, w.count("x.org"))
		}
		if err := d.Write(t.Context(), func(*db.Tx) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if kept, _ := loadRecords(t.Context(), d, []matrix.ServerName{"x.org"}); kept["x.org"] == nil || len(kept["x.org"].keys) != 1 {
			t.Fatalf("%v", kept)
		}
	})
}

func TestKeysAPI(t *testing.T) {
	d := dbtest.Open(t, "sqlite")
	w := newWorld(t, "here", "x.org", "dead.org")
	w.down["dead.org"] = true
	rotated, _ := w.files["here"].Rotate(rand.Reader, day.Add(-time.Hour))
	w.files["here"] = rotated
	r := w.ring(t, d, "here")
	e := httpx.New(httpx.Options{Log: slog.New(slog.DiscardHandler)})
	e.Add("keys", r.Routes()...)
	h := e.Handler("keys")
	get := func(method, path, body string) (int, []byte) {
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, httptest.NewRequest(method, path, strings.NewReader(body)))
		return answer.Code, answer.Body.Bytes()
	}
	for _, path := range []string{"/_matrix/key/v2/server", "/_matrix/key/v2/server/", "/_matrix/key/v2/server/ed25519:x"} {
		status, body := get("GET", path, "")
		a, err := parseAnswer("here", body, day)
		if status != 200 || err != nil || len(a.keys) != 2 {
			t.Errorf("%s: %d %s %v", path, status, body, err)
		}
		if until := time.UnixMilli(a.validUntil); until.Before(day.Add(time.Hour)) {
			t.Errorf("our answer is good until %v", until)
		}
	}
	// A long-lived server tells a fresh answer.
	w.pass(22 * time.Hour)
	_, body := get("GET", "/_matrix/key/v2/server", "")
	if a, err := parseAnswer("here", body, w.Now()); err != nil || a.validUntil < w.Now().Add(23*time.Hour).UnixMilli() {
		t.Errorf("later: %+v, %v", a, err)
	}
	names := func(body []byte) string {
		all, err := parseNotary(body)
		if err != nil {
			t.Error(err)
		}
		var list []string
		for name, answers := range all {
			for _, one := range answers {
				if err := event.VerifyJSON(one, "here", rotated.Current.ID, r.own.keys[0].Public); err != nil {
					t.Errorf("%s is not signed by us: %v", name, err)
				}
				if name != "here" {
					if _, err := parseAnswer(name, one, day); err != nil {
						t.Error(err)
					}
				}
			}
			list = append(list, string(name))
		}
		slices.Sort(list)
		return strings.Join(list, " ")
	}
	future := w.Now().Add(time.Hour).UnixMilli()
	for _, c := range []struct {
		method, path, body string
		status             int
		servers            string
	}{
		{"GET", "/_matrix/key/v2/query/x.org", "", 200, "x.org"},
		{"GET", "/_matrix/key/v2/query/here", "", 200, "here"},
		{"GET", "/_matrix/key/v2/query/dead.org", "", 200, ""},
		{"GET", fmt.Sprintf("/_matrix/key/v2/query/x.org?minimum_valid_until_ts=%d", future), "", 200, "x.org"},
		{"GET", "/_matrix/key/v2/query/x.org?minimum_valid_until_ts=soon", "", 400, ""},
		{"GET", "/_matrix/key/v2/query/not%20a%20name", "", 400, ""},
		{"POST", "/_matrix/key/v2/query", `{"server_keys":{"x.org":{},"here":{},"dead.org":{"ed25519:a":{"minimum_valid_until_ts":5}},"no name":{}}}`, 200, "here x.org"},
		{"POST", "/_matrix/key/v2/query", `{"server_keys":{"x.org":{"ed25519:nobody":{}}}}`, 200, "x.org"},
		{"POST", "/_matrix/key/v2/query", `{"server_keys":{}}`, 200, ""},
		{"POST", "/_matrix/key/v2/query", `{}`, 400, ""},
		{"POST", "/_matrix/key/v2/query", `{"server_keys":[]}`, 400, ""},
		{"POST", "/_matrix/key/v2/query", `{"server_keys":{"x.org":{"a":{"minimum_valid_until_ts":"x"}}}}`, 400, ""},
	} {
		status, body := get(c.method, c.path, c.body)
		if status != c.status {
			t.Errorf("%s %s: %d %s", c.path, c.body, status, body)
		}
		if status == 200 {
			if got := names(body); got != c.servers {
				t.Errorf("%s %s: %q, want %q", c.path, c.body, got, c.servers)
			}
		}
	}
	var many struct {
		Servers map[string]struct{} `json:"server_keys"`
	}
	many.Servers = map[string]struct{}{}
	for i := range maxQueried + 1 {
		many.Servers[fmt.Sprintf("s%d.org", i)] = struct{}{}
	}
	text, _ := json.Marshal(many)
	if status, _ := get("POST", "/_matrix/key/v2/query", string(text)); status != 413 {
		t.Errorf("a query for %d servers: %d", len(many.Servers), status)
	}
	if n := w.count("x.org"); n > 1 {
		t.Errorf("x.org was asked %d times", n)
	}
	// In the second half of its life an answer is fetched anew; the last one stands
	// in when that fails.
	w.pass(13 * time.Hour)
	w.down["x.org"] = true
	if _, body := get("GET", "/_matrix/key/v2/query/x.org", ""); names(body) != "x.org" || w.count("x.org") != 2 {
		t.Errorf("%s, asked %d times", body, w.count("x.org"))
	}
}

// Keys that a server no longer lists, and answers that come late.
func TestMerge(t *testing.T) {
	until := func(ts int64, keys ...Key) *answer {
		for i := range keys {
			if keys[i].Expired == 0 {
				keys[i].ValidUntil = ts
			}
		}
		return &answer{server: "x.org", keys: keys, validUntil: ts, json: []byte(fmt.Sprint(ts))}
	}
	var rec record
	rec.merge(until(100, Key{ID: "a"}), day, false)
	rec.merge(until(200, Key{ID: "b"}), day, true)
	if a := rec.key("a"); a == nil || a.ValidUntil != 100 {
		t.Errorf("a key that is no longer listed became %+v", a)
	}
	rec.merge(until(300, Key{ID: "a", Expired: 50}), day, false)
	if a := rec.key("a"); a.Expired != 50 {
		t.Errorf("%+v", a)
	}
	rec.merge(until(250, Key{ID: "a"}, Key{ID: "c"}), day, false)
	if a, c := rec.key("a"), rec.key("c"); a.Expired != 50 || c == nil || string(rec.answer) != "300" {
		t.Errorf("an answer that came late: %+v %+v %s", a, c, rec.answer)
	}
	rec.merge(until(260, Key{ID: "a"}), day, true)
	if a := rec.key("a"); a.Expired != 0 || string(rec.answer) != "260" {
		t.Errorf("the server itself: %+v %s", a, rec.answer)
	}
	for i := range 2 * maxKept {
		rec.merge(until(270, Key{ID: fmt.Sprint(i)}), day, true)
	}
	if len(rec.keys) != maxKept {
		t.Errorf("%d keys", len(rec.keys))
	}
}

func BenchmarkVerify(b *testing.B) {
	w := newWorld(b, "here", "x.org")
	r := w.ring(b, dbtest.Open(b, "sqlite"), "here")
	checks := make([]Check, 1000)
	for i := range checks {
		checks[i] = Check{Server: "x.org", Event: w.event(b, "10", "x.org", w.files["x.org"].Current, day.Add(time.Duration(i)))}
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range r.Verify(b.Context(), checks) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
