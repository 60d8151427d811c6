package syncapi

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// The states of presence.
// spec: client-server#presence
const (
	online      = "online"
	unavailable = "unavailable"
	offline     = "offline"
)

const (
	presenceIdle     = 5 * time.Minute        // from being active to unavailable
	presenceGone     = 30 * time.Second       // from the last request to offline
	presenceActive   = time.Minute            // how long somebody counts as currently active
	presenceTick     = 5 * time.Second        // how often it is looked who fell idle
	presenceTogether = 250 * time.Millisecond // changes within it wake others once
	presenceAgain    = 25 * time.Minute       // until other servers are told again of somebody who is there
	presenceRemote   = 35 * time.Minute       // from the last word of another server to offline
	presenceStranger = 20_000                 // users of other servers who are kept
	maxAgo           = 365 * 24 * time.Hour   // since somebody was active
)

// presence knows who is there. It lives in memory only: after a restart
// everybody is offline until they are heard of.
type presence struct {
	off      bool
	notifier *notifier
	now      func() time.Time
	local    func(matrix.UserID) bool
	where    func(context.Context, []matrix.UserID) (map[matrix.UserID][]rooms.RoomNID, error) // who is joined to which rooms of ours
	abroad   func([]seen)                                                                      // tells other servers of local users
	met      func([]matrix.UserID, map[matrix.UserID][]rooms.RoomNID)                          // tells of who changed, and where they are joined

	mu        sync.Mutex
	people    map[matrix.UserID]*person
	strangers int                        // how many of them are of other servers
	changed   map[matrix.UserID]struct{} // not told to anybody yet
	told      *time.Timer                // set while changed is to be told
	ticker    *time.Timer                // set while somebody is not offline
	closed    bool
}

// person is one user's presence.
type person struct {
	state      string
	status     *string
	idle       bool // unavailable because of a long silence, not by their own word
	active     time.Time
	heard      time.Time // when their last request ended
	open       int       // open requests that say they are there
	generation int64     // of the last change that others were told of
	abroad     time.Time // when other servers were told last

	stranger bool // a user of another server
	current  bool // what that server said of being currently active
}

func newPresence(n *notifier, s *Service) *presence {
	return &presence{
		off: !s.Presence, notifier: n, now: s.Now, local: s.Rooms.Local, where: s.whereJoined, abroad: s.tellPresence, met: s.changedPresence,
		people: map[matrix.UserID]*person{}, changed: map[matrix.UserID]struct{}{},
	}
}

// get returns the person, made if need be; p.mu is held.
func (p *presence) get(u matrix.UserID) *person {
	who := p.people[u]
	if who == nil {
		who = &person{state: offline}
		p.people[u] = who
	}
	return who
}

// come notes a request that listens; the returned function, that it is over.
// set_presence as the request has it: "offline" leaves things as they are.
func (p *presence) come(u matrix.UserID, set string) (leave func()) {
	if p.off || set == offline {
		return func() {}
	}
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	who := p.get(u)
	who.open++
	who.heard = now
	switch {
	case set == unavailable:
		p.become(u, who, unavailable)
		who.idle = false
	case who.state != online && !who.idle:
		who.active = now
		p.become(u, who, online)
	}
	p.tick()
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		who.open--
		who.heard = p.now()
	}
}

// active notes that a user did something.
// spec: client-server#last-active-ago
func (p *presence) active(u matrix.UserID) {
	if p.off {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	who := p.people[u]
	if who == nil {
		return
	}
	who.active = p.now()
	if who.idle {
		p.become(u, who, online)
	}
}

// set is what a user says of themselves; a nil status takes the old one away.
func (p *presence) set(u matrix.UserID, state string, status *string) {
	if p.off {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	who := p.get(u)
	who.active, who.heard = p.now(), p.now()
	if !sameText(status, who.status) {
		who.status = status
		p.tell(u)
	}
	p.become(u, who, state)
	p.tick()
}

// strange lists those of the users who are not known to be there.
func (p *presence) strange(users []matrix.UserID) []matrix.UserID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(users), func(u matrix.UserID) bool { return p.people[u] != nil })
}

// hear takes what another server says of one of its users.
func (p *presence) hear(c presencePush) {
	p.mu.Lock()
	defer p.mu.Unlock()
	who := p.people[c.User]
	if who == nil {
		if c.State == offline {
			return
		}
		if p.strangers >= presenceStranger {
			p.forget()
		}
		who = p.get(c.User)
		who.stranger = true
		p.strangers++
	}
	now := p.now()
	ago := time.Duration(min(max(c.Ago, 0), maxAgo.Milliseconds())) * time.Millisecond
	who.heard, who.active = now, now.Add(-ago)
	if who.current != c.Active || !sameText(who.status, c.Status) {
		who.current, who.status = c.Active, c.Status
		p.tell(c.User)
	}
	p.become(c.User, who, c.State)
	p.tick()
}

// forget makes room for somebody of another server: whoever is offline goes first;
// p.mu is held.
func (p *presence) forget() {
	looks := 0
	var victim matrix.UserID
	for u, who := range p.people {
		if !who.stranger {
			continue
		}
		victim = u
		if looks++; who.state == offline || looks > 100 {
			break
		}
	}
	if victim != "" {
		delete(p.people, victim)
		p.strangers--
	}
}

func sameText(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }

// become changes somebody's state; p.mu is held.
func (p *presence) become(u matrix.UserID, who *person, state string) {
	who.idle = false
	if who.state == state {
		return
	}
	who.state = state
	p.tell(u)
}

// tell lets others know of u before long; p.mu is held.
func (p *presence) tell(u matrix.UserID) {
	p.changed[u] = struct{}{}
	if p.told == nil && !p.closed {
		p.told = time.AfterFunc(presenceTogether, p.flush)
	}
}

// flush tells everybody who shares a room with somebody who changed, and the
// servers of those who are not here.
func (p *presence) flush() {
	p.mu.Lock()
	p.told = nil
	changed := p.changed
	p.changed = map[matrix.UserID]struct{}{}
	p.mu.Unlock()
	users := slices.Collect(maps.Keys(changed))
	where, err := p.where(context.Background(), users)
	if err != nil {
		where = nil // they are seen where they are looked for
	}
	in := map[rooms.RoomNID]struct{}{}
	for _, list := range where {
		for _, nid := range list {
			in[nid] = struct{}{}
		}
	}
	p.notifier.met(users, slices.Collect(maps.Keys(in)), func(generation int64) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, u := range users {
			if who := p.people[u]; who != nil {
				who.generation = generation
			}
		}
	})
	p.met(users, where)
	p.tellServers(users)
}

// tellServers tells other servers of those of the users who are ours.
func (p *presence) tellServers(users []matrix.UserID) {
	var ours []seen
	p.mu.Lock()
	now := p.now()
	for _, u := range users {
		if who := p.people[u]; who != nil && !who.stranger {
			who.abroad = now
			ours = append(ours, p.look(u, who, now))
		}
	}
	p.mu.Unlock()
	if len(ours) > 0 {
		p.abroad(ours)
	}
}

// tick looks after those who are not offline, for as long as there are any; p.mu
// is held.
func (p *presence) tick() {
	if p.ticker == nil && !p.closed {
		p.ticker = time.AfterFunc(presenceTick, p.age)
	}
}

func (p *presence) age() {
	p.mu.Lock()
	p.ticker = nil
	now := p.now()
	there := false
	var again []matrix.UserID
	for u, who := range p.people {
		switch {
		case who.state == offline:
		case who.stranger:
			if now.Sub(who.heard) >= presenceRemote {
				p.become(u, who, offline)
			}
		case who.open == 0 && now.Sub(who.heard) >= presenceGone:
			p.become(u, who, offline)
		case who.state == online && now.Sub(who.active) >= presenceIdle:
			p.become(u, who, unavailable)
			who.idle = true
		case now.Sub(who.abroad) >= presenceAgain:
			again = append(again, u)
		}
		there = there || who.state != offline
	}
	if there {
		p.tick()
	}
	p.mu.Unlock()
	p.tellServers(again)
}

func (p *presence) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, t := range []*time.Timer{p.told, p.ticker} {
		if t != nil {
			t.Stop()
		}
	}
}

// seen is somebody's presence as others see it.
type seen struct {
	user   matrix.UserID
	state  string
	status *string
	ago    time.Duration // since they were active; below 0 if they never were
	active bool          // currently
}

func (p *presence) look(u matrix.UserID, who *person, now time.Time) seen {
	s := seen{user: u, state: who.state, status: who.status, ago: -1}
	if !who.active.IsZero() {
		s.ago = max(now.Sub(who.active), 0)
		s.active = who.state == online && s.ago < presenceActive
	}
	if who.stranger {
		s.active = who.state == online && who.current
	}
	return s
}

// one returns a user's presence.
func (p *presence) one(u matrix.UserID) seen {
	p.mu.Lock()
	defer p.mu.Unlock()
	if who := p.people[u]; who != nil {
		return p.look(u, who, p.now())
	}
	return seen{user: u, state: offline, ago: -1}
}

// above lists whose presence changed above a generation and up to another, the
// user who asks included; from the start (0) those who are not offline.
func (p *presence) above(after, upTo int64) []seen {
	if p.off {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	var list []seen
	for u, who := range p.people {
		if who.generation > after && who.generation <= upTo && (after > 0 || who.state != offline) {
			list = append(list, p.look(u, who, now))
		}
	}
	slices.SortFunc(list, func(a, b seen) int { return compare(a.user, b.user) })
	return list
}

// here lists who is not offline, of those that the condition holds for, which is
// called with the lock held.
func (p *presence) here(ok func(matrix.UserID) bool) []seen {
	if p.off {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	var list []seen
	for u, who := range p.people {
		if who.state != offline && ok(u) {
			list = append(list, p.look(u, who, now))
		}
	}
	return list
}
