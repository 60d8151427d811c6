package kit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/internal/db"
)

// An invitation is in no history that the service may read. One that the homeserver
// did not tell of is looked for where clients learn of theirs, in /sync, which as a
// rule shows it without its event id. So it is known by what happened before it:
//
//   - invited is the last invitation in the inbox that was neither accepted nor ended.
//     While there is one, an invitation without an id that /sync shows is that one.
//   - nameless is how many were found without an id and not told of since, and found is
//     when the last was. Invitations of the time before, as many, are those; what else
//     is told of that time is older than what is known.
//   - moved is a number of the inbox: what /sync was asked before it, the service knows
//     better.
var (
	selectStanding = basis.SQL(`SELECT invited, nameless, found, moved FROM kit_rooms WHERE room_id = $1`)
	setInvited     = basis.SQL(`
		INSERT INTO kit_rooms (room_id, joined, encrypted, direct, seen, invited) VALUES ($1, 0, 0, NULL, $2, $3)
		ON CONFLICT (room_id) DO UPDATE SET invited = excluded.invited, nameless = 0`)
	setNameless = basis.SQL(`UPDATE kit_rooms SET nameless = $2, found = $3 WHERE room_id = $1`)
	setNamed    = basis.SQL(`UPDATE kit_rooms SET nameless = nameless - 1 WHERE room_id = $1`)
	setAnswered = basis.SQL(`UPDATE kit_rooms SET invited = NULL, moved = $2 WHERE room_id = $1`)
)

// skew is how far the clocks of those who invite may be ahead of the service's.
const skew = 10 * time.Second

// standing is what is known of invitations to a room.
type standing struct {
	invited  *string
	nameless int
	found    int64
	moved    int64
}

func (s *Service) standing(ctx context.Context, tx *db.Tx, room id.RoomID) (v standing, err error) {
	v, _, err = db.One(ctx, tx, selectStanding, func(r db.Scanner) (v standing, err error) {
		err = r.Scan(&v.invited, &v.nameless, &v.found, &v.moved)
		return v, err
	}, room)
	return v, err
}

// invitations is the lane of what is no room's.
const invitations = ""

// onlyInvitations is a filter that leaves out what a homeserver can leave out.
// spec: client-server#filtering
const onlyInvitations = `{"presence":` + nothing + `,"account_data":` + nothing +
	`,"room":{"timeline":` + nothing + `,"state":` + nothing + `,"ephemeral":` + nothing + `,"account_data":` + nothing + `}}`

const nothing = `{"limit":1,"not_types":["*"],"rooms":[]}`

// membership is what an event makes of the service's user, and when; "" if it is about
// something else.
func (s *Service) membership(text []byte) (m event.Membership, at int64) {
	var v struct {
		Type json.RawMessage `json:"type"`
		Key  json.RawMessage `json:"state_key"`
		Is   json.RawMessage `json:"content"`
		At   json.RawMessage `json:"origin_server_ts"`
	}
	var key string
	if json.Unmarshal(text, &v) != nil || string(v.Type) != `"m.room.member"` || json.Unmarshal(v.Key, &key) != nil || key != string(s.cfg.User) {
		return "", 0
	}
	var content struct {
		Membership event.Membership `json:"membership"`
	}
	_, _ = json.Unmarshal(v.Is, &content), json.Unmarshal(v.At, &at)
	return content.Membership, at
}

// insertOwn stores what the homeserver tells of the service's own membership. An
// invitation that was found before is not handled again.
func (s *Service) insertOwn(ctx context.Context, tx *db.Tx, ev received, m event.Membership, at int64) error {
	nid := s.inboxIDs.Next()
	n, err := tx.Changed(insertEvent, nid, ev.id, ev.room, []byte(ev.text), s.now())
	if err != nil || n == 0 {
		return err
	}
	tx.Publish(toHandle(ev.room))
	had, err := s.standing(ctx, tx, ev.room)
	if err != nil {
		return err
	}
	known := had.nameless > 0 && at <= had.found+skew.Milliseconds()
	switch {
	case m != event.MembershipInvite && known:
		return nil
	case m != event.MembershipInvite:
		return tx.Exec(setAnswered, ev.room, nid)
	case !known:
		return tx.Exec(setInvited, ev.room, s.now(), ev.id)
	}
	if err := tx.Exec(setNamed, ev.room); err != nil {
		return err
	}
	return tx.Exec(finishEvent, nid, s.now())
}

// invitation is one that the homeserver shows.
type invitation struct {
	received
	named bool // id is the event's
}

// sweepInvitations looks for invitations that the homeserver did not tell of: all
// there are, or those that came since it looked last.
func (s *Service) sweepInvitations(ctx context.Context) time.Time {
	asked, since := s.inboxIDs.Next(), s.synced.Load()
	found, next, err := s.invited(ctx, since)
	if err != nil {
		s.synced.Store(nil)
		if ctx.Err() == nil {
			s.log.Warn("the homeserver does not show which rooms the service is invited to; trying again", "error", err)
		}
		if isStatus(err, http.StatusForbidden) || isStatus(err, http.StatusNotFound) {
			return time.Time{} // with the next sweep
		}
		return s.clock.Now().Add(longestRest)
	}
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		for _, v := range found {
			if err := s.takeInvitation(ctx, tx, v, asked); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return s.later(ctx, "invitations that were found could not be stored", err)
	}
	s.synced.CompareAndSwap(since, &next)
	return time.Time{}
}

// takeInvitation puts an invitation into the inbox, unless it is known.
func (s *Service) takeInvitation(ctx context.Context, tx *db.Tx, v invitation, asked int64) error {
	had, err := s.standing(ctx, tx, v.room)
	if err != nil || had.moved > asked || had.invited != nil && (!v.named || *had.invited == string(v.id)) {
		return err
	}
	n, err := tx.Changed(insertEvent, s.inboxIDs.Next(), v.id, v.room, []byte(v.text), s.now())
	if err != nil || n == 0 {
		return err
	}
	tx.Publish(toHandle(v.room))
	if err := tx.Exec(setInvited, v.room, s.now(), v.id); err != nil || v.named {
		return err
	}
	return tx.Exec(setNameless, v.room, had.nameless+1, s.now())
}

// invited asks for invitations, and for the position up to which these are all.
// spec: client-server#get_matrixclientv3sync
func (s *Service) invited(ctx context.Context, since *string) (found []invitation, next string, err error) {
	var answer struct {
		Next  string `json:"next_batch"`
		Rooms struct {
			Invite map[id.RoomID]struct {
				State struct {
					Events []json.RawMessage `json:"events"`
				} `json:"invite_state"`
			} `json:"invite"`
		} `json:"rooms"`
	}
	address := s.client.BuildURLWithFullQuery(clientPath([]any{"sync"}), func(q url.Values) {
		q.Set("filter", onlyInvitations)
		q.Set("timeout", "0")
		q.Set("set_presence", "offline")
		if since != nil {
			q.Set("since", *since)
		}
	})
	_, err = s.client.MakeFullRequest(ctx, mautrix.FullRequest{Method: http.MethodGet, URL: address, ResponseJSON: &answer, MaxAttempts: 1})
	if err == nil && answer.Next == "" {
		err = errNoSync
	}
	if err != nil {
		return nil, "", err
	}
	for _, room := range slices.Sorted(maps.Keys(answer.Rooms.Invite)) {
		for _, text := range answer.Rooms.Invite[room].State.Events {
			if m, _ := s.membership(text); m != event.MembershipInvite || !proper(string(room), '!') {
				continue
			}
			v, err := s.shown(room, text)
			if err != nil {
				return nil, "", err
			}
			found = append(found, v)
			break
		}
	}
	return found, answer.Next, nil
}

// errNoSync is an answer that is none of a homeserver's.
var errNoSync = errors.New("kit: the answer to /sync has no next_batch")

// shown makes an event of an invitation as /sync shows it. One without an id gets one
// that no other event has.
// spec: client-server#stripped-state
func (s *Service) shown(room id.RoomID, text []byte) (v invitation, err error) {
	var ev map[string]any
	if err := json.Unmarshal(text, &ev); err != nil {
		return v, err
	}
	name, _ := ev["event_id"].(string)
	v.named = proper(name, '$')
	if !v.named {
		name = fmt.Sprintf("$invitation-%s-%d", s.instance, s.inboxIDs.Next())
	}
	ev["event_id"], ev["room_id"] = name, room
	if _, dated := ev["origin_server_ts"].(float64); !dated {
		ev["origin_server_ts"] = s.now()
	}
	v.id, v.room = id.EventID(name), room
	v.text, err = json.Marshal(ev)
	return v, err
}
