// Package matrix holds what the whole specification shares: identifiers, the
// error type with its codes, and the names of events and memberships.
//
// It is a leaf: it imports nothing of ours, no SQL, no HTTP client, no clock.
package matrix
