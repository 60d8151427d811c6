// Package transport carries signed requests between servers: a Client that asks
// others, and an Authenticator that tells who asks us.
//
// Invariants:
//   - A request goes only to a server that the policy allows and whose
//     certificate was verified against the name that package discovery found.
//   - What is signed is the request line as it is sent, with the names of both
//     servers before any delegation. A request without destination, or for another
//     server, is nobody's.
//   - The signature is verified over the whole body before a handler sees it, by a
//     key that the origin publishes now.
//   - Answers are bounded in bytes, after decompression too, in the ratio of
//     decompression and in time; a body that stalls is given up. Redirects are not
//     followed.
//   - One destination can hold a bounded number of our requests; waiting for it
//     delays no other.
//   - An error of another server is never taken for one of ours: RemoteError does
//     not unwrap to *matrix.Error.
package transport
