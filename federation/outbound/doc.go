// Package outbound sends events and EDUs to other servers.
//
// # How it works
//
// A destination is a server that we send to. It has a record in memory while
// there is something for it, while it cannot be reached, and for a while after.
// A commit appends the numbers of its outgoing events to the queues of their
// destinations. A destination that has something gets a transaction at a time:
// events first, then EDUs that are stored, then EDUs that live in memory.
//
// # Invariants
//
//   - No event is lost: a destination gets each that was committed while its
//     server was in the room, whatever crashes in between, unless it refuses that
//     very event while it takes an empty transaction. It may get one twice.
//   - A destination gets events in the order of their positions. After an outage
//     during which too many came together it gets the newest one of each room,
//     from which it finds the others.
//   - Whatever is in flight to a destination is answered before anything else
//     goes there.
//   - A message costs no write for each destination. One row, the head, says up to
//     where everybody has got everything; only who lags behind has a cursor.
//   - What was not delivered lies above the destination's cursor or, if it has
//     none, above the head, in every state of the database that a crash can leave.
//   - A destination that fails holds no events in memory, and delays no other.
//   - The id of a transaction is a hash of what it carries. The first attempt
//     after a failure carries the same as before; where EDUs from memory are
//     among it, the id is salted, as their content may repeat.
//
// # Locks
//
// Queues.mu guards all records and is held over no I/O. It is taken on the
// database's writer goroutine, and no other lock is taken while it is held.
package outbound
