// Package admin is for those who run the server: what users report to them, and
// what the server knows about its users.
//
// Invariants:
//   - The answer to a report does not tell whether a room or a user exists, and
//     the answer about an event is the same whether it does not exist or may
//     not be seen.
//   - Reports are kept until an administrator removes them.
package admin
