// Package resolve merges the states of a room's branches into one: the state
// resolution algorithms v1, v2 and v2.1.
//
// It works on numbers and small records. State maps that share chunks are
// compared by state.Diff, so the cost grows with the conflict and not with the
// room. package spec beside it is the literal transcription of the algorithms
// that the tests compare with.
//
// Invariants:
//   - The result depends on the set of input states only, neither on their order
//     nor on how numbers were given out.
//   - An event that was rejected is never put into the result. Keys on which all
//     inputs agree are passed through unseen: the caller never lets a rejected
//     event into a snapshot.
//   - Every auth event has a smaller number than the event that names it. Walks
//     go from larger to smaller numbers, so they visit an event once, after all
//     events that lead to it; a record that breaks the order is an error, so a
//     cycle ends a walk instead of feeding it. Nothing recurs.
//
// Where the text of v2 says "events in the auth chain of P which also belong to
// the full conflicted set", the walk stays inside that set, and the order is that
// of the graph which the set itself forms. That is how the deployed servers read
// it, and with v2.1, whose set contains the paths between its events, the two
// readings are the same.
package resolve
