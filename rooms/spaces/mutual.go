package spaces

import (
	"context"
	"slices"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// sharedRooms reads from the engine's table of memberships, which lists remote
// users, too.
var sharedRooms = db.SQL(`SELECT r.room_id FROM memberships a
	JOIN memberships b ON b.room_nid = a.room_nid AND b.user_id = $1 AND b.membership = 'join'
	JOIN rooms r ON r.room_nid = a.room_nid
	WHERE a.user_id = $2 AND a.membership = 'join'`)

// mutualPage bounds the rooms of one answer.
const mutualPage = 500

type mutualRequest struct {
	UserID string `query:"user_id"`
	From   string `query:"from"`
}

type mutualAnswer struct {
	Joined    []matrix.RoomID `json:"joined"`
	Count     int             `json:"count"`
	NextBatch string          `json:"next_batch,omitempty"`
}

// mutual lists the rooms that the caller shares with another user.
// spec: client-server#get_matrixclientv1mutual_rooms
func (a *API) mutual(ctx context.Context, c *httpx.Caller, q *mutualRequest) (*mutualAnswer, error) {
	if q.UserID == "" {
		return nil, matrix.InvalidParam("user_id is missing")
	}
	user, err := matrix.ParseUserID(q.UserID)
	if err != nil {
		return nil, matrix.InvalidParam("user_id is not a user id").Because(err)
	}
	if user == c.User {
		return nil, matrix.InvalidParam("user_id is your own")
	}
	shared, err := db.All(ctx, a.DB, sharedRooms, func(s db.Scanner) (id matrix.RoomID, err error) {
		err = s.Scan(&id)
		return id, err
	}, user, c.User)
	if err != nil {
		return nil, err
	}
	slices.Sort(shared)
	answer := &mutualAnswer{Joined: []matrix.RoomID{}, Count: len(shared)}
	if q.From != "" {
		after, ok := strings.CutPrefix(q.From, mutualPrefix)
		if !ok {
			return nil, matrix.InvalidParam(`"from" is not a token of this server`)
		}
		at, found := slices.BinarySearch(shared, matrix.RoomID(after))
		if found {
			at++
		}
		shared = shared[at:]
	}
	if len(shared) > mutualPage {
		shared = shared[:mutualPage]
		answer.NextBatch = mutualPrefix + string(shared[mutualPage-1])
	}
	answer.Joined = append(answer.Joined, shared...)
	return answer, nil
}

// mutualPrefix begins the tokens, which name the last room of the page before.
const mutualPrefix = "m1_"

type unstableMutualRequest struct {
	UserID string `query:"user_id"`
	From   string `query:"batch_token"`
}

type unstableMutualAnswer struct {
	mutualAnswer
	NextBatch string `json:"next_batch_token,omitempty"`
}

func (a *API) unstableMutual(ctx context.Context, c *httpx.Caller, q *unstableMutualRequest) (*unstableMutualAnswer, error) {
	answer, err := a.mutual(ctx, c, &mutualRequest{q.UserID, q.From})
	if err != nil {
		return nil, err
	}
	return &unstableMutualAnswer{*answer, answer.NextBatch}, nil
}

type mutualPathRequest struct {
	UserID string `path:"user_id"`
	From   string `query:"batch_token"`
}

func (a *API) unstableMutualPath(ctx context.Context, c *httpx.Caller, q *mutualPathRequest) (*unstableMutualAnswer, error) {
	return a.unstableMutual(ctx, c, &unstableMutualRequest{q.UserID, q.From})
}
