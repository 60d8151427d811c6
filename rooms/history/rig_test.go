package history_test

import (
	"context"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/history"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

// ignores is a list of whom everybody but themselves ignores.
type ignores map[matrix.UserID]struct{}

func (i ignores) Ignores(context.Context, matrix.UserID) (map[matrix.UserID]struct{}, error) {
	return i, nil
}

func routes(g *Rig) []httpx.Route {
	return history.New(history.Deps{Engine: g.Engine, Ignores: ignores{User("troll"): {}}}).Routes()
}

func each(t *testing.T, f func(g *Rig)) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { f(New(t, dbtest.URL(t, kind), routes)) })
	}
}

type clientEvent struct {
	ID       matrix.EventID `json:"event_id"`
	RoomID   matrix.RoomID  `json:"room_id"`
	Type     string         `json:"type"`
	Sender   matrix.UserID  `json:"sender"`
	StateKey *string        `json:"state_key"`
	Content  map[string]any `json:"content"`
	Unsigned map[string]any `json:"unsigned"`
}

func (e clientEvent) body() string {
	text, _ := e.Content["body"].(string)
	return text
}

func idsOf(events []clientEvent) []matrix.EventID {
	ids := []matrix.EventID{}
	for _, e := range events {
		ids = append(ids, e.ID)
	}
	return ids
}

type messagesAnswer struct {
	Chunk []clientEvent `json:"chunk"`
	State []clientEvent `json:"state"`
	Start string        `json:"start"`
	End   string        `json:"end"`
}

func roomPath(r *rooms.Room, rest string) string { return "/v3/rooms/" + string(r.ID) + "/" + rest }

func room1Path(r *rooms.Room, rest string) string { return "/v1/rooms/" + string(r.ID) + "/" + rest }
