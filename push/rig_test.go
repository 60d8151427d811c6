package push

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/roomstest"
)

// shown is the account data that clients were shown last.
type shown map[matrix.UserID]string

func (s shown) Put(_ *db.Tx, user matrix.UserID, typ string, content json.RawMessage) error {
	s[user] = typ + " " + string(content)
	return nil
}

func (s shown) CarryOver(_ context.Context, user matrix.UserID, from, to matrix.RoomID) error {
	return nil
}

// rig is the feature on a database.
type rig struct {
	*roomstest.Rig
	*Push
	shown shown
	stop  func()
}

// run follows until the database is closed.
func (g *rig) run() {
	if g.stop != nil {
		g.stop()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Push.Run(ctx) // the database may have been closed before
	}()
	g.stop = func() { cancel(); <-done }
}

// nobody ignores or logs out; who reads says so by a Receipt on the stream.
type nobody struct{}

func (nobody) Ignored(context.Context, []matrix.UserID) (map[matrix.UserID]map[matrix.UserID]struct{}, error) {
	return nil, nil
}
func (nobody) Ignoring(context.Context) ([]matrix.UserID, error)          { return nil, nil }
func (nobody) IgnoresOthers(any) (matrix.UserID, bool)                    { return "", false }
func (nobody) BlocksInvites(context.Context, matrix.UserID) (bool, error) { return false, nil }
func (nobody) Read(change any) (Receipt, bool)                            { r, ok := change.(Receipt); return r, ok }
func (nobody) Ended(any) (matrix.UserID, []matrix.DeviceID, bool)         { return "", nil, false }
func (nobody) Unread(context.Context, matrix.UserID, []rooms.RoomNID, int64) (map[rooms.RoomNID]int64, error) {
	return nil, nil
}
func (nobody) Standings(context.Context, matrix.UserID, []rooms.RoomNID) (map[rooms.RoomNID]Standing, error) {
	return nil, nil
}
func (nobody) Devices(context.Context, []matrix.UserID) (map[matrix.UserID][]matrix.DeviceID, error) {
	return nil, nil
}

// each runs a test on each database.
func each(t *testing.T, test func(g *rig)) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { test(newRig(t, kind)) })
	}
}

func newRig(t *testing.T, kind string) *rig {
	g := &rig{shown: shown{}}
	g.Rig = roomstest.New(t, dbtest.URL(t, kind), func(r *roomstest.Rig) []httpx.Route {
		var err error
		if g.Push, err = New(t.Context(), Deps{
			DB: r.DB, Rooms: r.Engine, Data: g.shown, People: nobody{}, Reading: nobody{}, Sessions: nobody{},
			Gateways: http.DefaultClient, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		}); err != nil {
			t.Fatal(err)
		}
		g.run()
		return g.Push.Routes()
	})
	t.Cleanup(func() { g.stop() })
	return g
}
