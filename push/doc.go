// Package push decides which events are worth a user's attention: the push
// rules, and what they say about an event.
//
// The predefined rules look at the user in two ways only (is the user mentioned,
// is the user invited), so that one call of judge gives the verdict for all members
// of a room at once; its cost does not grow with the room.
//
// Invariants:
//   - Matching is linear in the event's text, whatever the pattern, and what a
//     user may have matched is bounded (decode.go).
//   - Verdict.For agrees with evaluating the rules for that user alone.
//   - Nobody is notified of their own event.
//   - A user's m.push_rules account data changes in the write that changes the
//     rules.
package push
