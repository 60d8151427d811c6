package syncapi

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Remote is how other servers are told what our users do, and how far they are
// listened to.
type Remote interface {
	// Offer sends an EDU to servers before long. A later one with the same key takes
	// the place of one that was not sent yet. keep says that a server that is down
	// should get it once it is back. It does not block.
	Offer(to []matrix.ServerName, key string, keep bool, typ string, content json.RawMessage)
	// Admits tells whether a room lets a server in: whether its EDUs count there.
	Admits(ctx context.Context, r *rooms.Room, server matrix.ServerName) (bool, error)
}

// The types of EDUs.
const (
	eduTyping   = "m.typing"
	eduReceipt  = "m.receipt"
	eduPresence = "m.presence"
)

// offer sends an EDU whose content can be encoded.
func (s *Service) offer(to []matrix.ServerName, key string, keep bool, typ string, content any) {
	text, err := json.Marshal(content)
	if err != nil {
		s.Log.Error("an EDU could not be encoded", "type", typ, "error", err)
		return
	}
	s.Remote.Offer(to, key, keep, typ, text)
}

// typingContent is the content of m.typing.
// spec: server-server#typing-notifications
type typingContent struct {
	Room   matrix.RoomID `json:"room_id"`
	User   matrix.UserID `json:"user_id"`
	Typing *bool         `json:"typing"`
}

// tellTyping tells the room's servers that a local user types or has stopped.
func (s *Service) tellTyping(r *rooms.Room, user matrix.UserID, typing bool) {
	if s.Remote == nil || !s.Rooms.Local(user) {
		return
	}
	if to := r.Servers(); len(to) > 0 {
		s.offer(to, eduTyping+" "+string(r.ID)+" "+string(user), false, eduTyping, typingContent{r.ID, user, &typing})
	}
}

// stoppedTyping is told of those whom the time has run out.
func (s *Service) stoppedTyping(nid rooms.RoomNID, user matrix.UserID) {
	if s.Remote == nil || !s.Rooms.Local(user) {
		return
	}
	r, err := s.Rooms.RoomByNID(context.Background(), nid)
	if err != nil {
		s.Log.Error("other servers could not be told that somebody stopped typing", "error", err)
		return
	}
	s.tellTyping(r, user, false)
}

// remoteReceipt is a receipt in m.receipt, which has them by room, type and user.
// spec: server-server#receipts
type remoteReceipt struct {
	Events []string `json:"event_ids"`
	Data   struct {
		Timestamp json.Number     `json:"ts"`
		Thread    json.RawMessage `json:"thread_id,omitempty"`
	} `json:"data"`
}

// tellReceipt tells the room's servers of a public receipt.
func (s *Service) tellReceipt(r *rooms.Room, c *Receipt) {
	to := r.Servers()
	if s.Remote == nil || len(to) == 0 {
		return
	}
	data := map[string]any{"ts": c.Timestamp}
	if c.Thread != "" {
		data["thread_id"] = c.Thread
	}
	content := map[matrix.RoomID]any{r.ID: map[string]any{Read: map[matrix.UserID]any{
		c.User: map[string]any{"event_ids": []matrix.EventID{c.Event}, "data": data},
	}}}
	s.offer(to, eduReceipt+" "+string(r.ID)+" "+string(c.User)+" "+c.Thread, true, eduReceipt, content)
}

// presenceContent is the content of m.presence.
// spec: server-server#presence
type presenceContent struct {
	Push []presencePush `json:"push"`
}

type presencePush struct {
	User   matrix.UserID `json:"user_id"`
	State  string        `json:"presence"`
	Status *string       `json:"status_msg,omitempty"`
	Ago    int64         `json:"last_active_ago"` // ms
	Active bool          `json:"currently_active"`
}

// tellPresence tells the servers that local users share rooms with of their
// presence.
func (s *Service) tellPresence(people []seen) {
	if s.Remote == nil {
		return
	}
	for _, p := range people {
		to, err := s.Rooms.ServersWith(context.Background(), p.user)
		if err != nil {
			s.Log.Error("other servers could not be told of a user's presence", "error", err)
			return
		}
		if len(to) == 0 {
			continue
		}
		push := presencePush{p.user, p.state, p.status, max(p.ago.Milliseconds(), 0), p.active}
		s.offer(to, eduPresence+" "+string(p.user), false, eduPresence, presenceContent{[]presencePush{push}})
	}
}

// leftTyping stops users of other servers who left; it runs on the database's
// writer.
func (s *Service) leftTyping(b db.Batch) {
	for _, change := range b.Changes {
		c, ok := change.(*rooms.Committed)
		if !ok {
			continue
		}
		for _, ev := range c.Events {
			if m := ev.Membership(); m != "" && m != matrix.MembershipJoin && !s.Rooms.Local(matrix.UserID(ev.StateKey())) {
				s.typing.set(c.Room.NID, matrix.UserID(ev.StateKey()), 0)
			}
		}
	}
}

// among tells who of the users, of any server, is in one of the rooms.
func (s *Service) among(ctx context.Context, in map[rooms.RoomNID]struct{}, users []matrix.UserID) (map[matrix.UserID]bool, error) {
	if len(users) == 0 {
		return nil, nil
	}
	list, err := s.roomsOf(ctx, slices.Collect(maps.Keys(in)))
	if err != nil {
		return nil, err
	}
	// Most people are in the largest rooms.
	slices.SortFunc(list, func(a, b *rooms.Room) int { return compare(b.View().Joined, a.View().Joined) })
	met := make(map[matrix.UserID]bool, len(users))
	for _, r := range list {
		some := slices.DeleteFunc(slices.Clone(users), func(u matrix.UserID) bool { return met[u] || !r.HasServer(u.Server()) })
		if len(some) == 0 {
			continue
		}
		joined, err := s.Rooms.WhereJoined(ctx, []*rooms.Room{r}, some)
		if err != nil {
			return nil, err
		}
		for u := range joined {
			met[u] = true
		}
	}
	return met, nil
}

func (s *Service) roomsOf(ctx context.Context, nids []rooms.RoomNID) ([]*rooms.Room, error) {
	list := make([]*rooms.Room, len(nids))
	for i, nid := range nids {
		var err error
		if list[i], err = s.Rooms.RoomByNID(ctx, nid); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// whereJoined lists the rooms of ours that each of the users, of any server, is
// joined to.
func (s *Service) whereJoined(ctx context.Context, users []matrix.UserID) (map[matrix.UserID][]rooms.RoomNID, error) {
	where := make(map[matrix.UserID][]rooms.RoomNID, len(users))
	byServer := map[matrix.ServerName][]matrix.UserID{}
	for _, u := range users {
		if !s.Rooms.Local(u) {
			byServer[u.Server()] = append(byServer[u.Server()], u)
			continue
		}
		memberships, err := s.Rooms.Memberships(ctx, u)
		if err != nil {
			return nil, err
		}
		for _, m := range memberships {
			if m.Membership == matrix.MembershipJoin {
				where[u] = append(where[u], m.Room)
			}
		}
	}
	for server, strangers := range byServer {
		nids, err := s.Rooms.RoomsWith(ctx, server)
		if err != nil {
			return nil, err
		}
		in, err := s.roomsOf(ctx, nids)
		if err != nil {
			return nil, err
		}
		joined, err := s.Rooms.WhereJoined(ctx, in, strangers)
		if err != nil {
			return nil, err
		}
		for u, list := range joined {
			for _, r := range list {
				where[u] = append(where[u], r.NID)
			}
		}
	}
	return where, nil
}
