package syncapi

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
	"github.com/teahouse-chat/teahouse/syncapi/token"
)

// gathered is what the sections of a chunk of rooms need, read in bulk.
type gathered struct {
	receipts map[rooms.RoomNID][]Receipt
	own      map[rooms.RoomNID][]Receipt
	judged   map[rooms.RoomNID]Judged
}

// gather reads for a list of joined rooms what would otherwise be read for each.
func (s *Service) gather(ctx context.Context, q *syncRequest, d *delta, list []roomDelta) (*gathered, error) {
	g := &gathered{}
	all := make([]rooms.RoomNID, 0, len(list))
	var fresh, known []rooms.RoomNID
	for _, rd := range list {
		all = append(all, rd.Room)
		switch {
		case rd.fresh():
			fresh = append(fresh, rd.Room)
		case rd.marks.receipts > d.from.position:
			known = append(known, rd.Room)
		}
	}
	var err error
	if takesType(&q.filter.Room.Ephemeral, "m.receipt") {
		if g.receipts, err = s.receipts.since(ctx, d.user, known, d.from.position, d.upTo.position); err != nil {
			return nil, err
		}
		first, err := s.receipts.since(ctx, d.user, fresh, 0, d.upTo.position)
		if err != nil {
			return nil, err
		}
		for nid, list := range first {
			g.receipts[nid] = list
		}
	}
	if g.judged, err = s.counts.judged(ctx, d.user, all, d.upTo.position); err != nil {
		return nil, err
	}
	if g.own, err = s.receipts.of(ctx, d.user, all); err != nil {
		return nil, err
	}
	return g, s.warm(ctx, q, list)
}

// warm brings the events that the rooms' sections will ask for into the engine's
// cache, all at once.
func (s *Service) warm(ctx context.Context, q *syncRequest, list []roomDelta) error {
	if len(list) < 2 {
		return nil
	}
	var nids []state.EventNID
	for _, rd := range list {
		nids = append(nids, rd.Event)
		if !rd.fresh() && !q.full {
			continue
		}
		for k, n := range rd.view.State.All() {
			if !rooms.MemberKey(k) || !q.filter.Room.State.LazyMembers {
				nids = append(nids, n)
			}
		}
	}
	_, err := s.Rooms.Events(ctx, nids)
	return err
}

// join appends the section of a joined room; said tells whether there is
// anything new in it.
func (a *answer) join(rd *roomDelta, g *gathered, data []json.RawMessage) (said bool, err error) {
	t := stretch{start: a.d.upTo.position}
	if rd.fresh() || rd.marks.events > a.d.from.position {
		if t, err = a.timeline(rd, a.d.upTo.position); err != nil {
			return false, err
		}
	}
	a.buf = append(a.buf, '{')
	needed := map[matrix.UserID]struct{}{} // whose member events the client needs beside the senders'
	if rd.fresh() || a.q.full {
		needed[a.d.user] = struct{}{}
	}
	if rd.fresh() || a.q.full || rd.membersChanged(a.d.upTo.position) {
		if err := a.summary(rd, needed); err != nil {
			return false, err
		}
	}
	known := rd.from
	if a.q.full {
		known = 0
	}
	shown, err := a.state(rd, known, a.d.upTo.position, &t, needed)
	if err != nil {
		return false, err
	}
	if err := a.appendTimeline(rd, &t); err != nil {
		return false, err
	}
	ephemeral := a.ephemeral(rd, g)
	a.buf = append(a.buf, `,"ephemeral":`...)
	a.buf = appendEvents(a.buf, ephemeral)
	a.buf = append(a.buf, `,"account_data":`...)
	a.buf = appendEvents(a.buf, data)
	if err := a.unread(rd, g); err != nil {
		return false, err
	}
	a.buf = append(a.buf, '}')
	return rd.fresh() || a.q.full || t.limited || len(t.events)+shown+len(ephemeral)+len(data) > 0 || a.read(rd, g), nil
}

// read tells whether the user has read on, which changes the counts even where
// receipts are not asked for.
func (a *answer) read(rd *roomDelta, g *gathered) bool {
	return rd.marks.receipts > a.d.from.position &&
		slices.ContainsFunc(g.own[rd.Room], func(r Receipt) bool { return r.Position > a.d.from.position })
}

// membersChanged tells whether somebody came or went, shown or not. Where recent
// events do not reach that far back, it may have been so.
func (rd *roomDelta) membersChanged(upTo int64) bool {
	if rd.marks.events <= rd.from {
		return false
	}
	return rd.from < rd.view.RecentFrom || slices.ContainsFunc(rd.view.Recent, func(ev *rooms.Stored) bool {
		return ev.Position > rd.from && ev.Position <= upTo && ev.IsState() && ev.Type == matrix.TypeMember
	})
}

// timeline picks the room's events up to a position.
func (a *answer) timeline(rd *roomDelta, upTo int64) (stretch, error) {
	w := a.q.window
	if !w.filter.TakesRoom(rd.RoomID) {
		return stretch{start: upTo}, nil
	}
	return a.s.stretch(a.ctx, a.d.user, rd, upTo, &w)
}

// state appends the state section and tells how many events are in it.
func (a *answer) state(rd *roomDelta, known, upTo int64, t *stretch, needed map[matrix.UserID]struct{}) (int, error) {
	f := &a.q.filter.Room.State
	var events []*rooms.Stored
	if f.TakesRoom(rd.RoomID) {
		v := &stateView{
			after: a.q.stateAfter != "", lazy: f.LazyMembers, all: f.RedundantMembers || a.q.full, filter: f,
			device: a.q.device, since: a.q.since.Position, extra: needed,
		}
		var err error
		if events, err = a.s.stateDelta(a.ctx, rd, known, upTo, t, v); err != nil {
			return 0, err
		}
		if f.LazyMembers {
			a.s.lazy.sent(a.q.device, a.d.upTo.position, memberNIDs(events, t.events))
		}
	}
	// Of a whole state, nobody asks what was there before each entry of it.
	rendered, err := a.render(rd, events, rooms.Format{State: rd.fresh() || a.q.full})
	if err != nil {
		return 0, err
	}
	a.appendState(rendered)
	return len(events), nil
}

// appendState appends the state section under the name that was asked for.
func (a *answer) appendState(rendered []json.RawMessage) {
	name := "state"
	if a.q.stateAfter != "" {
		name = a.q.stateAfter
	}
	a.buf = appendName(a.buf, name)
	a.buf = appendEvents(a.buf, rendered)
}

func memberNIDs(lists ...[]*rooms.Stored) []state.EventNID {
	var nids []state.EventNID
	for _, list := range lists {
		for _, ev := range list {
			if ev.IsState() && ev.Type == matrix.TypeMember {
				nids = append(nids, ev.NID)
			}
		}
	}
	return nids
}

// render gives events the form that the filter asks for.
func (a *answer) render(rd *roomDelta, events []*rooms.Stored, f rooms.Format) ([]json.RawMessage, error) {
	if len(events) == 0 {
		return nil, nil
	}
	f.OmitRoomID, f.PDU = true, a.q.filter.Format == "federation"
	viewer := rooms.Viewer{User: a.d.user, Device: a.q.device.device, Ignores: a.q.window.ignored}
	rendered, err := a.s.Rooms.Render(a.ctx, rd.room, viewer, events, f)
	if err != nil || a.q.filter.paths == nil {
		return rendered, err
	}
	for i, raw := range rendered {
		if rendered[i], err = prune(raw, a.q.filter.paths); err != nil {
			return nil, err
		}
	}
	return rendered, nil
}

func (a *answer) appendTimeline(rd *roomDelta, t *stretch) error {
	rendered, err := a.render(rd, t.events, rooms.Format{Bundle: true})
	if err != nil {
		return err
	}
	a.buf = append(a.buf, `,"timeline":{"events":`...)
	a.buf = appendList(a.buf, rendered)
	a.buf = append(a.buf, `,"limited":`...)
	a.buf = strconv.AppendBool(a.buf, t.limited)
	a.buf = append(a.buf, `,"prev_batch":"`...)
	a.buf = token.AppendPoint(a.buf, t.start)
	a.buf = append(a.buf, `"}`...)
	return nil
}

// unread appends the unread counts.
// spec: client-server#receiving-notifications
func (a *answer) unread(rd *roomDelta, g *gathered) error {
	member, err := a.s.Rooms.Events(a.ctx, []state.EventNID{rd.Event})
	if err != nil {
		return err
	}
	u, err := a.s.counts.of(a.ctx, place{
		room: rd.room, view: rd.view, user: a.d.user, joined: member[0], own: g.own[rd.Room], judged: g.judged[rd.Room], upTo: a.d.upTo.position,
	})
	if err != nil {
		return err
	}
	if !a.q.filter.Room.Timeline.UnreadThreads {
		for _, t := range u.threads {
			u.main.notifications += t.notifications
			u.main.highlights += t.highlights
		}
		u.threads = nil
	}
	a.buf = append(a.buf, `,"unread_notifications":`...)
	a.buf = appendTally(a.buf, u.main)
	if len(u.threads) == 0 {
		return nil
	}
	a.buf = append(a.buf, `,"unread_thread_notifications":{`...)
	for _, root := range slices.Sorted(maps.Keys(u.threads)) {
		a.buf = appendName(a.buf, root)
		a.buf = appendTally(a.buf, u.threads[root])
	}
	a.buf = append(a.buf, '}')
	return nil
}
