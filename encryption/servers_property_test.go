package encryption

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Whatever happens in whatever order, with servers that hear of joins late,
// cannot be reached, lose, repeat and reorder what they are sent, and start anew:
// in the end every client that goes by what its server tells it knows the devices
// of everybody whom it shares a room with, and no key was claimed twice.
func TestServersProperty(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, kind, "a", "b", "c")
			run := 0
			rapid.Check(t, func(rt *rapid.T) {
				run++
				m := newServersModel(w, run)
				rt.Repeat(map[string]func(*rapid.T){
					"login": m.login, "upload": m.upload, "rename": m.rename, "logout": m.logout, "cross": m.cross,
					"join": m.join, "leave": m.leave, "learn": m.learn, "mail": m.mail, "lose": m.lose, "cut": m.cut,
					"restart": m.restart, "sync": m.sync, "claim": m.claim,
				})
				m.finish(rt)
			})
		})
	}
}

// serversModel is a world with people in it.
type serversModel struct {
	*world
	run     int
	people  []*person
	rooms   []*history
	claimed map[string]bool
	lost    bool // for good, and without a trace
}

// person is a user with a client that looks at what others have.
type person struct {
	*client // the one that stays, and syncs
	devices []*client
	id      *identity
	since   int64
	knows   map[matrix.UserID]string
	next    int
}

func newServersModel(w *world, run int) *serversModel {
	m := &serversModel{world: w, run: run, claimed: map[string]bool{}}
	for i, name := range []matrix.ServerName{"a", "b", "c", "a"} {
		s := w.sites[name]
		c := s.login(fmt.Sprintf("u%d-%d", run, i), "SYNC")
		m.people = append(m.people, &person{client: c, since: s.DB.Position(), knows: map[matrix.UserID]string{}})
	}
	for _, p := range m.people[:2] {
		m.rooms = append(m.rooms, m.site(p.user).found(p.name))
	}
	return m
}

// pick draws one of a list by its number, which is what a failure should show.
func pick[T any](t *rapid.T, list []T, what string) T {
	return list[rapid.IntRange(0, len(list)-1).Draw(t, what)]
}

func (m *serversModel) person(t *rapid.T) *person { return pick(t, m.people, "person") }

func (m *serversModel) room(t *rapid.T) *history { return pick(t, m.rooms, "room") }

func (m *serversModel) server(t *rapid.T, name string) *site {
	return m.sites[rapid.SampledFrom([]matrix.ServerName{"a", "b", "c"}).Draw(t, name)]
}

func (m *serversModel) device(t *rapid.T) *client {
	p := m.person(t)
	if len(p.devices) == 0 {
		return nil
	}
	return pick(t, p.devices, "device")
}

func (m *serversModel) login(t *rapid.T) {
	p := m.person(t)
	if len(p.devices) == 4 {
		return
	}
	p.next++
	c := m.site(p.user).login(p.name, fmt.Sprint("D", p.next))
	c.upload(2)
	p.devices = append(p.devices, c)
}

// upload changes the keys of a device.
func (m *serversModel) upload(t *rapid.T) {
	if c := m.device(t); c != nil {
		c.curve = c.key32()
		c.upload(rapid.IntRange(0, 2).Draw(t, "one-time keys"))
	}
}

func (m *serversModel) rename(t *rapid.T) {
	if c := m.device(t); c != nil {
		c.rename(rapid.StringMatching(`[a-z"ä]{0,6}`).Draw(t, "name"))
	}
}

func (m *serversModel) logout(t *rapid.T) {
	c := m.device(t)
	if c == nil || rapid.Bool().Draw(t, "stay") {
		return
	}
	c.logout()
	for _, p := range m.people {
		p.devices = slices.DeleteFunc(p.devices, func(d *client) bool { return d == c })
	}
}

// cross sets up cross-signing, resets it, or signs a device.
func (m *serversModel) cross(t *rapid.T) {
	p := m.person(t)
	if p.id == nil || rapid.Bool().Draw(t, "reset") {
		p.id = p.identity()
		code, text := p.do("POST", crossPath, p.id.bareBody(`,"auth":{"ok":true}`))
		if code != 200 {
			t.Fatal(text)
		}
		return
	}
	if len(p.devices) > 0 {
		c := pick(t, p.devices, "device")
		if code, text := p.do("POST", "/v3/keys/signatures/upload", signDevice(p.id, c)); code != 200 {
			t.Fatal(text)
		}
	}
}

// bareBody is the body without a signature of the device, which has no keys.
func (i *identity) bareBody(more string) string {
	return `{"master_key":` + i.bare(usageMaster, i.master) + `,"self_signing_key":` + i.byMaster(usageSelfSigning, i.self) +
		`,"user_signing_key":` + i.byMaster(usageUserSigning, i.other) + more + `}`
}

func (m *serversModel) member(h *history, p *person) bool {
	s := m.site(p.user)
	return s.in(h) && s.room(h).IsLocalMember(p.user)
}

func (m *serversModel) join(t *rapid.T) {
	p, h := m.person(t), m.room(t)
	if m.member(h, p) {
		return
	}
	var hosts []matrix.ServerName
	for _, name := range []matrix.ServerName{"a", "b", "c"} {
		if m.sites[name].in(h) {
			hosts = append(hosts, name)
		}
	}
	if len(hosts) > 0 {
		m.world.join(h, p.user, rapid.SampledFrom(hosts).Draw(t, "via"))
	}
}

func (m *serversModel) leave(t *rapid.T) {
	p, h := m.person(t), m.room(t)
	if !m.member(h, p) {
		return
	}
	members := 0
	for _, q := range m.people {
		if m.member(h, q) {
			members++
		}
	}
	if members > 1 { // or nobody could join any more
		m.site(p.user).member(h, p.user, matrix.MembershipLeave)
	}
}

// learn lets a server hear of the newest joins and departures.
func (m *serversModel) learn(t *rapid.T) {
	if s, h := m.server(t, "server"), m.room(t); s.in(h) {
		s.learn(h)
	}
}

// mail carries what lies ready: some of it, maybe in another order, maybe with the
// receipt lost.
func (m *serversModel) mail(t *rapid.T) {
	from, to := m.server(t, "from"), m.server(t, "to")
	list := from.mail(to.server, rapid.IntRange(1, 5).Draw(t, "n"))
	if from == to || len(list) == 0 || m.reach(from.server, to.server) == nil {
		return
	}
	order := list
	if rapid.Bool().Draw(t, "reordered") {
		order = slices.Clone(list)
		for i := range order {
			j := rapid.IntRange(i, len(order)-1).Draw(t, "next")
			order[i], order[j] = order[j], order[i]
		}
	}
	from.deliver(to.server, order)
	if rapid.Bool().Draw(t, "received") {
		from.discard(to.server, list)
	}
}

// lose loses something for good.
func (m *serversModel) lose(t *rapid.T) {
	from, to := m.server(t, "from"), m.server(t, "to")
	if list := from.mail(to.server, 1); len(list) > 0 && rapid.IntRange(0, 3).Draw(t, "keep") == 0 {
		from.discard(to.server, list)
		m.lost = true
	}
}

func (m *serversModel) cut(t *rapid.T) {
	from, to := m.server(t, "from"), m.server(t, "to")
	m.world.cut(from.server, to.server, from != to && rapid.Bool().Draw(t, "apart"))
}

func (m *serversModel) restart(t *rapid.T) {
	if rapid.IntRange(0, 2).Draw(t, "stay") == 0 {
		m.server(t, "server").restart()
	}
}

func (m *serversModel) sync(t *rapid.T) { m.person(t).sync() }

// sync does what a client does with an answer of /sync.
func (p *person) sync() {
	p.Helper()
	upTo := p.DB.Position()
	changed, left, err := p.e.DeviceLists(p.Context(), p.user, p.since, upTo)
	if err != nil {
		p.Fatal(err)
	}
	p.since = upTo
	for _, u := range left {
		delete(p.knows, u)
	}
	for _, u := range changed {
		a := want[answered](p.client, "POST", "/v3/keys/query", fmt.Sprintf(`{"timeout":5000,"device_keys":{%q:[]}}`, u))
		p.knows[u] = keysText(p, a.Keys, u) // with a failure, until there is news
	}
}

func (m *serversModel) claim(t *rapid.T) {
	p, c := m.person(t), m.device(t)
	if c == nil {
		return
	}
	if id := p.client.claim(c); id != "" {
		name := string(c.user) + string(c.id) + id
		if m.claimed[name] {
			t.Fatalf("%s was claimed twice", name)
		}
		m.claimed[name] = true
	}
}

// finish lets everything come to rest, and looks at what everybody knows.
func (m *serversModel) finish(t *rapid.T) {
	for _, a := range []matrix.ServerName{"a", "b", "c"} {
		for _, b := range []matrix.ServerName{"a", "b", "c"} {
			m.world.cut(a, b, false)
		}
	}
	for _, h := range m.rooms {
		m.learnAll(h)
	}
	if m.lost { // the next change shows it
		for _, p := range m.people {
			p.rename("the last name of " + p.name)
		}
	}
	var wrong []string
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		for _, s := range m.sites {
			for name := range m.sites {
				s.e.Reachable(name) // as anything that comes from it shows
			}
		}
		m.carry()
		if wrong = m.wrong(); len(wrong) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("in the end:\n%s", strings.Join(wrong, "\n"))
		}
	}
	// It stays like that.
	m.carry()
	if wrong = m.wrong(); len(wrong) > 0 {
		t.Fatalf("after the end:\n%s", strings.Join(wrong, "\n"))
	}
}

// wrong lists what people, and their servers, believe that is not true.
func (m *serversModel) wrong() (list []string) {
	for _, p := range m.people {
		p.sync()
		for _, q := range m.people {
			if !slices.ContainsFunc(m.rooms, func(h *history) bool { return m.member(h, p) && m.member(h, q) }) || p == q {
				continue
			}
			truth := m.truth(q.user)
			if p.knows[q.user] != truth {
				list = append(list, fmt.Sprintf("%s knows of %s\n%s\nnot\n%s", p.user, q.user, p.knows[q.user], truth))
			}
			if p.server == q.server {
				continue
			}
			text, known, stale := m.site(p.user).remote(q.user)
			if known && !stale && text != truth {
				list = append(list, fmt.Sprintf("the server of %s keeps of %s\n%s\nnot\n%s", p.user, q.user, text, truth))
			}
		}
	}
	return list
}
