package push

import (
	"encoding/json"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Result is what a user's rules say about an event; the zero Result is that the
// user is not notified.
type Result struct {
	Notify    bool
	Highlight bool     // only with Notify
	Actions   []Action // of the rule that matched; shared
}

// same tells whether two results count alike.
func (r Result) same(other Result) bool {
	return r.Notify == other.Notify && r.Highlight == other.Highlight
}

// tweaks are what the rule says about how to present a notification.
func (r Result) tweaks() map[string]json.RawMessage {
	tweaks := make(map[string]json.RawMessage)
	for _, a := range r.Actions {
		switch {
		case a.Tweak == "":
		case a.Value == nil && a.Tweak == "highlight":
			tweaks[a.Tweak] = json.RawMessage("true")
		case a.Value == nil:
			tweaks[a.Tweak] = json.RawMessage("null")
		default:
			tweaks[a.Tweak] = a.Value
		}
	}
	return tweaks
}

// on applies a user's rules to an event: the first that matches decides. The
// user's name in the room is asked for only if a rule looks at it.
// spec: client-server#push-rules
func (c *compiled) on(s *subject, name string) Result {
	if c.user == s.event.Sender {
		return Result{}
	}
	for i := range c.rules {
		if s.meets(c.rules[i].conditions, c.user, name) {
			return c.rules[i].result
		}
	}
	return Result{}
}

func (s *subject) meets(conditions []condition, user matrix.UserID, name string) bool {
	for i := range conditions {
		c := &conditions[i]
		if c.memo == 0 {
			if !s.holds(c, user, name) {
				return false
			}
			continue
		}
		if s.met[c.memo] == unknown {
			s.met[c.memo] = unmet
			if s.holds(c, user, name) {
				s.met[c.memo] = met
			}
		}
		if s.met[c.memo] == unmet {
			return false
		}
	}
	return true
}

// holds tells whether the event meets a condition.
// spec: client-server#conditions-1
func (s *subject) holds(c *condition, user matrix.UserID, name string) bool {
	switch c.kind {
	case matches:
		text, ok := s.text(c)
		switch {
		case !ok:
			return false
		case c.glob == nil:
			return strings.EqualFold(c.text, text)
		}
		return c.glob.Whole(text)
	case matchesBody:
		switch {
		case !s.takeBody():
			return false
		case c.glob == nil:
			return s.bodyHas(c.text)
		}
		return c.glob.Word(s.body)
	case propertyIs:
		if c.value.isText {
			text, ok := s.text(c)
			return ok && text == c.value.text
		}
		return string(s.raw(c)) == c.value.text
	case propertyContains:
		return s.contains(c)
	case mentionsUser:
		_, ok := s.mentioned()[user]
		return ok && user != ""
	case aboutUser:
		return s.event.IsState() && user != "" && s.event.StateKey() == string(user)
	case containsName:
		return name != "" && len(name) <= MaxPatternBytes && s.takeBody() && s.bodyHas(fold(name))
	case memberCount:
		return c.count.holds(s.room.Members)
	case mayNotify:
		return s.room.Allowed != nil && s.room.Allowed(c.key)
	}
	return false
}

// contains tells whether the property is an array with the value in it.
func (s *subject) contains(c *condition) bool {
	raw := s.raw(c)
	if len(raw) == 0 || raw[0] != '[' {
		return false
	}
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		return false
	}
	for _, item := range items {
		if !c.value.isText && string(item) == c.value.text {
			return true
		}
		if text, ok := stringOf(item); ok && c.value.isText && text == c.value.text {
			return true
		}
	}
	return false
}
