// Package history serves what is in rooms to clients that read back: events,
// their context and relations, threads, state and members.
//
// # Invariants
//
//   - Nothing leaves that the room's history visibility hides from the reader.
//     Whoever was never a member reads only what anyone may; whoever left reads
//     what there was until then, state and members included.
//   - Rooms that the reader may not see and rooms that do not exist look alike.
//   - A page costs a bounded amount of work, however much of the history is
//     hidden or filtered out: it may come back short or empty, with a token to go
//     on from. Following tokens always ends.
//   - Tokens are places between two events; walking pages of any size passes each
//     event once, in both directions.
package history
