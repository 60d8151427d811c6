package encryption

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// announcedAtOnce is how many users' changes one write sends out.
const announcedAtOnce = 20

// backlog is what the announcer has to look at. All of it is in the database,
// too: users whose newest change was not announced, and servers that are behind.
type backlog struct {
	mu      sync.Mutex
	users   map[matrix.UserID]struct{}
	servers map[matrix.ServerName]struct{} // came to a room
	wake    chan struct{}                  // holds at most one
}

func newBacklog() *backlog {
	return &backlog{
		users: map[matrix.UserID]struct{}{}, servers: map[matrix.ServerName]struct{}{}, wake: make(chan struct{}, 1),
	}
}

func (b *backlog) add(users []matrix.UserID, servers ...matrix.ServerName) {
	b.mu.Lock()
	for _, u := range users {
		b.users[u] = struct{}{}
	}
	for _, s := range servers {
		b.servers[s] = struct{}{}
	}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take gives some users, and all servers.
func (b *backlog) take() (users []matrix.UserID, servers []matrix.ServerName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for u := range b.users {
		if len(users) == announcedAtOnce {
			break
		}
		users = append(users, u)
		delete(b.users, u)
	}
	for s := range b.servers {
		servers = append(servers, s)
	}
	clear(b.servers)
	return users, servers
}

// runAnnouncer tells other servers of changes until ctx ends.
func (e *Encryption) runAnnouncer(ctx context.Context) {
	if err := e.resumeAnnouncing(ctx); err != nil && ctx.Err() == nil {
		e.Log.Error("changes of devices that other servers have not heard of could not be read; the next start tries again", "error", err)
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-e.backlog.wake:
			for e.announceSome(ctx) {
			}
		}
	}
}

// resumeAnnouncing finds what was left undone.
func (e *Encryption) resumeAnnouncing(ctx context.Context) error {
	for _, s := range []*db.Stmt{selectDue, selectBehind} {
		users, err := db.All(ctx, e.DB, s, scanUser)
		if err != nil {
			return err
		}
		e.backlog.add(users)
	}
	return nil
}

// announceSome works on the backlog and tells whether there was any.
func (e *Encryption) announceSome(ctx context.Context) bool {
	users, servers := e.backlog.take()
	if len(users)+len(servers) == 0 || ctx.Err() != nil {
		return false
	}
	for _, s := range servers {
		behind, err := db.All(ctx, e.DB, selectBehindOf, scanUser, s)
		if err != nil {
			e.announceFailed(ctx, users, err)
			return false
		}
		e.backlog.add(behind)
	}
	if err := e.announceOutside(ctx, users); err != nil {
		e.announceFailed(ctx, users, err)
		return false
	}
	return true
}

// announceFailed is for a database that does not work. The next change of anybody
// tries again.
func (e *Encryption) announceFailed(ctx context.Context, users []matrix.UserID, err error) {
	e.backlog.mu.Lock()
	defer e.backlog.mu.Unlock()
	for _, u := range users {
		e.backlog.users[u] = struct{}{}
	}
	if ctx.Err() == nil {
		e.Log.Error("other servers could not be told of changed devices", "users", users, "error", err)
	}
}

// announceOutside tells every server that shares a room with the users what it
// has not heard of their devices yet.
func (e *Encryption) announceOutside(ctx context.Context, users []matrix.UserID) error {
	servers, err := e.concerned(ctx, users)
	if err != nil || len(servers) == 0 {
		return err
	}
	return e.DB.Write(ctx, func(tx *db.Tx) error {
		for _, user := range slices.Sorted(maps.Keys(servers)) {
			if err := e.announceUser(ctx, tx, user, servers[user]); err != nil {
				return err
			}
		}
		return nil
	})
}

// concerned are the servers that share a room with each of the users who have
// something to tell.
func (e *Encryption) concerned(ctx context.Context, users []matrix.UserID) (map[matrix.UserID][]matrix.ServerName, error) {
	due := map[matrix.UserID]bool{}
	err := db.Each(ctx, e.DB, selectStreams, func(row db.Scanner) error {
		s := &stream{}
		var announced int64
		err := row.Scan(&s.user, &s.newest, &announced, &s.forgotten)
		due[s.user] = announced < s.newest
		return err
	}, users)
	if err != nil {
		return nil, err
	}
	upToDate := map[matrix.UserID]map[matrix.ServerName]bool{}
	err = db.Each(ctx, e.DB, toldAll, func(row db.Scanner) error {
		var user matrix.UserID
		var server matrix.ServerName
		err := row.Scan(&user, &server)
		if upToDate[user] == nil {
			upToDate[user] = map[matrix.ServerName]bool{}
		}
		upToDate[user][server] = true
		return err
	}, users)
	if err != nil {
		return nil, err
	}
	all := map[matrix.UserID][]matrix.ServerName{}
	for _, u := range users {
		servers, err := e.Rooms.ServersWith(ctx, u)
		if err != nil {
			return nil, err
		}
		if due[u] || slices.ContainsFunc(servers, func(s matrix.ServerName) bool { return !upToDate[u][s] }) {
			all[u] = servers
		}
	}
	return all, nil
}

// announceUser tells servers of a user's devices, each what it is lacking.
func (e *Encryption) announceUser(ctx context.Context, tx *db.Tx, user matrix.UserID, servers []matrix.ServerName) error {
	s, err := e.readStream(ctx, tx, user)
	if err != nil {
		return err
	}
	var strangers, asked []matrix.ServerName
	behind := map[int64][]matrix.ServerName{}
	for _, server := range servers {
		id, told := s.told[server]
		switch {
		case s.asked[server]:
			asked = append(asked, server)
		case !told:
			strangers = append(strangers, server)
		default:
			behind[id] = append(behind[id], server)
		}
	}
	if len(strangers)+len(asked) > 0 {
		if err := s.complete(tx); err != nil {
			return err
		}
	}
	moved := slices.Concat(strangers, asked)
	if len(asked) > 0 { // and was told less than others are
		if err := s.renew(tx); err != nil {
			return err
		}
		if err := e.sendOut(tx, asked, s.ask()); err != nil {
			return err
		}
	}
	if err := e.sendOut(tx, strangers, s.first()); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(behind)) {
		if id >= s.newest {
			break
		}
		if err := e.sendOut(tx, behind[id], s.since(id)); err != nil {
			return err
		}
		moved = append(moved, behind[id]...)
	}
	return s.settle(tx, servers, moved, asked)
}

func (e *Encryption) sendOut(tx *db.Tx, to []matrix.ServerName, updates []edu) error {
	if len(to) == 0 {
		return nil
	}
	for _, u := range updates {
		if err := e.Outbox.Store(tx, to, u.typ, u.content); err != nil {
			return err
		}
	}
	return nil
}

// settle notes what servers were told: moved are those of them that heard
// something new, asked those that had asked before.
func (s *stream) settle(tx *db.Tx, servers, moved, asked []matrix.ServerName) error {
	if s.newest == 0 {
		return nil // there is nothing to be told
	}
	if len(moved) > 0 {
		if err := tx.Exec(upsertTold, s.user, s.newest, moved); err != nil {
			return err
		}
	}
	if err := tx.Exec(markBehind, s.user, s.newest, servers); err != nil {
		return err
	}
	if len(asked) > 0 {
		if err := tx.Exec(deleteAsked, s.user, asked); err != nil {
			return err
		}
	}
	if err := s.prune(tx); err != nil {
		return err
	}
	return tx.Exec(updateAnnounced, s.user, s.newest)
}

// prune forgets the oldest removed devices of a user who has removed many.
func (s *stream) prune(tx *db.Tx) error {
	var gone []streamChange
	for _, c := range s.changes {
		if !s.there(c.device) {
			gone = append(gone, c)
		}
	}
	if len(gone) <= goneKept {
		return nil
	}
	gone = gone[:len(gone)-goneKept/2]
	ids := make([]matrix.DeviceID, len(gone))
	for i, c := range gone {
		ids[i] = c.device
	}
	if err := tx.Exec(deleteStreamChanges, s.user, ids); err != nil {
		return err
	}
	return tx.Exec(updateForgotten, s.user, gone[len(gone)-1].id)
}
