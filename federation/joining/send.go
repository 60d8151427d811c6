package joining

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// handedIn is a member event that its sender's server hands in, checked but for
// what the room says of it.
type handedIn struct {
	origin matrix.ServerName
	room   *rooms.Room
	event  *event.Event
	// servers are those that were in the room before.
	servers []matrix.ServerName
	// signed tells that there are more signatures on it than it came with: ours, if
	// one of our users lets the sender in, or the policy server's.
	signed bool
}

type sendRequest struct {
	RoomID  matrix.RoomID   `path:"roomId"`
	EventID matrix.EventID  `path:"eventId"`
	Event   json.RawMessage `body:"raw"`
}

// submitted reads the event of a request and checks that it is what the endpoint
// is there for: the membership of a user of the origin, by themselves.
// spec: server-server#put_matrixfederationv2send_joinroomideventid
func (j *Joining) submitted(ctx context.Context, origin matrix.ServerName, q *sendRequest, membership string) (*handedIn, error) {
	room, err := j.resident(ctx, q.RoomID, origin)
	if err != nil {
		return nil, err
	}
	ev, err := parse(room.Version, q.Event)
	if err != nil {
		return nil, err
	}
	switch {
	case ev.RoomID != room.ID:
		return nil, matrix.InvalidParam("The event is of another room than the path says")
	case ev.ID != q.EventID:
		return nil, matrix.InvalidParam("The event's id is %s, not what the path says", ev.ID)
	case ev.Type != matrix.TypeMember || ev.Membership() != membership:
		return nil, matrix.InvalidParam("The event is no member event of the membership %s", membership)
	case ev.Sender.Server() != origin:
		return nil, matrix.InvalidParam("The event's sender is no user of %s", origin)
	case !ev.Is(matrix.TypeMember, string(ev.Sender)):
		return nil, matrix.InvalidParam("The event is about another user than its sender")
	}
	h := &handedIn{origin: origin, room: room, event: ev, servers: append(slices.Clone(room.Servers()), j.Engine.ServerName)}
	return h, j.authentic(ctx, h)
}

// parse reads an event that another server asks us to take in.
func parse(v *event.Version, raw []byte) (*event.Event, error) {
	ev, err := event.Parse(v, raw)
	if err != nil {
		return nil, matrix.BadJSON("The event is not one of room version %s: %v", v.ID, err)
	}
	if !ev.ContentHashOK() {
		return nil, matrix.InvalidParam("The event's hash is not that of its content")
	}
	return ev, nil
}

// authentic checks the signatures. Where one of our users is named as the one who
// lets the sender in, it is ours that has to be added: if that user may, and
// the sender meets a condition.
// spec: server-server#restricted-rooms
func (j *Joining) authentic(ctx context.Context, h *handedIn) error {
	own := false
	checks := []keys.Check{{Server: h.origin, Event: h.event}}
	for _, c := range keys.EventChecks(h.event) {
		switch c.Server {
		case h.origin:
		case j.Engine.ServerName:
			own = true
		default:
			checks = append(checks, c)
		}
	}
	if err := j.verified(ctx, checks); err != nil {
		return err
	}
	if !own {
		return nil
	}
	if h.event.Membership() != matrix.MembershipJoin {
		return matrix.InvalidParam("Only a join names a user who lets its sender in")
	}
	if _, err := j.Engine.Authoriser(ctx, h.room, h.event.Sender); err != nil {
		return err
	}
	signed, err := h.event.Sign(j.Engine.ServerName, j.Engine.Key)
	h.event, h.signed = signed, true
	return err
}

// verified checks signatures that others have to answer for.
func (j *Joining) verified(ctx context.Context, checks []keys.Check) error {
	for _, err := range j.Keys.Verify(ctx, checks) {
		if err != nil {
			return unsigned(err)
		}
	}
	return nil
}

// admit brings the event into the room and has it sent on.
func (j *Joining) admit(ctx context.Context, h *handedIn) (*rooms.Stored, error) {
	recommended, err := j.Engine.Recommended(ctx, h.room, []*event.Event{h.event})
	if err != nil {
		return nil, err
	}
	h.signed = h.signed || recommended[0] != h.event
	h.event = recommended[0]
	out, err := j.Engine.Receive(ctx, h.room.ID, []rooms.Incoming{{Event: h.event, Relay: true}})
	if err != nil {
		return nil, err
	}
	if len(out[0].Missing) > 0 {
		return nil, matrix.InvalidParam("The event refers to %s, which this server does not know; ask for a new template", out[0].Missing[0])
	}
	return out[0].Event, refused(out[0])
}

type empty struct{}

// takeLeave takes a user out of a room.
// spec: server-server#put_matrixfederationv2send_leaveroomideventid
func (j *Joining) takeLeave(ctx context.Context, origin matrix.ServerName, q *sendRequest) (*empty, error) {
	h, err := j.submitted(ctx, origin, q, matrix.MembershipLeave)
	if err == nil {
		_, err = j.admit(ctx, h)
	}
	return nil, err
}

// takeLeaveV1 is takeLeave with the answer of the first version.
// spec: server-server#put_matrixfederationv1send_leaveroomideventid
func (j *Joining) takeLeaveV1(ctx context.Context, origin matrix.ServerName, q *sendRequest) (*[2]any, error) {
	if _, err := j.takeLeave(ctx, origin, q); err != nil {
		return nil, err
	}
	return &[2]any{http.StatusOK, empty{}}, nil
}

type knockAnswer struct {
	State []json.RawMessage `json:"knock_room_state"`
}

// takeKnock lets a user knock, and tells them what the room is.
// spec: server-server#put_matrixfederationv1send_knockroomideventid
func (j *Joining) takeKnock(ctx context.Context, origin matrix.ServerName, q *sendRequest) (*knockAnswer, error) {
	h, err := j.submitted(ctx, origin, q, matrix.MembershipKnock)
	if err != nil {
		return nil, err
	}
	if _, err := j.admit(ctx, h); err != nil {
		return nil, err
	}
	state, err := j.outline(ctx, h.room, "")
	if err != nil {
		return nil, err
	}
	return &knockAnswer{state}, nil
}
