// Package fetch asks other servers for events: single ones, the state of a room,
// its history, and what authorises an event.
//
// Invariants:
//   - Verify is the one place where signatures of events are checked, whatever
//     door they come in by. What is returned has passed it.
//   - What is returned is of the room that was asked about, and an event that was
//     asked for by its id has that id.
//   - An event that is malformed, of another room or wrongly signed is left out;
//     it spoils none of those that came with it.
//   - Every answer is bounded in bytes, in events and in time. Whoever asks
//     repeatedly does so within a budget (see WithBudget), which bounds all of it
//     together.
//   - Content hashes are not looked at: the engine redacts what does not match.
package fetch
