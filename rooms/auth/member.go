package auth

import (
	"bytes"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// member is what a member event's content says beside the profile.
type member struct {
	membership    string
	hasMembership bool

	thirdParty bool // there is a third_party_invite
	signed     json.RawMessage
	mxid       string
	token      string

	restricted bool          // there is a join_authorised_via_users_server
	authoriser matrix.UserID // "" if it is not a user id
}

func memberOf(e *event.Event) *member {
	if m, ok := e.Memo(func() any { return readMember(e) }).(*member); ok {
		return m
	}
	return readMember(e)
}

// plainMembers are what most member events amount to. Rooms have tens of
// thousands of them.
var plainMembers = map[string]*member{
	matrix.MembershipJoin:   {membership: matrix.MembershipJoin, hasMembership: true},
	matrix.MembershipLeave:  {membership: matrix.MembershipLeave, hasMembership: true},
	matrix.MembershipInvite: {membership: matrix.MembershipInvite, hasMembership: true},
	matrix.MembershipBan:    {membership: matrix.MembershipBan, hasMembership: true},
	matrix.MembershipKnock:  {membership: matrix.MembershipKnock, hasMembership: true},
}

// readMember is parseMember for an event, whose content is canonical: its keys are
// written in one way only.
func readMember(e *event.Event) *member {
	plain := plainMembers[e.Membership()]
	if plain == nil || bytes.Contains(e.Content, []byte(`"third_party_invite"`)) ||
		bytes.Contains(e.Content, []byte(`"join_authorised_via_users_server"`)) {
		return parseMember(e.Content)
	}
	return plain
}

func parseMember(content []byte) *member {
	m := &member{}
	all := fields(content)
	raw, ok := all["membership"]
	m.hasMembership = ok
	m.membership, _ = text(raw)
	if raw, ok = all["third_party_invite"]; ok {
		m.thirdParty = true
		m.signed = fields(raw)["signed"]
		signed := fields(m.signed)
		m.mxid, _ = text(signed["mxid"])
		m.token, _ = text(signed["token"])
	}
	if raw, ok = all["join_authorised_via_users_server"]; ok {
		m.restricted = true
		if s, ok := text(raw); ok {
			m.authoriser, _ = matrix.ParseUserID(s)
		}
	}
	return m
}

// member judges a change of membership.
func (c *check) member() error {
	m := memberOf(c.e)
	if !c.e.IsState() || !m.hasMembership {
		return c.reject(ruleMemberFields, "", "a member event without state key or membership")
	}
	// That the authorising server signed is the caller's to check, but nobody
	// can sign for what is not a user.
	if c.v.RestrictedJoins && m.restricted && m.authoriser == "" {
		return c.reject(ruleAuthorised, ".1", "join_authorised_via_users_server is not a user id")
	}
	switch {
	case m.membership == matrix.MembershipJoin:
		return c.join(m)
	case m.membership == matrix.MembershipInvite && m.thirdParty:
		return c.thirdPartyInvite(m)
	case m.membership == matrix.MembershipInvite:
		return c.invite()
	case m.membership == matrix.MembershipLeave:
		return c.leave()
	case m.membership == matrix.MembershipBan:
		return c.ban()
	case m.membership == matrix.MembershipKnock && c.v.Knocking:
		return c.knock()
	}
	return c.reject(ruleUnknown, "", "the membership %q is not known", m.membership)
}

func (c *check) join(m *member) error {
	e, room := c.e, creationOf(c.create)
	if len(e.PrevEvents) == 1 && e.PrevEvents[0] == c.create.ID &&
		len(room.creators) > 0 && e.StateKey() == string(room.creators[0]) {
		return nil
	}
	if string(e.Sender) != e.StateKey() {
		return c.reject(ruleJoinSelf, "", "%s cannot join for %s", e.Sender, e.StateKey())
	}
	current := c.membership(e.Sender)
	if current == matrix.MembershipBan {
		return c.reject(ruleJoinBanned, "", "%s is banned", e.Sender)
	}
	welcome := current == matrix.MembershipJoin || current == matrix.MembershipInvite
	rule := c.joinRule()
	switch {
	case rule == matrix.JoinPublic:
		return nil
	case rule == matrix.JoinInvite && welcome, rule == matrix.JoinKnock && c.v.Knocking && welcome:
		return nil
	case rule == matrix.JoinRestricted && c.v.RestrictedJoins,
		rule == matrix.JoinKnockRestricted && c.v.KnockRestricted:
		if welcome {
			return nil
		}
		return c.authorised(m)
	}
	return c.reject(ruleJoinOther, "", "the join rule is %q and %s is not invited", rule, e.Sender)
}

// authorised judges a join that a member let in because of a membership
// elsewhere.
func (c *check) authorised(m *member) error {
	if m.authoriser == "" {
		return c.reject(ruleJoinRestricted, ".2", "the join is restricted and nobody authorised it")
	}
	if c.membership(m.authoriser) != matrix.MembershipJoin {
		return c.reject(ruleJoinRestricted, ".2", "the authorising user %s is not joined", m.authoriser)
	}
	if levels := c.levels(); levels.User(m.authoriser) < levels.Invite {
		return c.reject(ruleJoinRestricted, ".2", "the authorising user %s may not invite", m.authoriser)
	}
	return nil
}

func (c *check) invite() error {
	if c.membership(c.e.Sender) != matrix.MembershipJoin {
		return c.reject(ruleInvite, ".2", "the sender %s is not joined", c.e.Sender)
	}
	switch target := c.membership(c.target()); target {
	case matrix.MembershipJoin, matrix.MembershipBan:
		return c.reject(ruleInvite, ".3", "the membership of %s is %s already", c.target(), target)
	}
	levels := c.levels()
	if power := levels.User(c.e.Sender); power < levels.Invite {
		return c.reject(ruleInvite, ".5", "the sender's power %d is below the invite level %d", power, levels.Invite)
	}
	return nil
}

func (c *check) leave() error {
	e := c.e
	current := c.membership(e.Sender)
	if string(e.Sender) == e.StateKey() {
		switch {
		case current == matrix.MembershipJoin, current == matrix.MembershipInvite,
			current == matrix.MembershipKnock && c.v.Knocking:
			return nil
		}
		return c.reject(ruleLeave, ".1", "%s is not in the room", e.Sender)
	}
	if current != matrix.MembershipJoin {
		return c.reject(ruleLeave, ".2", "the sender %s is not joined", e.Sender)
	}
	levels := c.levels()
	power, target := levels.User(e.Sender), levels.User(c.target())
	if c.membership(c.target()) == matrix.MembershipBan && power < levels.Ban {
		return c.reject(ruleLeave, ".3", "the sender's power %d is below the ban level %d", power, levels.Ban)
	}
	if power < levels.Kick || target >= power {
		return c.reject(ruleLeave, ".5", "the sender's power %d is below the kick level %d or not above the target's %d",
			power, levels.Kick, target)
	}
	return nil
}

func (c *check) ban() error {
	if c.membership(c.e.Sender) != matrix.MembershipJoin {
		return c.reject(ruleBan, ".1", "the sender %s is not joined", c.e.Sender)
	}
	levels := c.levels()
	power, target := levels.User(c.e.Sender), levels.User(c.target())
	if power < levels.Ban || target >= power {
		return c.reject(ruleBan, ".3", "the sender's power %d is below the ban level %d or not above the target's %d",
			power, levels.Ban, target)
	}
	return nil
}

func (c *check) knock() error {
	rule := c.joinRule()
	if rule != matrix.JoinKnock && !(rule == matrix.JoinKnockRestricted && c.v.KnockRestricted) {
		return c.reject(ruleKnock, ".1", "the join rule is %q", rule)
	}
	if string(c.e.Sender) != c.e.StateKey() {
		return c.reject(ruleKnock, ".2", "%s cannot knock for %s", c.e.Sender, c.e.StateKey())
	}
	switch current := c.membership(c.e.Sender); current {
	case matrix.MembershipBan, matrix.MembershipInvite, matrix.MembershipJoin:
		return c.reject(ruleKnock, ".4", "the membership of %s is %s", c.e.Sender, current)
	}
	return nil
}

// target is the user whose membership the event changes.
func (c *check) target() matrix.UserID { return matrix.UserID(c.e.StateKey()) }

// joinRule is the room's join rule; a room that states none takes invitations.
// spec: client-server#mroomjoin_rules
func (c *check) joinRule() string {
	e := c.st.Event(matrix.TypeJoinRules, "")
	if e == nil {
		return matrix.JoinInvite
	}
	if rule, ok := e.Memo(func() any { return parseJoinRule(e.Content) }).(string); ok {
		return rule
	}
	return parseJoinRule(e.Content)
}

func parseJoinRule(content []byte) string {
	raw, ok := fields(content)["join_rule"]
	if !ok {
		return matrix.JoinInvite
	}
	rule, _ := text(raw)
	return rule
}
