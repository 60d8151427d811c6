package queries

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/spaces"
)

const (
	hierarchyKept  = 5 * time.Minute
	hierarchyTime  = 10 * time.Second
	hierarchyBytes = 4 << 20
	// summaryBytes bounds the texts of a summary, each of which comes out of an
	// event.
	summaryBytes = 64 << 10
	maxAllowed   = 100
)

// Hierarchy asks a server what it knows of a room and of the rooms in it; 404
// M_NOT_FOUND if that is nothing. What it gives is shared: nobody may change it.
// spec: server-server#get_matrixfederationv1hierarchyroomid
func (q *Queries) Hierarchy(ctx context.Context, server matrix.ServerName, room matrix.RoomID, suggested bool) (*spaces.Answer, error) {
	key := string(server) + " " + strconv.FormatBool(suggested) + " " + string(room)
	return q.spaces.get(ctx, key, func(ctx context.Context) (*spaces.Answer, error) {
		return q.askHierarchy(ctx, server, room, suggested)
	})
}

func (q *Queries) askHierarchy(ctx context.Context, server matrix.ServerName, room matrix.RoomID, suggested bool) (*spaces.Answer, error) {
	var told struct {
		Room         json.RawMessage   `json:"room"`
		Children     []json.RawMessage `json:"children"`
		Inaccessible []string          `json:"inaccessible_children"`
	}
	err := q.get(ctx, transport.Request{
		Destination: server, Path: transport.Path("/_matrix/federation/v1/hierarchy", string(room)),
		Query: url.Values{"suggested_only": {strconv.FormatBool(suggested)}}, Timeout: hierarchyTime, MaxAnswer: hierarchyBytes,
	}, &told)
	if err != nil {
		return nil, err
	}
	answer := &spaces.Answer{}
	if json.Unmarshal(told.Room, &answer.Room) != nil || answer.Room.RoomID != room || !plausible(&answer.Room.Summary) {
		return nil, forClient(server, errors.New("the answer is not about the room"))
	}
	for _, raw := range told.Children {
		var s rooms.Summary
		if json.Unmarshal(raw, &s) == nil && plausible(&s) {
			answer.Children = append(answer.Children, s)
		}
	}
	for _, id := range told.Inaccessible {
		answer.Inaccessible = append(answer.Inaccessible, matrix.RoomID(id))
	}
	return answer, nil
}

// plausible tells whether a summary can be one of a room.
func plausible(s *rooms.Summary) bool {
	_, err := matrix.ParseRoomID(string(s.RoomID))
	return err == nil && s.JoinedMembers >= 0 && textBytes(s) <= summaryBytes && len(s.AllowedRooms) <= maxAllowed
}

func textBytes(s *rooms.Summary) int {
	return len(s.Name) + len(s.Topic) + len(s.CanonicalAlias) + len(s.AvatarURL) + len(s.JoinRule) + len(s.RoomType) +
		len(s.Encryption) + len(s.Version)
}

// answerSize is about what an answer takes in memory.
func answerSize(a *spaces.Answer) int {
	n := summarySize(&a.Room.Summary)
	for _, c := range a.Room.Children {
		n += 32 + len(c)
	}
	for i := range a.Children {
		n += summarySize(&a.Children[i])
	}
	for _, id := range a.Inaccessible {
		n += 16 + len(id)
	}
	return n
}

func summarySize(s *rooms.Summary) int {
	n := 256 + textBytes(s)
	for _, id := range s.AllowedRooms {
		n += 16 + len(id)
	}
	return n
}
