package history

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// senders renders the member events of those who sent the events, as the room
// had them at the newest of these.
// spec: client-server#lazy-loading-room-members
func (w *walk) senders(ctx context.Context, events []*rooms.Stored) ([]json.RawMessage, error) {
	newest := events[0]
	if !w.backwards {
		newest = events[len(events)-1]
	}
	members, err := w.reader.engine.MembersAt(ctx, newest.Resolved, sendersOf(events))
	if err != nil {
		return nil, err
	}
	return w.reader.renderState(ctx, members)
}

func sendersOf(events []*rooms.Stored) []matrix.UserID {
	var users []matrix.UserID
	seen := make(map[matrix.UserID]bool, len(events))
	for _, st := range events {
		if !seen[st.Sender] {
			seen[st.Sender] = true
			users = append(users, st.Sender)
		}
	}
	return users
}
