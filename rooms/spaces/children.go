package spaces

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

const typeSpace = "m.space"

// child is a room that a space lists.
type child struct {
	room     matrix.RoomID
	via      []matrix.ServerName
	order    string
	last     bool // has no valid order, and so comes after those that have
	ts       int64
	stripped json.RawMessage // the event that lists it, with its time
}

// children lists the rooms of a local space in order; other rooms have none.
// spec: client-server#mspacechild
func (a *API) children(ctx context.Context, r *rooms.Room, s *rooms.Summary, suggested bool) ([]child, error) {
	if s.RoomType != typeSpace {
		return nil, nil
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
		if c, ok := parseChild(st.StateKey(), st.Content, suggested); ok {
			stripped := rooms.StrippedEvent(st)
			c.ts = st.OriginServerTS
			c.stripped = fmt.Appendf(stripped[:len(stripped)-1], `,"origin_server_ts":%d}`, c.ts)
			children = append(children, c)
		}
	}
	slices.SortFunc(children, compareChildren)
	return children, nil
}

// maxChildren bounds the children of a room that another server tells of, or is
// told of.
const maxChildren = 1000

// children lists, in order, the rooms of a space as another server tells of them.
func (room *Room) children(suggested bool) []child {
	if room.RoomType != typeSpace {
		return nil
	}
	var children []child
	for _, raw := range room.Children {
		var ev struct {
			Type     string          `json:"type"`
			StateKey string          `json:"state_key"`
			Content  json.RawMessage `json:"content"`
			Sender   matrix.UserID   `json:"sender"`
			TS       int64           `json:"origin_server_ts"`
		}
		if len(children) == maxChildren || json.Unmarshal(raw, &ev) != nil || ev.Type != matrix.TypeSpaceChild || !utf8.Valid(ev.Content) {
			continue
		}
		c, ok := parseChild(ev.StateKey, ev.Content, suggested)
		if !ok {
			continue
		}
		var err error
		if c.stripped, err = json.Marshal(&ev); err == nil {
			c.ts = ev.TS
			children = append(children, c)
		}
	}
	slices.SortFunc(children, compareChildren)
	return children
}

// parseChild reads the state key and the content of an m.space.child event. One
// without servers to go by is none.
func parseChild(key string, raw []byte, suggested bool) (child, bool) {
	var content struct {
		Via       json.RawMessage `json:"via"`
		Order     any             `json:"order"`
		Suggested any             `json:"suggested"`
	}
	id, err := matrix.ParseRoomID(key)
	if err != nil || json.Unmarshal(raw, &content) != nil {
		return child{}, false
	}
	var via []string
	if json.Unmarshal(content.Via, &via) != nil || len(via) == 0 {
		return child{}, false
	}
	if is, _ := content.Suggested.(bool); suggested && !is {
		return child{}, false
	}
	c := child{room: id, last: true}
	for _, name := range via {
		if server, err := matrix.ParseServerName(name); err == nil {
			c.via = append(c.via, server)
		}
	}
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
	return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.ts, b.ts), cmp.Compare(a.room, b.room))
}
