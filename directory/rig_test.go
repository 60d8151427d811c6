package directory_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/directory"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

// names is what people call themselves.
type names map[string]string

func (n names) Profiles(_ context.Context, users []matrix.UserID) (map[matrix.UserID]rooms.Profile, error) {
	found := map[matrix.UserID]rooms.Profile{}
	for _, u := range users {
		if name, ok := n[u.Localpart()]; ok {
			found[u] = rooms.Profile{DisplayName: name}
		}
	}
	return found, nil
}

// claims keeps the aliases that begin with "irc_" for whose name does, too.
type claims struct{}

func (claims) MayAlias(alias matrix.RoomAlias, user matrix.UserID, _ string) bool {
	return !strings.HasPrefix(alias.Localpart(), "irc_") || strings.HasPrefix(user.Localpart(), "irc_")
}

func (claims) OwnsAlias(matrix.RoomAlias, matrix.UserID, string) bool { return false }

// rig is a directory of the test's.
type rig struct {
	*Rig
	names     names
	directory *directory.Directory
}

func each(t *testing.T, f func(g *rig)) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			g := &rig{names: names{}}
			g.Rig = New(t, dbtest.URL(t, kind), func(inner *Rig) []httpx.Route {
				g.directory = directory.New(directory.Deps{DB: inner.DB, Engine: inner.Engine, Profiles: g.names, Claims: claims{}})
				return g.directory.Routes()
			})
			f(g)
		})
	}
}

// put gives a room an alias.
func (g *rig) put(user, alias string, room matrix.RoomID) {
	g.Helper()
	Want[any](g.Rig, user, "PUT", aliasPath(alias), fmt.Sprintf(`{"room_id":%q}`, room))
}

func aliasPath(name string) string { return "/v3/directory/room/%23" + name + ":test" }
