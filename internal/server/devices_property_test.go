package server_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// TestDevicesProperty lets users of three servers upload, claim, rename, log in
// and out, reset their identities, join and leave, while servers are restarted and
// what they say to each other gets lost. In the end everybody who goes by what
// their server tells knows the devices of all whom they share a room with, as does
// their server; and no key was claimed twice.
//
// A failure names its seed: -run 'TestDevicesProperty/sqlite/seed_7$' does the
// same again, with TEAHOUSE_LONG set if it is a high one.
func TestDevicesProperty(t *testing.T) {
	seeds := 3
	if os.Getenv("TEAHOUSE_LONG") != "" {
		seeds = 16
	}
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			for seed := range seeds {
				t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
					m := newCrowd(t, kind, uint64(seed))
					for range 60 {
						m.step()
					}
					m.finish()
				})
			}
		})
	}
}

var crowdNames = []matrix.ServerName{"a", "b", "c"}

// crowd is people on several servers.
type crowd struct {
	*testing.T
	rand    *rand.Rand
	servers []*testrig.Server
	muted   []bool
	people  []*member
	rooms   []matrix.RoomID
	claimed map[string]bool
	n       int // of things that need a name
	trace   []string
}

// member is a user with a client that looks at what others have, and with other
// devices that come and go.
type member struct {
	*testrig.Client
	name    string
	home    int
	devices []*testrig.Client
	since   string
	knows   map[string]string
}

func newCrowd(t *testing.T, kind string, seed uint64) *crowd {
	m := &crowd{
		T: t, rand: rand.New(rand.NewPCG(seed, 0)), servers: testrig.StartMany(t, kind, crowdNames...),
		muted: make([]bool, len(crowdNames)), claimed: map[string]bool{},
	}
	for i, home := range []int{0, 1, 2, 0} {
		name := fmt.Sprint("user", i)
		p := &member{Client: m.servers[home].Register(name), name: name, home: home, knows: map[string]string{}}
		p.since = p.Sync("", 0)["next_batch"].(string)
		m.people = append(m.people, p)
	}
	for _, p := range m.people[:2] {
		m.rooms = append(m.rooms, p.CreateRoom(object{"preset": "public_chat"}))
	}
	// Every server has the keys of the others. Without them it would have to leave
	// out what they signed of a room that somebody joins.
	m.greet()
	return m
}

// greet lets every server show every other that it is there.
func (m *crowd) greet() {
	for _, p := range m.people {
		for _, q := range m.people {
			m.do(p.Client, "GET", "/v3/profile"+testrig.Path(q.User), nil)
		}
	}
}

func (m *crowd) log(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf(format, args...))
}

func (m *crowd) fail(format string, args ...any) {
	m.Helper()
	m.Fatalf("%s\nafter:\n%s", fmt.Sprintf(format, args...), strings.Join(m.trace, "\n"))
}

func choose[T any](m *crowd, list []T) T { return list[m.rand.IntN(len(list))] }

// do sends a request that succeeds unless other servers are needed for it.
func (m *crowd) do(c *testrig.Client, method, path string, body any) (object, bool) {
	m.Helper()
	status, answer, err := c.Do(m.Context(), method, path, body)
	if err != nil {
		m.fail("%s %s: %v", method, path, err)
	}
	return answer, status == http.StatusOK
}

func (m *crowd) must(c *testrig.Client, method, path string, body any) object {
	m.Helper()
	answer, ok := m.do(c, method, path, body)
	if !ok {
		m.fail("%s %s: %v", method, path, answer)
	}
	return answer
}

func (m *crowd) step() {
	p := choose(m, m.people)
	switch m.rand.IntN(12) {
	case 0:
		m.login(p)
	case 1, 2:
		m.withDevice(p, m.upload)
	case 3:
		m.withDevice(p, func(c *testrig.Client) {
			m.n++
			m.log("%s renames %s", p.User, c.Device)
			m.must(c, "PUT", "/v3/devices"+testrig.Path(c.Device), object{"display_name": fmt.Sprint("name ", m.n)})
		})
	case 4:
		m.withDevice(p, func(c *testrig.Client) {
			m.log("%s logs %s out", p.User, c.Device)
			m.must(c, "POST", "/v3/logout", object{})
			p.devices = slices.DeleteFunc(p.devices, func(d *testrig.Client) bool { return d == c })
		})
	case 5:
		m.identify(p)
	case 6:
		m.move(p, choose(m, m.rooms))
	case 7, 8:
		m.claim(p)
	case 9:
		m.sync(p)
	case 10:
		i := m.rand.IntN(len(m.servers))
		m.mute(i, !m.muted[i])
	case 11:
		if i := m.rand.IntN(len(m.servers)); m.rand.IntN(3) == 0 {
			m.log("%s is restarted", m.servers[i].Name)
			m.servers[i] = m.servers[i].Restart()
		}
	}
}

func (m *crowd) mute(i int, muted bool) {
	m.log("%s is muted: %v", m.servers[i].Name, muted)
	m.muted[i] = muted
	m.servers[i].Network.Mute(string(m.servers[i].Name)+":8448", muted)
}

func (m *crowd) withDevice(p *member, f func(c *testrig.Client)) {
	if len(p.devices) > 0 {
		f(choose(m, p.devices))
	}
}

func (m *crowd) login(p *member) {
	if len(p.devices) == 4 {
		return
	}
	c := m.servers[p.home].Login(p.name)
	m.log("%s logs in on %s", p.User, c.Device)
	p.devices = append(p.devices, c)
	m.upload(c)
}

// key is one that nobody had before.
func (m *crowd) key() string {
	m.n++
	return base64.RawStdEncoding.EncodeToString(binary.BigEndian.AppendUint64(make([]byte, 24), uint64(m.n)))
}

// upload gives a device identity keys, others than it had before, and maybe
// one-time keys.
func (m *crowd) upload(c *testrig.Client) {
	m.log("%s uploads for %s", c.User, c.Device)
	oneTime := object{}
	for range m.rand.IntN(4) {
		oneTime["curve25519:"+fmt.Sprint(m.n)] = m.key()
	}
	m.must(c, "POST", "/v3/keys/upload", object{"one_time_keys": oneTime, "device_keys": object{
		"user_id": c.User, "device_id": c.Device, "algorithms": []string{"m.megolm.v1.aes-sha2"}, "signatures": object{},
		"keys": object{"ed25519:" + string(c.Device): m.key(), "curve25519:" + string(c.Device): m.key()},
	}})
}

// identify gives a user new cross-signing keys.
func (m *crowd) identify(p *member) {
	m.log("%s has a new identity", p.User)
	keyOf := func(usage, public string) object {
		return object{"user_id": p.User, "usage": []string{usage}, "keys": object{"ed25519:" + public: public}}
	}
	m.n++
	private := ed25519.NewKeyFromSeed(binary.BigEndian.AppendUint64(make([]byte, 24), uint64(m.n)))
	public := base64.RawStdEncoding.EncodeToString(private.Public().(ed25519.PublicKey))
	self := keyOf("self_signing", m.key())
	text, err := json.Marshal(self) // of such values it is canonical
	if err != nil {
		m.Fatal(err)
	}
	self["signatures"] = object{string(p.User): object{"ed25519:" + public: base64.RawStdEncoding.EncodeToString(ed25519.Sign(private, text))}}
	m.must(p.Client, "POST", "/v3/keys/device_signing/upload", object{
		"master_key": keyOf("master", public), "self_signing_key": self,
		"auth": object{"type": "m.login.password", "password": "password", "identifier": object{"type": "m.id.user", "user": p.name}},
	})
}

// in are the people who are in a room, as their own servers have it.
func (m *crowd) in(room matrix.RoomID) (there []*member) {
	for _, p := range m.people {
		if slices.Contains(m.must(p.Client, "GET", "/v3/joined_rooms", nil)["joined_rooms"].([]any), any(string(room))) {
			there = append(there, p)
		}
	}
	return there
}

// move lets a user leave a room, or join it. Somebody stays.
func (m *crowd) move(p *member, room matrix.RoomID) {
	there := m.in(room)
	if slices.Contains(there, p) {
		if len(there) > 1 {
			m.log("%s leaves %s", p.User, room)
			m.must(p.Client, "POST", "/v3/rooms"+testrig.Path(room, "leave"), object{})
		}
		return
	}
	via := url.Values{}
	for _, q := range there {
		via.Add("via", string(m.servers[q.home].Name))
	}
	_, ok := m.do(p.Client, "POST", "/v3/join"+testrig.Path(room)+"?"+via.Encode(), object{})
	m.log("%s joins %s: %v", p.User, room, ok)
}

func (m *crowd) claim(p *member) {
	q := choose(m, m.people)
	m.withDevice(q, func(c *testrig.Client) {
		answer := m.must(p.Client, "POST", "/v3/keys/claim", object{"one_time_keys": object{string(q.User): object{string(c.Device): "curve25519"}}})
		devices, _ := answer["one_time_keys"].(object)[string(q.User)].(object)
		keys, _ := devices[string(c.Device)].(object)
		m.log("%s claims of %s %s: %v", p.User, q.User, c.Device, keys)
		for _, key := range keys {
			if m.claimed[key.(string)] {
				m.fail("%s was claimed twice", key)
			}
			m.claimed[key.(string)] = true
		}
	})
}

// sync does what a client does with an answer of /sync.
func (m *crowd) sync(p *member) {
	answer := m.must(p.Client, "GET", "/v3/sync?timeout=0&since="+url.QueryEscape(p.since), nil)
	p.since = answer["next_batch"].(string)
	lists, _ := answer["device_lists"].(object)
	left, _ := lists["left"].([]any)
	for _, u := range left {
		delete(p.knows, u.(string))
	}
	changed, _ := lists["changed"].([]any)
	for _, u := range changed {
		p.knows[u.(string)] = m.ask(p, u.(string)) // with a failure, until there is news
	}
}

// ask is what a user is told of the devices of another.
func (m *crowd) ask(p *member, user string) string {
	answer := m.must(p.Client, "POST", "/v3/keys/query", object{"timeout": 5000, "device_keys": object{user: []string{}}})
	var keys []any
	for _, part := range []string{"device_keys", "master_keys", "self_signing_keys"} {
		all, _ := answer[part].(object)
		of, _ := all[user].(object)
		if len(of) == 0 {
			of = nil // whether somebody has no keys or is not known is the same
		}
		keys = append(keys, of)
	}
	return jsonOf(keys)
}

// finish lets everything come to rest, and looks at what everybody knows.
func (m *crowd) finish() {
	for i, s := range m.servers {
		m.mute(i, false)
		s.Clock.Advance(time.Hour) // whoever waits to try again need not any more
	}
	var wrong []string
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		m.stir()
		if wrong = m.wrong(); len(wrong) == 0 {
			break
		}
		if time.Now().After(deadline) {
			m.fail("in the end:\n%s", strings.Join(wrong, "\n"))
		}
	}
	if wrong = m.wrong(); len(wrong) > 0 {
		m.fail("after the end:\n%s", strings.Join(wrong, "\n"))
	}
}

// stir makes servers try again, and people talk: where somebody joined through a
// server that had not heard of a departure yet, the next message brings the servers
// to one mind.
func (m *crowd) stir() {
	m.greet()
	for _, room := range m.rooms {
		for _, p := range m.in(room) {
			m.n++
			m.must(p.Client, "PUT", "/v3/rooms"+testrig.Path(room, "send", "m.room.message", m.n), object{"body": "still here"})
		}
	}
}

// wrong lists what people, and their servers, believe that is not true.
func (m *crowd) wrong() (list []string) {
	for _, p := range m.people {
		m.sync(p)
	}
	for _, room := range m.rooms {
		there := m.in(room)
		for _, p := range there {
			for _, q := range there {
				truth := m.ask(q, string(q.User))
				if p == q {
					continue
				}
				if knows := p.knows[string(q.User)]; knows != truth {
					list = append(list, fmt.Sprintf("%s knows of %s\n%s\nnot\n%s", p.User, q.User, knows, truth))
				}
				if tells := m.ask(p, string(q.User)); tells != truth {
					list = append(list, fmt.Sprintf("%s is told of %s\n%s\nnot\n%s", p.User, q.User, tells, truth))
				}
			}
		}
	}
	return list
}
