package auth

import (
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// Key names a place in the state.
type Key struct{ Type, StateKey string }

// Needed selects the state that an event's auth_events are taken from: the
// event goes with whichever of these its room has.
// spec: server-server#auth-events-selection
func Needed(v *event.Version, typ string, stateKey *string, sender matrix.UserID, content []byte) []Key {
	var m *member
	if typ == matrix.TypeMember {
		m = parseMember(content)
	}
	return needed(v, typ, stateKey, sender, m)
}

// NeededBy is Needed for an event that exists; it reads the content only once.
func NeededBy(e *event.Event) []Key {
	var m *member
	if e.Type == matrix.TypeMember {
		m = memberOf(e)
	}
	return needed(e.Version, e.Type, e.StateKeyPtr(), e.Sender, m)
}

func needed(v *event.Version, typ string, stateKey *string, sender matrix.UserID, m *member) []Key {
	if typ == matrix.TypeCreate {
		return nil
	}
	keys := make([]Key, 0, 6)
	if !v.RoomIDHash {
		keys = append(keys, Key{matrix.TypeCreate, ""})
	}
	keys = append(keys, Key{matrix.TypePowerLevels, ""}, Key{matrix.TypeMember, string(sender)})
	if m == nil || stateKey == nil {
		return keys
	}
	if *stateKey != string(sender) {
		keys = append(keys, Key{matrix.TypeMember, *stateKey})
	}
	switch m.membership {
	case matrix.MembershipJoin, matrix.MembershipInvite, matrix.MembershipKnock:
		keys = append(keys, Key{matrix.TypeJoinRules, ""})
	}
	if m.membership == matrix.MembershipInvite && m.thirdParty && m.token != "" {
		keys = append(keys, Key{matrix.TypeThirdPartyInvite, m.token})
	}
	if m.membership == matrix.MembershipJoin && v.RestrictedJoins && m.authoriser != "" {
		if by := string(m.authoriser); by != string(sender) && by != *stateKey {
			keys = append(keys, Key{matrix.TypeMember, by})
		}
	}
	return keys
}
