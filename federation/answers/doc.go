// Package answers is what other servers may read of this one: events, the state
// and the history of rooms, what spaces are made of, and what is found in the
// directory and in profiles.
//
// Invariants:
//   - Of a room, only servers that have members in it are told, and only as long
//     as its server ACL lets them in. To others it looks like one that is not
//     there, save for what a space or the public directory shows to those who
//     could join.
//   - An event that a server may not see is redacted where others rest on it, so
//     that the graph of events stays connected, and not served where none does.
//     Rejected and soft-failed events are never served.
//   - An answer costs what its limits say: lists are capped in events and bytes,
//     and a state, however large, is read while it is written. A server can have
//     but a few of the expensive answers made at a time.
package answers
