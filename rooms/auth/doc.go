// Package auth decides whether an event is allowed in a room: the authorisation
// rules of every room version, as the room version pages number them.
//
// It is pure: Check is a function of one event and of the state that it is
// judged against. The same function serves all three judgements of an incoming
// event (its own auth events, the state before it, the current state) and state
// resolution.
//
// Invariants:
//   - A rejection names the version and the number of the broken rule. Numbers
//     are counted as the pages count them (see rules.go), so a rule that one
//     version inserts moves those behind it.
//   - What differs between versions is asked of event.Version, never of its name.
//   - Content that decides something is parsed once per event and kept in the
//     event's memo. The memo of create, member, power level and join rule events
//     belongs to this package.
//   - Two checks need what a pure function does not have and are the caller's:
//     the signatures of the sender's server and, where restricted joins exist,
//     of the authorising user's server (event.Signers names both).
package auth
