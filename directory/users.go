package directory

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

const (
	usersDefault = 10
	usersMax     = 100
	// usersScanned bounds among how many people one request searches, and
	// termMax what it searches for, in bytes.
	usersScanned = 20_000
	termMax      = 255
)

type usersRequest struct {
	Term  *string `json:"search_term"`
	Limit *int    `json:"limit"`
}

type usersAnswer struct {
	Results []foundUser `json:"results"`
	Limited bool        `json:"limited"`
}

type foundUser struct {
	UserID      matrix.UserID `json:"user_id"`
	DisplayName string        `json:"display_name,omitempty"`
	AvatarURL   string        `json:"avatar_url,omitempty"`
	rank        int
}

// searchUsers finds people by their names and ids.
// spec: client-server#post_matrixclientv3user_directorysearch
func (d *Directory) searchUsers(ctx context.Context, c *httpx.Caller, q *usersRequest) (*usersAnswer, error) {
	switch {
	case q.Term == nil:
		return nil, matrix.MissingParam("search_term is missing")
	case len(*q.Term) > termMax:
		return nil, matrix.InvalidParam("search_term may have at most %d bytes", termMax)
	case q.Limit != nil && *q.Limit < 0:
		return nil, matrix.InvalidParam("limit must not be negative")
	}
	limit := usersDefault
	if q.Limit != nil {
		limit = min(*q.Limit, usersMax)
	}
	answer := &usersAnswer{Results: []foundUser{}}
	term := strings.ToLower(strings.TrimSpace(*q.Term))
	if term == "" {
		return answer, nil
	}
	visible, err := db.All(ctx, d.DB, visibleUsers, scan[matrix.UserID], c.User, usersScanned)
	if err != nil {
		return nil, err
	}
	profiles, err := d.Profiles.Profiles(ctx, visible)
	if err != nil {
		return nil, err
	}
	for _, u := range visible {
		if rank := match(term, u, profiles[u].DisplayName); rank > 0 && u != c.User {
			answer.Results = append(answer.Results, found(u, profiles[u], rank))
		}
	}
	slices.SortFunc(answer.Results, func(a, b foundUser) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(a.UserID, b.UserID))
	})
	if len(answer.Results) > limit {
		answer.Results, answer.Limited = answer.Results[:limit], true
	}
	return answer, nil
}

func found(u matrix.UserID, p rooms.Profile, rank int) foundUser {
	rank *= 2
	if p.DisplayName != "" || p.AvatarURL != "" {
		rank++
	}
	return foundUser{u, p.DisplayName, p.AvatarURL, rank}
}

// match says how well a person fits a term in lower case: 0 not at all, most if
// a name is the term.
func match(term string, u matrix.UserID, name string) int {
	best := 0
	for _, text := range []string{string(u), u.Localpart(), name} {
		text = strings.ToLower(text)
		rank := 0
		switch at := strings.Index(text, term); {
		case at < 0:
		case text == term:
			rank = 4
		case at == 0:
			rank = 3
		case strings.Contains(text, " "+term):
			rank = 2
		default:
			rank = 1
		}
		best = max(best, rank)
	}
	return best
}
