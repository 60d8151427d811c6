package directory

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

const (
	usersDefault = 10
	usersMax     = 100
	// usersScanned bounds among how many people one request searches, and
	// termMax what it searches for, in bytes.
	usersScanned = 20_000
	termMax      = 255
	// namesScanned bounds for how many people of other servers it looks up what
	// they call themselves.
	namesScanned = 2000
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
	local, err := d.localUsers(ctx, c.User, term)
	if err != nil {
		return nil, err
	}
	foreign, err := d.foreignUsers(ctx, c.User, term)
	if err != nil {
		return nil, err
	}
	answer.Results = append(append(answer.Results, local...), foreign...)
	slices.SortFunc(answer.Results, func(a, b foundUser) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(a.UserID, b.UserID))
	})
	if len(answer.Results) > limit {
		answer.Results, answer.Limited = answer.Results[:limit], true
	}
	return answer, nil
}

// localUsers finds people of this server.
func (d *Directory) localUsers(ctx context.Context, user matrix.UserID, term string) ([]foundUser, error) {
	visible, err := db.All(ctx, d.DB, visibleUsers, scan[matrix.UserID], user, usersScanned)
	if err != nil {
		return nil, err
	}
	profiles, err := d.Profiles.Profiles(ctx, visible)
	if err != nil {
		return nil, err
	}
	var all []foundUser
	for _, u := range visible {
		if rank := match(term, u, profiles[u].DisplayName); rank > 0 && u != user {
			all = append(all, found(u, profiles[u], rank))
		}
	}
	return all, nil
}

// foreignUser is somebody of another server, and one of their member events.
type foreignUser struct {
	id    matrix.UserID
	event state.EventNID
}

// foreignUsers finds people of other servers by what rooms show of them: no
// server is asked.
func (d *Directory) foreignUsers(ctx context.Context, user matrix.UserID, term string) ([]foundUser, error) {
	visible, err := db.All(ctx, d.DB, visibleForeign, func(s db.Scanner) (u foreignUser, err error) {
		err = s.Scan(&u.id, &u.event)
		return u, err
	}, user, usersScanned)
	if err != nil {
		return nil, err
	}
	// Whose id matches comes first: their names are looked up in any case.
	var matching, others []foreignUser
	for _, u := range visible {
		if match(term, u.id, "") > 0 {
			matching = append(matching, u)
		} else {
			others = append(others, u)
		}
	}
	visible = append(matching, others...)
	visible = visible[:min(len(visible), namesScanned)]
	nids := make([]state.EventNID, len(visible))
	for i, u := range visible {
		nids[i] = u.event
	}
	events, err := d.Engine.Events(ctx, nids)
	if err != nil {
		return nil, err
	}
	var all []foundUser
	for i, u := range visible {
		p := memberProfile(events[i].Content)
		if rank := match(term, u.id, p.DisplayName); rank > 0 {
			all = append(all, found(u.id, p, rank))
		}
	}
	return all, nil
}

// memberProfile is what a member event says of its user.
func memberProfile(content []byte) (p rooms.Profile) {
	var c struct {
		DisplayName any `json:"displayname"`
		AvatarURL   any `json:"avatar_url"`
	}
	if json.Unmarshal(content, &c) == nil {
		p.DisplayName, _ = c.DisplayName.(string)
		p.AvatarURL, _ = c.AvatarURL.(string)
	}
	return p
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
