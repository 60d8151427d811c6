package api

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

type upgradeRequest struct {
	RoomID     matrix.RoomID   `path:"roomId"`
	NewVersion string          `json:"new_version"`
	Creators   []matrix.UserID `json:"additional_creators"`
}

type upgradeAnswer struct {
	Replacement matrix.RoomID `json:"replacement_room"`
}

// transferred are the state events that a replacement room begins with. Power
// levels come last, when nothing else is to be set any more.
var transferred = []string{
	matrix.TypeServerACL, matrix.TypeEncryption, matrix.TypeName, matrix.TypeAvatar, matrix.TypeTopic,
	matrix.TypeGuestAccess, matrix.TypeHistoryVisibility, matrix.TypeJoinRules,
}

// upgrade replaces a room by one of another version.
// spec: client-server#server-behaviour-19
func (a *API) upgrade(ctx context.Context, c *httpx.Caller, q *upgradeRequest) (*upgradeAnswer, error) {
	version, ok := event.Lookup(q.NewVersion)
	if !ok {
		return nil, matrix.NewError(400, matrix.CodeUnsupportedRoomVersion, "Room version %q is not supported", q.NewVersion)
	}
	for _, u := range q.Creators {
		if _, err := matrix.ParseUserID(string(u)); err != nil {
			return nil, err
		}
	}
	old, err := a.Engine.Room(ctx, q.RoomID)
	if err != nil {
		return nil, err
	}
	if err := a.mayUpgrade(ctx, old, c.User); err != nil {
		return nil, err
	}
	protos, err := a.replacementEvents(ctx, c.User, old, version, q.Creators)
	if err != nil {
		return nil, err
	}
	if err := a.Engine.Foresee(ctx, protos); err != nil {
		return nil, err
	}
	next, err := a.Engine.Create(ctx, version, c.User, func(b *rooms.Builder) error {
		for _, p := range protos {
			if _, err := b.Append(p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &upgradeAnswer{next.ID}, a.retire(ctx, c.User, old, next)
}

// mayUpgrade checks that the user could send the tombstone.
func (a *API) mayUpgrade(ctx context.Context, r *rooms.Room, u matrix.UserID) error {
	if !r.IsLocalMember(u) {
		return matrix.Forbidden("You are not in the room")
	}
	levels, err := a.levels(ctx, r)
	if err != nil {
		return err
	}
	if need := levels.Required(matrix.TypeTombstone, true); levels.User(u) < need {
		return matrix.Forbidden("Upgrading the room needs power level %d", need)
	}
	return nil
}

// retire closes the old room: a tombstone that points to the new one, and power
// levels that keep people from talking on; its local aliases move.
func (a *API) retire(ctx context.Context, u matrix.UserID, old, next *rooms.Room) error {
	tombstone := state(matrix.TypeTombstone, map[string]string{
		"body": "This room has been replaced", "replacement_room": string(next.ID),
	})
	_, err := a.Engine.Update(ctx, old.ID, u, func(b *rooms.Builder) error {
		if _, err := b.Append(tombstone); err != nil {
			return err
		}
		quiet, err := quietLevels(b)
		if err != nil {
			return err
		}
		levels, err := b.Levels()
		if err != nil {
			return err
		}
		// Whoever may send a tombstone need not be able to change power levels.
		if quiet != nil && levels.User(u) >= levels.Required(matrix.TypePowerLevels, true) {
			if _, err := b.Append(*quiet); err != nil && !matrix.HasCode(err, matrix.CodeForbidden) {
				return err
			}
		}
		b.Then(func(tx *db.Tx) error { return a.Aliases.Move(tx, old.ID, next.ID) })
		return nil
	})
	return err
}

// quietLevels raises what talking and inviting need in a room that was replaced;
// nil if they need as much already.
func quietLevels(b *rooms.Builder) (*rooms.Proto, error) {
	raw, err := b.Content(matrix.TypePowerLevels, "")
	if err != nil || raw == nil {
		return nil, err
	}
	content := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &content); err != nil {
		return nil, err
	}
	need := max(50, number(content["users_default"], 0)+1)
	if number(content["events_default"], 0) >= need && number(content["invite"], 0) >= need {
		return nil, nil
	}
	content["events_default"] = mustJSON(max(need, number(content["events_default"], 0)))
	content["invite"] = mustJSON(max(need, number(content["invite"], 0)))
	p := state(matrix.TypePowerLevels, content)
	return &p, nil
}

// number reads an integer, def if it is none.
func number(raw json.RawMessage, def int64) int64 {
	n := def
	if json.Unmarshal(raw, &n) != nil {
		return def
	}
	return n
}

// replacementEvents lists the events of the new room: its create event names the
// old one, and its state is the old one's as far as it can be carried over.
func (a *API) replacementEvents(ctx context.Context, u matrix.UserID, old *rooms.Room, v *event.Version, creators []matrix.UserID) ([]rooms.Proto, error) {
	m := old.View().State
	create, err := a.replacementCreate(ctx, u, old, v, creators)
	if err != nil {
		return nil, err
	}
	join, err := a.member(ctx, u, memberContent{Membership: matrix.MembershipJoin})
	if err != nil {
		return nil, err
	}
	levels, err := a.replacementLevels(ctx, u, old, v, creators)
	if err != nil {
		return nil, err
	}
	protos := []rooms.Proto{state(matrix.TypeCreate, create), join}
	if !v.CreatorPower {
		// Enough to set everything, the final levels included.
		protos = append(protos, state(matrix.TypePowerLevels, map[string]any{
			"users": map[matrix.UserID]int64{u: highest(levels.Content)},
		}))
	}
	for _, typ := range transferred {
		st, err := a.Engine.StateEvent(ctx, m, typ, "")
		if err != nil {
			return nil, err
		}
		if st != nil {
			protos = append(protos, rooms.Proto{Type: typ, StateKey: st.StateKeyPtr(), Content: st.Content})
		}
	}
	more, err := a.carriedOver(ctx, old)
	if err != nil {
		return nil, err
	}
	protos = append(protos, more...)
	return append(protos, levels), nil
}

// highest is the greatest level in power levels, 100 at least.
func highest(levels json.RawMessage) int64 {
	top := int64(100)
	content := map[string]json.RawMessage{}
	if json.Unmarshal(levels, &content) != nil {
		return top
	}
	for _, raw := range content {
		inner := map[string]json.RawMessage{}
		if json.Unmarshal(raw, &inner) == nil {
			top = max(top, highest(raw))
			continue
		}
		top = max(top, number(raw, 0))
	}
	return top
}

// carriedOver lists the bans, and a space's children.
func (a *API) carriedOver(ctx context.Context, old *rooms.Room) ([]rooms.Proto, error) {
	events, err := a.Engine.StateEvents(ctx, old.View().State, nil)
	if err != nil {
		return nil, err
	}
	var protos []rooms.Proto
	for _, st := range events {
		if st.Membership() == matrix.MembershipBan || st.Type == matrix.TypeSpaceChild && st.RedactedBy == 0 {
			protos = append(protos, rooms.Proto{Type: st.Type, StateKey: st.StateKeyPtr(), Content: st.Content})
		}
	}
	return protos, nil
}

// replacementCreate keeps the old create event's content, such as the room's
// type, without what belongs to its version.
func (a *API) replacementCreate(ctx context.Context, u matrix.UserID, old *rooms.Room, v *event.Version, creators []matrix.UserID) (map[string]json.RawMessage, error) {
	content := map[string]json.RawMessage{}
	view := old.View()
	st, err := a.Engine.StateEvent(ctx, view.State, matrix.TypeCreate, "")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(st.Content, &content); err != nil {
		return nil, err
	}
	for _, name := range []string{"creator", "additional_creators", "room_version", "predecessor"} {
		delete(content, name)
	}
	predecessor := map[string]string{"room_id": string(old.ID)}
	if n := len(view.Recent); n > 0 && !v.RoomIDHash {
		predecessor["event_id"] = string(view.Recent[n-1].ID)
	}
	content["predecessor"] = mustJSON(predecessor)
	q := &createRequest{CreationContent: content}
	if len(creators) > 0 {
		content["additional_creators"] = mustJSON(creators)
	}
	return createContent(u, q, v, preset{}, nil)
}

// replacementLevels carries the power levels over. Creators with power by
// themselves are taken out of the list of users, which may not name them, and
// the tombstone is put out of the reach of others.
func (a *API) replacementLevels(ctx context.Context, u matrix.UserID, old *rooms.Room, v *event.Version, creators []matrix.UserID) (rooms.Proto, error) {
	st, err := a.Engine.StateEvent(ctx, old.View().State, matrix.TypePowerLevels, "")
	if err != nil {
		return rooms.Proto{}, err
	}
	content, users := map[string]json.RawMessage{}, map[matrix.UserID]json.RawMessage{}
	if st != nil {
		if err := json.Unmarshal(st.Content, &content); err != nil {
			return rooms.Proto{}, err
		}
		_ = json.Unmarshal(content["users"], &users) // absent: nobody
	}
	switch {
	case v.CreatorPower:
		maps.DeleteFunc(users, func(user matrix.UserID, _ json.RawMessage) bool {
			return user == u || slices.Contains(creators, user)
		})
		events := map[string]json.RawMessage{}
		_ = json.Unmarshal(content["events"], &events) // absent: all by default
		events[matrix.TypeTombstone] = mustJSON(max(150, number(events[matrix.TypeTombstone], 0)))
		content["events"] = mustJSON(events)
	case old.Version.CreatorPower:
		// Creators of the old room had power that no list shows.
		users[u] = mustJSON(highest(mustJSON(content)))
	}
	content["users"] = mustJSON(users)
	if v.IntegerLevels {
		integerLevels(content)
	}
	return state(matrix.TypePowerLevels, content), nil
}

// integerLevels turns levels that older room versions let be texts into the
// integers that newer ones ask for.
func integerLevels(levels map[string]json.RawMessage) {
	for name, raw := range levels {
		inner := map[string]json.RawMessage{}
		if json.Unmarshal(raw, &inner) == nil {
			integerLevels(inner)
			levels[name] = mustJSON(inner)
			continue
		}
		var text string
		if json.Unmarshal(raw, &text) != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil {
			levels[name] = mustJSON(n)
		}
	}
}
