package spaces

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// What other servers are asked for one request of a client.
const (
	maxAsked  = 40 // questions
	perRoom   = 3  // servers, for one room
	askTime   = 20 * time.Second
	askAtOnce = 8
)

// lookout finds rooms for one user during one request. Whoever is not logged in
// sees what this server knows by itself.
type lookout struct {
	*API
	user  matrix.UserID
	tired <-chan struct{} // closed when there is no more time to ask

	mu      sync.Mutex
	asked   int
	answers map[matrix.RoomID]*Answer // nil: nobody had one
}

// lookout begins a request; end must be called.
func (a *API) lookout(ctx context.Context, user matrix.UserID) (l *lookout, end context.CancelFunc) {
	limited, end := context.WithTimeout(ctx, askTime)
	return &lookout{API: a, user: user, tired: limited.Done(), answers: map[matrix.RoomID]*Answer{}}, end
}

// found is a room that the user may know of.
type found struct {
	summary    *rooms.Summary
	membership string
	children   []child
	answer     *Answer // of another server; nil if this one knows the room
}

// find sums up a room; 404 if the user may not know of it.
func (l *lookout) find(ctx context.Context, at branch, suggested bool) (*found, error) {
	r, s, err := l.current(ctx, at.room)
	if err == nil {
		return l.local(ctx, r, s, suggested)
	}
	if !matrix.HasCode(err, matrix.CodeNotFound) {
		return nil, err
	}
	if f, err := l.elsewhere(ctx, at, suggested); err != nil || f != nil {
		return f, err
	}
	return l.left(ctx, at.room, suggested)
}

func (l *lookout) local(ctx context.Context, r *rooms.Room, s *rooms.Summary, suggested bool) (*found, error) {
	ok, membership, err := l.Engine.Findable(ctx, r, s, l.user)
	if err != nil || !ok {
		return nil, orNoRoom(err)
	}
	children, err := l.children(ctx, r, s, suggested)
	return &found{summary: s, membership: membership, children: children}, err
}

// left sums up, as it was then, a room that this server is not in any more.
func (l *lookout) left(ctx context.Context, id matrix.RoomID, suggested bool) (*found, error) {
	r, err := l.Engine.Room(ctx, id)
	if matrix.HasCode(err, matrix.CodeNotFound) || err == nil && r.Shell() {
		return nil, errNoRoom.Because(err)
	}
	if err != nil {
		return nil, err
	}
	s, err := l.Engine.Summary(ctx, r)
	if err != nil {
		return nil, err
	}
	return l.local(ctx, r, s, suggested)
}

// elsewhere sums up a room by what other servers say of it; nil if none says
// anything.
func (l *lookout) elsewhere(ctx context.Context, at branch, suggested bool) (*found, error) {
	if l.Remote == nil || l.user == "" || at.hidden {
		return nil, nil
	}
	own, err := l.membership(ctx, at.room)
	if err != nil {
		return nil, err
	}
	f := &found{summary: at.told, membership: own.Membership}
	if at.told == nil || at.told.RoomType == typeSpace {
		if at.via, err = l.candidates(ctx, at, own); err != nil {
			return nil, err
		}
		if f.answer = l.ask(ctx, at, suggested); f.answer != nil {
			f.summary, f.children = &f.answer.Room.Summary, f.answer.Room.children(suggested)
		}
	}
	if f.summary == nil {
		return nil, nil
	}
	if ok, err := l.mayKnow(ctx, f); err != nil || !ok {
		return nil, orNoRoom(err)
	}
	return f, nil
}

// membership is the user's in a room of which this server may know nothing but
// that.
func (l *lookout) membership(ctx context.Context, id matrix.RoomID) (rooms.Membership, error) {
	r, err := l.Engine.Room(ctx, id)
	if matrix.HasCode(err, matrix.CodeNotFound) {
		return rooms.Membership{}, nil
	}
	if err != nil {
		return rooms.Membership{}, err
	}
	return l.Engine.Membership(ctx, r, l.user)
}

// candidates are the servers to be asked about a room: those that a space or a
// client names, the one that made it, and the one that invited the user.
func (l *lookout) candidates(ctx context.Context, at branch, own rooms.Membership) ([]matrix.ServerName, error) {
	via := at.via
	if own.Membership == matrix.MembershipInvite {
		events, err := l.Engine.Events(ctx, []state.EventNID{own.Event})
		if err != nil {
			return nil, err
		}
		via = append([]matrix.ServerName{events[0].Sender.Server()}, via...)
	}
	var servers []matrix.ServerName
	for _, s := range append(slices.Clip(via), at.room.Server()) {
		if s != "" && s != l.Engine.ServerName && !slices.Contains(servers, s) && len(servers) < perRoom {
			servers = append(servers, s)
		}
	}
	return servers, nil
}

// ask asks servers about a room until one tells something; nil if none does, or
// too much was asked already.
func (l *lookout) ask(ctx context.Context, at branch, suggested bool) *Answer {
	l.mu.Lock()
	answer, known := l.answers[at.room]
	l.mu.Unlock()
	if known {
		return answer
	}
	for _, server := range at.via {
		if !l.mayAsk() {
			break
		}
		var err error
		if answer, err = l.Remote.Hierarchy(ctx, server, at.room, suggested); err == nil {
			break
		}
		answer = nil // whatever it is, the next one may know
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[at.room] = answer
	return answer
}

func (l *lookout) mayAsk() bool {
	select {
	case <-l.tired:
		return false
	default:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	return l.asked <= maxAsked
}

// askAhead asks about several rooms at a time, so that a page does not take as
// long as all its questions one after the other.
func (l *lookout) askAhead(ctx context.Context, branches []branch, suggested bool) {
	if l.Remote == nil || l.user == "" {
		return
	}
	var running sync.WaitGroup
	free := make(chan struct{}, askAtOnce)
	for _, at := range branches {
		free <- struct{}{}
		running.Go(func() {
			defer func() {
				_ = recover() // the walk does the same again, where a panic ends the request only
				<-free
			}()
			if _, _, err := l.current(ctx, at.room); matrix.HasCode(err, matrix.CodeNotFound) {
				_, _ = l.elsewhere(ctx, at, suggested)
			}
		})
	}
	running.Wait()
}

// mayKnow is Engine.Findable for a room that this server is not in. The user's
// server has to see to it: the one that answers knows which server asks, not for
// whom.
// spec: client-server#get_matrixclientv1roomsroomidhierarchy
func (l *lookout) mayKnow(ctx context.Context, f *found) (bool, error) {
	switch {
	case f.membership == matrix.MembershipJoin, f.membership == matrix.MembershipInvite, f.summary.WorldReadable:
		return true, nil
	case f.membership == matrix.MembershipBan:
		return false, nil
	}
	v, known := event.Lookup(f.summary.Version)
	switch f.summary.JoinRule {
	case "", matrix.JoinPublic: // who says nothing means public
		return true, nil
	case matrix.JoinKnock:
		return !known || v.Knocking, nil
	case matrix.JoinKnockRestricted:
		return !known || v.KnockRestricted, nil
	case matrix.JoinRestricted:
		return l.inOneOf(ctx, f.summary.AllowedRooms)
	}
	return false, nil
}

// inOneOf tells whether the user is in one of the rooms.
func (l *lookout) inOneOf(ctx context.Context, ids []matrix.RoomID) (bool, error) {
	for _, id := range ids {
		r, err := l.Engine.Room(ctx, id)
		if matrix.HasCode(err, matrix.CodeNotFound) {
			continue
		}
		if err != nil {
			return false, err
		}
		if r.IsLocalMember(l.user) {
			return true, nil
		}
	}
	return false, nil
}

// below makes a branch of a child, with what is known of it already.
func (f *found) below(c child, depth int) branch {
	b := branch{room: c.room, via: c.via, depth: depth}
	if f.answer == nil {
		return b
	}
	b.hidden = slices.Contains(f.answer.Inaccessible, c.room)
	at := slices.IndexFunc(f.answer.Children, func(s rooms.Summary) bool { return s.RoomID == c.room })
	if at >= 0 {
		b.told = &f.answer.Children[at]
	}
	return b
}
