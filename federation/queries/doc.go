// Package queries asks other servers, on behalf of our clients, for what only
// they know: where an alias leads, which rooms they have published, what their
// users say of themselves, what rooms that none of our users is in are like.
//
// Invariants:
//   - Nothing is taken from an answer but what was asked for, and of that only
//     what has the form that the specification gives it.
//   - A question that many ask is asked once; answers, and that there was none,
//     are remembered for a short time in bounded memory.
//   - Errors are fit for clients: refusals of the other server are passed on,
//     other failures are a 502.
package queries
