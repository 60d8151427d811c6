package push

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Limits of what users may have evaluated for every message that they get.
const (
	// MaxPatternBytes bounds a pattern; a longer one is refused.
	MaxPatternBytes = 512
	maxRuleIDBytes  = 255
	maxKeyBytes     = 512
	maxConditions   = 32   // of a rule
	maxActions      = 32   // of a rule
	maxRules        = 1000 // of a user
	maxRuleBody     = 16 << 10
	maxBookBytes    = 128 << 10 // of all rules of a user
)

// checkRuleID refuses ids that users may not give their rules.
// spec: client-server#put_matrixclientv3pushrulesglobalkindruleid
func checkRuleID(id string) error {
	switch {
	case id == "":
		return matrix.InvalidParam("The rule needs an id")
	case id[0] == '.':
		return matrix.InvalidParam("Ids of rules that begin with a dot are the server's")
	case strings.ContainsAny(id, "/\\\x00") || !utf8.ValidString(id):
		return matrix.InvalidParam("The id of a rule is UTF-8 without slash, backslash and NUL")
	case len(id) > maxRuleIDBytes:
		return matrix.InvalidParam("The id of a rule has at most %d bytes", maxRuleIDBytes)
	}
	return nil
}

// decodeRule reads what a client sent to make a rule of.
func decodeRule(kind, id string, q *putRuleRequest) (Rule, error) {
	r := Rule{ID: id}
	var err error
	if r.Actions, err = decodeActions(q.Actions); err != nil {
		return r, err
	}
	switch kind {
	case "override", "underride":
		r.Conditions, err = decodeConditions(q.Conditions)
	case "content":
		switch {
		case q.Pattern == nil:
			return r, matrix.MissingParam(`A content rule needs a "pattern"`)
		case len(*q.Pattern) > MaxPatternBytes:
			return r, errPattern
		}
		r.Pattern = q.Pattern
	}
	return r, err
}

var errPattern = matrix.InvalidParam("A pattern has at most %d bytes", MaxPatternBytes)

// decodeActions reads a list of actions. Those of older versions of the
// specification are kept, though they mean nothing: old clients look for them.
// spec: client-server#actions
func decodeActions(raw json.RawMessage) ([]Action, error) {
	var items []json.RawMessage
	switch err := json.Unmarshal(raw, &items); {
	case raw == nil:
		return nil, matrix.MissingParam(`"actions" is missing`)
	case err != nil || items == nil:
		return nil, matrix.BadJSON(`"actions" must be a list`)
	case len(items) > maxActions:
		return nil, matrix.InvalidParam("A rule has at most %d actions", maxActions)
	}
	actions := make([]Action, 0, len(items))
	for _, item := range items {
		switch string(item) {
		case `"notify"`, `"dont_notify"`, `"coalesce"`:
			actions = append(actions, Action{Name: strings.Trim(string(item), `"`)})
			continue
		}
		var tweak struct {
			Tweak *string         `json:"set_tweak"`
			Value json.RawMessage `json:"value"`
		}
		if json.Unmarshal(item, &tweak) != nil || tweak.Tweak == nil {
			return nil, matrix.InvalidParam(`An action is "notify" or an object with "set_tweak"`)
		}
		actions = append(actions, Action{Tweak: *tweak.Tweak, Value: compact(tweak.Value)})
	}
	return actions, nil
}

// UnmarshalJSON reads what MarshalJSON has written.
func (a *Action) UnmarshalJSON(raw []byte) error {
	list, err := decodeActions(append(append([]byte("["), raw...), ']'))
	if err == nil && len(list) == 1 {
		*a = list[0]
	}
	return err
}

func compact(raw json.RawMessage) json.RawMessage {
	if raw == nil {
		return nil
	}
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return nil // it was read before
	}
	return b.Bytes()
}

// decodeConditions reads a list of conditions; an absent one is empty.
func decodeConditions(raw json.RawMessage) ([]Condition, error) {
	var items []json.RawMessage
	if raw != nil && json.Unmarshal(raw, &items) != nil {
		return nil, matrix.BadJSON(`"conditions" must be a list`)
	}
	if len(items) > maxConditions {
		return nil, matrix.InvalidParam("A rule has at most %d conditions", maxConditions)
	}
	conditions := make([]Condition, len(items))
	for i, item := range items {
		if err := json.Unmarshal(item, &conditions[i]); err != nil {
			return nil, matrix.BadJSON("A condition is an object, and its members have the types of the specification").Because(err)
		}
		if err := conditions[i].check(); err != nil {
			return nil, err
		}
	}
	return conditions, nil
}

// UnmarshalJSON keeps what a client wrote beside what is understood of it. Of a
// kind that is not known, only the kind is looked at.
func (c *Condition) UnmarshalJSON(raw []byte) error {
	var kind struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(raw, &kind); err != nil {
		return err
	}
	*c = Condition{Kind: kind.Kind, raw: compact(raw)}
	if !knownKinds[kind.Kind] {
		return nil
	}
	type plain Condition
	return json.Unmarshal(raw, (*plain)(c))
}

// knownKinds are the kinds of conditions that can be met.
// spec: client-server#conditions-1
var knownKinds = map[string]bool{
	"event_match": true, "event_property_is": true, "event_property_contains": true,
	"contains_display_name": true, "room_member_count": true, "sender_notification_permission": true,
}

// check tells what is wrong with a condition that a client sent.
func (c *Condition) check() error {
	switch c.Kind {
	case "":
		return matrix.MissingParam(`A condition needs a "kind"`)
	case "contains_display_name":
		return nil
	case "room_member_count":
		if _, ok := parseCount(c.Is); !ok {
			return matrix.InvalidParam(`"is" of a room_member_count is a number, with ==, <, >, <= or >= before it`)
		}
		return nil
	}
	switch {
	case !knownKinds[c.Kind]:
		return nil // never met, but kept for clients that know it
	case c.Key == "":
		return matrix.MissingParam(`A condition of kind %s needs a "key"`, c.Kind)
	case len(c.Key) > maxKeyBytes:
		return matrix.InvalidParam(`"key" has at most %d bytes`, maxKeyBytes)
	case c.Kind == "sender_notification_permission":
		return nil
	case c.Kind == "event_match" && c.Pattern == nil:
		return matrix.MissingParam(`A condition of kind event_match needs a "pattern"`)
	case c.Kind == "event_match" && len(*c.Pattern) > MaxPatternBytes:
		return errPattern
	case c.Kind == "event_match":
		return nil
	case c.Value == nil:
		return matrix.MissingParam(`A condition of kind %s needs a "value"`, c.Kind)
	}
	if _, ok := parseValue(c.Value); !ok {
		return matrix.InvalidParam(`"value" is a string, an integer, a boolean or null`)
	}
	return nil
}

// parseValue reads a value that is compared exactly: a string, or else the
// canonical JSON of an integer, a boolean or null.
func parseValue(raw json.RawMessage) (value wanted, ok bool) {
	if len(raw) > 0 && raw[0] == '"' {
		value.text, value.isText = "", true
		return value, json.Unmarshal(raw, &value.text) == nil
	}
	switch value.text = string(raw); value.text {
	case "true", "false", "null":
		return value, true
	}
	const maxInt = 1<<53 - 1
	n, err := strconv.ParseInt(value.text, 10, 64)
	value.text = strconv.FormatInt(n, 10)
	return value, err == nil && n >= -maxInt && n <= maxInt
}

// wanted is a value that a property must have.
type wanted struct {
	text   string
	isText bool // a string, not JSON
}

// count is a bound on the number of members.
type count struct {
	op string
	n  int
}

// parseCount reads "2", "==2", "<2", ">2", "<=2" or ">=2".
func parseCount(is string) (count, bool) {
	number := strings.TrimLeft(is, "=<>")
	c := count{op: strings.TrimSuffix(is, number)}
	if number == "" || number[0] < '0' || number[0] > '9' {
		return c, false
	}
	var err error
	if c.n, err = strconv.Atoi(number); err != nil {
		return c, false
	}
	switch c.op {
	case "", "==", "<", ">", "<=", ">=":
		return c, true
	}
	return c, false
}

func (c count) holds(members int) bool {
	switch c.op {
	case "<":
		return members < c.n
	case ">":
		return members > c.n
	case "<=":
		return members <= c.n
	case ">=":
		return members >= c.n
	}
	return members == c.n
}
