package rooms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// recentLoaded is how many of its newest events a room is loaded with.
const recentLoaded = 20

// newRoom makes a room that nobody else knows yet.
func newRoom(nid RoomNID, id matrix.RoomID, v *event.Version) *Room {
	r := &Room{
		NID: nid, ID: id, Version: v,
		intake: semaphore.NewWeighted(1), turn: semaphore.NewWeighted(1), members: map[matrix.UserID]struct{}{},
		head: newHead(),
	}
	r.view.Store(&View{})
	return r
}

func newHead() *head {
	return &head{
		pending: &pendingEvents{events: map[state.EventNID]*Stored{}},
		failed:  new(atomic.Bool),
	}
}

// load reads a room from the database.
func (e *Engine) load(ctx context.Context, row roomRow) (*Room, error) {
	name, err := e.nameRow(row)
	if err != nil {
		return nil, err
	}
	r := newRoom(row.nid, name.id, name.version)
	if r.head, err = e.loadHead(ctx, row); err != nil {
		return nil, fmt.Errorf("load room %s: %w", row.id, err)
	}
	recent, err := e.Timeline(ctx, TimelineQuery{Room: r, Backwards: true, From: maxPosition, Limit: recentLoaded})
	if err != nil {
		return nil, err
	}
	// Between events of the past others may still find their place.
	recent = slices.DeleteFunc(recent, func(st *Stored) bool { return st.Position < 0 })
	v := &View{
		State: r.head.state, Snapshot: row.snapshot, Joined: row.joined, Invited: row.invited, Recent: recent,
		Gap: row.gap, servers: r.head.servers,
	}
	slices.Reverse(recent)
	if len(recent) > 0 {
		v.Position = recent[len(recent)-1].Position
	}
	if len(recent) == recentLoaded {
		v.RecentFrom = recent[0].Position - 1
	}
	r.view.Store(v)
	members, err := db.All(ctx, e.DB, localMembers, scanOne[matrix.UserID], r.NID)
	if err != nil {
		return nil, err
	}
	for _, u := range members {
		r.members[u] = struct{}{}
	}
	return r, nil
}

// loadHead reads what a room's next event builds on.
func (e *Engine) loadHead(ctx context.Context, row roomRow) (*head, error) {
	h := newHead()
	h.joined, h.invited, h.unread = row.joined, row.invited, row.unread
	layers, err := e.snapshotLayers(ctx, row.snapshot)
	if err != nil {
		return nil, err
	}
	h.state = state.Rebuild(layers)
	if h.chain, err = state.NewChain(layers); err != nil {
		return nil, err
	}
	if h.servers, err = e.loadServers(ctx, row.nid); err != nil {
		return nil, err
	}
	nids, err := decodeNIDs(row.extremities)
	if err != nil {
		return nil, err
	}
	events, err := e.Events(ctx, nids)
	if err != nil {
		return nil, err
	}
	for _, st := range events {
		h.extremities = append(h.extremities, extremityOf(st))
	}
	return h, nil
}

// reloadHead replaces a head that could not be committed by what the database
// says. Everything enqueued on the failed head fails by itself.
func (e *Engine) reloadHead(ctx context.Context, r *Room) error {
	// Behind this empty write nothing of the failed head is left in the queue.
	if err := e.DB.Write(ctx, func(*db.Tx) error { return nil }); err != nil {
		return err
	}
	row, found, err := db.One(ctx, e.DB, roomByNID, scanRoom, r.NID)
	if err != nil {
		return err
	}
	if !found {
		return errors.New("rooms: a room whose head failed is not in the database")
	}
	h, err := e.loadHead(ctx, row)
	if err != nil {
		return err
	}
	if err := r.turn.Acquire(ctx, 1); err != nil {
		return err
	}
	defer r.turn.Release(1)
	if r.head.failed.Load() {
		r.head = h
	}
	return nil
}

// snapshotLayers reads the layers of a snapshot, oldest first.
func (e *Engine) snapshotLayers(ctx context.Context, n SnapshotNID) ([]state.Layer, error) {
	var layers []state.Layer
	for n != 0 {
		l, err := e.layer(ctx, n)
		if err != nil {
			return nil, err
		}
		layers, n = append(layers, l), SnapshotNID(l.Parent)
	}
	slices.Reverse(layers)
	return layers, nil
}

func (e *Engine) layer(ctx context.Context, n SnapshotNID) (state.Layer, error) {
	if l, ok := e.layers.Get(n); ok {
		return l, nil
	}
	l, found, err := db.One(ctx, e.DB, snapshotLayer, func(s db.Scanner) (l state.Layer, err error) {
		var entries []byte
		if err = s.Scan(&l.Parent, &entries); err != nil {
			return l, err
		}
		l.NID = int64(n)
		l.Entries, err = state.DecodeEntries(entries)
		return l, err
	}, n)
	if err != nil {
		return l, err
	}
	if !found {
		return l, fmt.Errorf("rooms: snapshot %d is missing", n)
	}
	e.layers.Add(n, l)
	return l, nil
}
