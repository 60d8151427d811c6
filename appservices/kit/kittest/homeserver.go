// Package kittest is a homeserver in memory, for tests of services that are written
// with the kit: people say things in rooms, the service is told of them over the
// application service API and answers over the client API, and everything that can go
// wrong on the way does, as often as the test wants. Time stands still until nothing
// is left to do, and then leaps.
package kittest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/internal/clock"
)

// Domain is the name of the homeserver.
const Domain = "test"

// Homeserver is the homeserver: rooms, people, and what the service is to be told.
type Homeserver struct {
	Clock *clock.Manual

	mu      sync.Mutex
	service id.UserID
	rooms   map[id.RoomID]*room
	order   []id.RoomID
	media   map[string]media
	sent    map[string]id.EventID // by room and transaction id
	count   int
	told    []*event.Event // what the service has to be told, in order
	openID  map[string]id.UserID

	invitesNamed bool   // see Options
	forbidden    string // a text that is not let through
	aliases      map[string]id.RoomID
	profiles     map[id.UserID]map[string]any // by user and field
}

type room struct {
	id      id.RoomID
	events  []*event.Event
	state   map[string]*event.Event // by type and state key
	members map[id.UserID]event.Membership
}

type media struct {
	kind string
	body []byte
}

func newHomeserver(c *clock.Manual, service id.UserID) *Homeserver {
	return &Homeserver{
		Clock: c, service: service, rooms: map[id.RoomID]*room{}, media: map[string]media{}, sent: map[string]id.EventID{}, openID: map[string]id.UserID{},
		aliases: map[string]id.RoomID{}, profiles: map[id.UserID]map[string]any{},
	}
}

func (h *Homeserver) next() int {
	h.count++
	return h.count
}

// number is that of an event.
func number(ev *event.Event) (n int) {
	_, _ = fmt.Sscanf(string(ev.ID), "$%d", &n)
	return n
}

func (h *Homeserver) newRoom() *room {
	r := &room{
		id:    id.RoomID(fmt.Sprintf("!%d:%s", len(h.order)+1, Domain)),
		state: map[string]*event.Event{}, members: map[id.UserID]event.Membership{},
	}
	h.rooms[r.id] = r
	h.order = append(h.order, r.id)
	return r
}

func stateKey(typ, key string) string { return typ + "\x00" + key }

// add puts an event into a room, and has the service told if it is concerned. h.mu is
// held.
func (h *Homeserver) add(r *room, sender id.UserID, typ string, key *string, content json.RawMessage, redacts id.EventID) *event.Event {
	ev := &event.Event{
		ID: id.EventID(fmt.Sprintf("$%d", h.next())), RoomID: r.id, Sender: sender, Type: event.NewEventType(typ), StateKey: key,
		Timestamp: h.Clock.Now().UnixMilli(), Redacts: redacts,
	}
	ev.Content.VeryRaw = content
	if err := json.Unmarshal(content, &ev.Content.Raw); err != nil {
		panic(err)
	}
	concerned := r.members[h.service] == event.MembershipJoin
	if key != nil {
		r.state[stateKey(typ, *key)] = ev
		if typ == event.StateMember.Type {
			member, _ := ev.Content.Raw["membership"].(string)
			r.members[id.UserID(*key)] = event.Membership(member)
			concerned = concerned || id.UserID(*key) == h.service || r.members[h.service] == event.MembershipJoin
		}
	}
	r.events = append(r.events, ev)
	if concerned {
		h.told = append(h.told, ev)
	}
	return ev
}

// member changes a membership. h.mu is held.
func (h *Homeserver) member(r *room, sender, user id.UserID, m event.Membership, direct bool) *event.Event {
	content := map[string]any{"membership": m}
	if direct {
		content["is_direct"] = true
	}
	text, _ := json.Marshal(content)
	key := string(user)
	return h.add(r, sender, event.StateMember.Type, &key, text, "")
}

// Rooms are all rooms, in the order in which they were made.
func (h *Homeserver) Rooms() []id.RoomID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.order)
}

// Events are what happened in a room, oldest first.
func (h *Homeserver) Events(in id.RoomID) []*event.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.rooms[in] == nil {
		return nil
	}
	return slices.Clone(h.rooms[in].events)
}

// Members are who has joined a room.
func (h *Homeserver) Members(in id.RoomID) []id.UserID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.joined(in)
}

func (h *Homeserver) joined(in id.RoomID) []id.UserID {
	var all []id.UserID
	if r := h.rooms[in]; r != nil {
		for _, user := range slices.Sorted(maps.Keys(r.members)) {
			if r.members[user] == event.MembershipJoin {
				all = append(all, user)
			}
		}
	}
	return all
}

// Said are the texts of the messages that the service has in a room, as somebody
// sees them now: edited ones as they were edited, redacted ones not at all.
func (h *Homeserver) Said(in id.RoomID) []string {
	all := h.messages(in, h.service)
	texts := make([]string, len(all))
	for i, m := range all {
		texts[i] = m.text
	}
	return texts
}

// LastMessage is the event of the last message that the service has in a room.
func (h *Homeserver) LastMessage(in id.RoomID) id.EventID {
	all := h.messages(in, h.service)
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1].id
}

type message struct {
	id   id.EventID
	text string
}

func (h *Homeserver) messages(in id.RoomID, of id.UserID) []message {
	var all []message
	for _, ev := range h.Events(in) {
		if ev.Sender != of {
			continue
		}
		switch ev.Type.Type {
		case event.EventMessage.Type:
			body, _ := ev.Content.Raw["body"].(string)
			rel, _ := ev.Content.Raw["m.relates_to"].(map[string]any)
			if fresh, ok := ev.Content.Raw["m.new_content"].(map[string]any); ok && rel["rel_type"] == "m.replace" {
				body, _ = fresh["body"].(string)
				if i := slices.IndexFunc(all, func(m message) bool { return string(m.id) == rel["event_id"] }); i >= 0 {
					all[i].text = body
				}
				continue
			}
			all = append(all, message{ev.ID, body})
		case event.EventRedaction.Type:
			all = slices.DeleteFunc(all, func(m message) bool { return m.id == ev.Redacts })
		}
	}
	return all
}

// User is a person on the homeserver.
type User struct {
	ID id.UserID
	h  *Homeserver
}

// User is the person with a name; people need not be made first.
func (h *Homeserver) User(name string) *User { return &User{id.NewUserID(name, Domain), h} }

// OpenID is a token by which the person proves to a service who it is.
func (u *User) OpenID() string {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	token := fmt.Sprintf("openid%d", u.h.next())
	u.h.openID[token] = u.ID
	return token
}

// Forbid has the homeserver refuse what the service sends with a text in it; "" ends
// that.
func (h *Homeserver) Forbid(text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forbidden = text
}

// SetProfile sets a field of the person's profile.
func (u *User) SetProfile(field string, value any) {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	if u.h.profiles[u.ID] == nil {
		u.h.profiles[u.ID] = map[string]any{}
	}
	u.h.profiles[u.ID][field] = value
}

// CreateRoom makes a room, and invites others into it.
func (u *User) CreateRoom(invite ...id.UserID) id.RoomID { return u.create(false, invite) }

// Direct makes a direct chat with somebody.
func (u *User) Direct(with id.UserID) id.RoomID { return u.create(true, []id.UserID{with}) }

func (u *User) create(direct bool, invite []id.UserID) id.RoomID {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	r := u.h.newRoom()
	none := ""
	u.h.add(r, u.ID, event.StateCreate.Type, &none, json.RawMessage(`{}`), "")
	u.h.member(r, u.ID, u.ID, event.MembershipJoin, false)
	for _, user := range invite {
		u.h.member(r, u.ID, user, event.MembershipInvite, direct)
	}
	return r.id
}

func (u *User) in(room id.RoomID, f func(r *room) *event.Event) id.EventID {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	return f(u.h.rooms[room]).ID
}

// Invite invites somebody.
func (u *User) Invite(in id.RoomID, user id.UserID) id.EventID {
	return u.in(in, func(r *room) *event.Event { return u.h.member(r, u.ID, user, event.MembershipInvite, false) })
}

// Join joins a room.
func (u *User) Join(in id.RoomID) id.EventID {
	return u.in(in, func(r *room) *event.Event { return u.h.member(r, u.ID, u.ID, event.MembershipJoin, false) })
}

// Leave leaves a room.
func (u *User) Leave(in id.RoomID) id.EventID {
	return u.in(in, func(r *room) *event.Event { return u.h.member(r, u.ID, u.ID, event.MembershipLeave, false) })
}

// Kick throws somebody out.
func (u *User) Kick(in id.RoomID, user id.UserID) id.EventID {
	return u.in(in, func(r *room) *event.Event { return u.h.member(r, u.ID, user, event.MembershipLeave, false) })
}

// Send sends an event of any kind.
func (u *User) Send(in id.RoomID, typ event.Type, content any) id.EventID {
	text, err := json.Marshal(content)
	if err != nil {
		panic(err)
	}
	return u.in(in, func(r *room) *event.Event { return u.h.add(r, u.ID, typ.Type, nil, text, "") })
}

// SetState sets state of a room.
func (u *User) SetState(in id.RoomID, typ event.Type, key string, content any) id.EventID {
	text, err := json.Marshal(content)
	if err != nil {
		panic(err)
	}
	return u.in(in, func(r *room) *event.Event { return u.h.add(r, u.ID, typ.Type, &key, text, "") })
}

// Say says a text.
func (u *User) Say(in id.RoomID, text string) id.EventID {
	return u.Send(in, event.EventMessage, map[string]any{"msgtype": "m.text", "body": text})
}

// Reply says a text in answer to an event.
func (u *User) Reply(in id.RoomID, to id.EventID, text string) id.EventID {
	return u.Send(in, event.EventMessage, map[string]any{
		"msgtype": "m.text", "body": text, "m.relates_to": map[string]any{"m.in_reply_to": map[string]any{"event_id": to}},
	})
}

// File sends a file, with what is said about it; "" for nothing.
func (u *User) File(in id.RoomID, name string, body []byte, caption string) id.EventID {
	content := map[string]any{"msgtype": "m.file", "body": name, "url": u.Upload("application/octet-stream", body)}
	if caption != "" {
		content["body"], content["filename"] = caption, name
	}
	return u.Send(in, event.EventMessage, content)
}

// Edit changes what was said.
func (u *User) Edit(in id.RoomID, what id.EventID, text string) id.EventID {
	return u.Send(in, event.EventMessage, map[string]any{
		"msgtype": "m.text", "body": "* " + text, "m.new_content": map[string]any{"msgtype": "m.text", "body": text},
		"m.relates_to": map[string]any{"rel_type": "m.replace", "event_id": what},
	})
}

// React reacts to an event.
func (u *User) React(in id.RoomID, to id.EventID, key string) id.EventID {
	return u.Send(in, event.EventReaction, map[string]any{
		"m.relates_to": map[string]any{"rel_type": "m.annotation", "event_id": to, "key": key},
	})
}

// Redact takes something back.
func (u *User) Redact(in id.RoomID, what id.EventID) id.EventID {
	return u.in(in, func(r *room) *event.Event {
		text, _ := json.Marshal(map[string]any{"redacts": what})
		return u.h.add(r, u.ID, event.EventRedaction.Type, nil, text, what)
	})
}

// Upload stores a file and gives its address.
func (u *User) Upload(kind string, body []byte) id.ContentURIString {
	u.h.mu.Lock()
	defer u.h.mu.Unlock()
	return u.h.upload(kind, body)
}

func (h *Homeserver) upload(kind string, body []byte) id.ContentURIString {
	name := fmt.Sprintf("media%d", h.next())
	h.media[name] = media{kind, body}
	return id.ContentURIString("mxc://" + Domain + "/" + name)
}
