package joining

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/api"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// How long others may take.
const (
	makeTime    = 15 * time.Second // for a template
	searchTime  = 90 * time.Second // for all templates together
	answerTime  = time.Minute      // for the answer to send_join to begin
	joinTime    = 10 * time.Minute // for a join as a whole
	sendTime    = 30 * time.Second // for the other events that are handed in
	maxTemplate = 256 << 10        // bytes
)

// maxVia is how many servers are asked to let one user in.
const maxVia = 12

// Join makes a local user join through a server that is in the room. It is gone
// on with when ctx has ended.
// spec: server-server#joining-rooms
func (j *Joining) Join(ctx context.Context, e api.Entry) error {
	if err := j.background.Err(); err != nil {
		return err
	}
	via, err := j.via(ctx, e.Room, e.User, e.Via)
	if err != nil {
		return err
	}
	release, err := j.turns.take(ctx, e.Room)
	if err != nil {
		return err
	}
	if here, err := j.here(ctx, e.Room); err != nil || here && !e.Here {
		release()
		if err == nil {
			err = api.ErrHere
		}
		return err
	}
	done := make(chan error, 1)
	j.running.Go(func() {
		defer release()
		done <- j.join(j.background, pending{user: e.User, room: e.Room, via: via, named: e.Via, content: e.Content, started: j.Now()})
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join tries to join, for whoever has the room's turn. What the end of this
// server interrupts stays pending.
func (j *Joining) join(ctx context.Context, p pending) error {
	failed := j.try(ctx, p)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := j.dropPending(ctx, p.user, p.room, failed == nil); err != nil {
		return err
	}
	if failed == nil {
		return nil
	}
	j.Log.InfoContext(ctx, "a user could not join a room through any server", "user", p.user, "room", p.room, "failed", failed)
	return failed.forClient(p.room)
}

// here tells whether local users are in a room.
func (j *Joining) here(ctx context.Context, room matrix.RoomID) (bool, error) {
	r, err := j.Engine.Room(ctx, room)
	if matrix.HasCode(err, matrix.CodeNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return r.LocalMemberCount() > 0, nil
}

// try asks one server after the other. It gives nil if one let the user in.
func (j *Joining) try(ctx context.Context, p pending) failures {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	search, end := context.WithTimeout(ctx, searchTime)
	defer end()
	w := wish{room: p.room, user: p.user, membership: matrix.MembershipJoin, content: p.content}
	failed := failures{}
	for _, server := range p.via {
		if len(p.named) > 0 && !slices.Contains(p.named, server) && failed.cannotAuthorise() {
			break // the client chose who is to decide
		}
		err := j.joinThrough(ctx, search, server, w, p)
		if err == nil {
			return nil
		}
		failed = append(failed, failure{server, err})
		if final(err) || search.Err() != nil {
			break
		}
	}
	return failed
}

// joinThrough joins through one server. search bounds the time until it has
// given a template.
func (j *Joining) joinThrough(ctx, search context.Context, server matrix.ServerName, w wish, p pending) error {
	t, err := j.template(search, server, w)
	if err != nil {
		return err
	}
	ev, err := j.build(t, w)
	if err != nil {
		return err
	}
	if err := j.savePending(ctx, p); err != nil {
		return err
	}
	res, err := j.sendJoin(ctx, server, ev)
	if err != nil {
		return err
	}
	if res.dropped > 0 {
		j.Log.WarnContext(ctx, "a server told of bad events in a room that a user joins", "server", server, "room", w.room,
			"events", res.dropped, "first", res.why)
	}
	if err := res.checkCreate(t.version, w.room); err != nil {
		return err
	}
	if ev, err = j.passedOn(ctx, res, ev); err != nil {
		return err
	}
	if err := j.enter(ctx, res, ev); err != nil {
		return err
	}
	j.seen(server)
	return nil
}

// sendJoin hands a join in and reads what the server tells of the room.
func (j *Joining) sendJoin(ctx context.Context, server matrix.ServerName, ev *event.Event) (*residence, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := transport.Request{
		Destination: server, Method: http.MethodPut, Path: transport.Path(v2+"send_join", string(ev.RoomID), string(ev.ID)),
		Content: ev.JSON, Timeout: joinTime, MaxAnswer: maxAnswer,
	}
	slow := time.AfterFunc(answerTime, cancel)
	body, err := j.Client.Stream(ctx, r)
	if unrecognized(err) {
		r.Path = transport.Path(v1+"send_join", string(ev.RoomID), string(ev.ID))
		body, err = j.Client.Stream(ctx, r)
	}
	slow.Stop()
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	return j.readResidence(ctx, body, ev.Version, ev.RoomID)
}

// unrecognized tells whether a server does not know an endpoint.
func unrecognized(err error) bool {
	var remote *transport.RemoteError
	if !errors.As(err, &remote) {
		return false
	}
	switch remote.Code {
	case matrix.CodeUnrecognized:
		return true
	case "":
		return remote.Status == http.StatusNotFound || remote.Status == http.StatusMethodNotAllowed
	}
	return false
}

// passedOn is the join as the other server passes it on: with its signature,
// where that is what lets the user in, and the policy server's.
// spec: server-server#restricted-rooms
func (j *Joining) passedOn(ctx context.Context, res *residence, ev *event.Event) (*event.Event, error) {
	err := malformed("the join does not come back as it was")
	if res.event != nil && same(ev, res.event) {
		if err = j.Keys.VerifyEvents(ctx, []*event.Event{res.event})[0]; err == nil {
			return res.event, nil
		}
		err = malformed("the join comes back without a signature that it needs: %v", err)
	}
	if len(ev.Signers()) > 1 {
		return nil, err
	}
	return ev, nil
}

// same tells whether got is ev, signatures aside.
func same(ev, got *event.Event) bool {
	return ev.ID == got.ID && ev.RoomID == got.RoomID && ev.Ref() == got.Ref() && got.ContentHashOK()
}

// enter makes this server take part in the room. Where it does so already the
// join is one more event.
func (j *Joining) enter(ctx context.Context, res *residence, ev *event.Event) error {
	here, err := j.here(ctx, ev.RoomID)
	if err != nil {
		return err
	}
	if here {
		out, err := j.Engine.Receive(ctx, ev.RoomID, []rooms.Incoming{{Event: ev}})
		if err != nil {
			return err
		}
		if len(out[0].Missing) == 0 {
			return refused(out[0])
		}
	}
	_, err = j.Engine.ImportState(ctx, ev.Version, ev.RoomID, res.state, res.chain, ev)
	return err
}

// refused is the error for an event that was not accepted.
func refused(out rooms.Outcome) error {
	if out.Event != nil && out.Event.Flags&(rooms.Rejected|rooms.SoftFailed) == 0 {
		return nil
	}
	if out.Why == nil {
		out.Why = errors.New("it was refused before")
	}
	return matrix.Forbidden("The room does not allow it: %s", out.Why).Because(out.Why)
}

// via lists the servers that may let a user into a room: those that are named,
// those that have to do with the user's invitation or knock, those that were in
// the room when this server was, and where there are none the one that the room's
// id bears.
func (j *Joining) via(ctx context.Context, room matrix.RoomID, user matrix.UserID, named []matrix.ServerName) ([]matrix.ServerName, error) {
	all := slices.Clone(named)
	r, err := j.Engine.Room(ctx, room)
	if err != nil && !matrix.HasCode(err, matrix.CodeNotFound) {
		return nil, err
	}
	if err == nil {
		more, err := j.known(ctx, r, user)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	if len(all) == 0 {
		all = append(all, room.Server())
	}
	via := make([]matrix.ServerName, 0, maxVia)
	for _, s := range all {
		if _, err := matrix.ParseServerName(string(s)); err != nil || s == j.Engine.ServerName || slices.Contains(via, s) {
			continue
		}
		if via = append(via, s); len(via) == maxVia {
			break
		}
	}
	return via, nil
}
