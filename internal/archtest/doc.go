// Package archtest keeps the house in order: its tests read every Go file of
// the module and check who imports whom, what the pure packages stay away from,
// and the form of what must have one.
//
// A rule is a function over one parsed file, so each is tested on small sources
// that break it, beside the test that runs all of them on the module. A new
// feature is added to the list of features; everything else follows from the
// folder that a file lies in.
package archtest
