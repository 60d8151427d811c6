package push

import (
	"strings"

	"github.com/teahouse-chat/teahouse/internal/glob"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// compiled are the enabled rules of a user in the order in which they are tried,
// in a form that an event is quickly held against.
type compiled struct {
	user  matrix.UserID
	rules []compiledRule
	named bool // the user's name in the room matters
}

type compiledRule struct {
	conditions []condition
	result     Result
}

// condition is a compiled condition.
type condition struct {
	kind conditionKind
	// memo is the place where an event remembers whether it meets the condition,
	// which is the same for all users; 0 if it has none.
	memo  int
	key   string
	path  []string // of key, in the content
	text  string
	glob  *glob.Pattern // nil: text is compared as it is, but for its case
	value wanted
	count count
}

type conditionKind uint8

const (
	never conditionKind = iota
	matches
	matchesBody
	propertyIs
	propertyContains
	mentionsUser
	aboutUser
	containsName
	memberCount
	mayNotify
)

// compile prepares the rules of a user.
func compile(b *book, user matrix.UserID) *compiled {
	c := &compiled{user: user}
	for _, kind := range kinds {
		own, given := *b.Own.Kind(kind), *predefined.Kind(kind)
		if len(given) > 0 && given[0].ID == masterRule {
			c.given(b, given[:1])
			given = given[1:]
		}
		for i := range own {
			if own[i].Enabled {
				c.add(kind, &own[i])
			}
		}
		c.given(b, given)
	}
	return c
}

// given adds predefined rules. Their conditions were compiled before and are
// shared by all users.
func (c *compiled) given(b *book, rules []Rule) {
	for _, r := range rules {
		ch := b.Changed[r.ID]
		if ch.Enabled != nil {
			r.Enabled = *ch.Enabled
		}
		if ch.Actions != nil {
			r.Actions = *ch.Actions
		}
		if r.Enabled {
			c.rules = append(c.rules, compiledRule{predefinedConditions[r.ID], resultOf(r.Actions)})
		}
	}
}

// predefinedConditions are those of the predefined rules, by the rule's id.
var predefinedConditions, memos = compilePredefined()

func compilePredefined() (map[string][]condition, int) {
	all, n := make(map[string][]condition), 0
	for _, kind := range kinds {
		for _, r := range *predefined.Kind(kind) {
			list := make([]condition, len(r.Conditions))
			for i := range r.Conditions {
				list[i] = compileCondition(&r.Conditions[i])
				if !r.Conditions[i].self {
					n++
					list[i].memo = n
				}
			}
			all[r.ID] = list
		}
	}
	return all, n
}

// add compiles a rule of the user's.
func (c *compiled) add(kind string, r *Rule) {
	one := compiledRule{result: resultOf(r.Actions)}
	switch kind {
	case "override", "underride":
		for i := range r.Conditions {
			one.conditions = append(one.conditions, compileCondition(&r.Conditions[i]))
			c.named = c.named || r.Conditions[i].Kind == "contains_display_name"
		}
	case "content":
		one.conditions = []condition{compileMatch(keyBody, *r.Pattern)}
	case "room":
		one.conditions = []condition{{kind: propertyIs, key: "room_id", value: wanted{r.ID, true}}}
	case "sender":
		one.conditions = []condition{{kind: propertyIs, key: "sender", value: wanted{r.ID, true}}}
	}
	c.rules = append(c.rules, one)
}

// compileCondition compiles a condition; one that is not known, or malformed, is
// never met.
func compileCondition(c *Condition) condition {
	switch c.Kind {
	case "event_match":
		switch {
		case c.self:
			return condition{kind: aboutUser}
		case c.Pattern == nil:
			return condition{}
		}
		return compileMatch(c.Key, *c.Pattern)
	case "event_property_is", "event_property_contains":
		if c.self {
			return condition{kind: mentionsUser}
		}
		out := condition{kind: propertyIs, key: c.Key, path: contentPath(c.Key)}
		if c.Kind == "event_property_contains" {
			out.kind = propertyContains
		}
		var ok bool
		if out.value, ok = parseValue(c.Value); !ok {
			return condition{}
		}
		return out
	case "contains_display_name":
		return condition{kind: containsName}
	case "room_member_count":
		n, ok := parseCount(c.Is)
		if !ok {
			return condition{}
		}
		return condition{kind: memberCount, count: n}
	case "sender_notification_permission":
		return condition{kind: mayNotify, key: c.Key}
	}
	return condition{}
}

// compileMatch compiles a pattern for a property.
func compileMatch(key, pattern string) condition {
	if len(pattern) > MaxPatternBytes {
		return condition{}
	}
	c := condition{kind: matches, key: key, path: contentPath(key), text: pattern}
	if key == keyBody {
		c.kind, c.text = matchesBody, fold(pattern)
	}
	if strings.ContainsAny(pattern, "*?") {
		c.glob = glob.Compile(pattern)
	}
	return c
}

// resultOf is what the actions of a rule say.
func resultOf(actions []Action) Result {
	r := Result{Actions: actions}
	for _, a := range actions {
		switch {
		case a.Name == notify.Name:
			r.Notify = true
		case a.Tweak == "highlight":
			r.Highlight = a.Value == nil || string(a.Value) == "true"
		}
	}
	if !r.Notify {
		return Result{}
	}
	return r
}
