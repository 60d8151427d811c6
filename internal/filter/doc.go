// Package filter picks a room's events the way a RoomEventFilter asks for.
//
// Invariants: a list that is absent picks everything, an empty one nothing;
// what is excluded is excluded even if it is listed as wanted; matching costs
// time linear in the text for each piece of a pattern.
package filter
