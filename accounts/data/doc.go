// Package data keeps what users store on the server for themselves: account
// data (of the account and per room), room tags, filters, and the OpenID tokens
// with which they prove who they are to other services.
//
// Invariants:
//   - Every change of account data takes a position of the stream and publishes
//     Changed, so that /sync finds it by position and wakes for it.
//   - Account data is removed with its user only: the content {} stands for "none". A client
//     that catches up is told {}; one that starts afresh hears nothing of it.
//   - The tags of a room are its account data of type m.tag and nothing else.
//   - Types that the server manages are written by the server only, with Put.
//   - A filter's id names its content; a filter never changes.
//   - OpenID tokens are stored as hashes and expire.
package data
