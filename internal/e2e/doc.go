// Package e2e holds the tests that run the real binary as a process and talk to
// it as clients do, over TCP. It has nothing but tests.
package e2e
