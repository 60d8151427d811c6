package joining

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// The limits of the state that comes with an invitation, or that a knock is
// answered with.
const (
	maxStripped      = 64        // events
	maxStrippedBytes = 192 << 10 // of all
	// keyTime is how long the keys may take to come by which they are signed.
	keyTime = 10 * time.Second
)

// told are the state events by which the invited, and those who knock, may know a
// room.
// spec: client-server#stripped-state
var told = []string{
	matrix.TypeCreate, matrix.TypeJoinRules, matrix.TypeName, matrix.TypeCanonicalAlias, matrix.TypeAvatar, matrix.TypeTopic,
	matrix.TypeEncryption,
}

// outline lists, as whole events, the state by which a room may be known, and the
// member event of the one who invites. Large events are left out; the create event
// is there always.
// spec: server-server#put_matrixfederationv2inviteroomideventid
func (j *Joining) outline(ctx context.Context, r *rooms.Room, sender matrix.UserID) ([]json.RawMessage, error) {
	wanted := make([]auth.Key, len(told), len(told)+1)
	for i, typ := range told {
		wanted[i].Type = typ
	}
	if sender != "" {
		wanted = append(wanted, auth.Key{Type: matrix.TypeMember, StateKey: string(sender)})
	}
	events, err := j.Engine.StateOf(ctx, r.View().State, wanted...)
	if err != nil {
		return nil, err
	}
	list, size := []json.RawMessage{}, 0
	for _, st := range events {
		if st == nil || size+len(st.JSON) > maxStrippedBytes && st.Type != matrix.TypeCreate {
			continue
		}
		size += len(st.JSON)
		list = append(list, st.JSON)
	}
	return list, nil
}

// stripped picks, of what another server tells of a room, what clients may be
// shown: entries that are wrongly signed, or events of another room, are left out.
// From the version on in which the create event proves the room's id, strict
// refuses them.
// spec: server-server#put_matrixfederationv2inviteroomideventid
func (j *Joining) stripped(ctx context.Context, v *event.Version, room matrix.RoomID, list []json.RawMessage, strict bool) ([]json.RawMessage, error) {
	strict = strict && v.RoomIDHash
	if strict && len(list) > maxStripped {
		return nil, matrix.InvalidParam("The state has more than %d events", maxStripped)
	}
	var events []*event.Event
	var shown []json.RawMessage
	for _, raw := range list[:min(len(list), maxStripped)] {
		ev, err := event.Parse(v, raw)
		switch {
		case err == nil && ev.RoomID == room && ev.IsState():
			events = append(events, ev)
		case strict && err != nil:
			return nil, matrix.InvalidParam("An event of the state is not one of room version %s: %v", v.ID, err)
		case strict:
			return nil, matrix.InvalidParam("An event of the state is not of the room")
		case err != nil && !v.RoomIDHash:
			shown = append(shown, raw) // before there was a rule, servers told of events without what proves them
		}
	}
	good, err := j.genuine(ctx, events, strict)
	if err != nil {
		return nil, err
	}
	if strict {
		at := slices.IndexFunc(good, func(ev *event.Event) bool { return ev.Type == matrix.TypeCreate })
		if at < 0 {
			return nil, matrix.InvalidParam("The state has no create event")
		}
		if err := checkCreate(good[at], v, room); err != nil {
			return nil, matrix.InvalidParam("The create event does not fit").Because(err)
		}
	}
	for _, ev := range good {
		shown = append(shown, ev.JSON)
	}
	return shown, nil
}

// genuine picks the events that are signed. Those whose signature cannot be
// checked now are left out as well, but for the create event whose hash is the
// room's id, and in rooms where others would tell of them without any signature.
func (j *Joining) genuine(ctx context.Context, events []*event.Event, strict bool) ([]*event.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, keyTime)
	defer cancel()
	var good []*event.Event
	for i, err := range j.Keys.VerifyEvents(ctx, events) {
		ev := events[i]
		noKey := errors.Is(err, keys.ErrNoKey)
		switch {
		case err == nil, noKey && (ev.Type == matrix.TypeCreate || !ev.Version.RoomIDHash):
			if !ev.ContentHashOK() {
				ev = ev.Redact()
			}
			good = append(good, ev)
		case strict && !noKey:
			return nil, matrix.InvalidParam("An event of the state is not signed as it should be").Because(err)
		}
	}
	return good, nil
}

// known lists servers that have to do with a room: the one that the user knocked
// at, those whose users invited them, or set the state that they were shown then,
// and those that were in the room when this server was.
func (j *Joining) known(ctx context.Context, r *rooms.Room, user matrix.UserID) ([]matrix.ServerName, error) {
	m, err := j.Engine.Membership(ctx, r, user)
	if err != nil {
		return nil, err
	}
	var servers []matrix.ServerName
	at, err := j.knockedAt(ctx, user, r.ID)
	if err != nil {
		return nil, err
	}
	if at != "" {
		servers = append(servers, at)
	}
	more, err := j.senders(ctx, m)
	if err != nil {
		return nil, err
	}
	servers = append(servers, more...)
	return append(servers, r.Servers()...), nil
}

// memberPast is how many of a user's member events are looked at.
const memberPast = 4

// senders lists the servers of the user's last member events, newest first, and
// of the state that came with them.
func (j *Joining) senders(ctx context.Context, m rooms.Membership) ([]matrix.ServerName, error) {
	var servers []matrix.ServerName
	nid := m.Event
	for range memberPast {
		if nid == 0 {
			break
		}
		events, err := j.Engine.Events(ctx, []state.EventNID{nid})
		if err != nil {
			return nil, err
		}
		servers = append(servers, events[0].Sender.Server())
		shown, err := j.Engine.OutsideState(ctx, events[0])
		if err != nil {
			return nil, err
		}
		for _, raw := range shown {
			var e struct {
				Sender matrix.UserID `json:"sender"`
			}
			if json.Unmarshal(raw, &e) == nil {
				servers = append(servers, e.Sender.Server())
			}
		}
		nid = events[0].Replaces
	}
	return servers, nil
}
