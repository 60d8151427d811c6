package kittest

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// problem is an answer that is an error.
type problem struct {
	status int
	code   string
}

func (p problem) Error() string { return p.code }

var (
	errForbidden = problem{http.StatusForbidden, "M_FORBIDDEN"}
	errNotFound  = problem{http.StatusNotFound, "M_NOT_FOUND"}
	errBadJSON   = problem{http.StatusBadRequest, "M_BAD_JSON"}
)

// object is a JSON object.
type object = map[string]any

// api is the client API as far as services use it, for the service's own user.
func (h *Homeserver) api() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(r *http.Request, body []byte) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			h.mu.Lock()
			defer h.mu.Unlock()
			answer, err := f(r, body)
			if bad, ok := err.(problem); ok {
				w.WriteHeader(bad.status)
				answer = object{"errcode": bad.code, "error": "so it is"}
			}
			if raw, ok := answer.([]byte); ok {
				_, _ = w.Write(raw)
				return
			}
			_ = json.NewEncoder(w).Encode(answer)
		})
	}
	const v3 = "/_matrix/client/v3"
	handle("POST "+v3+"/register", func(*http.Request, []byte) (any, error) {
		return nil, problem{http.StatusBadRequest, "M_USER_IN_USE"}
	})
	handle("GET "+v3+"/account/whoami", func(*http.Request, []byte) (any, error) { return object{"user_id": h.service}, nil })
	handle("PUT "+v3+"/profile/{user}/{field}", func(*http.Request, []byte) (any, error) { return object{}, nil })
	handle("GET "+v3+"/profile/{user}/{field}", func(r *http.Request, _ []byte) (any, error) {
		field := r.PathValue("field")
		value, ok := h.profiles[id.UserID(r.PathValue("user"))][field]
		if !ok {
			return nil, errNotFound
		}
		return object{field: value}, nil
	})
	handle("POST /_matrix/client/v1/appservice/{id}/ping", func(*http.Request, []byte) (any, error) { return object{"duration_ms": 1}, nil })
	handle("PUT "+v3+"/rooms/{room}/send/{type}/{txn}", h.putEvent)
	handle("PUT "+v3+"/rooms/{room}/redact/{event}/{txn}", h.putEvent)
	handle("PUT "+v3+"/rooms/{room}/state/{type}/{key...}", h.putState)
	handle("GET "+v3+"/rooms/{room}/state/{type}/{key...}", h.getState)
	handle("GET "+v3+"/rooms/{room}/messages", h.getMessages)
	handle("GET "+v3+"/rooms/{room}/event/{event}", h.getEvent)
	handle("GET "+v3+"/rooms/{room}/joined_members", h.getMembers)
	handle("GET "+v3+"/joined_rooms", h.getRooms)
	handle("GET "+v3+"/sync", h.getSync)
	handle("POST "+v3+"/join/{room}", h.postJoin)
	handle("POST "+v3+"/rooms/{room}/join", h.postJoin)
	handle("POST "+v3+"/rooms/{room}/leave", h.postLeave)
	handle("POST "+v3+"/rooms/{room}/invite", h.postInvite)
	handle("POST "+v3+"/createRoom", h.postRoom)
	handle("GET "+v3+"/directory/room/{alias}", func(r *http.Request, _ []byte) (any, error) {
		in, ok := h.aliases[r.PathValue("alias")]
		if !ok {
			return nil, errNotFound
		}
		return object{"room_id": in, "servers": []string{Domain}}, nil
	})
	handle("DELETE "+v3+"/directory/room/{alias}", func(r *http.Request, _ []byte) (any, error) {
		if _, ok := h.aliases[r.PathValue("alias")]; !ok {
			return nil, errNotFound
		}
		delete(h.aliases, r.PathValue("alias"))
		return object{}, nil
	})
	handle("PUT "+v3+"/directory/list/room/{room}", func(*http.Request, []byte) (any, error) { return object{}, nil })
	handle("POST /_matrix/media/v3/upload", func(r *http.Request, body []byte) (any, error) {
		return object{"content_uri": h.upload(r.Header.Get("Content-Type"), body)}, nil
	})
	handle("GET /_matrix/client/v1/media/download/{server}/{name}", func(r *http.Request, _ []byte) (any, error) {
		m, ok := h.media[r.PathValue("name")]
		if !ok {
			return nil, errNotFound
		}
		return m.body, nil
	})
	handle("GET /_matrix/federation/v1/openid/userinfo", func(r *http.Request, _ []byte) (any, error) {
		user, ok := h.openID[r.URL.Query().Get("access_token")]
		if !ok {
			return nil, problem{http.StatusUnauthorized, "M_UNKNOWN_TOKEN"}
		}
		return object{"sub": user}, nil
	})
	handle("/", func(*http.Request, []byte) (any, error) { return nil, problem{http.StatusNotFound, "M_UNRECOGNIZED"} })
	return mux
}

// here is the room of a request, which the service must be in.
func (h *Homeserver) here(r *http.Request) (*room, error) {
	v := h.rooms[id.RoomID(r.PathValue("room"))]
	if v == nil || v.members[h.service] != event.MembershipJoin {
		return nil, errForbidden
	}
	return v, nil
}

// putEvent sends or redacts, once for each transaction id.
func (h *Homeserver) putEvent(r *http.Request, body []byte) (any, error) {
	v, err := h.here(r)
	if err != nil {
		return nil, err
	}
	key := string(v.id) + " " + r.PathValue("txn")
	if ev, ok := h.sent[key]; ok {
		return object{"event_id": ev}, nil
	}
	var content object
	if json.Unmarshal(body, &content) != nil {
		return nil, errBadJSON
	}
	typ, redacts := r.PathValue("type"), id.EventID(r.PathValue("event"))
	if redacts != "" {
		typ = event.EventRedaction.Type
	}
	if !v.maySend(h.service, typ) || h.forbidden != "" && strings.Contains(string(body), h.forbidden) {
		return nil, errForbidden
	}
	ev := h.add(v, h.service, typ, nil, body, redacts)
	h.sent[key] = ev.ID
	return object{"event_id": ev.ID}, nil
}

// maySend tells whether the room's power levels let a user send events of a type.
func (v *room) maySend(user id.UserID, typ string) bool {
	ev := v.state[stateKey(event.StatePowerLevels.Type, "")]
	if ev == nil {
		return true
	}
	var levels event.PowerLevelsEventContent
	if err := json.Unmarshal(ev.Content.VeryRaw, &levels); err != nil {
		return false
	}
	levels.CreateEvent = v.state[stateKey(event.StateCreate.Type, "")]
	return levels.GetUserLevel(user) >= levels.GetEventLevel(event.NewEventType(typ))
}

func (h *Homeserver) putState(r *http.Request, body []byte) (any, error) {
	v, err := h.here(r)
	if err != nil {
		return nil, err
	}
	typ, key := r.PathValue("type"), r.PathValue("key")
	if had := v.state[stateKey(typ, key)]; had != nil && string(had.Content.VeryRaw) == string(body) {
		return object{"event_id": had.ID}, nil
	}
	return object{"event_id": h.add(v, h.service, typ, &key, body, "").ID}, nil
}

func (h *Homeserver) getState(r *http.Request, _ []byte) (any, error) {
	v, err := h.here(r)
	if err != nil {
		return nil, err
	}
	ev := v.state[stateKey(r.PathValue("type"), r.PathValue("key"))]
	if ev == nil {
		return nil, errNotFound
	}
	if r.URL.Query().Get("format") == "event" {
		return ev, nil
	}
	return ev.Content.Raw, nil
}

func (h *Homeserver) getEvent(r *http.Request, _ []byte) (any, error) {
	v, err := h.here(r)
	if err != nil {
		return nil, err
	}
	for _, ev := range v.events {
		if string(ev.ID) == r.PathValue("event") {
			return ev, nil
		}
	}
	return nil, errNotFound
}

// getMessages pages backwards.
func (h *Homeserver) getMessages(r *http.Request, _ []byte) (any, error) {
	v, err := h.here(r)
	if err != nil {
		return nil, err
	}
	end := len(v.events)
	if from := r.URL.Query().Get("from"); from != "" {
		end, _ = strconv.Atoi(from)
	}
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	begin := max(0, end-max(limit, 1))
	page := slices.Clone(v.events[begin:end])
	slices.Reverse(page)
	answer := object{"chunk": page, "start": strconv.Itoa(end)}
	if begin > 0 {
		answer["end"] = strconv.Itoa(begin)
	}
	return answer, nil
}

func (h *Homeserver) getMembers(r *http.Request, _ []byte) (any, error) {
	v, err := h.here(r)
	if err != nil {
		return nil, err
	}
	joined := object{}
	for _, user := range h.joined(v.id) {
		joined[string(user)] = object{}
	}
	return object{"joined": joined}, nil
}

func (h *Homeserver) getRooms(*http.Request, []byte) (any, error) {
	rooms := []id.RoomID{}
	for _, in := range h.order {
		if h.rooms[in].members[h.service] == event.MembershipJoin {
			rooms = append(rooms, in)
		}
	}
	return object{"joined_rooms": rooms}, nil
}

// getSync shows invitations: all, or those since a position.
func (h *Homeserver) getSync(r *http.Request, _ []byte) (any, error) {
	q := r.URL.Query()
	since, _ := strconv.Atoi(q.Get("since"))
	if !json.Valid([]byte(q.Get("filter"))) {
		return nil, errBadJSON
	}
	invite := object{}
	for _, in := range h.order {
		v := h.rooms[in]
		ev := v.state[stateKey(event.StateMember.Type, string(h.service))]
		if v.members[h.service] != event.MembershipInvite || number(ev) <= since {
			continue
		}
		shown := []object{stripped(v.state[stateKey(event.StateCreate.Type, "")]), stripped(ev)}
		if h.invitesNamed {
			shown[1]["event_id"] = ev.ID
		}
		invite[string(in)] = object{"invite_state": object{"events": shown}}
	}
	return object{"next_batch": strconv.Itoa(h.count), "rooms": object{"invite": invite}}, nil
}

// stripped is a state event as it is shown to those outside.
func stripped(ev *event.Event) object {
	return object{"type": ev.Type.Type, "state_key": ev.StateKey, "sender": ev.Sender, "content": ev.Content.Raw}
}

func (h *Homeserver) postJoin(r *http.Request, _ []byte) (any, error) {
	v := h.rooms[id.RoomID(r.PathValue("room"))]
	if v == nil {
		return nil, errNotFound
	}
	switch v.members[h.service] {
	case event.MembershipJoin:
	case event.MembershipInvite:
		h.member(v, h.service, h.service, event.MembershipJoin, false)
	default:
		return nil, errForbidden
	}
	return object{"room_id": v.id}, nil
}

func (h *Homeserver) postLeave(r *http.Request, _ []byte) (any, error) {
	v := h.rooms[id.RoomID(r.PathValue("room"))]
	if v == nil {
		return nil, errNotFound
	}
	if m := v.members[h.service]; m == event.MembershipJoin || m == event.MembershipInvite {
		h.member(v, h.service, h.service, event.MembershipLeave, false)
	}
	return object{}, nil
}

func (h *Homeserver) postInvite(r *http.Request, body []byte) (any, error) {
	v, err := h.here(r)
	if err != nil {
		return nil, err
	}
	var q struct {
		User id.UserID `json:"user_id"`
	}
	if json.Unmarshal(body, &q) != nil || v.members[q.User] == event.MembershipJoin {
		return nil, errForbidden
	}
	h.member(v, h.service, q.User, event.MembershipInvite, false)
	return object{}, nil
}

func (h *Homeserver) postRoom(_ *http.Request, body []byte) (any, error) {
	var q struct {
		Invite   []id.UserID     `json:"invite"`
		Direct   bool            `json:"is_direct"`
		Creation json.RawMessage `json:"creation_content"`
		Alias    string          `json:"room_alias_name"`
		State    []struct {
			Type    string          `json:"type"`
			Key     string          `json:"state_key"`
			Content json.RawMessage `json:"content"`
		} `json:"initial_state"`
	}
	if json.Unmarshal(body, &q) != nil {
		return nil, errBadJSON
	}
	alias := string(id.NewRoomAlias(q.Alias, Domain))
	if _, taken := h.aliases[alias]; q.Alias != "" && taken {
		return nil, problem{http.StatusBadRequest, "M_ROOM_IN_USE"}
	}
	if q.Creation == nil {
		q.Creation = json.RawMessage(`{}`)
	}
	r, none := h.newRoom(), ""
	if q.Alias != "" {
		h.aliases[alias] = r.id
	}
	r.members[h.service] = event.MembershipJoin // so that it is told of the beginning
	h.add(r, h.service, event.StateCreate.Type, &none, q.Creation, "")
	h.member(r, h.service, h.service, event.MembershipJoin, false)
	for _, s := range q.State {
		h.add(r, h.service, s.Type, &s.Key, s.Content, "")
	}
	for _, user := range q.Invite {
		h.member(r, h.service, user, event.MembershipInvite, q.Direct)
	}
	return object{"room_id": r.id}, nil
}

func marshal(v any) (string, error) {
	text, err := json.Marshal(v)
	return string(text), err
}
