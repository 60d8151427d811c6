// Package state holds room state as values: which event stands at each pair of
// type and state key, both as numbers.
//
// A Map is persistent: Set and Apply give a new version that shares all but the
// touched chunks with the old one, and Diff skips what two versions share. It
// may be read by any number of goroutines.
//
// A snapshot is stored as a Layer: what it changes over its parent snapshot. A
// Chain decides how much of the parent chain a new layer takes over, so that
// the layers of one snapshot stay few and all layers of a room stay small.
//
// Invariants:
//   - a chunk never changes once a Map that holds it has been returned;
//   - the chunks of a Map are sorted, never empty, and hold at most maxChunk
//     entries; no entry has event 0;
//   - a stored layer never changes: snapshots that build on it need it as it is.
package state
