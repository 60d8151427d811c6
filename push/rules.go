package push

import (
	"encoding/json"
	"fmt"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Paths of properties that mean something special.
const (
	keyBody     = "content.body"
	keyMentions = `content.m\.mentions.user_ids`
)

// Rule is one push rule.
type Rule struct {
	ID         string      `json:"rule_id"`
	Default    bool        `json:"default"`
	Enabled    bool        `json:"enabled"`
	Conditions []Condition `json:"conditions,omitzero"` // of override and underride rules only; nil: left out
	Pattern    *string     `json:"pattern,omitempty"`   // of content rules only
	Actions    []Action    `json:"actions"`
}

// Condition must hold for a rule to match. Which members count depends on Kind.
// spec: client-server#conditions-1
type Condition struct {
	Kind    string          `json:"kind"`
	Key     string          `json:"key,omitempty"`
	Pattern *string         `json:"pattern,omitempty"`
	Is      string          `json:"is,omitempty"`
	Value   json.RawMessage `json:"value,omitempty"` // a string, boolean, integer or null

	self bool            // Pattern or Value is the id of the user whose rule it is
	raw  json.RawMessage // as a client wrote it, members that mean nothing here included
}

// MarshalJSON gives a condition as the client that made it wrote it.
func (c Condition) MarshalJSON() ([]byte, error) {
	if c.raw != nil {
		return c.raw, nil
	}
	type plain Condition
	return json.Marshal(plain(c))
}

// Action is what a matching rule does: it notifies, or it sets a tweak.
// spec: client-server#actions
type Action struct {
	Name  string          // "notify", or what means nothing any more and old clients look for; "" for a tweak
	Tweak string          // such as "sound" or "highlight"
	Value json.RawMessage // of the tweak; nil: left out
}

// MarshalJSON gives "notify" or {"set_tweak": ...}.
func (a Action) MarshalJSON() ([]byte, error) {
	if a.Name != "" {
		return json.Marshal(a.Name)
	}
	return json.Marshal(struct {
		Tweak string          `json:"set_tweak"`
		Value json.RawMessage `json:"value,omitempty"`
	}{a.Tweak, a.Value})
}

// Ruleset holds the rules of one user by kind, the most important first. The
// kinds are tried in the order of the fields.
type Ruleset struct {
	Override  []Rule `json:"override"`
	Content   []Rule `json:"content"`
	Room      []Rule `json:"room"`
	Sender    []Rule `json:"sender"`
	Underride []Rule `json:"underride"`
}

// Kind returns the rules of a kind; nil if there is no such kind.
func (r *Ruleset) Kind(name string) *[]Rule {
	switch name {
	case "override":
		return &r.Override
	case "content":
		return &r.Content
	case "room":
		return &r.Room
	case "sender":
		return &r.Sender
	case "underride":
		return &r.Underride
	}
	return nil
}

// kinds are the kinds in the order in which they are tried.
var kinds = []string{"override", "content", "room", "sender", "underride"}

// indexOf finds a rule by its id, -1 if there is none.
func indexOf(rules []Rule, id string) int {
	for i := range rules {
		if rules[i].ID == id {
			return i
		}
	}
	return -1
}

var (
	notify    = Action{Name: "notify"}
	highlight = Action{Tweak: "highlight"}
	sound     = Action{Tweak: "sound", Value: json.RawMessage(`"default"`)}
	ring      = Action{Tweak: "sound", Value: json.RawMessage(`"ring"`)}
	silent    = []Action{}

	inPair    = Condition{Kind: "room_member_count", Is: "2"}
	forMe     = Condition{Kind: "event_match", Key: "state_key", self: true}
	mentionMe = Condition{Kind: "event_property_contains", Key: keyMentions, self: true}
)

func match(key, pattern string) Condition {
	return Condition{Kind: "event_match", Key: key, Pattern: &pattern}
}

func is(key, value string) Condition {
	return Condition{Kind: "event_property_is", Key: key, Value: json.RawMessage(value)}
}

func rule(id string, actions []Action, conditions ...Condition) Rule {
	return Rule{ID: id, Default: true, Enabled: true, Conditions: conditions, Actions: actions}
}

// masterRule goes before the rules of users; the others that are predefined come
// after them.
const masterRule = ".m.rule.master"

// predefined are the rules of nobody in particular; they are not changed.
// spec: client-server#predefined-rules
var predefined = Ruleset{
	Override: []Rule{
		{ID: masterRule, Default: true, Conditions: []Condition{}, Actions: silent},
		rule(".m.rule.suppress_notices", silent, match("content.msgtype", "m.notice")),
		rule(".m.rule.invite_for_me", []Action{notify, sound},
			match("type", matrix.TypeMember), match("content.membership", matrix.MembershipInvite), forMe),
		rule(".m.rule.member_event", silent, match("type", matrix.TypeMember)),
		rule(".m.rule.is_user_mention", []Action{notify, sound, highlight}, mentionMe),
		rule(".m.rule.is_room_mention", []Action{notify, highlight},
			is(`content.m\.mentions.room`, `true`), Condition{Kind: "sender_notification_permission", Key: "room"}),
		rule(".m.rule.tombstone", []Action{notify, highlight}, match("type", matrix.TypeTombstone), match("state_key", "")),
		rule(".m.rule.reaction", silent, match("type", matrix.TypeReaction)),
		rule(".m.rule.room.server_acl", silent, match("type", matrix.TypeServerACL), match("state_key", "")),
		rule(".m.rule.suppress_edits", silent, is(`content.m\.relates_to.rel_type`, `"m.replace"`)),
	},
	Content: []Rule{},
	Room:    []Rule{},
	Sender:  []Rule{},
	Underride: []Rule{
		rule(".m.rule.call", []Action{notify, ring}, match("type", "m.call.invite")),
		rule(".m.rule.encrypted_room_one_to_one", []Action{notify, sound}, inPair, match("type", matrix.TypeEncrypted)),
		rule(".m.rule.room_one_to_one", []Action{notify, sound}, inPair, match("type", matrix.TypeMessage)),
		rule(".m.rule.message", []Action{notify}, match("type", matrix.TypeMessage)),
		rule(".m.rule.encrypted", []Action{notify}, match("type", matrix.TypeEncrypted)),
	},
}

// of puts the user's id where a condition asks for it.
func (r Rule) of(user matrix.UserID) Rule {
	conditions := make([]Condition, len(r.Conditions))
	for i, c := range r.Conditions {
		if c.self && c.Kind == "event_match" {
			c.Pattern = (*string)(&user)
		} else if c.self {
			c.Value = quoted(string(user))
		}
		conditions[i] = c
	}
	r.Conditions = conditions
	return r
}

func quoted(s string) json.RawMessage {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("push: a string: %v", err)) // marshals always
	}
	return raw
}

// account is the content of m.push_rules, and the answer to a question for all
// rules.
type account struct {
	Global Ruleset `json:"global"`
}

// AccountData is the m.push_rules of a user who has changed no rule.
// spec: client-server#push-rules-events
func AccountData(user matrix.UserID) json.RawMessage { return (&book{}).accountData(user) }
