package rooms_test

import (
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/resolve/spec"
)

// oracle knows the whole graph of a room, and works out every state word for
// word.
type oracle struct {
	t      testing.TB
	room   *spec.Room
	order  []matrix.EventID
	after  map[matrix.EventID]spec.State // the state after each event
	before map[matrix.EventID]spec.State
	memo   map[string]spec.State
	create *event.Event
}

func newOracle(t testing.TB, v *event.Version) *oracle {
	return &oracle{
		t: t, room: &spec.Room{Version: v, Events: map[matrix.EventID]*event.Event{}, Rejected: spec.Set{}},
		after: map[matrix.EventID]spec.State{}, before: map[matrix.EventID]spec.State{}, memo: map[string]spec.State{},
	}
}

// resolve is the resolution of the states after events.
func (o *oracle) resolve(ids []matrix.EventID) spec.State {
	ids = slices.Sorted(slices.Values(ids))
	name := fmt.Sprint(ids)
	if st, ok := o.memo[name]; ok {
		return st
	}
	var states []spec.State
	for _, id := range ids {
		if !slices.ContainsFunc(states, func(st spec.State) bool { return maps.Equal(st, o.after[id]) }) {
			states = append(states, o.after[id])
		}
	}
	st := spec.State{}
	switch len(states) {
	case 0:
	case 1:
		st = states[0]
	default:
		st = o.room.Resolve(states)
	}
	o.memo[name] = st
	return st
}

// learn adds an event whose previous and auth events it knows.
func (o *oracle) learn(ev *event.Event) {
	if o.room.Events[ev.ID] != nil {
		return
	}
	o.room.Events[ev.ID] = ev
	o.order = append(o.order, ev.ID)
	if ev.Type == matrix.TypeCreate {
		o.create = ev
	}
	before := o.resolve(ev.PrevEvents)
	o.before[ev.ID], o.after[ev.ID] = before, before
	own := spec.State{}
	var list []*event.Event
	for _, id := range ev.AuthEvents {
		a := o.room.Events[id]
		list = append(list, a)
		own[auth.Key{Type: a.Type, StateKey: a.StateKey()}] = id
	}
	if ev.Version.RoomIDHash && ev != o.create {
		own[auth.Key{Type: matrix.TypeCreate}] = o.create.ID
	}
	rejected := func(id matrix.EventID) bool { return o.room.Rejected[id] }
	if auth.CheckAuthEvents(ev, list, rejected) != nil || auth.Check(ev, spec.View{Room: o.room, State: own}) != nil ||
		auth.Check(ev, spec.View{Room: o.room, State: before}) != nil {
		o.room.Rejected[ev.ID] = true
		return
	}
	if ev.IsState() {
		after := maps.Clone(before)
		after[auth.Key{Type: ev.Type, StateKey: ev.StateKey()}] = ev.ID
		o.after[ev.ID] = after
	}
}

// play is a room among three servers, whose users do all kinds of things while
// they do not always hear of each other.
type play struct {
	t       *testing.T
	random  *rand.Rand
	servers []*server
	oracle  *oracle
	log     []*event.Event             // everything, in an order in which it could have been sent
	todo    map[*server][]*event.Event // what a server has not got yet
	soft    int
	start   int // index of the last join: from there on all servers know all
}

func (p *play) pick(n int) int { return p.random.Intn(n) }

// spread puts a new event on its way to all but those who have it.
func (p *play) spread(ev *event.Event, has ...*server) {
	p.log = append(p.log, ev)
	p.oracle.learn(ev)
	for _, s := range p.servers {
		if !slices.Contains(has, s) {
			p.todo[s] = append(p.todo[s], ev)
		}
	}
}

// act lets a server's user do something; what is not allowed there does not
// happen.
func (p *play) act(s *server) {
	target := p.servers[p.pick(len(p.servers))].user
	own := string(s.user)
	membership := func(of, m string) rooms.Proto {
		return stateProto(matrix.TypeMember, of, fmt.Sprintf(`{"membership":%q,"n":%d}`, m, p.pick(1000)))
	}
	var proto rooms.Proto
	switch p.pick(12) {
	case 0, 1, 2:
		proto = message(fmt.Sprint(p.pick(1000)))
	case 3, 4:
		proto = stateProto(matrix.TypeTopic, "", fmt.Sprintf(`{"topic":"%d"}`, p.pick(1000)))
	case 5:
		proto = membership(own, "join")
	case 6:
		proto = membership(string(target), "ban")
	case 7:
		proto = membership(string(target), "leave")
	case 8:
		proto = membership(fmt.Sprintf("@guest%d:b", p.pick(3)), "invite")
	case 9:
		proto = stateProto(matrix.TypeJoinRules, "", fmt.Sprintf(`{"join_rule":%q}`, []string{"public", "invite"}[p.pick(2)]))
	case 10:
		proto = p.changedLevels(s)
	case 11:
		if redacts := p.log[p.pick(len(p.log))]; !redacts.IsState() {
			proto = rooms.Proto{Type: matrix.TypeRedaction, Content: []byte(`{}`), Redacts: redacts.ID}
		} else {
			proto = message("instead of a redaction")
		}
	}
	// The first creator stays, so that there is somebody who can speak at the end.
	if proto.Type == matrix.TypeMember && *proto.StateKey == "@user:a" {
		proto = membership("@user:a", "join")
	}
	at := 1_600_000_000_000 + int64(p.pick(100_000))
	proto.Timestamp = &at
	st, err := s.Send(p.t.Context(), s.room, s.user, proto, nil)
	if err != nil {
		if matrix.AsError(err).Status >= 500 {
			p.t.Fatal(err)
		}
		return
	}
	p.spread(st.Event, s)
}

func (p *play) changedLevels(s *server) rooms.Proto {
	users := map[string]any{"@user:b": 25 * p.pick(4), "@user:c": 25 * p.pick(4)}
	if !s.v.CreatorPower {
		users["@user:a"] = 100
	}
	return stateProto(matrix.TypePowerLevels, "", encode(map[string]any{
		"users": users, "state_default": 25 * p.pick(3), "ban": 50, "kick": 50, "redact": 50, "invite": 25 * p.pick(2),
	}))
}

// forge sends an event that sits anywhere in the graph, as a server does that
// has not heard, or that cheats.
func (p *play) forge(s *server) {
	known := p.oracle.order[p.start:]
	at := known[p.pick(len(known))]
	from := p.oracle.order[max(0, slices.Index(p.oracle.order, at)-p.pick(4))]
	prev := []event.Ref{p.oracle.room.Events[at].Ref()}
	if p.pick(3) == 0 {
		if more := known[p.pick(len(known))]; more != at {
			prev = append(prev, p.oracle.room.Events[more].Ref())
		}
	}
	d := draft{
		sender: s.user, prev: prev, from: spec.View{Room: p.oracle.room, State: p.oracle.before[from]},
		ts: 1_600_000_000_000 + int64(p.pick(100_000)), depth: int64(p.pick(100)),
		typ: matrix.TypeTopic, key: key(""), content: fmt.Sprintf(`{"topic":"forged %d"}`, p.pick(1000)),
	}
	switch target := string(p.servers[1+p.pick(2)].user); p.pick(5) {
	case 0:
		d.typ, d.key, d.content = matrix.TypeMember, &target, fmt.Sprintf(`{"membership":"ban","n":%d}`, p.pick(1000))
	case 1:
		d.typ, d.key, d.content = matrix.TypeMember, key(string(s.user)), fmt.Sprintf(`{"membership":"join","n":%d}`, p.pick(1000))
	case 2:
		d.typ, d.key, d.content = matrix.TypeMessage, nil, fmt.Sprintf(`{"body":"forged %d"}`, p.pick(1000))
	}
	p.spread(s.forge(d))
}

// hear hands a server some of what it has not got, in one batch. What it misses
// something for stays to be handed over again.
func (p *play) hear(s *server, n int) {
	batch := p.todo[s][:min(n, len(p.todo[s]))]
	rest := slices.Clone(p.todo[s][len(batch):])
	var again []*event.Event
	for i, out := range s.give(batch...) {
		switch {
		case len(out.Missing) > 0:
			again = append(again, batch[i])
		case out.Event == nil:
			p.t.Fatalf("%s: a %s was not stored: %v", s.name, batch[i].Type, out.Why)
		case out.Event.Flags&rooms.SoftFailed != 0:
			p.soft++
		}
	}
	p.todo[s] = append(again, rest...)
}

// check compares all that a server thinks with the oracle.
func (p *play) check(s *server) {
	p.t.Helper()
	t, o := p.t, p.oracle
	stored, err := s.Stored(t.Context(), o.order...)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range o.order {
		st := stored[id]
		if st == nil {
			t.Errorf("%s does not have %s", s.name, id)
			continue
		}
		if (st.Flags&rooms.Rejected != 0) != o.room.Rejected[id] {
			t.Errorf("%s: %s (%s) has the flags %d; rejected should be %v", s.name, id, st.Type, st.Flags, o.room.Rejected[id])
		}
		if st.Flags&rooms.Outlier != 0 {
			continue
		}
		m, err := s.Snapshot(t.Context(), st.Snapshot)
		if err != nil {
			t.Fatal(err)
		}
		events, err := s.StateEvents(t.Context(), m, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := describe(s.named(m.Len(), events), o.after[id]); diff != "" {
			t.Errorf("%s: the state after %s (%s, flags %d) is not right:%s", s.name, id, st.Type, st.Flags, diff)
		}
	}
	var ends []matrix.EventID
	for _, x := range s.extremities() {
		ends = append(ends, x.ID)
	}
	if diff := describe(s.state(), o.resolve(ends)); diff != "" {
		t.Errorf("%s: the current state is not right:%s", s.name, diff)
	}
	for _, id := range s.state() {
		if o.room.Rejected[id] {
			t.Errorf("%s: the rejected event %s is in the state", s.name, id)
		}
	}
	if err := s.CheckConsistency(t.Context()); err != nil {
		t.Error(err)
	}
}

// checkRestart checks that a server finds again what it had.
func (p *play) checkRestart(s *server) {
	p.t.Helper()
	before, ends, members := s.theRoom().View(), s.extremities(), s.theRoom().LocalMembers()
	s.restart()
	after := s.theRoom().View()
	if before.Position != after.Position || before.Snapshot != after.Snapshot || before.Joined != after.Joined || before.Invited != after.Invited {
		p.t.Errorf("%s: after a restart the view is %+v, it was %+v", s.name, after, before)
	}
	if again := s.extremities(); !slices.Equal(ends, again) {
		p.t.Errorf("%s: after a restart the extremities are %v, they were %v", s.name, again, ends)
	}
	if again := s.theRoom().LocalMembers(); !slices.Equal(members, again) {
		p.t.Errorf("%s: after a restart the local members are %v, they were %v", s.name, again, members)
	}
}

// TestServersAgree plays random rooms in all versions among three servers and
// holds every state of every server against the literal algorithms.
func TestServersAgree(t *testing.T) {
	seeds := 2
	if testing.Short() {
		seeds = 1
	}
	for _, v := range event.Versions() {
		for seed := range seeds {
			t.Run(fmt.Sprintf("v%s-%d", v.ID, seed), func(t *testing.T) {
				playRoom(t, v, int64(100*len(v.ID)+10*int(v.ID[len(v.ID)-1])+seed), 120, "sqlite")
			})
		}
	}
}

func TestServersAgreeOnPostgres(t *testing.T) {
	for _, id := range []string{"1", "6", "12"} {
		t.Run("v"+id, func(t *testing.T) {
			playRoom(t, lookup(t, id), 7, 40, "postgres")
		})
	}
}

// newPlay makes a play in a room that the first server has made and the others
// have joined.
func newPlay(t *testing.T, v *event.Version, seed int64, servers ...*server) *play {
	t.Helper()
	p := &play{
		t: t, random: rand.New(rand.NewSource(seed)), servers: servers, oracle: newOracle(t, v), todo: map[*server][]*event.Event{},
	}
	first, err := servers[0].Timeline(t.Context(), rooms.TimelineQuery{Room: servers[0].theRoom(), Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range first {
		p.log = append(p.log, st.Event)
		p.oracle.learn(st.Event)
	}
	p.start = len(p.log) - 1
	return p
}

// run plays, and in the end has everybody hear of everything.
func (p *play) run(steps int) {
	p.t.Helper()
	for range steps {
		s := p.servers[p.pick(3)]
		switch p.pick(10) {
		case 0:
			p.forge(s)
		case 1, 2, 3:
			p.hear(s, 1+p.pick(10))
		case 4:
			if p.pick(3) == 0 {
				p.checkRestart(s)
			} else {
				s.ForgetBranches()
			}
		default:
			p.act(s)
		}
	}
	for range 100 {
		for _, s := range p.servers {
			p.hear(s, 1+p.pick(10))
		}
	}
}

func playRoom(t *testing.T, v *event.Version, seed int64, steps int, kind string) {
	a, b, c := three(t, v, kind)
	p := newPlay(t, v, seed, a, b, c)
	p.run(steps)
	last := a.say("the end")
	p.spread(last, a)
	for _, s := range p.servers {
		p.hear(s, 1000)
		if n := len(p.todo[s]); n > 0 {
			t.Errorf("%s still misses something for %d events", s.name, n)
		}
		p.check(s)
		p.checkRestart(s)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d events, %d rejected, %d soft-failed", len(p.log), len(p.oracle.room.Rejected), p.soft)
}
