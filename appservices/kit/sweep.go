package kit

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/internal/db"
)

const (
	// sweepsAtOnce is how many rooms are looked at at a time, and sweepEvery how often
	// each is without a reason.
	sweepsAtOnce = 2
	sweepEvery   = time.Hour
	// A page of a room's history, and how many are read at most.
	pageSize = 100
	maxPages = 100
	// echoWithin is how soon the homeserver is expected to tell of an event that the
	// service sent.
	echoWithin = time.Minute
)

// kit_rooms.swept is an event up to which, and with which, everything that happened
// in the room is in the inbox.
var (
	selectJoined = basis.SQL(`SELECT room_id FROM kit_rooms WHERE joined = 1`)
	selectSwept  = basis.SQL(`SELECT swept FROM kit_rooms WHERE room_id = $1 AND joined = 1`)
	setSwept     = basis.SQL(`UPDATE kit_rooms SET swept = $2 WHERE room_id = $1`)
	insertFound  = basis.SQL(`
		INSERT INTO kit_rooms (room_id, joined, encrypted, direct, seen, swept) VALUES ($1, 1, 0, NULL, $2, '')
		ON CONFLICT (room_id) DO UPDATE SET joined = 1`)
	// selectSilent finds rooms from which the homeserver did not tell of what was sent.
	selectSilent = basis.SQL(`
		SELECT DISTINCT o.room_id FROM kit_outbox AS o
		WHERE o.state <> 0 AND o.finished > $1 AND o.finished <= $2 AND o.event_id IS NOT NULL
			AND NOT EXISTS (SELECT 1 FROM kit_inbox AS i WHERE i.event_id = o.event_id)`)
)

// Sweep has the history of all rooms, and all invitations, looked through, now, for
// what the homeserver should have told of and did not.
func (s *Service) Sweep(ctx context.Context) error {
	s.synced.Store(nil)
	return s.sweepAll(ctx)
}

// sweepAll is Sweep of what is new.
func (s *Service) sweepAll(ctx context.Context) error {
	s.sweeps.wake(invitations)
	return db.Each(ctx, s.db, selectJoined, func(r db.Scanner) error {
		room, err := scanText(r)
		s.sweeps.wake(room)
		return err
	})
}

// watch has rooms swept at the start, from time to time, and when something that the
// service sent did not come back.
func (s *Service) watch(ctx context.Context) {
	s.findRooms(ctx)
	next := s.clock.Now()
	checked := next // what was sent until then has come back, or its room is swept
	for ctx.Err() == nil {
		now := s.clock.Now()
		if !now.Before(next) {
			if err := s.sweepAll(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("the rooms could not be read; they are not looked through", "error", err)
			}
			s.tidy(ctx)
			next = now.Add(sweepEvery)
		}
		wait, ready := next.Sub(now), now.Add(-echoWithin)
		if last := time.UnixMilli(s.lastSent.Load()); last.After(checked) {
			if !last.After(ready) {
				s.missEchoes(ctx, checked, ready)
				checked = ready
			} else {
				wait = min(wait, last.Sub(ready))
			}
		}
		s.sleepUntil(ctx, wait, s.echoes)
	}
}

// missEchoes has those rooms swept from which the homeserver did not tell of what was
// sent between two times. If there are any, it may have dropped invitations, too.
func (s *Service) missEchoes(ctx context.Context, since, until time.Time) {
	err := db.Each(ctx, s.db, selectSilent, func(r db.Scanner) error {
		room, err := scanText(r)
		s.sweeps.wake(room)
		s.sweeps.wake(invitations)
		return err
	}, since.UnixMilli(), until.UnixMilli())
	if err != nil && ctx.Err() == nil {
		s.log.Error("the outbox could not be read", "error", err)
	}
}

// findRooms takes up rooms that the service's user is in and that it did not know:
// what happened in them before is none of its business.
func (s *Service) findRooms(ctx context.Context) {
	for rest := firstRest; ctx.Err() == nil; rest = min(2*rest, longestRest) {
		joined, err := s.joinedRooms(ctx)
		if err == nil {
			err = s.takeUp(ctx, joined)
		}
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			s.log.Warn("the homeserver does not say which rooms there are; trying again", "in", rest, "error", err)
		}
		s.Sleep(ctx, rest)
	}
}

func (s *Service) takeUp(ctx context.Context, joined []string) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		for _, room := range joined {
			if err := tx.Exec(insertFound, room, s.now()); err != nil {
				return err
			}
		}
		return nil
	})
}

// page is a part of a room's history, newest first.
type page struct {
	Chunk []json.RawMessage `json:"chunk"`
	End   string            `json:"end"`
}

// sweep looks through a room, or for invitations.
func (s *Service) sweep(ctx context.Context, lane string) time.Time {
	if lane == invitations {
		return s.sweepInvitations(ctx)
	}
	return s.sweepRoom(ctx, lane)
}

// sweepRoom reads the history of a room back to what is known to be whole, and puts
// what the homeserver did not tell of into the inbox.
func (s *Service) sweepRoom(ctx context.Context, room string) time.Time {
	swept, joined, err := db.One(ctx, s.db, selectSwept, func(r db.Scanner) (v *string, err error) {
		err = r.Scan(&v)
		return v, err
	}, room)
	if err != nil {
		return s.later(ctx, "what is known of a room could not be read", err)
	}
	if !joined {
		return time.Time{}
	}
	found, newest, err := s.history(ctx, room, swept)
	if isStatus(err, http.StatusForbidden) || isStatus(err, http.StatusNotFound) {
		return time.Time{} // the service was thrown out, and will be told
	}
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("the history of a room could not be read; trying again", "room", room, "error", err)
		}
		return s.clock.Now().Add(longestRest / 5)
	}
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		for _, ev := range found {
			if err := s.insert(tx, ev); err != nil {
				return err
			}
		}
		return tx.Exec(setSwept, room, newest)
	})
	if err != nil {
		return s.later(ctx, "what was found in a room could not be stored", err)
	}
	return time.Time{}
}

// history reads back to the event swept, or else to where the service's user joined.
// An empty swept means that nothing of the past matters. It returns what was found,
// oldest first, and the newest event.
func (s *Service) history(ctx context.Context, room string, swept *string) (found []received, newest string, err error) {
	forgotten := s.clock.Now().Add(-s.cfg.Keep + 24*time.Hour)
	from := ""
	for range maxPages {
		p, err := s.page(ctx, room, from)
		if err != nil {
			return nil, "", err
		}
		for _, text := range p.Chunk {
			ev, ok := parse(text)
			if !ok {
				continue
			}
			if newest == "" {
				newest = string(ev.id)
			}
			if swept != nil && (*swept == "" || *swept == string(ev.id)) {
				slices.Reverse(found)
				return found, newest, nil
			}
			ev.room = id.RoomID(room)
			decoded, err := decode(text)
			if err != nil {
				continue
			}
			// Whether what is very old was handled is not remembered any more.
			if decoded.Sent().After(forgotten) {
				found = append(found, ev)
			}
			if s.isOwnJoin(decoded) {
				p.End = ""
				break
			}
		}
		if from = p.End; from == "" {
			break
		}
	}
	slices.Reverse(found)
	return found, newest, nil
}

// isOwnJoin tells whether the service's user came to the room by an event.
func (s *Service) isOwnJoin(ev *Event) bool {
	m, ok := ev.Content.Parsed.(*event.MemberEventContent)
	if !ok || ev.StateKey == nil || *ev.StateKey != string(s.cfg.User) || m.Membership != event.MembershipJoin {
		return false
	}
	before := ev.Unsigned.PrevContent
	if before == nil {
		return true
	}
	_ = before.ParseRaw(ev.Type)
	was, ok := before.Parsed.(*event.MemberEventContent)
	return !ok || was.Membership != event.MembershipJoin
}

// page reads a page backwards.
// spec: client-server#get_matrixclientv3roomsroomidmessages
func (s *Service) page(ctx context.Context, room, from string) (p page, err error) {
	address := s.client.BuildURLWithFullQuery(clientPath([]any{"rooms", room, "messages"}), func(q url.Values) {
		q.Set("dir", "b")
		q.Set("limit", strconv.Itoa(pageSize))
		if from != "" {
			q.Set("from", from)
		}
	})
	_, err = s.client.MakeFullRequest(ctx, mautrix.FullRequest{Method: http.MethodGet, URL: address, ResponseJSON: &p, MaxAttempts: 1})
	return p, err
}
