package spaces

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

const (
	hierarchyDefault = 50
	hierarchyMax     = 100
	// maxDepth is how deep a tree is followed at most, and maxRooms how many
	// rooms of it are looked at.
	maxDepth = 64
	maxRooms = 5000
)

type hierarchyRequest struct {
	RoomID    matrix.RoomID `path:"roomId"`
	Suggested bool          `query:"suggested_only"`
	Limit     *int          `query:"limit"`
	MaxDepth  *int          `query:"max_depth"`
	From      string        `query:"from"`
}

type hierarchyAnswer struct {
	Rooms     []Room `json:"rooms"`
	NextBatch string `json:"next_batch,omitempty"`
}

// hierarchy lists the rooms of a space's tree, depth first, as far as the
// caller may know of them.
// spec: client-server#get_matrixclientv1roomsroomidhierarchy
func (a *API) hierarchy(ctx context.Context, c *httpx.Caller, q *hierarchyRequest) (*hierarchyAnswer, error) {
	limit, depth := hierarchyDefault, maxDepth
	if q.Limit != nil {
		if limit = min(*q.Limit, hierarchyMax); limit < 1 {
			return nil, matrix.InvalidParam(`"limit" must be greater than zero`)
		}
	}
	if q.MaxDepth != nil {
		if depth = min(*q.MaxDepth, maxDepth); depth < 0 {
			return nil, matrix.InvalidParam(`"max_depth" must not be negative`)
		}
	}
	at := batch{depth: depth, suggested: q.Suggested}
	if q.From != "" {
		if err := at.parse(q.From); err != nil {
			return nil, err
		}
	}
	l, end := a.lookout(ctx, c.User)
	defer end()
	w := &walk{lookout: l, batch: at, limit: limit, seen: map[matrix.RoomID]bool{}}
	return w.run(ctx, q.RoomID)
}

// batch is where a page starts, and what the first page was asked for.
type batch struct {
	skip, depth int
	suggested   bool
}

func (b batch) String() string { return fmt.Sprintf("h1_%d_%d_%t", b.skip, b.depth, b.suggested) }

// parse reads a token that must belong to the same question.
func (b *batch) parse(text string) error {
	parts := strings.Split(text, "_")
	if len(parts) == 4 {
		skip, err := strconv.Atoi(parts[1])
		asked := *b
		asked.skip = skip
		switch {
		case err != nil || skip < 0:
		case asked.String() == text:
			*b = asked
			return nil
		case parts[0] == "h1":
			return matrix.InvalidParam("suggested_only and max_depth must stay the same from page to page")
		}
	}
	return matrix.InvalidParam(`"from" is not a token of this server`)
}

// walk goes through a tree. Every page walks from the root and passes over what
// the pages before have shown, so that nothing has to be kept between them.
type walk struct {
	*lookout
	batch batch
	limit int
	seen  map[matrix.RoomID]bool
}

// branch is a room that is still to be shown.
type branch struct {
	room   matrix.RoomID
	via    []matrix.ServerName
	depth  int            // in the tree
	told   *rooms.Summary // what a server that knows the room above says of it, or nil
	hidden bool           // that server says that it is not for us
}

func (w *walk) run(ctx context.Context, root matrix.RoomID) (*hierarchyAnswer, error) {
	answer := &hierarchyAnswer{Rooms: []Room{}}
	shown := 0
	for stack := []branch{{room: root}}; len(stack) > 0 && len(w.seen) < maxRooms; {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if w.seen[at.room] {
			continue
		}
		w.seen[at.room] = true
		found, err := w.find(ctx, at, w.batch.suggested)
		if matrix.HasCode(err, matrix.CodeNotFound) {
			if at.depth == 0 {
				return nil, matrix.Forbidden("You may not see the room").Because(err)
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(answer.Rooms) == w.limit {
			w.batch.skip = shown
			answer.NextBatch = w.batch.String()
			return answer, nil
		}
		if shown++; shown > w.batch.skip {
			answer.Rooms = append(answer.Rooms, shownAs(found.summary, found.children))
		}
		if at.depth == w.batch.depth {
			continue
		}
		below := w.below(at, found)
		w.askAhead(ctx, below[:min(len(below), w.limit)], w.batch.suggested)
		slices.Reverse(below)
		stack = append(stack, below...)
	}
	return answer, nil
}

// below lists the rooms that a room leads to, in order.
func (w *walk) below(at branch, f *found) []branch {
	branches := make([]branch, 0, len(f.children))
	for _, c := range f.children {
		if !w.seen[c.room] {
			branches = append(branches, f.below(c, at.depth+1))
		}
	}
	return branches
}

func shownAs(s *rooms.Summary, children []child) Room {
	room := Room{*s, make([]json.RawMessage, len(children))}
	for i, c := range children {
		room.Children[i] = c.stripped
	}
	return room
}
