// Package registration reads what an application service says of itself: its
// registration file. It also tells whom and what a service claims, and whether two
// claim the same.
//
// Invariants:
//   - A Registration that Parse returns is whole: every namespace compiles, every
//     field has a value that the rest of the server can use as it is.
//   - A namespace matches from the beginning of an identifier on, as bridges expect
//     that were written for other homeservers; it need not match to the end.
//   - Two registrations clash if there is an identifier that both claim for
//     themselves alone. That is decided for the expressions themselves, not for the
//     identifiers that are there today.
//
// spec: application-service#registration
package registration
