package appservices

import (
	"context"
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// What a transaction holds beside events. What is more waits for the next one.
const (
	maxTyping   = 100
	maxPresence = 100
	maxReceipts = 500 // that are looked at once
	maxMessages = 100
	maxKeyUsers = 100
	maxLists    = 1000
	maxInboxes  = 500 // users whose messages are looked for at once
)

type deviceLists struct {
	Changed []matrix.UserID `json:"changed"`
	Left    []matrix.UserID `json:"left"`
}

// gathering is what is put into a transaction beside events.
type gathering struct {
	c       *courier
	v       *Service
	body    *content
	news    news                       // that is left for later
	upTo    int64                      // receipts and changes of device lists are told up to here
	changed map[matrix.UserID]struct{} // whose devices have to be looked at anew
	left    map[matrix.UserID]struct{} // who shares no room with the service's users any more
	taken   []func(*db.Tx) error       // deletes what the transaction has from where it was
}

// gather adds to a transaction what happened beside its events, as it is now.
func (c *courier) gather(ctx context.Context, n news, events []*rooms.Stored, body *content) (*gathering, error) {
	c.mu.Lock()
	g := &gathering{c: c, v: c.service.Load(), body: body, upTo: c.beside, changed: map[matrix.UserID]struct{}{}, left: map[matrix.UserID]struct{}{}}
	c.mu.Unlock()
	g.news.add(n) // n is still needed if the transaction cannot be stored
	for _, step := range []func(context.Context, []*rooms.Stored) error{g.passing, g.messages, g.moves, g.behind} {
		if err := step(ctx, events); err != nil {
			return nil, err
		}
	}
	if len(g.changed)+len(g.left) > 0 {
		body.DeviceLists = &deviceLists{sorted(g.changed), sorted(g.left)}
	}
	body.UnstableEphemeral, body.UnstableToDevice = body.Ephemeral, body.ToDevice
	return g, nil
}

// behind adds receipts and changes of device lists behind the position that the
// service has been told up to.
func (g *gathering) behind(ctx context.Context, _ []*rooms.Stored) error {
	if g.news.behind == 0 {
		return nil
	}
	// Who is told of a commit may be so before the database's position has moved.
	upTo := max(g.c.s.DB.Position(), g.news.behind)
	for found := false; g.upTo < upTo && !found; {
		reached := upTo
		if g.v.Devices {
			var err error
			if reached, err = g.lists(ctx, reached); err != nil {
				return err
			}
		}
		if g.v.Ephemeral {
			before := len(g.body.Ephemeral)
			var err error
			if reached, err = g.receipts(ctx, reached); err != nil {
				return err
			}
			found = len(g.body.Ephemeral) > before
		}
		found = found || len(g.changed) > 0
		g.upTo = reached
	}
	if g.upTo == upTo {
		g.news.behind = 0
	}
	return nil
}

// passing adds who types and who is there.
func (g *gathering) passing(ctx context.Context, _ []*rooms.Stored) error {
	if !g.v.Ephemeral {
		g.news.typing, g.news.presence = nil, nil
		return nil
	}
	for _, nid := range some(g.news.typing, maxTyping) {
		if r, err := g.c.s.rooms.RoomByNID(ctx, nid); err == nil { // else nobody types there
			g.body.Ephemeral = append(g.body.Ephemeral, g.c.s.ephemeral.Typing(r))
		}
	}
	g.body.Ephemeral = append(g.body.Ephemeral, g.c.s.ephemeral.Presences(some(g.news.presence, maxPresence))...)
	return nil
}

// receipts adds those that moved in the service's rooms, the private ones of its own
// users only.
// spec: application-service#pushing-ephemeral-data
func (g *gathering) receipts(ctx context.Context, upTo int64) (int64, error) {
	events, reached, err := g.c.s.ephemeral.Receipts(ctx, g.upTo, upTo, maxReceipts, func(r *rooms.Room, user matrix.UserID, private bool) (bool, error) {
		if private && !g.covers(user) {
			return false, nil
		}
		list, err := g.c.s.standings.interested(ctx, r)
		return among(list, g.v), err
	})
	g.body.Ephemeral = append(g.body.Ephemeral, events...)
	return reached, err
}

// messages adds what was sent to the devices of the service's users, which is
// deleted in the write that stores the transaction, and how many keys they have left.
func (g *gathering) messages(ctx context.Context, _ []*rooms.Stored) error {
	if !g.v.Devices {
		g.news.messages, g.news.inboxes, g.news.keys = false, nil, nil
		return nil
	}
	if g.news.messages {
		all, err := g.c.s.devices.Receivers(ctx)
		if err != nil {
			return err
		}
		g.news.messages, g.news.inboxes = false, map[matrix.UserID]struct{}{}
		for _, u := range g.v.owned(all) {
			g.news.inboxes[u] = struct{}{}
		}
	}
	users := g.v.owned(some(g.news.inboxes, maxInboxes))
	if len(users) > 0 {
		events, take, err := g.c.s.devices.Messages(ctx, users, maxMessages, maxBody)
		if err != nil {
			return err
		}
		if len(events) > 0 {
			g.body.ToDevice = events
			g.taken = append(g.taken, take)
			for _, u := range users { // there may be more
				g.news.add(news{inboxes: one(u)})
			}
		}
	}
	return g.keys(ctx, users)
}

// keys adds how many keys the devices of users have left.
func (g *gathering) keys(ctx context.Context, users []matrix.UserID) error {
	if len(g.body.ToDevice) == 0 {
		users = nil
	}
	users = g.v.owned(append(some(g.news.keys, maxKeyUsers), users...))
	if len(users) == 0 {
		return nil
	}
	slices.Sort(users)
	var err error
	g.body.OneTimeKeys, g.body.FallbackKeys, err = g.c.s.devices.KeysOf(ctx, slices.Compact(users))
	return err
}

// lists adds whose device lists changed, of the service's users and of those who are
// in rooms with them.
func (g *gathering) lists(ctx context.Context, upTo int64) (int64, error) {
	users, reached, err := g.c.s.devices.ListChanges(ctx, g.upTo, upTo, maxLists)
	if err != nil {
		return 0, err
	}
	for _, u := range users {
		concerned := g.covers(u)
		if !concerned {
			if concerned, err = g.c.s.standings.meets(ctx, g.v, u); err != nil {
				return 0, err
			}
		}
		if concerned {
			g.changed[u] = struct{}{}
		}
	}
	return reached, nil
}

func (g *gathering) covers(u matrix.UserID) bool {
	return among(g.c.s.current.Load().covering(u), g.v)
}

// moves adds who came to share an encrypted room with users of the service, or
// shares none any more, by the events of the transaction.
// spec: client-server#tracking-the-device-list-for-a-user
func (g *gathering) moves(ctx context.Context, events []*rooms.Stored) error {
	if !g.v.Devices {
		return nil
	}
	for _, ev := range events {
		if ev == nil || !ev.IsState() || ev.Flags&rooms.Outside != 0 || ev.Type != matrix.TypeMember && ev.Type != matrix.TypeEncryption {
			continue
		}
		if err := g.moved(ctx, ev); err != nil {
			return err
		}
	}
	return nil
}

func (g *gathering) moved(ctx context.Context, ev *rooms.Stored) error {
	r, err := g.c.s.rooms.RoomByNID(ctx, ev.Room)
	if err != nil {
		return err
	}
	encrypted, err := g.c.s.rooms.StateEvent(ctx, r.View().State, matrix.TypeEncryption, "")
	if err != nil || encrypted == nil {
		return err
	}
	user := matrix.UserID(ev.StateKey())
	came := ev.Type == matrix.TypeEncryption || ev.Membership() == matrix.MembershipJoin
	concerned := []matrix.UserID{user}
	if ev.Type == matrix.TypeMember {
		was, err := g.wasIn(ctx, ev)
		if err != nil || was == came {
			return err // a profile, or an invitation
		}
	}
	if ev.Type == matrix.TypeEncryption || g.covers(user) {
		if concerned, err = g.c.s.devices.CompanyIn(ctx, r); err != nil {
			return err
		}
	}
	for _, u := range concerned {
		meets, err := g.c.s.standings.meets(ctx, g.v, u)
		if err != nil {
			return err
		}
		if meets == came {
			into := g.left
			if came {
				into = g.changed
			}
			into[u] = struct{}{}
		}
	}
	return nil
}

// wasIn tells whether whom a member event tells of was in the room before it.
func (g *gathering) wasIn(ctx context.Context, ev *rooms.Stored) (bool, error) {
	if ev.Replaces == 0 {
		return false, nil
	}
	before, err := g.c.s.rooms.Events(ctx, []state.EventNID{ev.Replaces})
	return len(before) > 0 && before[0].Membership() == matrix.MembershipJoin, err
}

func sorted(users map[matrix.UserID]struct{}) []matrix.UserID {
	return append([]matrix.UserID{}, slices.Sorted(maps.Keys(users))...)
}

// take deletes what the transaction has now, in the write that stores it.
func (g *gathering) take(tx *db.Tx) error {
	for _, op := range g.taken {
		if err := op(tx); err != nil {
			return err
		}
	}
	if !g.v.Ephemeral && !g.v.Devices {
		return nil
	}
	return tx.Exec(moveBeside, g.upTo, g.c.nid)
}
