package simulation_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// ledger is what a server's database holds of a room.
type ledger struct {
	server matrix.ServerName
	tips   []matrix.EventID // sorted
	state  map[auth.Key]matrix.EventID
	events map[matrix.EventID]entry
}

type entry struct {
	typ      string
	position int64
	flags    rooms.Flags
}

// placed tells whether the event is part of the room's history for the server.
func (e entry) placed() bool {
	return e.position != 0 && e.flags&(rooms.Rejected|rooms.SoftFailed|rooms.Outlier|rooms.Outside) == 0
}

func (e entry) String() string {
	switch {
	case e.typ == "":
		return "not known"
	case e.flags&rooms.Rejected != 0:
		return "rejected"
	case e.flags&rooms.SoftFailed != 0:
		return "soft-failed"
	case e.flags&rooms.Outlier != 0:
		return "an outlier"
	}
	return fmt.Sprintf("in the history (at %d, flags %d)", e.position, e.flags)
}

var eventsOf = db.SQL(`SELECT event_nid, position, flags FROM events WHERE room_nid = $1`)

// read reads the database of a server that does not run.
func read(t testing.TB, server matrix.ServerName, database string, id matrix.RoomID) *ledger {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := db.Open(ctx, database, db.Options{})
	must(err)
	defer d.Close()
	engine, err := rooms.New(rooms.Deps{DB: d, ServerName: server, Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	must(err)
	r, err := engine.Room(ctx, id)
	must(err)
	l := &ledger{server: server, state: map[auth.Key]matrix.EventID{}, events: map[matrix.EventID]entry{}}
	tips, err := r.Extremities(ctx)
	must(err)
	for _, tip := range tips {
		l.tips = append(l.tips, tip.ID)
	}
	slices.Sort(l.tips)
	current, err := engine.StateEvents(ctx, r.View().State, func(state.KeyNID) bool { return true })
	must(err)
	for _, st := range current {
		l.state[auth.Key{Type: st.Type, StateKey: st.StateKey()}] = st.ID
	}
	type row struct {
		nid state.EventNID
		entry
	}
	rows, err := db.All(ctx, d, eventsOf, func(s db.Scanner) (r row, err error) {
		err = s.Scan(&r.nid, &r.position, &r.flags)
		return r, err
	}, r.NID)
	must(err)
	nids := make([]state.EventNID, len(rows))
	for i, r := range rows {
		nids[i] = r.nid
	}
	events, err := engine.Events(ctx, nids)
	must(err)
	for i, ev := range events {
		rows[i].typ = ev.Type
		l.events[ev.ID] = rows[i].entry
	}
	return l
}
