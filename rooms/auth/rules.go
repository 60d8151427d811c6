package auth

import (
	"slices"
	"strconv"

	"github.com/teahouse-chat/teahouse/rooms/event"
)

// rule names a numbered rule of the room version pages, in whichever version.
type rule int

const (
	rulePage rule = iota // the page itself, above rule 1

	ruleCreate
	ruleRoom
	ruleAuthEvents
	ruleFederate
	ruleAliases
	ruleMember
	ruleJoined
	ruleThirdParty
	ruleRequired
	ruleStateKey
	ruleLevels
	ruleRedaction

	ruleCreatePrev
	ruleCreateRoom
	ruleCreateVersion
	ruleCreateCreator
	ruleCreateAdditional

	ruleAuthDuplicate
	ruleAuthSelected
	ruleAuthRejected
	ruleAuthCreate
	ruleAuthRoom

	ruleMemberFields
	ruleAuthorised
	ruleJoin
	ruleInvite
	ruleLeave
	ruleBan
	ruleKnock
	ruleUnknown

	ruleJoinFirst
	ruleJoinSelf
	ruleJoinBanned
	ruleJoinInvited
	ruleJoinRestricted
	ruleJoinPublic
	ruleJoinOther

	ruleLevelsNumbers
	ruleLevelsLists
	ruleLevelsUsers
	ruleLevelsCreators
	ruleLevelsFirst
	ruleLevelsChanged
	ruleLevelsOldEntry
	ruleLevelsNewEntry
	ruleLevelsOldUser
	ruleLevelsNewUser
)

// page is the tree of rules as the pages nest them, children in order; when
// tells which versions have the rule (nil: all).
var page = []struct {
	rule, parent rule
	when         func(v *event.Version) bool
}{
	{ruleCreate, rulePage, nil},
	{ruleRoom, rulePage, func(v *event.Version) bool { return v.RoomIDHash }},
	{ruleAuthEvents, rulePage, nil},
	{ruleFederate, rulePage, nil},
	{ruleAliases, rulePage, func(v *event.Version) bool { return v.AliasesRule }},
	{ruleMember, rulePage, nil},
	{ruleJoined, rulePage, nil},
	{ruleThirdParty, rulePage, nil},
	{ruleRequired, rulePage, nil},
	{ruleStateKey, rulePage, nil},
	{ruleLevels, rulePage, nil},
	{ruleRedaction, rulePage, func(v *event.Version) bool { return v.RedactionRule }},

	{ruleCreatePrev, ruleCreate, nil},
	{ruleCreateRoom, ruleCreate, nil},
	{ruleCreateVersion, ruleCreate, nil},
	{ruleCreateCreator, ruleCreate, func(v *event.Version) bool { return v.CreatorInContent }},
	{ruleCreateAdditional, ruleCreate, func(v *event.Version) bool { return v.CreatorPower }},

	{ruleAuthDuplicate, ruleAuthEvents, nil},
	{ruleAuthSelected, ruleAuthEvents, nil},
	{ruleAuthRejected, ruleAuthEvents, nil},
	{ruleAuthCreate, ruleAuthEvents, func(v *event.Version) bool { return !v.RoomIDHash }},
	{ruleAuthRoom, ruleAuthEvents, nil},

	{ruleMemberFields, ruleMember, nil},
	{ruleAuthorised, ruleMember, func(v *event.Version) bool { return v.RestrictedJoins }},
	{ruleJoin, ruleMember, nil},
	{ruleInvite, ruleMember, nil},
	{ruleLeave, ruleMember, nil},
	{ruleBan, ruleMember, nil},
	{ruleKnock, ruleMember, func(v *event.Version) bool { return v.Knocking }},
	{ruleUnknown, ruleMember, nil},

	{ruleJoinFirst, ruleJoin, nil},
	{ruleJoinSelf, ruleJoin, nil},
	{ruleJoinBanned, ruleJoin, nil},
	{ruleJoinInvited, ruleJoin, nil},
	{ruleJoinRestricted, ruleJoin, func(v *event.Version) bool { return v.RestrictedJoins }},
	{ruleJoinPublic, ruleJoin, nil},
	{ruleJoinOther, ruleJoin, nil},

	{ruleLevelsNumbers, ruleLevels, func(v *event.Version) bool { return v.IntegerLevels }},
	{ruleLevelsLists, ruleLevels, func(v *event.Version) bool { return v.IntegerLevels }},
	{ruleLevelsUsers, ruleLevels, nil},
	{ruleLevelsCreators, ruleLevels, func(v *event.Version) bool { return v.CreatorPower }},
	{ruleLevelsFirst, ruleLevels, nil},
	{ruleLevelsChanged, ruleLevels, nil},
	{ruleLevelsOldEntry, ruleLevels, nil},
	{ruleLevelsNewEntry, ruleLevels, nil},
	{ruleLevelsOldUser, ruleLevels, nil},
	{ruleLevelsNewUser, ruleLevels, nil},
}

// exists tells whether the version's page has the rule.
func (r rule) exists(v *event.Version) bool {
	i := slices.Index(rulesInOrder, r)
	return i >= 0 && (page[i].when == nil || page[i].when(v))
}

// number counts the rule's place, such as "5.3.2". A rule that the version does
// not have takes its parent's number: the part that it would have refined.
func (r rule) number(v *event.Version) string {
	parent := page[slices.Index(rulesInOrder, r)].parent
	if !r.exists(v) {
		return parent.number(v)
	}
	n := 0
	for _, p := range page {
		if p.parent == parent && p.rule.exists(v) {
			n++
		}
		if p.rule == r {
			break
		}
	}
	if parent == rulePage {
		return strconv.Itoa(n)
	}
	return parent.number(v) + "." + strconv.Itoa(n)
}

var rulesInOrder = func() []rule {
	var order []rule
	for _, p := range page {
		order = append(order, p.rule)
	}
	return order
}()
