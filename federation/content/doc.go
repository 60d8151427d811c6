// Package content carries files between servers: it asks others for theirs, and
// writes ours in the form that they expect.
//
// Invariants:
//   - A file that was cut off is never taken for a whole one.
//   - A redirect leads through the shared dialer, over HTTPS, with caps.
//   - A server that knows only the deprecated endpoints is asked there, without a
//     signature, and told not to ask on.
package content
