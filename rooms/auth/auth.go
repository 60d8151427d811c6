package auth

import (
	"fmt"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// State is what an event is judged against: a room state, or an event's auth
// events. Where the room id is the create event's hash the create event is no
// auth event, but a State must know it all the same.
type State interface {
	Event(typ, stateKey string) *event.Event // nil when absent
}

// Rejection says which rule an event breaks. It is the only error of this
// package.
type Rejection struct {
	Rule      string // the version and the rule's number on its page, such as "v12 5.3.2"
	Why       string
	Malformed bool // nobody could say this in the room, whatever their power
}

func (r *Rejection) Error() string { return "rejected by " + r.Rule + ": " + r.Why }

// check is one event before its judges.
type check struct {
	e      *event.Event
	v      *event.Version
	st     State
	create *event.Event
}

// Check judges an event by all rules of its version, save those about the list
// of its auth events, which CheckAuthEvents judges. It returns nil or a
// *Rejection.
// spec: rooms/v12#authorisation-rules
func Check(e *event.Event, st State) error {
	c := check{e: e, v: e.Version, st: st, create: st.Event(matrix.TypeCreate, "")}
	if e.Type == matrix.TypeCreate {
		return c.creation()
	}
	if err := c.room(); err != nil {
		return err
	}
	switch {
	case e.Type == matrix.TypeAliases && c.v.AliasesRule:
		return c.aliases()
	case e.Type == matrix.TypeMember:
		return c.member()
	}
	if c.membership(e.Sender) != matrix.MembershipJoin {
		return c.reject(ruleJoined, "", "the sender %s is not joined", e.Sender)
	}
	levels := c.levels()
	power := levels.User(e.Sender)
	if e.Type == matrix.TypeThirdPartyInvite {
		if power < levels.Invite {
			return c.reject(ruleThirdParty, ".1", "the sender's power %d is below the invite level %d", power, levels.Invite)
		}
		return nil
	}
	if required := levels.Required(e.Type, e.IsState()); required > power {
		return c.reject(ruleRequired, "", "%s needs power %d, the sender has %d", e.Type, required, power)
	}
	if key := e.StateKey(); len(key) > 0 && key[0] == '@' && key != string(e.Sender) {
		return c.reject(ruleStateKey, "", "the state key %s is another user", key)
	}
	switch {
	case e.Type == matrix.TypePowerLevels:
		return c.powerLevels(power)
	case e.Type == matrix.TypeRedaction && c.v.RedactionRule:
		return c.redaction(&levels, power)
	}
	return nil
}

// room judges where the event is: in the room of the create event, and from a
// server that the room lets in.
func (c *check) room() error {
	switch {
	case c.v.RoomIDHash && (c.create == nil || c.create.RoomID != c.e.RoomID):
		return c.reject(ruleRoom, "", "the room id %s is not that of an accepted create event", c.e.RoomID)
	case c.create == nil:
		return c.reject(ruleAuthCreate, "", "there is no create event")
	case c.create.RoomID != c.e.RoomID:
		return c.reject(ruleAuthRoom, "", "the create event is of room %s", c.create.RoomID)
	}
	if !creationOf(c.create).federated && c.create.Sender.Server() != c.e.Sender.Server() {
		return c.reject(ruleFederate, "", "the room is not federated and %s is of another server", c.e.Sender)
	}
	return nil
}

// aliases lets a server keep the list of its own aliases.
// spec: rooms/v1#authorisation-rules
func (c *check) aliases() error {
	if !c.e.IsState() {
		return c.reject(ruleAliases, ".1", "aliases without a state key")
	}
	if c.e.StateKey() != string(c.e.Sender.Server()) {
		return c.reject(ruleAliases, ".2", "the state key %q is not the sender's server", c.e.StateKey())
	}
	return nil
}

// redaction judges redactions where the auth rules do.
// spec: rooms/v1#authorisation-rules
func (c *check) redaction(levels *PowerLevels, power int64) error {
	if power >= levels.Redact {
		return nil
	}
	if target := eventServer(c.e.Redacts); target != "" && target == eventServer(c.e.ID) {
		return nil
	}
	return c.reject(ruleRedaction, ".3", "the sender's power %d is below the redact level %d", power, levels.Redact)
}

func (c *check) membership(user matrix.UserID) string {
	if m := c.st.Event(matrix.TypeMember, string(user)); m != nil {
		return m.Membership()
	}
	return ""
}

func (c *check) levels() PowerLevels {
	return LevelsOf(c.st.Event(matrix.TypePowerLevels, ""), c.create)
}

func (c *check) reject(r rule, below string, why string, args ...any) error {
	return reject(c.v, r, below, why, args...)
}

func (c *check) malformed(r rule, why string, args ...any) error {
	return &Rejection{Rule: "v" + c.v.ID + " " + r.number(c.v), Why: fmt.Sprintf(why, args...), Malformed: true}
}

func reject(v *event.Version, r rule, below string, why string, args ...any) error {
	return &Rejection{Rule: "v" + v.ID + " " + r.number(v) + below, Why: fmt.Sprintf(why, args...)}
}
