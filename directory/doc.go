// Package directory finds rooms and people: aliases, the published rooms, and
// the user directory.
//
// # Invariants
//
//   - An alias belongs to one room at a time. It is taken, given up and moved in
//     the commit of what causes it.
//   - Only aliases of this server are kept; for those of others their servers are
//     asked each time.
//   - People are shown to those only who can meet them: in a room that both are
//     in, or in a published one.
package directory
