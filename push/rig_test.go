package push

import (
	"encoding/json"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/roomstest"
)

// shown is the account data that clients were shown last.
type shown map[matrix.UserID]string

func (s shown) Put(_ *db.Tx, user matrix.UserID, typ string, content json.RawMessage) error {
	s[user] = typ + " " + string(content)
	return nil
}

// rig is the feature on a database.
type rig struct {
	*roomstest.Rig
	*Push
	shown shown
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
		if g.Push, err = New(Deps{DB: r.DB, Data: g.shown}); err != nil {
			t.Fatal(err)
		}
		return g.Push.Routes()
	})
	return g
}
