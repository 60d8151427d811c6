package spaces

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

const typeSpace = "m.space"

// child is a room that a space lists.
type child struct {
	event *rooms.Stored
	room  matrix.RoomID
	order string
	last  bool // has no valid order, and so comes after those that have
}

// children lists the rooms of a space in order; other rooms have none.
// spec: client-server#mspacechild
func (a *API) children(ctx context.Context, s *rooms.Summary, suggested bool) ([]child, error) {
	if s.RoomType != typeSpace {
		return nil, nil
	}
	r, err := a.Engine.Room(ctx, s.RoomID)
	if err != nil {
		return nil, err
	}
	events, err := a.Engine.NonMembers(ctx, r.View().State)
	if err != nil {
		return nil, err
	}
	var children []child
	for _, st := range events {
		if st.Type != matrix.TypeSpaceChild {
			continue
		}
		if c, ok := parseChild(st, suggested); ok {
			children = append(children, c)
		}
	}
	slices.SortFunc(children, compareChildren)
	return children, nil
}

// parseChild reads an m.space.child event. One without servers to go by is none.
func parseChild(st *rooms.Stored, suggested bool) (child, bool) {
	var content struct {
		Via       json.RawMessage `json:"via"`
		Order     any             `json:"order"`
		Suggested any             `json:"suggested"`
	}
	id, err := matrix.ParseRoomID(st.StateKey())
	if err != nil || json.Unmarshal(st.Content, &content) != nil {
		return child{}, false
	}
	var via []string
	if json.Unmarshal(content.Via, &via) != nil || len(via) == 0 {
		return child{}, false
	}
	if is, _ := content.Suggested.(bool); suggested && !is {
		return child{}, false
	}
	c := child{event: st, room: id, last: true}
	if order, ok := content.Order.(string); ok && validOrder(order) {
		c.order, c.last = order, false
	}
	return c, true
}

// validOrder checks an order: up to 50 printable ASCII characters.
// spec: client-server#ordering-of-children-within-a-space
func validOrder(order string) bool {
	return len(order) <= 50 && strings.IndexFunc(order, func(r rune) bool { return r < 0x20 || r > 0x7E }) < 0
}

// compareChildren orders children.
// spec: client-server#ordering-of-children-within-a-space
func compareChildren(a, b child) int {
	if a.last != b.last {
		if a.last {
			return 1
		}
		return -1
	}
	return cmp.Or(
		cmp.Compare(a.order, b.order),
		cmp.Compare(a.event.OriginServerTS, b.event.OriginServerTS),
		cmp.Compare(a.room, b.room),
	)
}

// stripped renders the child's event as stripped state with its time.
func (c child) stripped() json.RawMessage {
	s := rooms.StrippedEvent(c.event)
	return fmt.Appendf(s[:len(s)-1], `,"origin_server_ts":%d}`, c.event.OriginServerTS)
}
