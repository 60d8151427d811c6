package push_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// TestCountsModel lets people say and redact all sorts of things in a room and in
// its threads, read, change their rules, ignore each other, leave and come back,
// while the server is restarted; and holds everybody's counts against a model
// that knows nothing of running counts.
//
// A failure names its seed: -run 'TestCountsModel/sqlite/seed_7$' does the same
// again, with TEAHOUSE_LONG set if it is a high one.
func TestCountsModel(t *testing.T) {
	seeds := 4
	if os.Getenv("TEAHOUSE_LONG") != "" {
		seeds = 60
	}
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			for seed := range seeds {
				t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
					m := newModel(t, kind, uint64(seed))
					for range 150 {
						m.step()
					}
				})
			}
		})
	}
}

// model is a room as its people know it.
type model struct {
	*testing.T
	rand   *rand.Rand
	server *testrig.Server
	room   matrix.RoomID
	people []*reader
	events []*said
	n      int // of things that need a name
	trace  []string
}

// said is one event.
type said struct {
	id       matrix.EventID
	sender   *reader
	content  object
	typ      string
	thread   matrix.EventID
	redacted bool
	tells    map[*reader]int // 1: notifies, 2: stands out as well
}

// reader is somebody in the room, and what they want.
type reader struct {
	*testrig.Client
	name     string
	joined   int // events that were there before; -1: is not in the room
	all      int // how many events are read ...
	threads  map[matrix.EventID]int
	disabled map[string]bool // predefined rules, as kind/id
	mute     bool            // by an override rule for the room
	calm     bool            // by a room rule
	keyword  bool            // by a content rule, for "tea"
	deaf     *reader         // by a sender rule
	ignores  *reader
}

func newModel(t *testing.T, kind string, seed uint64) *model {
	m := &model{
		T: t, rand: rand.New(rand.NewPCG(seed, 1)),
		server: testrig.Start(t, testrig.Options{Database: dbtest.URL(t, kind)}),
	}
	for i := range 4 {
		name := fmt.Sprint("user", i)
		m.people = append(m.people, &reader{Client: m.server.Register(name), name: name, joined: -1, disabled: map[string]bool{}})
	}
	m.room = m.people[0].CreateRoom(object{"preset": "public_chat"})
	for _, p := range m.people {
		m.join(p)
	}
	return m
}

func (m *model) log(p *reader, format string, args ...any) {
	m.trace = append(m.trace, p.name+" "+fmt.Sprintf(format, args...))
}

func (m *model) one() *reader { return m.people[m.rand.IntN(len(m.people))] }

// inside is somebody who is in the room.
func (m *model) inside() *reader {
	for {
		if p := m.one(); p.joined >= 0 {
			return p
		}
	}
}

func (m *model) join(p *reader) {
	p.Join(m.room)
	p.joined, p.all, p.threads = len(m.events), len(m.events), map[matrix.EventID]int{}
}

// step does something and then looks at everybody's counts.
func (m *model) step() {
	switch n := m.rand.IntN(100); {
	case n < 50 || len(m.events) == 0:
		m.say(m.inside())
	case n < 58:
		m.redact()
	case n < 75:
		m.read(m.inside())
	case n < 90:
		m.change(m.one())
	case n < 97:
		m.move(m.people[1+m.rand.IntN(len(m.people)-1)])
	default:
		m.restart()
	}
	for _, p := range m.people {
		m.check(p)
	}
}

func (m *model) restart() {
	m.trace = append(m.trace, "restart")
	m.server = m.server.Restart()
	for _, p := range m.people {
		p.Client = m.server.Login(p.name)
	}
}

// say sends an event of any kind.
func (m *model) say(p *reader) {
	m.n++
	e := &said{sender: p, typ: "m.room.message", content: object{"msgtype": "m.text", "body": "hello"}}
	var mentioned *reader
	switch m.rand.IntN(9) {
	case 0:
		e.content["body"] = "time for Tea"
	case 1:
		e.content["msgtype"] = "m.notice"
	case 2, 3:
		mentioned = m.one()
		e.content["m.mentions"] = object{"user_ids": []any{string(mentioned.User)}}
	case 4:
		e.content["m.mentions"] = object{"room": true}
	case 5:
		e.typ, e.content = "m.room.encrypted", object{"algorithm": "x"}
	case 6:
		e.typ = "org.example"
	}
	if m.rand.IntN(3) == 0 {
		var roots []matrix.EventID // few, so that threads grow
		for _, old := range m.events {
			if old.thread == "" && old.typ != "m.room.redaction" && len(roots) < 4 {
				roots = append(roots, old.id)
			}
		}
		if len(roots) > 0 {
			e.thread = roots[m.rand.IntN(len(roots))]
			e.content["m.relates_to"] = object{"rel_type": "m.thread", "event_id": e.thread}
		}
	}
	m.log(p, "says %s %v", e.typ, e.content)
	e.id = send(p.Client, m.room, e.typ, fmt.Sprint("t", m.n), e.content)
	m.said(e, mentioned)
}

// said adds an event, and what it is to everybody under the rules of now.
func (m *model) said(e *said, mentioned *reader) {
	e.tells = map[*reader]int{}
	for _, p := range m.people {
		e.tells[p] = m.tells(p, e, p == mentioned)
	}
	m.events = append(m.events, e)
	p := e.sender
	if e.thread != "" { // whoever writes has read
		p.threads[e.thread] = len(m.events)
	} else {
		p.threads[""] = len(m.events)
	}
}

// tells evaluates a person's rules by hand.
func (m *model) tells(p *reader, e *said, mentioned bool) int {
	all, _ := e.content["m.mentions"].(object)
	body, _ := e.content["body"].(string)
	inside := 0
	for _, other := range m.people {
		if other.joined >= 0 {
			inside++
		}
	}
	switch {
	case p == e.sender || p.ignores == e.sender || p.mute:
		return 0
	case p.disabled["override/.m.rule.master"]: // which is off at first
		return 0
	case e.content["msgtype"] == "m.notice" && !p.disabled["override/.m.rule.suppress_notices"]:
		return 0
	case mentioned && !p.disabled["override/.m.rule.is_user_mention"]:
		return 2
	case all["room"] == true && e.sender == m.people[0] && !p.disabled["override/.m.rule.is_room_mention"]:
		return 2 // nobody else has the power
	case p.keyword && strings.Contains(body, "Tea"):
		return 2
	case p.calm || p.deaf == e.sender:
		return 0
	case inside == 2 && (e.typ == "m.room.message" || e.typ == "m.room.encrypted"):
		return 1
	case e.typ == "m.room.message" && !p.disabled["underride/.m.rule.message"]:
		return 1
	case e.typ == "m.room.encrypted" && !p.disabled["underride/.m.rule.encrypted"]:
		return 1
	}
	return 0
}

func (m *model) redact() {
	m.n++
	e := m.events[m.rand.IntN(len(m.events))]
	if e.redacted || e.typ == "m.room.redaction" {
		return
	}
	by := m.people[0]
	m.log(by, "redacts %v", e.content)
	answer := by.Must("PUT", "/v3/rooms"+testrig.Path(m.room, "redact", e.id, fmt.Sprint("r", m.n)), object{})
	e.redacted = true
	m.said(&said{id: matrix.EventID(answer["event_id"].(string)), sender: by, typ: "m.room.redaction", content: object{}}, nil)
}

// read sets a receipt somewhere, perhaps farther back than an older one.
func (m *model) read(p *reader) {
	at := m.rand.IntN(len(m.events))
	e := m.events[at]
	typ := []string{"m.read", "m.read.private"}[m.rand.IntN(2)]
	body := object{}
	thread := e.thread
	switch {
	case m.rand.IntN(2) == 0:
		p.all = max(p.all, at+1)
	case e.thread != "":
		body["thread_id"] = e.thread
		p.threads[thread] = max(p.threads[thread], at+1)
	default:
		body["thread_id"] = "main"
		p.threads[""] = max(p.threads[""], at+1)
	}
	m.log(p, "has read %s up to %d, %v", typ, at, body)
	p.Must("POST", "/v3/rooms"+testrig.Path(m.room, "receipt", typ, e.id), body)
}

// change changes somebody's mind.
func (m *model) change(p *reader) {
	flip := func(on *bool, path string, body object) {
		*on = !*on
		m.log(p, "has %s: %v", path, *on)
		if *on {
			putRule(p.Client, path, body)
		} else {
			p.Must("DELETE", "/v3/pushrules/global/"+path, nil)
		}
	}
	loud := []any{"notify", object{"set_tweak": "highlight"}}
	switch m.rand.IntN(6) {
	case 0:
		flip(&p.mute, "override/mute", object{"actions": []any{}, "conditions": []any{
			object{"kind": "event_match", "key": "room_id", "pattern": string(m.room)}}})
	case 1:
		flip(&p.calm, "room"+testrig.Path(m.room), silent)
	case 2:
		flip(&p.keyword, "content/tea", object{"pattern": "tea", "actions": loud})
	case 3:
		if p.deaf != nil {
			p.Must("DELETE", "/v3/pushrules/global/sender"+testrig.Path(p.deaf.User), nil)
			p.deaf = nil
		} else {
			p.deaf = m.one()
			putRule(p.Client, "sender"+testrig.Path(p.deaf.User), silent)
		}
		m.log(p, "changes sender rules: %v", p.deaf != nil)
	case 4:
		rules := []string{
			"override/.m.rule.master", "override/.m.rule.suppress_notices", "override/.m.rule.is_user_mention",
			"override/.m.rule.is_room_mention", "underride/.m.rule.message", "underride/.m.rule.encrypted",
		}
		rule := rules[m.rand.IntN(len(rules))]
		p.disabled[rule] = !p.disabled[rule]
		enable(p.Client, rule, p.disabled[rule] == strings.HasSuffix(rule, "master"))
		m.log(p, "flips %s", rule)
	case 5:
		ignored := object{}
		if p.ignores == nil {
			if who := m.one(); who != p {
				p.ignores, ignored[string(who.User)] = who, object{}
			}
		} else {
			p.ignores = nil
		}
		p.Must("PUT", "/v3/user"+testrig.Path(p.User, "account_data", "m.ignored_user_list"), object{"ignored_users": ignored})
		m.log(p, "ignores %v", ignored)
	}
}

// move lets somebody come or go.
func (m *model) move(p *reader) {
	if p.joined < 0 {
		m.log(p, "joins")
		m.join(p)
		return
	}
	m.log(p, "leaves")
	p.Must("POST", "/v3/rooms"+testrig.Path(m.room, "leave"), object{})
	p.joined = -1
}

// counts are a person's unread counts by thread, "" for the main timeline.
// Of people whom they ignore by now there are none.
func (m *model) counts(p *reader) map[matrix.EventID][2]int {
	found := map[matrix.EventID][2]int{}
	for i, e := range m.events {
		if e.tells[p] == 0 || e.redacted || p.ignores == e.sender || i < max(p.all, p.threads[e.thread]) {
			continue
		}
		c := found[e.thread]
		c[0]++
		if e.tells[p] == 2 {
			c[1]++
		}
		found[e.thread] = c
	}
	return found
}

const byThread = `/v3/sync?filter={"room":{"timeline":{"limit":1,"unread_thread_notifications":true}}}`

// check holds what a person is told against what the model says.
func (m *model) check(p *reader) {
	m.Helper()
	room := at(p.Must("GET", byThread, nil), "rooms", "join", m.room)
	if p.joined < 0 {
		if room != nil {
			m.Fatalf("%s is shown the room", p.name)
		}
		return
	}
	told := map[matrix.EventID][2]int{}
	take := func(thread matrix.EventID, counts any) {
		n, _ := at(counts, "notification_count").(float64)
		h, _ := at(counts, "highlight_count").(float64)
		if n > 0 || h > 0 {
			told[thread] = [2]int{int(n), int(h)}
		}
	}
	take("", at(room, "unread_notifications"))
	threads, _ := at(room, "unread_thread_notifications").(object)
	for root, counts := range threads {
		take(matrix.EventID(root), counts)
	}
	if want := m.counts(p); !same(told, want) {
		m.Fatalf("%s is told %v, not %v, after\n%s", p.name, told, want, strings.Join(m.trace, "\n"))
	}
}

func same(a, b map[matrix.EventID][2]int) bool {
	keys := func(m map[matrix.EventID][2]int) []string {
		var all []string
		for k, v := range m {
			all = append(all, fmt.Sprint(k, v))
		}
		slices.Sort(all)
		return all
	}
	return slices.Equal(keys(a), keys(b))
}
