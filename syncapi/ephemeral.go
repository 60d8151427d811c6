package syncapi

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// ephemeral renders what a room has of receipts and typing.
func (a *answer) ephemeral(rd *roomDelta, g *gathered) []json.RawMessage {
	f := &a.q.filter.Room.Ephemeral
	if !f.TakesRoom(rd.RoomID) {
		return nil
	}
	var events []json.RawMessage
	if list := g.receipts[rd.Room]; len(list) > 0 {
		list = slices.DeleteFunc(slices.Clone(list), func(r Receipt) bool { return !f.Takes("m.receipt", r.User, nil) })
		events = append(events, renderReceipts(list)...)
	}
	above := a.d.from.ephemeral
	if rd.fresh() {
		above = 0
	}
	if rd.marks.typing <= above || !takesType(f, "m.typing") {
		return events
	}
	users, changed := a.s.typing.in(rd.Room, above)
	if !changed || rd.fresh() && len(users) == 0 {
		return events
	}
	users = slices.DeleteFunc(users, func(u matrix.UserID) bool {
		return a.s.Rooms.Local(u) && !rd.room.IsLocalMember(u) || !f.Takes("m.typing", u, nil)
	})
	b := append([]byte(nil), `{"type":"m.typing","content":{"user_ids":`...)
	b = appendTexts(b, users)
	return append(events, append(b, `}}`...))
}

// renderReceipts renders m.receipt. An event's content has room for one receipt
// of a user and type only; where a user has both an unthreaded and a threaded
// one, or ones of several threads, there is more than one event.
// spec: client-server#mreceipt
func renderReceipts(list []Receipt) []json.RawMessage {
	var events []json.RawMessage
	for len(list) > 0 {
		content := map[matrix.EventID]map[string]map[matrix.UserID]Receipt{}
		var rest []Receipt
		slices.SortStableFunc(list, func(a, b Receipt) int { return compare(a.Thread, b.Thread) })
		for _, r := range list {
			types := content[r.Event]
			if types == nil {
				types = map[string]map[matrix.UserID]Receipt{}
				content[r.Event] = types
			}
			users := types[r.Type]
			if users == nil {
				users = map[matrix.UserID]Receipt{}
				types[r.Type] = users
			}
			if _, taken := users[r.User]; taken {
				rest = append(rest, r)
			} else {
				users[r.User] = r
			}
		}
		b := append([]byte(nil), `{"type":"m.receipt","content":{`...)
		for _, id := range slices.Sorted(maps.Keys(content)) {
			b = append(appendName(b, id), '{')
			for _, typ := range slices.Sorted(maps.Keys(content[id])) {
				b = append(appendName(b, typ), '{')
				for _, user := range slices.Sorted(maps.Keys(content[id][typ])) {
					b = appendReceipt(appendName(b, user), content[id][typ][user])
				}
				b = append(b, '}')
			}
			b = append(b, '}')
		}
		events = append(events, append(b, `}}`...))
		list = rest
	}
	return events
}

func appendReceipt(b []byte, r Receipt) []byte {
	b = append(b, `{"ts":`...)
	b = strconv.AppendInt(b, r.Timestamp, 10)
	if r.Thread != "" {
		b = append(b, `,"thread_id":`...)
		b = appendText(b, r.Thread)
	}
	return append(b, '}')
}
