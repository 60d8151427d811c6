package rooms

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Member events of local users in rooms that nobody of this server is in are kept
// apart from the others: what authorises them is not known, so they have no place
// in the room. When the room is joined, those of them that are part of it come
// again, with all that they rest on.
var (
	insertOutside = db.SQL(`INSERT INTO outside (event_nid, event_id, room_nid, version, user_id, position, replaces, json, stripped)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`)
	outsideByNIDs = db.SQL(selectOutside + `WHERE event_nid IN {ints $1}`)
	outsideByID   = db.SQL(selectOutside + `WHERE room_nid = $1 AND user_id = $2 AND event_id = $3`)
	outsideAfter  = db.SQL(selectOutside + `WHERE position > $1 AND position <= $2 ORDER BY position`)
	outsideState  = db.SQL(`SELECT stripped FROM outside WHERE event_nid = $1 AND stripped IS NOT NULL`)
	dropStripped  = db.SQL(`UPDATE outside SET stripped = NULL WHERE room_nid = $1 AND user_id = $2 AND stripped IS NOT NULL`)
	dropOutside   = db.SQL(`DELETE FROM outside WHERE room_nid = $1 AND user_id = $2`)
)

const selectOutside = `SELECT event_nid, event_id, room_nid, version, position, replaces, json FROM outside `

// maxOutsideState bounds the stripped state that is kept with a membership, in
// bytes, so that nobody can make the answers of a victim large.
const maxOutsideState = 256 << 10

var (
	errInside      = errors.New("rooms: a user of this server is in the room, so its events come by Receive")
	errNotMember   = errors.New("rooms: only invites, knocks, leaves and bans of this server's users are stored from outside")
	errUnknownRoom = matrix.NotFound("This server does not know the room")
)

// Shell tells that nobody of this server is or was in the room: all that is known
// are memberships of its users, as they were told from outside. Even the version
// may not be the real one.
func (r *Room) Shell() bool { return r.View().State.Len() == 0 }

// StoreOutside takes in a member event (invite, knock, leave or ban) of a local
// user in a room that no local user is in; its signatures are checked. It touches
// nothing but the user's membership. stripped is what they are shown of the room;
// malformed events and what is too much of it are left out. An event that was
// taken in before changes nothing.
//
// Where a local user is in the room, only the end of a membership that was stored
// from outside is taken in; everything else is the room's own matter.
func (e *Engine) StoreOutside(ctx context.Context, v *event.Version, ev *event.Event, stripped []json.RawMessage) (*Stored, error) {
	user := matrix.UserID(ev.StateKey())
	if !ev.IsState() || ev.Type != matrix.TypeMember || !e.Local(user) || ev.Version != v || !outsideMembership(ev) {
		return nil, errNotMember
	}
	packed, err := packStripped(stripped, user)
	if err != nil {
		return nil, err
	}
	o := &outsider{e: e, ev: ev, user: user, stripped: packed}
	var stored *Stored
	r, err := e.enterOrMake(ctx, ev.RoomID, func(ctx context.Context) (_ *Room, err error) {
		r := newRoom(RoomNID(e.roomSeq.Next()), ev.RoomID, v)
		stored, err = o.commit(ctx, r, 0, true)
		return r, err
	})
	if r == nil || err != nil {
		return stored, err
	}
	defer r.intake.Release(1)
	return o.into(ctx, r)
}

func outsideMembership(ev *event.Event) bool {
	switch ev.Membership() {
	case matrix.MembershipInvite, matrix.MembershipKnock, matrix.MembershipLeave, matrix.MembershipBan:
		return true
	}
	return false
}

// outsider is an event that is stored from outside.
type outsider struct {
	e        *Engine
	ev       *event.Event
	user     matrix.UserID
	stripped []byte
}

// into stores the event in a room that is known, whose intake is held.
func (o *outsider) into(ctx context.Context, r *Room) (*Stored, error) {
	if !r.Shell() && o.ev.Version != r.Version {
		return nil, matrix.NewError(400, matrix.CodeUnsupportedRoomVersion, "The room has version %s", r.Version.ID)
	}
	if known, err := o.known(ctx, r); known != nil || err != nil {
		return known, err
	}
	m, err := o.e.Membership(ctx, r, o.user)
	if err != nil {
		return nil, err
	}
	if r.LocalMemberCount() > 0 {
		was, err := o.e.eventsOrNil(ctx, []state.EventNID{m.Event})
		if err != nil {
			return nil, err
		}
		if was[0] == nil || was[0].Flags&Outside == 0 || o.ev.Membership() != matrix.MembershipLeave {
			return nil, errInside
		}
	}
	return o.commit(ctx, r, m.Event, false)
}

// known finds the event if it has been taken in before.
func (o *outsider) known(ctx context.Context, r *Room) (*Stored, error) {
	st, found, err := db.One(ctx, o.e.DB, outsideByID, scanOutside, r.NID, o.user, o.ev.ID)
	if err != nil {
		return nil, err
	}
	if found {
		return o.e.loadOutside(ctx, st)
	}
	events, err := o.e.eventsByID(ctx, []matrix.EventID{o.ev.ID})
	if err != nil || len(events) == 0 {
		return nil, err
	}
	if known := events[0]; known.Room == r.NID && known.Flags&(Outlier|Rejected) == 0 {
		return known, nil
	}
	return nil, nil
}

func (o *outsider) commit(ctx context.Context, r *Room, replaces state.EventNID, creating bool) (*Stored, error) {
	st := &Stored{Event: o.ev, NID: state.EventNID(o.e.eventSeq.Next()), Room: r.NID, Replaces: replaces, Flags: Outside}
	for range commitTries {
		pending, err := o.submit(ctx, r, st, creating)
		if err == nil {
			err = pending.Wait(context.WithoutCancel(ctx))
		}
		switch {
		case err == nil:
			return st, nil
		case !errors.Is(err, errHeadFailed):
			return nil, err
		}
		if err := o.e.reloadHead(ctx, r); err != nil {
			return nil, err
		}
	}
	return nil, errHeadFailed
}

// submit enqueues the event behind whatever the room is committing.
func (o *outsider) submit(ctx context.Context, r *Room, st *Stored, creating bool) (*db.Pending, error) {
	if err := r.turn.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer r.turn.Release(1)
	if r.head.failed.Load() {
		return nil, errHeadFailed
	}
	b := &Builder{e: o.e, room: r, head: r.head, got: newFetched(), creating: creating, outside: st}
	b.memberChanges = []memberChange{{o.user, st, st}}
	b.outsideState = o.stripped
	return b.commit(nil), nil
}

// writeOutside stores the member event that is stored from outside.
func (b *Builder) writeOutside(tx *db.Tx) error {
	st := b.outside
	st.Position = tx.Position()
	if err := tx.Exec(dropStripped, st.Room, st.StateKey()); err != nil {
		return err
	}
	return tx.Exec(insertOutside, st.NID, st.ID, st.Room, st.Version.ID, st.StateKey(), st.Position, st.Replaces, st.JSON, b.outsideState)
}

// outsideRow is a row of outside.
type outsideRow struct {
	st      *Stored
	id      matrix.EventID
	version string
	json    []byte
}

func scanOutside(s db.Scanner) (row outsideRow, err error) {
	row.st = &Stored{Flags: Outside}
	err = s.Scan(&row.st.NID, &row.id, &row.st.Room, &row.version, &row.st.Position, &row.st.Replaces, &row.json)
	return row, err
}

// loadOutside makes an event of a row.
func (e *Engine) loadOutside(ctx context.Context, row outsideRow) (*Stored, error) {
	v, ok := event.Lookup(row.version)
	if !ok {
		return nil, matrix.NewError(400, matrix.CodeUnsupportedRoomVersion, "Room version %q is not supported", row.version)
	}
	name, err := e.roomName(ctx, row.st.Room)
	if err != nil {
		return nil, err
	}
	row.st.Event, err = event.Load(v, row.id, name.id, row.json)
	return row.st, err
}

// outsideEvents returns those of the events that are stored from outside.
func (e *Engine) outsideEvents(ctx context.Context, nids []state.EventNID) ([]*Stored, error) {
	return e.readOutside(ctx, outsideByNIDs, nids)
}

// OutsideAfter lists what was stored from outside behind a position and up to
// another one, in order, as far as it is still there.
func (e *Engine) OutsideAfter(ctx context.Context, after, upTo int64) ([]*Stored, error) {
	return e.readOutside(ctx, outsideAfter, after, upTo)
}

func (e *Engine) readOutside(ctx context.Context, stmt *db.Stmt, args ...any) ([]*Stored, error) {
	rows, err := db.All(ctx, e.DB, stmt, scanOutside, args...)
	if err != nil {
		return nil, err
	}
	events := make([]*Stored, len(rows))
	for i, row := range rows {
		if events[i], err = e.loadOutside(ctx, row); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// OutsideState is what a user is shown of a room by a member event that was
// stored from outside: stripped state; nil if there is none.
// spec: client-server#stripped-state
func (e *Engine) OutsideState(ctx context.Context, st *Stored) ([]json.RawMessage, error) {
	if st.Flags&Outside == 0 {
		return nil, nil
	}
	packed, found, err := db.One(ctx, e.DB, outsideState, scanOne[[]byte], st.NID)
	if err != nil || !found {
		return nil, err
	}
	var events []json.RawMessage
	return events, json.Unmarshal(packed, &events)
}

// packStripped makes stripped state of events that another server has told of a
// room, nil if none are left. The user's own membership is not among them: it is
// the event itself.
func packStripped(events []json.RawMessage, user matrix.UserID) ([]byte, error) {
	kept, size := []json.RawMessage{}, 0
	for _, raw := range events {
		ev := strip(raw, user)
		if ev == nil || size+len(ev) > maxOutsideState {
			continue
		}
		kept, size = append(kept, ev), size+len(ev)
	}
	if len(kept) == 0 {
		return nil, nil
	}
	return json.Marshal(kept)
}

// strip takes from an event what stripped state has; nil if something of it is
// missing or malformed.
func strip(raw json.RawMessage, user matrix.UserID) json.RawMessage {
	raw, err := event.Canonical(raw)
	if err != nil {
		return nil
	}
	var ev struct {
		Type      *string         `json:"type"`
		StateKey  *string         `json:"state_key"`
		Sender    string          `json:"sender"`
		Content   json.RawMessage `json:"content"`
		Timestamp int64           `json:"origin_server_ts"`
	}
	if json.Unmarshal(raw, &ev) != nil || ev.Type == nil || ev.StateKey == nil || len(ev.Content) == 0 || ev.Content[0] != '{' {
		return nil
	}
	if _, err := matrix.ParseUserID(ev.Sender); err != nil || *ev.Type == matrix.TypeMember && *ev.StateKey == string(user) {
		return nil
	}
	b := []byte{'{'}
	if *ev.Type == matrix.TypeCreate && ev.Timestamp > 0 {
		// spec: client-server#stripped-state
		b = strconv.AppendInt(append(b, `"origin_server_ts":`...), ev.Timestamp, 10)
		b = append(b, ',')
	}
	b = appendString(append(b, `"type":`...), *ev.Type)
	b = appendString(append(b, `,"state_key":`...), *ev.StateKey)
	b = appendString(append(b, `,"sender":`...), ev.Sender)
	b = append(append(b, `,"content":`...), ev.Content...)
	return append(b, '}')
}

// enter finds a room and takes its intake, which the caller gives back.
func (e *Engine) enter(ctx context.Context, id matrix.RoomID) (*Room, error) {
	for {
		r, err := e.Room(ctx, id)
		if err != nil {
			return nil, err
		}
		if err := r.intake.Acquire(ctx, 1); err != nil {
			return nil, err
		}
		if !r.replaced {
			return r, nil
		}
		r.intake.Release(1)
	}
}

// enterOrMake is enter for a room that may be new: then create makes it, while
// whoever else asks for it waits, and there is no room to be given back.
func (e *Engine) enterOrMake(ctx context.Context, id matrix.RoomID, create func(context.Context) (*Room, error)) (*Room, error) {
	for {
		r, err := e.enter(ctx, id)
		if !matrix.HasCode(err, matrix.CodeNotFound) {
			return r, err
		}
		made := false
		_, err, _ = e.loading.Do(string(id), func() (any, error) {
			ctx := context.WithoutCancel(ctx)
			// Others may have made it since.
			r, err := e.loadByID(ctx, id)
			if !matrix.HasCode(err, matrix.CodeNotFound) {
				return r, err
			}
			made = true
			return create(ctx)
		})
		if made {
			return nil, err
		}
	}
}

// enterInside is enter for rooms whose state is known.
func (e *Engine) enterInside(ctx context.Context, id matrix.RoomID) (*Room, error) {
	r, err := e.enter(ctx, id)
	if err == nil && r.Shell() {
		r.intake.Release(1)
		return nil, errUnknownRoom
	}
	return r, err
}
