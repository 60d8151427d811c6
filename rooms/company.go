package rooms

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Move is a user's coming into a room, or going out of it.
type Move struct {
	User matrix.UserID // of any server
	In   bool
}

// moved notes that a member event took the place of another; nil stands for
// none.
func (b *Builder) moved(user matrix.UserID, old, fresh *Stored) {
	was := old != nil && old.Membership() == matrix.MembershipJoin
	is := fresh != nil && fresh.Membership() == matrix.MembershipJoin
	if was != is {
		b.moves = append(b.moves, Move{user, is})
	}
}

// Users of other servers have rows in memberships, too; those in rooms that no
// local user is in any more say what was when the last one left.
var (
	roomsShared = db.SQL(`SELECT m.user_id, m.room_nid FROM memberships m WHERE m.user_id IN {texts $1} AND m.membership = 'join'
		AND EXISTS (SELECT 1 FROM memberships l WHERE l.room_nid = m.room_nid AND l.local = 1 AND l.membership = 'join')`)
	inCompany = db.SQL(`SELECT DISTINCT m.user_id FROM memberships m
		WHERE m.user_id IN {texts $1} AND m.membership = 'join' AND m.position > 0 AND m.position <= $2 AND EXISTS
		(SELECT 1 FROM memberships l WHERE l.room_nid = m.room_nid AND l.local = 1 AND l.membership = 'join' AND l.position <= $2)`)
	localCompany = db.SQL(`SELECT DISTINCT l.user_id FROM memberships m
		JOIN memberships l ON l.room_nid = m.room_nid AND l.local = 1 AND l.membership = 'join'
		WHERE m.user_id = $1 AND m.membership = 'join'`)
)

// SharedRooms lists the rooms with local members that each of the users, of any
// server, is a member of. Those without are left out.
func (e *Engine) SharedRooms(ctx context.Context, users []matrix.UserID) (map[matrix.UserID][]RoomNID, error) {
	shared := map[matrix.UserID][]RoomNID{}
	return shared, db.Each(ctx, e.DB, roomsShared, func(s db.Scanner) error {
		var u matrix.UserID
		var n RoomNID
		err := s.Scan(&u, &n)
		shared[u] = append(shared[u], n)
		return err
	}, users)
}

// InCompany returns those of the users, of any server, who share a room with a
// local user and surely did all the time since a position: who changed their
// name meanwhile may be left out, too.
func (e *Engine) InCompany(ctx context.Context, q db.Querier, users []matrix.UserID, since int64) ([]matrix.UserID, error) {
	return db.All(ctx, q, inCompany, scanOne[matrix.UserID], users, since)
}

// LocalCompany lists the local users who share a room with a user of any server.
func (e *Engine) LocalCompany(ctx context.Context, u matrix.UserID) ([]matrix.UserID, error) {
	return db.All(ctx, e.DB, localCompany, scanOne[matrix.UserID], u)
}
