// Package testrig runs whole servers in a test: on an in-memory network, with an
// injected clock, on either database. When a server is closed the consistency
// of its database is checked.
package testrig
