package syncapi

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// accountData returns what is new of the user's account data, rendered, by room;
// the account's own under "".
func (s *Service) accountData(ctx context.Context, q *syncRequest, d *delta) (map[matrix.RoomID][]json.RawMessage, error) {
	var list []Datum
	var err error
	switch {
	case d.initial:
		list, err = s.Data.All(ctx, d.user)
	case d.data:
		list, err = s.Data.Since(ctx, d.user, d.from.position, d.upTo.position)
	}
	if err != nil || len(list) == 0 {
		return nil, err
	}
	data := map[matrix.RoomID][]json.RawMessage{}
	for _, e := range list {
		f := &q.filter.AccountData
		if e.Room != "" {
			if f = &q.filter.Room.AccountData; !f.TakesRoom(e.Room) {
				continue
			}
		}
		if e.Position <= d.upTo.position && f.Takes(e.Type, d.user, e.Content) {
			data[e.Room] = append(data[e.Room], typedEvent(e.Type, e.Content))
		}
	}
	return data, nil
}

// presenceFor returns the presence events of those who share a room with the
// user, as far as they changed, or as the room they are in is new to the client.
func (s *Service) presenceFor(ctx context.Context, q *syncRequest, d *delta) ([]json.RawMessage, error) {
	if !s.Presence || !takesType(&q.filter.Presence, "m.presence") {
		return nil, nil
	}
	var list []seen
	if d.presence || d.initial {
		list = s.presence.above(d.from.ephemeral, d.upTo.ephemeral)
	}
	if len(list) > 0 {
		mine, err := s.joinedRooms(ctx, d.user)
		if err != nil {
			return nil, err
		}
		if list, err = s.acquaintances(ctx, d.user, mine, list); err != nil {
			return nil, err
		}
	}
	if !d.initial {
		fresh, err := s.newcomers(ctx, d, list)
		if err != nil {
			return nil, err
		}
		list = append(list, fresh...)
	}
	var events []json.RawMessage
	for _, p := range list {
		if q.filter.Presence.Takes("m.presence", p.user, nil) {
			events = append(events, p.event())
		}
	}
	return events, nil
}

// acquaintances leaves the people who are in one of the rooms, and the user.
func (s *Service) acquaintances(ctx context.Context, user matrix.UserID, in map[rooms.RoomNID]struct{}, list []seen) ([]seen, error) {
	strangers, err := s.among(ctx, in, s.strangers(list))
	if err != nil {
		return nil, err
	}
	kept := list[:0]
	for some := range slices.Chunk(list, 64) {
		known := s.notifier.meet(some, in)
		for i, p := range some {
			var err error
			ok := p.user == user || known[i] == yes || strangers[p.user]
			if !ok && known[i] == unknown && s.Rooms.Local(p.user) {
				if ok, err = s.meets(ctx, in, p.user); err != nil {
					return nil, err
				}
			}
			if ok {
				kept = append(kept, p)
			}
		}
	}
	return kept, nil
}

// strangers lists those of the people who are users of other servers.
func (s *Service) strangers(list []seen) []matrix.UserID {
	var users []matrix.UserID
	for _, p := range list {
		if !s.Rooms.Local(p.user) {
			users = append(users, p.user)
		}
	}
	return users
}

// newcomers are the people of rooms that are new to the client, and those who
// are new in rooms that it knows.
func (s *Service) newcomers(ctx context.Context, d *delta, told []seen) ([]seen, error) {
	fresh := map[rooms.RoomNID]struct{}{}
	var open []*rooms.Room
	arrived := map[matrix.UserID]bool{}
	for _, rd := range d.joined {
		if rd.fresh() {
			fresh[rd.Room] = struct{}{}
			open = append(open, rd.room)
			continue
		}
		for _, ev := range rd.view.Recent {
			if ev.Position > rd.from && ev.Position <= d.upTo.position && ev.Membership() == matrix.MembershipJoin {
				arrived[matrix.UserID(ev.StateKey())] = true
			}
		}
	}
	if len(open) == 0 && len(arrived) == 0 {
		return nil, nil
	}
	list := s.presence.here(func(u matrix.UserID) bool {
		return u != d.user && !slices.ContainsFunc(told, func(p seen) bool { return p.user == u }) &&
			(arrived[u] || slices.ContainsFunc(open, func(r *rooms.Room) bool { return r.IsLocalMember(u) || r.HasServer(u.Server()) }))
	})
	// Of a user of another server it is known so far that somebody of theirs is in
	// one of the rooms.
	there, err := s.among(ctx, fresh, s.strangers(list))
	return slices.DeleteFunc(list, func(p seen) bool { return !arrived[p.user] && !s.Rooms.Local(p.user) && !there[p.user] }), err
}

// event renders m.presence.
// spec: client-server#mpresence
func (p seen) event() json.RawMessage {
	b := append(make([]byte, 0, 160), `{"type":"m.presence","sender":`...)
	b = appendText(b, p.user)
	b = append(b, `,"content":{"presence":"`...)
	b = append(b, p.state...)
	b = append(b, '"')
	if p.ago >= 0 {
		b = append(b, `,"last_active_ago":`...)
		b = strconv.AppendInt(b, p.ago.Milliseconds(), 10)
	}
	if p.status != nil {
		b = append(b, `,"status_msg":`...)
		b = appendText(b, *p.status)
	}
	b = append(b, `,"currently_active":`...)
	b = strconv.AppendBool(b, p.active)
	return append(b, `}}`...)
}

// toDevice returns the device's messages and up to where they reach.
func (s *Service) toDevice(ctx context.Context, q *syncRequest, d *delta) ([]json.RawMessage, int64, error) {
	upTo := d.upTo.position
	if s.Encryption == nil {
		return nil, upTo, nil
	}
	return s.Encryption.ToDevice(ctx, d.user, q.device.device, q.since.Device, upTo)
}

// encryption appends what else end-to-end encryption adds; the members are there
// even when they are empty.
// spec: client-server#e2e-extensions-to-sync
func (a *answer) encryption() error {
	var changed, left []matrix.UserID
	var oneTime map[string]int
	var fallback []string
	if e := a.s.Encryption; e != nil {
		var err error
		if !a.d.initial && (a.d.data || len(a.d.joined)+len(a.d.left) > 0) {
			if changed, left, err = e.DeviceLists(a.ctx, a.d.user, a.d.from.position, a.d.upTo.position); err != nil {
				return err
			}
		}
		if oneTime, fallback, err = e.Keys(a.ctx, a.d.user, a.q.device.device); err != nil {
			return err
		}
	}
	a.any = a.any || len(changed)+len(left) > 0
	a.buf = append(a.buf, `,"device_lists":{"changed":`...)
	a.buf = appendTexts(a.buf, changed)
	a.buf = append(a.buf, `,"left":`...)
	a.buf = appendTexts(a.buf, left)
	a.buf = append(a.buf, `},"device_one_time_keys_count":{`...)
	for _, algorithm := range slices.Sorted(maps.Keys(oneTime)) {
		a.buf = appendName(a.buf, algorithm)
		a.buf = strconv.AppendInt(a.buf, int64(oneTime[algorithm]), 10)
	}
	a.buf = append(a.buf, `},"device_unused_fallback_key_types":`...)
	a.buf = appendTexts(a.buf, fallback)
	return nil
}
