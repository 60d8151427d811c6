package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// The limits of one createRoom request.
const (
	maxInvites      = 100
	maxInitialState = 200
)

// createRequest is the body of createRoom.
// spec: client-server#post_matrixclientv3createroom
type createRequest struct {
	Visibility      string            `json:"visibility"`
	AliasName       string            `json:"room_alias_name"`
	Name            string            `json:"name"`
	Topic           string            `json:"topic"`
	Invite          []matrix.UserID   `json:"invite"`
	Invite3pid      []json.RawMessage `json:"invite_3pid"`
	RoomVersion     string            `json:"room_version"`
	CreationContent contentObject     `json:"creation_content"`
	InitialState    []initialState    `json:"initial_state"`
	Preset          string            `json:"preset"`
	IsDirect        bool              `json:"is_direct"`
	PowerLevels     contentObject     `json:"power_level_content_override"`
}

// contentObject is a part of a request that becomes the content of an event, so
// that what no event may hold is refused before it is taken apart.
type contentObject map[string]json.RawMessage

// UnmarshalJSON refuses what is not canonical JSON.
func (c *contentObject) UnmarshalJSON(raw []byte) error {
	canonical, err := event.Canonical(raw)
	var bad *event.FormatError
	if errors.As(err, &bad) {
		return matrix.BadJSON("%s", bad.What)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(canonical, (*map[string]json.RawMessage)(c))
}

type initialState struct {
	Type     string          `json:"type"`
	StateKey string          `json:"state_key"`
	Content  json.RawMessage `json:"content"`
}

// preset is what a room's preset sets.
type preset struct {
	joinRule, visibility, guestAccess string
	trusted                           bool // invited users get the creator's power
	inviteLevel                       int
}

// guestsForbidden is also what holds where there is no m.room.guest_access.
const guestsForbidden = "forbidden"

var presets = map[string]preset{
	"private_chat":         {joinRule: matrix.JoinInvite, visibility: matrix.VisibilityShared, guestAccess: "can_join"},
	"trusted_private_chat": {joinRule: matrix.JoinInvite, visibility: matrix.VisibilityShared, guestAccess: "can_join", trusted: true},
	"public_chat":          {joinRule: matrix.JoinPublic, visibility: matrix.VisibilityShared, guestAccess: guestsForbidden, inviteLevel: 50},
}

// createRoom makes a room with all its first events in one commit.
func (a *API) createRoom(ctx context.Context, c *httpx.Caller, q *createRequest) (*roomAnswer, error) {
	version, set, err := a.checkCreate(q)
	if err != nil {
		return nil, err
	}
	for _, u := range q.Invite {
		if err := a.mayInvite(ctx, c.User, u); err != nil {
			return nil, err
		}
	}
	alias := matrix.RoomAlias("")
	if q.AliasName != "" {
		if alias, err = matrix.ParseRoomAlias("#" + q.AliasName + ":" + string(a.Engine.ServerName)); err != nil {
			return nil, err
		}
		if err := a.Aliases.Check(ctx, alias, c); err != nil {
			return nil, err
		}
	}
	protos, err := a.firstEvents(ctx, c.User, q, version, set, alias)
	if err != nil {
		return nil, err
	}
	if err := a.Engine.Foresee(ctx, protos); err != nil {
		return nil, err
	}
	r, err := a.Engine.Create(ctx, version, c.User, func(b *rooms.Builder) error {
		for _, p := range protos {
			if _, err := b.Append(p); err != nil {
				return err
			}
		}
		b.Then(func(tx *db.Tx) error { return a.enterDirectory(tx, b.Room().ID, q, alias, c.User) })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &roomAnswer{r.ID}, a.inviteOthers(ctx, r, c.User, q)
}

func (a *API) enterDirectory(tx *db.Tx, id matrix.RoomID, q *createRequest, alias matrix.RoomAlias, u matrix.UserID) error {
	if alias != "" {
		if err := a.Aliases.Add(tx, alias, id, u); err != nil {
			return err
		}
	}
	if q.Visibility == "public" {
		return a.Aliases.Publish(tx, id)
	}
	return nil
}

// checkCreate refuses what cannot be, before anything is made.
func (a *API) checkCreate(q *createRequest) (*event.Version, preset, error) {
	if len(q.Invite3pid) > 0 {
		return nil, preset{}, errThreepid
	}
	if q.Visibility != "" && q.Visibility != "public" && q.Visibility != "private" {
		return nil, preset{}, matrix.InvalidParam("visibility must be public or private")
	}
	if len(q.Invite) > maxInvites {
		return nil, preset{}, matrix.InvalidParam("At most %d users can be invited at once", maxInvites)
	}
	if len(q.InitialState) > maxInitialState {
		return nil, preset{}, matrix.InvalidParam("initial_state may have at most %d events", maxInitialState)
	}
	for _, u := range q.Invite {
		if _, err := matrix.ParseUserID(string(u)); err != nil {
			return nil, preset{}, err
		}
	}
	version := a.version
	if q.RoomVersion != "" {
		var ok bool
		if version, ok = event.Lookup(q.RoomVersion); !ok {
			return nil, preset{}, matrix.NewError(400, matrix.CodeUnsupportedRoomVersion, "Room version %q is not supported", q.RoomVersion)
		}
	}
	name := q.Preset
	if name == "" {
		name = "private_chat"
		if q.Visibility == "public" {
			name = "public_chat"
		}
	}
	set, ok := presets[name]
	if !ok {
		return nil, preset{}, matrix.InvalidParam("preset must be private_chat, trusted_private_chat or public_chat")
	}
	return version, set, nil
}

// firstEvents lists a new room's events in the order that the specification
// gives: create, the creator's join, power levels, alias, preset, initial_state,
// name, topic, invitations.
func (a *API) firstEvents(ctx context.Context, u matrix.UserID, q *createRequest, v *event.Version, set preset, alias matrix.RoomAlias) ([]rooms.Proto, error) {
	invited := slices.Compact(slices.Sorted(slices.Values(q.Invite)))
	invited = slices.DeleteFunc(invited, func(i matrix.UserID) bool { return i == u })
	create, err := createContent(u, q, v, set, invited)
	if err != nil {
		return nil, err
	}
	join, err := a.member(ctx, u, memberContent{Membership: matrix.MembershipJoin})
	if err != nil {
		return nil, err
	}
	levels, err := powerLevels(u, q, v, set, invited)
	if err != nil {
		return nil, err
	}
	protos := []rooms.Proto{state(matrix.TypeCreate, create), join, state(matrix.TypePowerLevels, levels)}
	if alias != "" {
		protos = append(protos, state(matrix.TypeCanonicalAlias, map[string]any{"alias": alias}))
	}
	protos = append(protos,
		state(matrix.TypeJoinRules, map[string]any{"join_rule": set.joinRule}),
		state(matrix.TypeHistoryVisibility, map[string]any{"history_visibility": set.visibility}),
	)
	if set.guestAccess != guestsForbidden { // as it is without the event
		protos = append(protos, state(matrix.TypeGuestAccess, map[string]any{"guest_access": set.guestAccess}))
	}
	for _, s := range q.InitialState {
		p, err := s.proto()
		if err != nil {
			return nil, err
		}
		protos = append(protos, p)
	}
	if q.Name != "" {
		protos = append(protos, state(matrix.TypeName, map[string]any{"name": q.Name}))
	}
	if q.Topic != "" {
		protos = append(protos, state(matrix.TypeTopic, map[string]any{
			"topic":   q.Topic,
			"m.topic": map[string]any{"m.text": []map[string]string{{"body": q.Topic, "mimetype": "text/plain"}}},
		}))
	}
	for _, i := range invited {
		if !a.Engine.Local(i) {
			continue // their servers are asked when there is a room
		}
		p, err := a.member(ctx, i, memberContent{Membership: matrix.MembershipInvite, IsDirect: q.IsDirect})
		if err != nil {
			return nil, err
		}
		protos = append(protos, p)
	}
	return protos, nil
}

func (s *initialState) proto() (rooms.Proto, error) {
	switch {
	case s.Type == "":
		return rooms.Proto{}, matrix.BadJSON("An event of initial_state has no type")
	case s.Type == matrix.TypeCreate:
		return rooms.Proto{}, matrix.BadJSON("initial_state cannot have m.room.create; use creation_content")
	case s.Type == matrix.TypeMember:
		return rooms.Proto{}, matrix.BadJSON("initial_state cannot have m.room.member; use invite")
	case !isObject(s.Content):
		return rooms.Proto{}, matrix.BadJSON("The content of an event of initial_state is not an object")
	}
	return rooms.Proto{Type: s.Type, StateKey: &s.StateKey, Content: s.Content}, nil
}

// createContent is the create event's: what the client asked for, over what the
// server sets.
// spec: client-server#mroomcreate
func createContent(u matrix.UserID, q *createRequest, v *event.Version, set preset, invited []matrix.UserID) (map[string]json.RawMessage, error) {
	content := maps.Clone(map[string]json.RawMessage(q.CreationContent))
	if content == nil {
		content = map[string]json.RawMessage{}
	}
	delete(content, "creator")
	content["room_version"] = mustJSON(v.ID)
	if v.CreatorInContent {
		content["creator"] = mustJSON(u)
	}
	if !v.CreatorPower {
		return content, nil
	}
	var creators []matrix.UserID
	if raw, ok := content["additional_creators"]; ok {
		if err := json.Unmarshal(raw, &creators); err != nil {
			return nil, matrix.InvalidParam("creation_content.additional_creators is not a list of user ids")
		}
		for _, c := range creators {
			if _, err := matrix.ParseUserID(string(c)); err != nil {
				return nil, err
			}
		}
	}
	if set.trusted {
		creators = append(creators, invited...)
	}
	if len(creators) > 0 {
		content["additional_creators"] = mustJSON(slices.Compact(slices.Sorted(slices.Values(creators))))
	}
	return content, nil
}

// powerLevels is the content of m.room.power_levels: the defaults, with those
// members replaced that the client overrides.
func powerLevels(u matrix.UserID, q *createRequest, v *event.Version, set preset, invited []matrix.UserID) (map[string]json.RawMessage, error) {
	users := map[matrix.UserID]int{}
	tombstone := 100
	if v.CreatorPower {
		tombstone = 150
	} else {
		users[u] = 100
		if set.trusted {
			for _, i := range invited {
				users[i] = 100
			}
		}
	}
	content := map[string]json.RawMessage{
		"users": mustJSON(users), "users_default": mustJSON(0), "events_default": mustJSON(0), "state_default": mustJSON(50),
		"ban": mustJSON(50), "kick": mustJSON(50), "redact": mustJSON(50), "invite": mustJSON(set.inviteLevel),
		"notifications": mustJSON(map[string]int{"room": 50}),
		"events": mustJSON(map[string]int{
			matrix.TypeName: 50, matrix.TypeAvatar: 50, matrix.TypeTopic: 50, matrix.TypeCanonicalAlias: 50,
			matrix.TypePowerLevels: 100, matrix.TypeHistoryVisibility: 100, matrix.TypeEncryption: 100,
			matrix.TypeServerACL: 100, matrix.TypeTombstone: tombstone,
		}),
	}
	for name, value := range q.PowerLevels {
		content[name] = value
	}
	if !isObject(content["users"]) || !isObject(content["events"]) {
		return nil, matrix.BadJSON("power_level_content_override: users and events must be objects")
	}
	if v.CreatorPower && q.RoomVersion == "" {
		// Clients that know older room versions only, and take what is the default,
		// give the creator a level, which a creator whose power has no limit must not
		// have. Who asks for such a version is told.
		named := map[matrix.UserID]json.RawMessage{}
		if err := json.Unmarshal(content["users"], &named); err != nil {
			return nil, matrix.BadJSON("power_level_content_override.users is not an object")
		}
		delete(named, u)
		content["users"] = mustJSON(named)
	}
	return content, nil
}

// state makes a state event with the empty key.
func state(typ string, content any) rooms.Proto {
	key := ""
	return rooms.Proto{Type: typ, StateKey: &key, Content: mustJSON(content)}
}

// mustJSON marshals what always can be: maps and lists of texts, numbers and
// JSON that was parsed before.
func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic("rooms: " + err.Error())
	}
	return b
}

func isObject(raw json.RawMessage) bool {
	raw = bytes.TrimSpace(raw)
	return len(raw) > 0 && raw[0] == '{'
}
