// Package discovery answers the questions that clients and servers ask before
// anything else: which versions and features are served, what an account may
// do, and where the server is.
//
// It also answers for what a small server does not have (TURN, third-party
// networks, identity servers, mail), in the way that clients take as "not here"
// rather than as a failure.
//
// Invariants:
//   - A version or a feature is listed only if it is served.
//   - Nothing here reads the database.
package discovery
