package encryption

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/roomstest"
)

// rig is the feature behind an edge. An access token is "localpart/device".
type rig struct {
	*roomstest.Rig
	server  matrix.ServerName
	e       *Encryption
	http    http.Handler
	devices *fakeDevices
	uia     *fakeUIA
	rand    *lockedRand
}

func each(t *testing.T, f func(t *testing.T, g *rig)) {
	t.Helper()
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { f(t, newRig(t, dbtest.URL(t, kind))) })
	}
}

func newRig(t testing.TB, url string) *rig {
	t.Helper()
	g := bareRig(roomstest.Server, 1)
	g.Rig = roomstest.New(t, url, func(r *roomstest.Rig) []httpx.Route {
		g.open(r, nil, nil)
		return nil
	})
	return g
}

func bareRig(name matrix.ServerName, seed byte) *rig {
	return &rig{
		server: name, devices: &fakeDevices{all: map[matrix.UserID]map[matrix.DeviceID]string{}}, uia: &fakeUIA{},
		rand: &lockedRand{source: rand.NewChaCha8([32]byte{seed})},
	}
}

func (g *rig) open(r *roomstest.Rig, remote Remote, outbox Outbox) {
	var err error
	g.e, err = New(Deps{
		DB: r.DB, ServerName: g.server, Rooms: r.Engine, Devices: g.devices, UIA: g.uia, Ended: ended,
		Position: func(token string) (int64, error) { return strconv.ParseInt(token, 10, 64) },
		Remote:   remote, Outbox: outbox, Now: time.Now, Rand: g.rand, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		r.Fatal(err)
	}
	edge := httpx.New(httpx.Options{Auth: g, Log: slog.New(slog.DiscardHandler)})
	edge.Add("client", g.e.Routes()...)
	g.http = edge.Handler("client")
}

func (g *rig) user(name string) matrix.UserID { return matrix.NewUserID(name, g.server) }

func (g *rig) Authenticate(_ context.Context, _ *http.Request, token string) (*httpx.Caller, error) {
	name, id, _ := strings.Cut(token, "/")
	return &httpx.Caller{User: g.user(name), Device: matrix.DeviceID(id)}, nil
}

// gone is what the rig publishes for removed devices.
type gone struct {
	user matrix.UserID
	ids  []matrix.DeviceID
}

func ended(change any) (matrix.UserID, []matrix.DeviceID, bool) {
	c, ok := change.(gone)
	return c.user, c.ids, ok
}

type fakeDevices struct {
	mu  sync.Mutex
	all map[matrix.UserID]map[matrix.DeviceID]string
}

func (f *fakeDevices) Devices(_ context.Context, _ db.Querier, users []matrix.UserID) (map[matrix.UserID]map[matrix.DeviceID]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := map[matrix.UserID]map[matrix.DeviceID]string{}
	for _, u := range users {
		if f.all[u] != nil {
			found[u] = maps.Clone(f.all[u])
		}
	}
	return found, nil
}

// fakeUIA asks until the auth is {"ok":true}.
type fakeUIA struct{ asked int }

type fakeChallenge struct{}

func (fakeChallenge) Error() string                { return "authenticate" }
func (fakeChallenge) HTTPStatus() int              { return 401 }
func (fakeChallenge) MarshalJSON() ([]byte, error) { return []byte(`{"flows":[]}`), nil }

func (f *fakeUIA) Require(_ context.Context, _ *httpx.Caller, endpoint string, body, auth json.RawMessage) error {
	f.asked++
	if string(auth) == `{"ok":true}` {
		return nil
	}
	return fakeChallenge{}
}

// client is a device with its keys.
type client struct {
	*rig
	name    string
	user    matrix.UserID
	id      matrix.DeviceID
	private ed25519.PrivateKey
	curve   string
	next    int
}

// login makes a device.
func (g *rig) login(name, id string) *client {
	g.Helper()
	c := &client{rig: g, name: name, user: g.user(name), id: matrix.DeviceID(id), curve: g.key32()}
	c.private = g.signingKey()
	g.devices.mu.Lock()
	defer g.devices.mu.Unlock()
	if g.devices.all[c.user] == nil {
		g.devices.all[c.user] = map[matrix.DeviceID]string{}
	}
	g.devices.all[c.user][c.id] = name + "'s " + id
	return c
}

// logout removes the device as accounts do: first the device, then the news.
func (c *client) logout() {
	c.Helper()
	c.devices.mu.Lock()
	delete(c.devices.all[c.user], c.id)
	c.devices.mu.Unlock()
	if err := c.DB.Write(c.Context(), func(tx *db.Tx) error { tx.Publish(gone{c.user, []matrix.DeviceID{c.id}}); return nil }); err != nil {
		c.Fatal(err)
	}
}

// lockedRand is a source of chance for requests at the same time.
type lockedRand struct {
	mu     sync.Mutex
	source *rand.ChaCha8
}

func (r *lockedRand) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.source.Read(p)
}

func (g *rig) key32() string {
	b := make([]byte, 32)
	_, _ = g.rand.Read(b)
	return base64.RawStdEncoding.EncodeToString(b)
}

func (g *rig) signingKey() ed25519.PrivateKey {
	seed := make([]byte, 32)
	_, _ = g.rand.Read(seed)
	return ed25519.NewKeyFromSeed(seed)
}

func public(k ed25519.PrivateKey) string {
	return base64.RawStdEncoding.EncodeToString(k.Public().(ed25519.PublicKey))
}

// sign signs an object as a user with a key of the name.
func sign(t testing.TB, obj string, user matrix.UserID, name string, k ed25519.PrivateKey) string {
	t.Helper()
	signed, err := event.SignJSON([]byte(obj), string(user), event.SigningKey{ID: "ed25519:" + name, Private: k})
	if err != nil {
		t.Fatal(err)
	}
	return string(signed)
}

// bareKeys are the device's keys without signatures.
func (c *client) bareKeys() string {
	return fmt.Sprintf(`{"user_id":%q,"device_id":%q,"algorithms":["m.olm.v1.curve25519-aes-sha2","m.megolm.v1.aes-sha2"],`+
		`"keys":{"ed25519:%s":%q,"curve25519:%s":%q}}`, c.user, c.id, c.id, public(c.private), c.id, c.curve)
}

func (c *client) deviceKeys() string {
	return sign(c, c.bareKeys(), c.user, string(c.id), c.private)
}

// oneTime makes n one-time keys, as members of an object.
func (c *client) oneTime(n int) string {
	var list []string
	for range n {
		list = append(list, c.oneTimeKey(fmt.Sprintf("K%06d", c.next)))
		c.next++
	}
	return strings.Join(list, ",")
}

func (c *client) oneTimeKey(id string) string {
	return fmt.Sprintf("%q:%s", "signed_curve25519:"+id, sign(c, fmt.Sprintf(`{"key":%q}`, c.key32()), c.user, string(c.id), c.private))
}

func (c *client) do(method, path, body string) (int, string) {
	c.Helper()
	r := httptest.NewRequest(method, "/_matrix/client"+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+c.name+"/"+string(c.id))
	w := httptest.NewRecorder()
	c.http.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// want sends a request that must succeed.
func want[T any](c *client, method, path, body string) (answer T) {
	c.Helper()
	code, text := c.do(method, path, body)
	if code != http.StatusOK {
		c.Fatalf("%s/%s: %s %s: %d %.300s", c.name, c.id, method, path, code, text)
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		c.Fatalf("%s %s: %v in %.300s", method, path, err, text)
	}
	return answer
}

// refused sends a request that must fail.
func (c *client) refused(method, path, body string, status int, errcode matrix.Code) {
	c.Helper()
	code, text := c.do(method, path, body)
	var answer struct {
		Code matrix.Code `json:"errcode"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || code != status || answer.Code != errcode {
		c.Errorf("%s %s %.200s: %d %.300s; want %d %s", method, path, body, code, text, status, errcode)
	}
}

type object = map[string]any

// upload uploads the device's keys and n one-time keys, and gives the count.
func (c *client) upload(n int) int {
	c.Helper()
	a := want[uploadAnswer](c, "POST", "/v3/keys/upload", `{"device_keys":`+c.deviceKeys()+`,"one_time_keys":{`+c.oneTime(n)+`}}`)
	return a.Counts[signedCurve25519]
}

// claim claims a key of a device and gives its id, "" if there is none.
func (c *client) claim(from *client) string {
	c.Helper()
	a := want[claimAnswer](c, "POST", "/v3/keys/claim", fmt.Sprintf(`{"one_time_keys":{%q:{%q:"signed_curve25519"}}}`, from.user, from.id))
	for id := range a.OneTimeKeys[from.user][from.id] {
		return id
	}
	return ""
}

func (c *client) query(users ...matrix.UserID) *Keys {
	c.Helper()
	ask := map[matrix.UserID][]string{}
	for _, u := range users {
		ask[u] = []string{}
	}
	body, _ := json.Marshal(object{"device_keys": ask})
	a := want[Keys](c, "POST", "/v3/keys/query", string(body))
	return &a
}

// answered is an answer of /keys/query, with the codes of failures.
type answered struct {
	*Keys
	failures map[matrix.ServerName]matrix.Code
}

func (a *answered) UnmarshalJSON(raw []byte) error {
	var rest struct {
		Failures map[matrix.ServerName]struct {
			Code matrix.Code `json:"errcode"`
		} `json:"failures"`
	}
	if err := json.Unmarshal(raw, &rest); err != nil {
		return err
	}
	a.Keys, a.failures = &Keys{}, map[matrix.ServerName]matrix.Code{}
	for server, e := range rest.Failures {
		a.failures[server] = e.Code
	}
	return json.Unmarshal(raw, a.Keys)
}

// lists gives the changes of device lists above a position.
func (c *client) lists(after int64) (changed, left []matrix.UserID) {
	c.Helper()
	changed, left, err := c.e.DeviceLists(c.Context(), c.user, after, c.DB.Position())
	if err != nil {
		c.Fatal(err)
	}
	return changed, left
}

// settle waits until what was submitted is done.
func (g *rig) settle() {
	g.Helper()
	for range 3 {
		if err := g.DB.Write(g.Context(), func(*db.Tx) error { return nil }); err != nil {
			g.Fatal(err)
		}
	}
}

// eventually waits for what happens beside requests.
func (g *rig) eventually(what string, ok func() bool) {
	g.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			g.Fatal("never: " + what)
		}
	}
}

var errElsewhere = errors.New("elsewhere")
