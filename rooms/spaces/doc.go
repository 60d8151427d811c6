// Package spaces shows what rooms are to those who may come to join them: the
// tree of a space's rooms, a single room's summary, and which rooms two users
// share.
//
// # Invariants
//
//   - A room that the caller is not in, could not join or knock at, and may not
//     read looks like one that does not exist.
//   - A room appears once in a tree, whatever circles its spaces form; a walk
//     looks at a bounded number of rooms.
//   - Of rooms that this server is not in, others are asked that are said to be in
//     them: a bounded number of questions for each request. What they say decides
//     about nothing but what is shown of the room that they were asked about.
package spaces
