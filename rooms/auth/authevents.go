package auth

import (
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// CheckAuthEvents judges the list of an event's auth events: auth holds them, in
// the order of e.AuthEvents, rejected tells of each whether it was rejected
// itself. It returns nil or a *Rejection. Whether the list allows the event is
// then Check's to say.
// spec: rooms/v12#authorisation-rules
func CheckAuthEvents(e *event.Event, auth []*event.Event, rejected func(matrix.EventID) bool) error {
	v := e.Version
	for i, id := range e.AuthEvents {
		if slices.Contains(e.AuthEvents[:i], id) {
			return reject(v, ruleAuthDuplicate, "", "%s is listed twice", id)
		}
	}
	for i, a := range auth {
		for _, b := range auth[:i] {
			if a.IsState() && b.Is(a.Type, a.StateKey()) {
				return reject(v, ruleAuthDuplicate, "", "%s and %s are both the %s of %q", b.ID, a.ID, a.Type, a.StateKey())
			}
		}
	}
	// A create event is judged without auth events, so it may name none.
	selected := NeededBy(e)
	for _, a := range auth {
		if !a.IsState() || !slices.Contains(selected, Key{a.Type, a.StateKey()}) {
			return reject(v, ruleAuthSelected, "", "%s (%s %q) is none of the events that authorise a %s", a.ID, a.Type, a.StateKey(), e.Type)
		}
	}
	for _, a := range auth {
		if rejected(a.ID) {
			return reject(v, ruleAuthRejected, "", "%s was rejected", a.ID)
		}
	}
	if e.Type != matrix.TypeCreate && !v.RoomIDHash &&
		!slices.ContainsFunc(auth, func(a *event.Event) bool { return a.Is(matrix.TypeCreate, "") }) {
		return reject(v, ruleAuthCreate, "", "there is no create event among them")
	}
	for _, a := range auth {
		if a.RoomID != e.RoomID {
			return reject(v, ruleAuthRoom, "", "%s is of room %s", a.ID, a.RoomID)
		}
	}
	return nil
}
