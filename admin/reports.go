package admin

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// MaxReasonBytes bounds what a reporter has to say.
const MaxReasonBytes = 8 << 10

// Report is what a user reported: an event (Room and Event), a room (Room) or
// a user (User).
type Report struct {
	ID       int64 // grows with time
	Reporter matrix.UserID
	Room     matrix.RoomID
	Event    matrix.EventID
	User     matrix.UserID
	Reason   string
	TS       int64 // milliseconds since 1970
}

// Reports returns at most limit reports, the newest first, from before the one
// with the id before; 0 starts with the newest.
func (a *Admin) Reports(ctx context.Context, before int64, limit int) ([]Report, error) {
	if before <= 0 {
		before = 1<<63 - 1
	}
	return db.All(ctx, a.db, selectReports, scanReport, before, limit)
}

// DeleteReport removes a report that was dealt with, if it is there.
func (a *Admin) DeleteReport(ctx context.Context, id int64) error {
	return a.db.Write(ctx, func(tx *db.Tx) error { return tx.Exec(deleteReport, id) })
}

func (a *Admin) store(ctx context.Context, r Report) error {
	r.ID, r.TS = a.ids.Next(), a.now().UnixMilli()
	return a.db.Write(ctx, func(tx *db.Tx) error {
		return tx.Exec(insertReport, r.ID, r.Reporter, r.Room, r.Event, r.User, r.Reason, r.TS)
	})
}

func checkReason(reason *string, needed bool) (string, error) {
	switch {
	case reason == nil && needed:
		return "", matrix.MissingParam(`"reason" is missing; it may be empty`)
	case reason == nil:
		return "", nil
	case len(*reason) > MaxReasonBytes:
		return "", matrix.InvalidParam(`"reason" has at most %d bytes`, MaxReasonBytes)
	}
	return *reason, nil
}

// unseen tells whether err says that something is not there for the reporter.
func unseen(err error) bool {
	return matrix.HasCode(err, matrix.CodeNotFound) || matrix.HasCode(err, matrix.CodeForbidden)
}

type roomReport struct {
	Room   matrix.RoomID `path:"roomId"`
	Reason *string       `json:"reason"`
}

// A room may be reported by anybody, and one that is not known here is as well
// reported as any other.
// spec: client-server#post_matrixclientv3roomsroomidreport
func (a *Admin) reportRoom(ctx context.Context, c *httpx.Caller, q *roomReport) (*struct{}, error) {
	reason, err := checkReason(q.Reason, true)
	if err != nil {
		return nil, err
	}
	if err := a.rooms.MayReport(ctx, c.User, q.Room, ""); unseen(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return nil, a.store(ctx, Report{Reporter: c.User, Room: q.Room, Reason: reason})
}

type eventReport struct {
	Room   matrix.RoomID  `path:"roomId"`
	Event  matrix.EventID `path:"eventId"`
	Reason *string        `json:"reason"`
}

// spec: client-server#post_matrixclientv3roomsroomidreporteventid
func (a *Admin) reportEvent(ctx context.Context, c *httpx.Caller, q *eventReport) (*struct{}, error) {
	reason, err := checkReason(q.Reason, false)
	if err != nil {
		return nil, err
	}
	if err := a.rooms.MayReport(ctx, c.User, q.Room, q.Event); unseen(err) {
		return nil, matrix.NotFound("The event was not found, or you are not joined to the room").Because(err)
	} else if err != nil {
		return nil, err
	}
	return nil, a.store(ctx, Report{Reporter: c.User, Room: q.Room, Event: q.Event, Reason: reason})
}

type userReport struct {
	User   matrix.UserID `path:"userId"`
	Reason *string       `json:"reason"`
}

// spec: client-server#post_matrixclientv3usersuseridreport
func (a *Admin) reportUser(ctx context.Context, c *httpx.Caller, q *userReport) (*struct{}, error) {
	reason, err := checkReason(q.Reason, true)
	if err != nil {
		return nil, err
	}
	if q.User.Server() == a.server {
		exists, err := a.users.Exists(ctx, q.User)
		if err != nil || !exists {
			return nil, err
		}
	}
	return nil, a.store(ctx, Report{Reporter: c.User, User: q.User, Reason: reason})
}
