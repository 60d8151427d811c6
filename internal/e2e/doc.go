// Package e2e holds the tests that run the real binary as a process and talk to
// it as clients do, over TCP. It has nothing but tests, in device a client with
// end-to-end encryption that they build and run, and in testdata/botsdk a bot for
// Node.js, whose test runs with the build tag botsdk only.
package e2e
