package history

import (
	"context"
	"encoding/json"
	"math"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/filter"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/syncapi/token"
)

const (
	searchMax = 50
	// searchScanned bounds how many events one request looks at, searchReads in
	// how many reads, searchRooms in how many rooms; searchPage is how many
	// events of a room it reads at once.
	searchScanned = 20_000
	searchReads   = 250
	searchRooms   = 2000
	searchPage    = 200
	searchTermMax = 512 // bytes
	aroundDefault = 5
	aroundMax     = 20
)

type searchRequest struct {
	NextBatch  string `query:"next_batch"`
	Categories *struct {
		Events *searchCriteria `json:"room_events"`
	} `json:"search_categories"`
}

// searchCriteria is what messages are searched by.
type searchCriteria struct {
	Term    string          `json:"search_term"`
	Keys    []string        `json:"keys"`
	Filter  json.RawMessage `json:"filter"`
	OrderBy string          `json:"order_by"`
	Context *searchAround   `json:"event_context"`
	State   bool            `json:"include_state"`
	Groups  struct {
		By []struct {
			Key string `json:"key"`
		} `json:"group_by"`
	} `json:"groupings"`
}

// searchAround says what is wanted beside each event that is found.
type searchAround struct {
	Before   *int `json:"before_limit"`
	After    *int `json:"after_limit"`
	Profiles bool `json:"include_profile"`
}

// search finds what was said in rooms that the user may read, newest first:
// there are no degrees of relevance, so both orders are the same. Nothing is
// indexed: the rooms are read back, a bounded stretch a request.
// spec: client-server#post_matrixclientv3search
func (a *API) search(ctx context.Context, c *httpx.Caller, q *searchRequest) (*searchAnswer, error) {
	if q.Categories == nil {
		return nil, matrix.MissingParam("search_categories is missing")
	}
	answer := &searchAnswer{}
	by := q.Categories.Events
	if by == nil {
		return answer, nil
	}
	match, err := newMatcher(by.Term, by.Keys)
	if err != nil {
		return nil, err
	}
	if by.OrderBy != "" && by.OrderBy != "recent" && by.OrderBy != "rank" {
		return nil, matrix.InvalidParam(`"order_by" is "recent" or "rank"`)
	}
	f, err := filter.Parse(string(by.Filter))
	if err != nil {
		return nil, err
	}
	limit, err := limited(f.Limit, 1, defaultLimit, searchMax)
	if err != nil {
		return nil, err
	}
	place, given, err := point("next_batch", q.NextBatch)
	if err != nil {
		return nil, err
	}
	if !given {
		place = math.MaxInt64 - 1
	}
	s := &search{match: match, below: math.MaxInt64}
	if err := s.open(ctx, a, c, f, place); err != nil {
		return nil, err
	}
	found, err := s.take(ctx, limit)
	if err != nil {
		return nil, err
	}
	answer.Categories.Events, err = s.present(ctx, by, found)
	return answer, err
}

// search reads several rooms back at once, in the order of the stream.
type search struct {
	match matcher
	rooms []*roomSearch
	below int64 // what is found next lies below this position
}

// roomSearch is how far one room was read.
type roomSearch struct {
	*walk
	found []*rooms.Stored // that match and are not given out yet, newest first
}

// next is the highest position at which the room may still have a match.
func (r *roomSearch) next() int64 {
	if len(r.found) > 0 {
		return r.found[0].Position
	}
	return r.place
}

// finished tells that the room has nothing more.
func (r *roomSearch) finished() bool { return len(r.found) == 0 && (r.ended || r.place <= r.bound) }

// open begins to read the rooms of a user that the filter picks.
func (s *search) open(ctx context.Context, a *API, c *httpx.Caller, f *filter.Events, place int64) error {
	all, err := a.Engine.Memberships(ctx, c.User)
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.Forgotten || !f.TakesRoom(m.RoomID) || len(s.rooms) == searchRooms {
			continue
		}
		rd, err := a.reader(ctx, c, m.RoomID)
		if matrix.HasCode(err, matrix.CodeForbidden) {
			continue
		}
		if err != nil {
			return err
		}
		w := rd.walk(f, true)
		w.from(min(w.place, place))
		s.rooms = append(s.rooms, &roomSearch{walk: w})
	}
	return nil
}

// found is an event that matches, and who reads it.
type found struct {
	reader *reader
	event  *rooms.Stored
}

// take finds matches in the order of the stream, newest first.
func (s *search) take(ctx context.Context, limit int) ([]found, error) {
	var all []found
	for scanned, reads := 0, 0; len(all) < limit && scanned < searchScanned && reads < searchReads; {
		r := s.highest()
		if r == nil {
			break
		}
		if len(r.found) > 0 {
			all, s.below = append(all, found{r.reader, r.found[0]}), r.found[0].Position
			r.found = r.found[1:]
			continue
		}
		n, err := s.scan(ctx, r)
		if err != nil {
			return nil, err
		}
		scanned, reads = scanned+n, reads+1
	}
	return all, nil
}

// highest is the room that may have the newest match, nil if none has any.
func (s *search) highest() *roomSearch {
	s.rooms = slices.DeleteFunc(s.rooms, (*roomSearch).finished)
	var highest *roomSearch
	for _, r := range s.rooms {
		if highest == nil || r.next() > highest.next() {
			highest = r
		}
	}
	return highest
}

// scan reads on in one room.
func (s *search) scan(ctx context.Context, r *roomSearch) (int, error) {
	events, err := r.walk.next(ctx, searchPage)
	if err != nil {
		return 0, err
	}
	matching := make([]*rooms.Stored, 0, len(events))
	for _, st := range events {
		if s.match.matches(st) {
			matching = append(matching, st)
		}
	}
	if matching, err = r.fitting(ctx, matching); err != nil {
		return 0, err
	}
	r.pass(events, nil, nil, 0)
	r.found = matching
	return len(events), nil
}

// nextBatch is where the next page starts, "" if there is none.
func (s *search) nextBatch() string {
	if r := s.highest(); r != nil {
		return token.Point(min(r.next(), s.below-1))
	}
	return ""
}
