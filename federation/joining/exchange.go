package joining

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// redemption is the member event of a user whose third-party identifier was
// invited, as far as their server can write it.
type redemption struct {
	Type     string            `json:"type"`
	RoomID   matrix.RoomID     `json:"room_id"`
	Sender   matrix.UserID     `json:"sender"`
	StateKey matrix.UserID     `json:"state_key"`
	Content  redemptionContent `json:"content"`
}

type redemptionContent struct {
	Membership string     `json:"membership"`
	ThirdParty thirdParty `json:"third_party_invite"`
}

type thirdParty struct {
	DisplayName string          `json:"display_name"`
	Signed      json.RawMessage `json:"signed"` // as the identity server signed it
}

type exchangeRequest struct {
	Path matrix.RoomID `path:"roomId"`
	redemption
}

// bindOf reads what an identity server has signed: whose an identifier is, and
// which invite it is about.
func bindOf(signed json.RawMessage) (user matrix.UserID, token string) {
	var bind struct {
		MXID  matrix.UserID `json:"mxid"`
		Token string        `json:"token"`
	}
	if json.Unmarshal(signed, &bind) != nil {
		return "", ""
	}
	return bind.MXID, bind.Token
}

// exchange invites a user of another server in the place of the identifier that
// one of ours has invited. That the identity server vouches for the user is for
// the room's rules to judge.
// spec: server-server#put_matrixfederationv1exchange_third_party_inviteroomid
func (j *Joining) exchange(ctx context.Context, origin matrix.ServerName, q *exchangeRequest) (*empty, error) {
	if err := q.check(origin, q.Path); err != nil {
		return nil, err
	}
	if !j.Engine.Local(q.Sender) {
		return nil, matrix.InvalidParam("The sender is no user of %s", j.Engine.ServerName)
	}
	r, err := j.resident(ctx, q.RoomID, origin)
	if err != nil {
		return nil, err
	}
	return nil, j.redeem(ctx, r, &q.redemption)
}

func (q *redemption) check(origin matrix.ServerName, room matrix.RoomID) error {
	switch {
	case q.RoomID != room:
		return matrix.InvalidParam("The event is of another room than the path says")
	case q.Type != matrix.TypeMember || q.Content.Membership != matrix.MembershipInvite:
		return matrix.InvalidParam("The event is no invitation")
	case q.StateKey.Server() != origin:
		return matrix.InvalidParam("%s is no user of %s", q.StateKey, origin)
	}
	return q.checkUsers()
}

func (q *redemption) checkUsers() error {
	for _, u := range []matrix.UserID{q.Sender, q.StateKey} {
		if _, err := matrix.ParseUserID(string(u)); err != nil {
			return err
		}
	}
	if user, token := bindOf(q.Content.ThirdParty.Signed); token == "" || user != q.StateKey {
		return matrix.InvalidParam("The third-party invite is not signed for %s", q.StateKey)
	}
	return nil
}

// redeem sends the invitation that a user's third-party invite stands for. The
// name that is shown is the one that was given with it.
func (j *Joining) redeem(ctx context.Context, r *rooms.Room, q *redemption) error {
	invite := q.Content.ThirdParty
	_, token := bindOf(invite.Signed)
	st, err := j.Engine.StateEvent(ctx, r.View().State, matrix.TypeThirdPartyInvite, token)
	if err != nil {
		return err
	}
	if st == nil {
		return matrix.Forbidden("The room has no third-party invite with the token")
	}
	var told struct {
		DisplayName string `json:"display_name"`
	}
	_ = json.Unmarshal(st.Content, &told) // of the wrong type: there is no name
	invite.DisplayName = told.DisplayName
	content, err := json.Marshal(redemptionContent{matrix.MembershipInvite, invite})
	if err != nil {
		return err
	}
	key := string(q.StateKey)
	p := rooms.Proto{Type: matrix.TypeMember, StateKey: &key, Content: content}
	if !j.Engine.Local(q.StateKey) {
		_, err := j.Invite(ctx, r, q.Sender, p)
		return err
	}
	if err := j.mayBeInvited(ctx, q.StateKey, q.Sender); err != nil {
		return err
	}
	_, err = j.Engine.Send(ctx, r.ID, q.Sender, p, nil)
	return err
}

// maxBound is how many invitations one notice of an identity server may redeem.
const maxBound = 20

type onbindRequest struct {
	MXID    matrix.UserID `json:"mxid"`
	Invites []bound       `json:"invites"`
}

// bound is an invitation that has waited for its identifier to be somebody's.
type bound struct {
	RoomID matrix.RoomID   `json:"room_id"`
	Sender matrix.UserID   `json:"sender"`
	Signed json.RawMessage `json:"signed"`
}

// onbind hears that an identifier is one of our users' now, and has the
// invitations that wait for it redeemed. Anybody can send such a notice; what it
// is worth is found out by the servers of the rooms, from the signature.
// spec: server-server#put_matrixfederationv13pidonbind
func (j *Joining) onbind(ctx context.Context, _ *httpx.Caller, q *onbindRequest) (*empty, error) {
	if _, err := matrix.ParseUserID(string(q.MXID)); err != nil {
		return nil, err
	}
	if len(q.Invites) > maxBound {
		return nil, matrix.InvalidParam("There are more than %d invites", maxBound)
	}
	exists, err := j.Users.Exists(ctx, q.MXID)
	if err != nil {
		return nil, err
	}
	if !exists || !j.Engine.Local(q.MXID) {
		return nil, matrix.NotFound("There is no such user")
	}
	if !j.onbinds.TryAcquire(1) {
		return nil, matrix.LimitExceeded(sendTime)
	}
	defer j.onbinds.Release(1)
	ctx, cancel := context.WithTimeout(ctx, 2*sendTime)
	defer cancel()
	for _, b := range q.Invites {
		if err := j.bind(ctx, q.MXID, b); err != nil {
			j.Log.InfoContext(ctx, "a third-party invite could not be redeemed", "user", q.MXID, "room", b.RoomID, "error", err)
		}
	}
	return nil, nil
}

// bind redeems one invitation, here or at the server of who sent it.
func (j *Joining) bind(ctx context.Context, user matrix.UserID, b bound) error {
	q := redemption{Type: matrix.TypeMember, RoomID: b.RoomID, Sender: b.Sender, StateKey: user}
	q.Content.Membership, q.Content.ThirdParty.Signed = matrix.MembershipInvite, b.Signed
	if _, err := matrix.ParseRoomID(string(b.RoomID)); err != nil {
		return err
	}
	if err := q.checkUsers(); err != nil {
		return err
	}
	if j.Engine.Local(b.Sender) {
		r, err := j.Engine.Room(ctx, b.RoomID)
		if err != nil {
			return err
		}
		return j.redeem(ctx, r, &q)
	}
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	return j.Client.JSON(ctx, transport.Request{
		Destination: b.Sender.Server(), Method: http.MethodPut,
		Path: transport.Path(v1+"exchange_third_party_invite", string(b.RoomID)), Content: body, Timeout: sendTime,
	}, nil)
}
