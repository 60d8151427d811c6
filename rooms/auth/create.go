package auth

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// creation is what a create event says.
type creation struct {
	federated bool
	creators  []matrix.UserID // the first is the one who may join first
	infinite  bool            // creators stand above all power levels

	hasCreator    bool
	badVersion    string // a room_version that is not known, as JSON
	badAdditional bool
}

func creationOf(create *event.Event) *creation {
	if c, ok := create.Memo(func() any { return parseCreation(create) }).(*creation); ok {
		return c
	}
	return parseCreation(create)
}

func parseCreation(e *event.Event) *creation {
	content := fields(e.Content)
	c := &creation{federated: string(content["m.federate"]) != "false", infinite: e.Version.CreatorPower}
	if e.Version.CreatorInContent {
		var creator matrix.UserID
		raw, has := content["creator"]
		c.hasCreator = has
		if json.Unmarshal(raw, &creator) == nil && creator != "" {
			c.creators = append(c.creators, creator)
		}
	} else {
		c.creators = append(c.creators, e.Sender)
	}
	if raw, ok := content["room_version"]; ok {
		name, isText := text(raw)
		if _, known := event.Lookup(name); !isText || !known {
			c.badVersion = string(raw)
		}
	}
	if raw, ok := content["additional_creators"]; ok && e.Version.CreatorPower {
		more, ok := userIDs(raw)
		c.badAdditional = !ok
		c.creators = append(c.creators, more...)
	}
	return c
}

func (c *creation) isCreator(user matrix.UserID) bool { return slices.Contains(c.creators, user) }

// creation judges the create event.
func (c *check) creation() error {
	e := c.e
	if len(e.PrevEvents) > 0 {
		return c.reject(ruleCreatePrev, "", "a create event has previous events")
	}
	// Where the room id is a hash, the parser refuses a create event that
	// carries one, and derives it.
	if !c.v.RoomIDHash && e.RoomID.Server() != e.Sender.Server() {
		return c.reject(ruleCreateRoom, "", "the room id %s is not of the sender's server", e.RoomID)
	}
	if c.v.RoomIDHash && strings.TrimPrefix(string(e.RoomID), "!") != strings.TrimPrefix(string(e.ID), "$") {
		return c.reject(ruleCreateRoom, "", "the room id %s is not the event's hash", e.RoomID)
	}
	content := creationOf(e)
	if content.badVersion != "" {
		return c.reject(ruleCreateVersion, "", "the room version %s is not known", content.badVersion)
	}
	if c.v.CreatorInContent && !content.hasCreator {
		return c.reject(ruleCreateCreator, "", "there is no creator")
	}
	if content.badAdditional {
		return c.reject(ruleCreateAdditional, "", "additional_creators is not a list of user ids")
	}
	// The page has no number for a second create event: it would stand beside
	// the room's graph. Letting it in would hand the room to its sender.
	if c.create != nil && c.create.ID != e.ID {
		return c.reject(ruleCreate, "", "the room has a create event already")
	}
	return nil
}

// fields takes a JSON object apart; it is empty if raw is none. Unlike struct
// fields, its names are compared exactly.
func fields(raw []byte) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil {
		return nil
	}
	return m
}

// text reads a JSON string.
func text(raw json.RawMessage) (string, bool) {
	var s string
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return "", false
	}
	return s, true
}

// userIDs reads a JSON array of user ids.
func userIDs(raw json.RawMessage) ([]matrix.UserID, bool) {
	var list []json.RawMessage
	if len(raw) == 0 || raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
		return nil, false
	}
	users := make([]matrix.UserID, 0, len(list))
	for _, item := range list {
		s, ok := text(item)
		if !ok {
			return nil, false
		}
		user, err := matrix.ParseUserID(s)
		if err != nil {
			return nil, false
		}
		users = append(users, user)
	}
	return users, true
}

// eventServer is the server in a text event id, "" if there is none.
func eventServer(id matrix.EventID) string {
	_, server, _ := strings.Cut(string(id), ":")
	return server
}
