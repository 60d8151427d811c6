package push

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// book is how the rules of one user differ from the predefined ones; the zero
// book does not. It never changes once it is shared: a change makes a copy.
type book struct {
	Own     Ruleset           `json:"own"`               // the rules that the user made
	Changed map[string]change `json:"changed,omitempty"` // predefined ones, by id
}

// change is what a user has set about a predefined rule; nil: left as it is.
type change struct {
	Enabled *bool     `json:"enabled,omitempty"`
	Actions *[]Action `json:"actions,omitempty"`
}

// plain tells whether the user has the predefined rules.
func (b *book) plain() bool {
	return len(b.Changed) == 0 && b.count() == 0
}

func (b *book) count() int {
	n := 0
	for _, kind := range kinds {
		n += len(*b.Own.Kind(kind))
	}
	return n
}

// rules are the user's rules as clients are shown them.
func (b *book) rules(user matrix.UserID) Ruleset {
	var all Ruleset
	for _, kind := range kinds {
		*all.Kind(kind) = b.kind(kind, user)
	}
	return all
}

// kind lists the rules of a kind, the most important first: those of the user go
// before those that are predefined, and the master rule before everything.
// spec: client-server#predefined-rules
func (b *book) kind(kind string, user matrix.UserID) []Rule {
	own, given := *b.Own.Kind(kind), *predefined.Kind(kind)
	list := make([]Rule, 0, len(own)+len(given))
	for _, r := range given {
		if r.ID == masterRule {
			list = append(list, b.applied(r, user))
		}
	}
	list = append(list, own...)
	for _, r := range given {
		if r.ID != masterRule {
			list = append(list, b.applied(r, user))
		}
	}
	return list
}

// applied is a predefined rule with what the user has changed about it.
func (b *book) applied(r Rule, user matrix.UserID) Rule {
	r = r.of(user)
	c := b.Changed[r.ID]
	if c.Enabled != nil {
		r.Enabled = *c.Enabled
	}
	if c.Actions != nil {
		r.Actions = *c.Actions
	}
	return r
}

// accountData is the content of the user's m.push_rules.
func (b *book) accountData(user matrix.UserID) json.RawMessage {
	raw, err := json.Marshal(account{b.rules(user)})
	if err != nil {
		panic(fmt.Sprintf("push: the rules of %s: %v", user, err)) // what they hold was read from JSON
	}
	return raw
}

// copy may be changed without changing b, except in what rules point to.
func (b *book) copy() *book {
	c := &book{Changed: make(map[string]change, len(b.Changed)+1)}
	for id, ch := range b.Changed {
		c.Changed[id] = ch
	}
	for _, kind := range kinds {
		*c.Own.Kind(kind) = slices.Clone(*b.Own.Kind(kind))
	}
	return c
}

// place says where a rule goes among the user's own of its kind.
type place struct{ before, after string }

// put adds a rule of the user's, or changes one. A new one is the most important
// of its kind unless a place is given; a changed one then stays where it is, and
// as enabled as it was.
// spec: client-server#put_matrixclientv3pushrulesglobalkindruleid
func (b *book) put(kind string, r Rule, at place) error {
	own := b.Own.Kind(kind)
	old := indexOf(*own, r.ID)
	r.Enabled = true
	if old >= 0 {
		r.Enabled = (*own)[old].Enabled
		if at == (place{}) {
			(*own)[old] = r
			return nil
		}
		*own = slices.Delete(*own, old, old+1)
	}
	to := 0
	switch {
	case at.before != "":
		to = indexOf(*own, at.before)
	case at.after != "":
		if to = indexOf(*own, at.after); to >= 0 {
			to++
		}
	}
	if to < 0 {
		return matrix.NewError(400, matrix.CodeUnknown, "before/after rule not found: %s", at.before+at.after)
	}
	*own = slices.Insert(*own, to, r)
	return nil
}

// remove takes a rule of the user's away.
func (b *book) remove(kind, id string) error {
	own := b.Own.Kind(kind)
	i := indexOf(*own, id)
	switch {
	case i >= 0:
		*own = slices.Delete(*own, i, i+1)
		return nil
	case indexOf(*predefined.Kind(kind), id) >= 0:
		return matrix.InvalidParam("The rules of the server cannot be deleted; disable it instead")
	}
	return errNoRule
}

// enable switches a rule on or off.
func (b *book) enable(kind, id string, on bool) error {
	return b.set(kind, id, func(r *Rule) { r.Enabled = on }, func(c *change) { c.Enabled = &on })
}

// act sets what a rule does.
func (b *book) act(kind, id string, actions []Action) error {
	return b.set(kind, id, func(r *Rule) { r.Actions = actions }, func(c *change) { c.Actions = &actions })
}

func (b *book) set(kind, id string, own func(*Rule), given func(*change)) error {
	list := *b.Own.Kind(kind)
	if i := indexOf(list, id); i >= 0 {
		own(&list[i])
		return nil
	}
	if indexOf(*predefined.Kind(kind), id) < 0 {
		return errNoRule
	}
	c := b.Changed[id]
	given(&c)
	b.Changed[id] = c
	return nil
}

func (b *book) encode() []byte {
	raw, err := json.Marshal(b)
	if err != nil {
		panic("push: rules: " + err.Error()) // what they hold was read from JSON
	}
	return raw
}
