package encryption

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// A list counts as long as its user shares rooms with local users without a
// break: during a break nobody tells this server of changes. Whoever goes out of
// a room is in doubt until it was found whether they are in another; in doubt are
// also the members of a room that the last local user went out of.

// sweepSize is how many users are looked at in one go.
const sweepSize = 500

// doubts are the remote users who may share no room with local users any more.
type doubts struct {
	mu    sync.Mutex
	users map[matrix.UserID]doubt
	rooms []deserted
	times int64
	wake  chan struct{} // holds at most one
	swept bool          // those of before the start are known
}

// doubt is about who was in company up to a position, and may not be any more.
type doubt struct {
	until int64
	time  int64 // tells doubts apart
}

// deserted is a room without local users, as the last one left it.
type deserted struct {
	state *state.Map
	doubt
}

func newDoubts() *doubts {
	return &doubts{users: map[matrix.UserID]doubt{}, wake: make(chan struct{}, 1)}
}

// add doubts a user; the lock is held.
func (d *doubts) add(u matrix.UserID, until int64) {
	if old, there := d.users[u]; there {
		until = min(until, old.until)
	}
	d.times++
	d.users[u] = doubt{until, d.times}
}

// positionBefore is that of everything before a commit.
func positionBefore(c *rooms.Committed) int64 {
	for _, st := range c.Events {
		if st.Position > 0 {
			return st.Position - 1
		}
	}
	return 0
}

// moved notes that memberships of a room have changed. It runs on the database's
// writer, before anybody is woken.
func (e *Encryption) moved(c *rooms.Committed, position int64) {
	if len(c.Moves) == 0 {
		return
	}
	e.mu.Lock()
	e.moves[c.Room.NID] = position
	e.mu.Unlock()
	var came []matrix.UserID
	var servers []matrix.ServerName
	d := e.doubts
	d.mu.Lock()
	for _, m := range c.Moves {
		switch local := e.local(m.User); {
		case local && m.In:
			came = append(came, m.User)
		case m.In:
			if s := m.User.Server(); len(servers) == 0 || servers[len(servers)-1] != s {
				servers = append(servers, s)
			}
		case !local:
			d.add(m.User, positionBefore(c))
		case c.Room.LocalMemberCount() == 0:
			d.times++
			d.rooms = append(d.rooms, deserted{c.State, doubt{positionBefore(c), d.times}})
		}
	}
	doubtful := len(d.users)+len(d.rooms) > 0
	d.mu.Unlock()
	if doubtful {
		d.signal()
	}
	if e.Outbox != nil && len(came)+len(servers) > 0 {
		e.backlog.add(came, servers...)
	}
}

func (d *doubts) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// undoubted leaves out the users who are in doubt.
func (e *Encryption) undoubted(ctx context.Context, users []matrix.UserID) ([]matrix.UserID, error) {
	e.doubts.mu.Lock()
	inRooms, swept := slices.Clone(e.doubts.rooms), e.doubts.swept
	sure := slices.DeleteFunc(slices.Clone(users), func(u matrix.UserID) bool {
		_, doubtful := e.doubts.users[u]
		return doubtful
	})
	e.doubts.mu.Unlock()
	for _, r := range inRooms {
		var rest []matrix.UserID
		for _, u := range sure {
			in, err := e.joinedIn(ctx, r.state, u)
			if err != nil {
				return nil, err
			}
			if !in {
				rest = append(rest, u)
			}
		}
		sure = rest
	}
	if swept || len(sure) == 0 {
		return sure, nil
	}
	return e.Rooms.InCompany(ctx, e.DB, sure, e.floor)
}

// runDoubts finds out about those in doubt until ctx ends.
func (e *Encryption) runDoubts(ctx context.Context) {
	if err := e.sweep(ctx); err != nil && ctx.Err() == nil {
		e.Log.Error("device lists of users whom nobody shares a room with could not be looked for; the next start tries again", "error", err)
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-e.doubts.wake:
			if err := e.resolveDoubts(ctx); err != nil && ctx.Err() == nil {
				e.Log.Error("device lists of users who left could not be removed; the next one to leave makes this tried again", "error", err)
			}
		}
	}
}

// sweep forgets those who went while the server was stopping.
func (e *Encryption) sweep(ctx context.Context) error {
	for last := matrix.UserID(""); ; {
		page, err := db.All(ctx, e.DB, selectRemotePage, scanUser, last, sweepSize)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			e.doubts.mu.Lock()
			e.doubts.swept = true
			e.doubts.mu.Unlock()
			return nil
		}
		last = page[len(page)-1]
		if err := e.forgetApart(ctx, page, e.floor); err != nil {
			return err
		}
	}
}

// resolveDoubts forgets those in doubt who do not share a room with local users,
// or did not for a while.
func (e *Encryption) resolveDoubts(ctx context.Context) error {
	d := e.doubts
	d.mu.Lock()
	doubted, inRooms := maps.Clone(d.users), slices.Clone(d.rooms)
	d.mu.Unlock()
	until := map[int64][]matrix.UserID{}
	for u, doubt := range doubted {
		until[doubt.until] = append(until[doubt.until], u)
	}
	for _, r := range inRooms {
		joined, err := e.joinedMembers(ctx, r.state)
		if err != nil {
			return err
		}
		until[r.until] = append(until[r.until], joined.sorted()...)
	}
	for position, list := range until {
		for some := range slices.Chunk(list, sweepSize) {
			if err := e.forgetApart(ctx, some, position); err != nil {
				return err
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for u, doubt := range doubted {
		if d.users[u] == doubt {
			delete(d.users, u)
		}
	}
	d.rooms = slices.DeleteFunc(d.rooms, func(r deserted) bool { return slices.Contains(inRooms, r) })
	return nil
}

// forgetApart forgets those of the users who may have shared no room with local
// users at some time since a position.
func (e *Encryption) forgetApart(ctx context.Context, list []matrix.UserID, since int64) error {
	remote := slices.DeleteFunc(slices.Clone(list), e.local)
	kept, err := db.All(ctx, e.DB, selectRemoteUsers, func(s db.Scanner) (matrix.UserID, error) {
		u, err := scanRemoteUser(s)
		return u.user, err
	}, remote)
	if err != nil || len(kept) == 0 {
		return err
	}
	var apart []matrix.UserID
	err = e.DB.Write(ctx, func(tx *db.Tx) error {
		together, err := e.Rooms.InCompany(ctx, tx, kept, since)
		if err != nil {
			return err
		}
		apart = slices.DeleteFunc(slices.Clone(kept), func(u matrix.UserID) bool { return slices.Contains(together, u) })
		if len(apart) == 0 {
			return nil
		}
		for _, s := range []*db.Stmt{deleteRemoteUser, deleteAllRemoteDevices, deleteAllRemoteCross} {
			if err := tx.Exec(s, apart); err != nil {
				return err
			}
		}
		// Who has come back, and did not notice the break, has to look again.
		for _, u := range apart {
			if err := e.tellAll(tx, u, nil, false); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, u := range apart {
		if err := e.tellLate(ctx, u, nil); err != nil {
			return err
		}
	}
	return nil
}
