package history

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/filter"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
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
	at, err := parseBatch(q.NextBatch)
	if err != nil {
		return nil, err
	}
	s := &search{match: match, given: at.given}
	if err := s.open(ctx, a, c, f, at.place); err != nil {
		return nil, err
	}
	found, err := s.take(ctx, limit)
	if err != nil {
		return nil, err
	}
	answer.Categories.Events, err = s.present(ctx, by, found)
	return answer, err
}

// batch is where a page of a search starts: at a point of the stream, behind a
// number of results.
type batch struct {
	place int64
	given int
}

func (b batch) String() string { return fmt.Sprintf("f1_%d_%d", b.place, b.given) }

func parseBatch(text string) (b batch, err error) {
	if text == "" {
		return batch{place: math.MaxInt64 - 1}, nil
	}
	if n, err := fmt.Sscanf(text, "f1_%d_%d", &b.place, &b.given); err != nil || n != 2 || b.given < 0 || b.String() != text {
		return b, matrix.InvalidParam(`"next_batch" is not a token of this server`)
	}
	return b, nil
}

// search reads several rooms back at once, in the order of the stream.
type search struct {
	match matcher
	rooms []*roomSearch
	given int    // results of the pages before
	count int    // results as far as rooms were read
	next  *batch // of the next page, nil if there is none
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
	if f.Rooms != nil {
		if f.Rooms, err = a.predecessors(ctx, f.Rooms); err != nil {
			return err
		}
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

// predecessors adds the rooms that were upgraded to the given ones, whose
// history goes on there.
func (a *API) predecessors(ctx context.Context, ids []matrix.RoomID) ([]matrix.RoomID, error) {
	for i := 0; i < len(ids) && len(ids) < searchRooms; i++ {
		r, err := a.Engine.Room(ctx, ids[i])
		if matrix.HasCode(err, matrix.CodeNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		create, err := a.Engine.StateEvent(ctx, r.View().State, matrix.TypeCreate, "")
		if err != nil {
			return nil, err
		}
		if create == nil {
			continue
		}
		if old := rooms.Predecessor(create); old != "" && !slices.Contains(ids, old) {
			ids = append(ids, old)
		}
	}
	return ids, nil
}

// found is an event that matches, and who reads it.
type found struct {
	reader *reader
	event  *rooms.Stored
}

// take finds matches in the order of the stream, newest first. Having enough, it
// reads on to count, as far as one request may.
func (s *search) take(ctx context.Context, limit int) ([]found, error) {
	var all []found
	s.count = s.given
	below := int64(math.MaxInt64)
	for scanned, reads := 0, 0; scanned < searchScanned && reads < searchReads; {
		r := s.highest()
		switch {
		case r == nil:
			return all, nil
		case len(r.found) > 0:
			if len(all) == limit && s.next == nil {
				s.next = &batch{place: min(r.next(), below-1), given: s.given + limit}
			}
			if len(all) < limit {
				all = append(all, found{r.reader, r.found[0]})
			}
			s.count++
			below, r.found = r.found[0].Position, r.found[1:]
			continue
		}
		n, err := s.scan(ctx, r)
		if err != nil {
			return nil, err
		}
		scanned, reads = scanned+n, reads+1
	}
	if r := s.highest(); r != nil && s.next == nil {
		s.next = &batch{place: min(r.next(), below-1), given: s.given + len(all)}
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
