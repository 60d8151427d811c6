package joining

import (
	"context"
	"encoding/json"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// pending_joins are joins that were begun and have not come to an end. The
// servers through which users have knocked are the ones to take a knock back.
var _ = db.Schema("joining", `
CREATE TABLE pending_joins (
	user_id TEXT NOT NULL,
	room_id TEXT NOT NULL,
	via     {blob} NOT NULL,
	content {blob} NOT NULL,
	started INTEGER NOT NULL,
	PRIMARY KEY (user_id, room_id)
) {without rowid};
CREATE TABLE knocked_via (
	user_id TEXT NOT NULL,
	room_id TEXT NOT NULL,
	server  TEXT NOT NULL,
	PRIMARY KEY (user_id, room_id)
) {without rowid};
`)

var (
	upsertPending = db.SQL(`INSERT INTO pending_joins (user_id, room_id, via, content, started) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (user_id, room_id) DO UPDATE SET via = excluded.via, content = excluded.content, started = excluded.started`)
	deletePending = db.SQL(`DELETE FROM pending_joins WHERE user_id = $1 AND room_id = $2`)
	pendingBefore = db.SQL(`SELECT user_id, room_id, via, content, started FROM pending_joins WHERE started < $1 ORDER BY started`)

	upsertKnocked = db.SQL(`INSERT INTO knocked_via (user_id, room_id, server) VALUES ($1, $2, $3)
		ON CONFLICT (user_id, room_id) DO UPDATE SET server = excluded.server`)
	deleteKnocked = db.SQL(`DELETE FROM knocked_via WHERE user_id = $1 AND room_id = $2`)
	knockedVia    = db.SQL(`SELECT server FROM knocked_via WHERE user_id = $1 AND room_id = $2`)
)

// pending is a join that is under way.
type pending struct {
	user    matrix.UserID
	room    matrix.RoomID
	via     []matrix.ServerName
	named   []matrix.ServerName // by the client, of via
	content json.RawMessage
	started time.Time
}

func (j *Joining) savePending(ctx context.Context, p pending) error {
	via, err := json.Marshal(p.via)
	if err != nil {
		return err
	}
	return j.DB.Write(ctx, func(tx *db.Tx) error {
		return tx.Exec(upsertPending, p.user, p.room, via, []byte(p.content), p.started.UnixMilli())
	})
}

// dropPending forgets a join, and who was knocked at if the user is in the room or
// has given up.
func (j *Joining) dropPending(ctx context.Context, user matrix.UserID, room matrix.RoomID, knock bool) error {
	return j.DB.Write(ctx, func(tx *db.Tx) error {
		if knock {
			if err := tx.Exec(deleteKnocked, user, room); err != nil {
				return err
			}
		}
		return tx.Exec(deletePending, user, room)
	})
}

// loadPending lists the joins that were begun before a time.
func (j *Joining) loadPending(ctx context.Context, before time.Time) ([]pending, error) {
	return db.All(ctx, j.DB, pendingBefore, func(s db.Scanner) (p pending, err error) {
		var via []byte
		var started int64
		if err := s.Scan(&p.user, &p.room, &via, (*[]byte)(&p.content), &started); err != nil {
			return p, err
		}
		p.started = time.UnixMilli(started)
		return p, json.Unmarshal(via, &p.via)
	}, before.UnixMilli())
}

func (j *Joining) saveKnocked(ctx context.Context, user matrix.UserID, room matrix.RoomID, server matrix.ServerName) error {
	return j.DB.Write(ctx, func(tx *db.Tx) error { return tx.Exec(upsertKnocked, user, room, server) })
}

// knockedAt is the server through which a user knocked, "" if none is known.
func (j *Joining) knockedAt(ctx context.Context, user matrix.UserID, room matrix.RoomID) (matrix.ServerName, error) {
	server, _, err := db.One(ctx, j.DB, knockedVia, func(s db.Scanner) (n matrix.ServerName, err error) {
		err = s.Scan(&n)
		return n, err
	}, user, room)
	return server, err
}
