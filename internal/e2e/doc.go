// Package e2e holds the tests that run the real binary as a process and talk to
// it as clients do, over TCP. It has nothing but tests, and in device a client with
// end-to-end encryption that they build and run.
package e2e
