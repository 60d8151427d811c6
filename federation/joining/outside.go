package joining

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/api"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// leaveTime is how long others may be asked to hear that somebody leaves.
const leaveTime = 30 * time.Second

// Knock asks to be let in at a server that is in the room.
// spec: server-server#knocking-rooms
func (j *Joining) Knock(ctx context.Context, e api.Entry) error {
	via, err := j.via(ctx, e.Room, e.User, e.Via)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	w := wish{room: e.Room, user: e.User, membership: matrix.MembershipKnock, content: e.Content}
	var failed failures
	for _, server := range via {
		err := j.knockAt(ctx, server, w)
		if err == nil {
			return nil
		}
		failed = append(failed, failure{server, err})
		if final(err) || ctx.Err() != nil {
			break
		}
	}
	j.Log.InfoContext(ctx, "a user could not knock at a room through any server", "user", e.User, "room", e.Room, "failed", failed)
	return failed.forClient(e.Room)
}

func (j *Joining) knockAt(ctx context.Context, server matrix.ServerName, w wish) error {
	t, err := j.template(ctx, server, w)
	if err != nil {
		return err
	}
	if !t.version.Knocking {
		return malformed("nobody can knock at rooms of version %s", t.version.ID)
	}
	ev, err := j.build(t, w)
	if err != nil {
		return err
	}
	var answer struct {
		State []json.RawMessage `json:"knock_room_state"`
	}
	if err := j.put(ctx, server, v1+"send_knock", ev, &answer); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // the room has heard the knock
	shown, err := j.stripped(ctx, ev.Version, ev.RoomID, answer.State, false)
	if err != nil {
		return err
	}
	if err := j.saveKnocked(ctx, w.user, w.room, server); err != nil {
		return err
	}
	if _, err := j.Engine.StoreOutside(ctx, ev.Version, ev, shown); err != nil {
		return err
	}
	j.seen(server)
	return nil
}

// put hands an event in.
func (j *Joining) put(ctx context.Context, server matrix.ServerName, endpoint string, ev *event.Event, answer any) error {
	return j.Client.JSON(ctx, transport.Request{
		Destination: server, Method: http.MethodPut, Path: transport.Path(endpoint, string(ev.RoomID), string(ev.ID)),
		Content: ev.JSON, Timeout: sendTime,
	}, answer)
}

// Leave declines an invitation, or takes a knock back, in a room that no local
// user is in. If none of the servers that may be in the room hears of it, the user
// is rid of it all the same.
// spec: server-server#leaving-rooms-rejecting-invites
func (j *Joining) Leave(ctx context.Context, r *rooms.Room, user matrix.UserID, content json.RawMessage) error {
	m, err := j.Engine.Membership(ctx, r, user)
	if err != nil {
		return err
	}
	if m.Membership != matrix.MembershipInvite && m.Membership != matrix.MembershipKnock {
		return matrix.Forbidden("You are not in the room")
	}
	events, err := j.Engine.Events(ctx, []state.EventNID{m.Event})
	if err != nil {
		return err
	}
	via, err := j.via(ctx, r.ID, user, nil)
	if err != nil {
		return err
	}
	// The room's version is what was told with the invitation or the knock: that of
	// a room in which nobody of this server is was told by whoever came first.
	ended := events[0].Event
	w := wish{room: r.ID, user: user, membership: matrix.MembershipLeave, content: content}
	left, err := j.leaveThrough(ctx, ended.Version, via, w)
	if err != nil {
		return err
	}
	if left == nil {
		if left, err = j.turnAway(ended, w); err != nil {
			return err
		}
	}
	ctx = context.WithoutCancel(ctx)
	if _, err := j.Engine.StoreOutside(ctx, left.Version, left, nil); err != nil {
		return err
	}
	return j.dropPending(ctx, user, r.ID, true)
}

// leaveThrough tells one of the servers; nil if none hears.
func (j *Joining) leaveThrough(ctx context.Context, v *event.Version, via []matrix.ServerName, w wish) (*event.Event, error) {
	limited, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	var failed failures
	for _, server := range via {
		ev, err := j.leaveAt(limited, server, v, w)
		if err == nil {
			return ev, nil
		}
		failed = append(failed, failure{server, err})
		if limited.Err() != nil {
			break
		}
	}
	j.Log.InfoContext(ctx, "nobody could be told that a user declines to be in a room", "user", w.user, "room", w.room, "failed", failed)
	return nil, ctx.Err()
}

func (j *Joining) leaveAt(ctx context.Context, server matrix.ServerName, v *event.Version, w wish) (*event.Event, error) {
	t, err := j.template(ctx, server, w)
	if err != nil {
		return nil, err
	}
	if t.version != v {
		return nil, malformed("%s says that the room is of version %s", server, t.version.ID)
	}
	ev, err := j.build(t, w)
	if err != nil {
		return nil, err
	}
	err = j.put(ctx, server, v2+"send_leave", ev, nil)
	if unrecognized(err) {
		err = j.put(ctx, server, v1+"send_leave", ev, nil)
	}
	if err != nil {
		return nil, err
	}
	j.seen(server)
	return ev, nil
}

// turnAway makes the event by which a user leaves as far as this server is
// concerned: it follows upon the one that it ends, and goes nowhere.
func (j *Joining) turnAway(ended *event.Event, w wish) (*event.Event, error) {
	prev := []event.Ref{ended.Ref()}
	key := string(w.user)
	return event.Build(ended.Version, event.Draft{
		RoomID: ended.RoomID, Type: matrix.TypeMember, StateKey: &key, Sender: w.user, Content: w.content,
		Depth: min(ended.Depth+1, event.MaxDepth), OriginServerTS: j.Now().UnixMilli(), PrevEvents: prev, AuthEvents: prev,
	}, j.Engine.ServerName, j.Engine.Key)
}
