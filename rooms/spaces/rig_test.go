package spaces_test

import (
	"context"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
	"github.com/teahouse-chat/teahouse/rooms/spaces"
)

// aliases is a directory.
type aliases map[matrix.RoomAlias]matrix.RoomID

func (a aliases) Resolve(_ context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
	if id, ok := a[alias]; ok {
		return id, nil, nil
	}
	return "", nil, matrix.NotFound("no such alias")
}

func each(t *testing.T, f func(g *Rig, known aliases)) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			known := aliases{}
			f(New(t, dbtest.URL(t, kind), func(g *Rig) []httpx.Route {
				return spaces.New(spaces.Deps{DB: g.DB, Engine: g.Engine, Aliases: known}).Routes()
			}), known)
		})
	}
}
