// Package syncapi tells clients what happened: /sync with its receipts, typing
// and presence, and the older ways to listen (/events, /initialSync).
//
// # How an answer comes about
//
// A request takes hold of its user's record in the notifier, registers as a
// waiter, reads the position up to which everything is recorded, and only then
// looks whether anything above its token concerns the user; if not, it sleeps.
// The record says which rooms changed, so that an idle request asks no
// database; the events come from the rooms' own memory of recent events. Only a
// client whose token is older than the record has the positions of all its
// rooms looked at.
//
// # Invariants
//
//   - What an answer shows ends at one position, its next_batch: whatever was
//     committed later is left to the next answer, in every section.
//   - A user's record knows every change above its floor that concerns the user.
//   - A waiter that registered before it looked cannot miss a wake-up.
//   - The notifier runs behind the room engine on the database's stream: views
//     and memberships are at least as new as the position that it shows.
//   - Of a room that the user is not joined to, nothing is shown that happened
//     after their own last member event.
//   - A message costs work for each client that is connected, none for members
//     who are not.
//   - What other servers say counts for their own users only, and in rooms that
//     these are in. Malformed EDUs have no effect.
//   - Other servers are told of public receipts only.
//   - Typing and presence live in memory. Tokens carry the epoch of the run that
//     they belong to; of another epoch everything current is told again.
//
// # Locks
//
// notifier.mu comes first; while it is held, typing.mu and presence.mu may be
// taken, and Room.IsLocalMember and LocalMembers called. receipts.mu, counts.mu,
// foreign.mu and lazyMembers.mu are taken alone. None is held over I/O.
package syncapi
