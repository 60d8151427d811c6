package push

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// Result is what a user's rules say about an event.
type Result struct {
	Notify    bool
	Highlight bool   // only with Notify
	Sound     string // "" for none
}

// RoomInfo is what rules ask about a room, as it was when the event came.
type RoomInfo struct {
	Members           int                    // joined
	SenderLevel       int64                  // power level of the event's sender
	NotificationLevel func(key string) int64 // power level that a notification such as "room" needs
}

// Recipient is the user for whom rules are evaluated.
type Recipient struct {
	User        matrix.UserID
	DisplayName string // in the room
}

// Evaluate applies a user's rules to an event: the first that matches decides.
// spec: client-server#push-rules
func Evaluate(rules *Ruleset, e *event.Event, room RoomInfo, to Recipient) Result {
	if to.User == e.Sender {
		return Result{}
	}
	return evaluate(rules, fieldsOf(e), room, to)
}

func evaluate(rules *Ruleset, f *fields, room RoomInfo, to Recipient) Result {
	for _, r := range rules.Override {
		if r.Enabled && f.hold(r.Conditions, room, to) {
			return resultOf(r.Actions)
		}
	}
	for _, r := range rules.Content {
		if body, ok := f.text(keyBody); ok && r.Enabled && matchWord(r.Pattern, body) {
			return resultOf(r.Actions)
		}
	}
	for _, r := range rules.Room {
		if r.Enabled && r.ID == string(f.event.RoomID) {
			return resultOf(r.Actions)
		}
	}
	for _, r := range rules.Sender {
		if r.Enabled && r.ID == string(f.event.Sender) {
			return resultOf(r.Actions)
		}
	}
	for _, r := range rules.Underride {
		if r.Enabled && f.hold(r.Conditions, room, to) {
			return resultOf(r.Actions)
		}
	}
	return Result{}
}

func resultOf(actions []Action) Result {
	var r Result
	for _, a := range actions {
		switch {
		case a.Notify:
			r.Notify = true
		case a.Tweak == "highlight":
			r.Highlight = a.Value == nil || a.Value == true
		case a.Tweak == "sound":
			r.Sound, _ = a.Value.(string)
		}
	}
	if !r.Notify {
		return Result{}
	}
	return r
}

func (f *fields) hold(conditions []Condition, room RoomInfo, to Recipient) bool {
	for i := range conditions {
		if !f.holds(&conditions[i], room, to) {
			return false
		}
	}
	return true
}

// holds tells whether the event meets a condition. One of an unknown kind is
// never met.
// spec: client-server#conditions-1
func (f *fields) holds(c *Condition, room RoomInfo, to Recipient) bool {
	if c.self && to.User == "" {
		return false // whatever the event says: nobody is meant
	}
	switch c.Kind {
	case "event_match":
		text, ok := f.text(c.Key)
		switch {
		case !ok || c.Pattern == nil && !c.self:
			return false
		case c.Key == keyBody:
			return matchWord(*c.Pattern, text)
		}
		return matchWhole(c.pattern(to), text)
	case "event_property_is":
		return f.is(c.Key, c.value(to))
	case "event_property_contains":
		return f.contains(c.Key, c.value(to))
	case "contains_display_name":
		body, ok := f.text(keyBody)
		return ok && to.DisplayName != "" && mentions(to.DisplayName, body)
	case "room_member_count":
		return counts(c.Is, room.Members)
	case "sender_notification_permission":
		return room.NotificationLevel != nil && room.SenderLevel >= room.NotificationLevel(c.Key)
	}
	return false
}

// is tells whether the property is exactly the value.
func (f *fields) is(key string, value any) bool {
	if want, ok := value.(string); ok {
		text, has := f.text(key)
		return has && text == want
	}
	return same(f.raw(key), value)
}

// contains tells whether the property is an array with the value in it.
func (f *fields) contains(key string, value any) bool {
	raw := f.raw(key)
	if len(raw) == 0 || raw[0] != '[' {
		return false
	}
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		return false
	}
	for _, item := range items {
		if same(item, value) {
			return true
		}
	}
	return false
}

// same compares a JSON value with a string, bool, integer or null.
func same(raw json.RawMessage, value any) bool {
	if len(raw) == 0 {
		return false
	}
	switch want := value.(type) {
	case string:
		var s string
		return raw[0] == '"' && json.Unmarshal(raw, &s) == nil && s == want
	case bool:
		return string(raw) == strconv.FormatBool(want)
	case json.Number:
		return string(raw) == want.String()
	case nil:
		return bytes.Equal(raw, []byte("null"))
	}
	return false
}

// counts compares a number of members with "2", "==2", "<2", ">2", "<=2" or
// ">=2".
func counts(is string, members int) bool {
	number := strings.TrimLeft(is, "=<>")
	n, err := strconv.Atoi(number)
	if err != nil {
		return false
	}
	switch strings.TrimSuffix(is, number) {
	case "", "==":
		return members == n
	case "<":
		return members < n
	case ">":
		return members > n
	case "<=":
		return members <= n
	case ">=":
		return members >= n
	}
	return false
}
