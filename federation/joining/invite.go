package joining

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// inviteTime is how long another server may take to agree to an invitation.
const inviteTime = 20 * time.Second

// Invite invites a user of another server: theirs signs the event, too, before it
// comes into the room.
// spec: server-server#inviting-to-a-room
func (j *Joining) Invite(ctx context.Context, r *rooms.Room, sender matrix.UserID, p rooms.Proto) (*rooms.Stored, error) {
	ev, err := j.Engine.Prepare(ctx, r, sender, p)
	if err != nil {
		return nil, err
	}
	server := matrix.UserID(ev.StateKey()).Server()
	signed, err := j.askToInvite(ctx, r, server, ev)
	if err != nil {
		return nil, failures{{server, err}}.forClient(r.ID)
	}
	// From here on the other server holds the invitation to be true.
	ctx = context.WithoutCancel(ctx)
	recommended, err := j.Engine.Recommended(ctx, r, []*event.Event{signed})
	if err != nil {
		return nil, err
	}
	out, err := j.Engine.Receive(ctx, r.ID, []rooms.Incoming{{Event: recommended[0], Relay: true}})
	if err != nil {
		return nil, err
	}
	j.seen(server)
	return out[0].Event, refused(out[0])
}

// askToInvite has the invited user's server sign.
func (j *Joining) askToInvite(ctx context.Context, r *rooms.Room, server matrix.ServerName, ev *event.Event) (*event.Event, error) {
	state, err := j.outline(ctx, r, ev.Sender)
	if err != nil {
		return nil, err
	}
	raw, err := j.putInvite(ctx, server, ev, state)
	if err != nil {
		return nil, err
	}
	signed, err := event.Parse(ev.Version, raw)
	if err != nil || !same(ev, signed) {
		return nil, malformed("the invitation does not come back as it was")
	}
	checks := append(keys.EventChecks(signed), keys.Check{Server: server, Event: signed})
	for _, err := range j.Keys.Verify(ctx, checks) {
		if err != nil {
			return nil, malformed("the invitation comes back without a signature that it needs: %v", err)
		}
	}
	return signed, nil
}

// putInvite sends the invitation in the second version of the interface, or in
// the first to a server that knows no other, which can only be of old rooms.
func (j *Joining) putInvite(ctx context.Context, server matrix.ServerName, ev *event.Event, state []json.RawMessage) (json.RawMessage, error) {
	body, err := json.Marshal(invitation{ev.Version.ID, ev.JSON, state})
	if err != nil {
		return nil, err
	}
	path := []string{string(ev.RoomID), string(ev.ID)}
	var answer eventAnswer
	err = j.Client.JSON(ctx, transport.Request{
		Destination: server, Method: http.MethodPut, Path: transport.Path(v2+"invite", path...), Content: body, Timeout: inviteTime,
	}, &answer)
	if err == nil || !wantsV1(ev.Version, err) {
		return answer.Event, err
	}
	if body, err = withState(ev, state); err != nil {
		return nil, err
	}
	listed := [2]any{new(int), &answer}
	err = j.Client.JSON(ctx, transport.Request{
		Destination: server, Method: http.MethodPut, Path: transport.Path(v1+"invite", path...), Content: body, Timeout: inviteTime,
	}, &listed)
	return answer.Event, err
}

// wantsV1 tells whether a server may know only the first version of the
// interface.
// spec: server-server#put_matrixfederationv2inviteroomideventid
func wantsV1(v *event.Version, err error) bool {
	var remote *transport.RemoteError
	return errors.As(err, &remote) && (remote.Status == http.StatusBadRequest || remote.Status == http.StatusNotFound) &&
		(v.ID == "1" || v.ID == "2")
}

// withState is the event with the state that tells what the room is, in unsigned.
func withState(ev *event.Event, state []json.RawMessage) ([]byte, error) {
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(ev.JSON, &members); err != nil {
		return nil, err
	}
	unsigned, err := json.Marshal(map[string]any{"invite_room_state": state})
	if err != nil {
		return nil, err
	}
	members["unsigned"] = unsigned
	return json.Marshal(members)
}
