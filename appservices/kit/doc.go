// Package kit is what services are written with: bots that people talk to in rooms,
// over the public APIs of any homeserver.
//
// A service opens its database, adds handlers, and runs:
//
//	s, err := kit.Open(ctx, kit.Config{ ... })
//	s.On(event.EventMessage, func(tx *kit.Tx, ev *kit.Event) error {
//		tx.Reply(ev, "You said: "+ev.Text())
//		return nil
//	})
//	err = s.Run(ctx)
//
// # What holds
//
//   - The homeserver gets its answer when all events of a transaction are in the
//     inbox, on disk. An event is known by its event id, never by a transaction id.
//   - Each event is handled once: what its handlers write, what they send, and the
//     note that it is done are committed together. Events of a room are handled in
//     the order in which they came, those of different rooms side by side.
//   - What is sent goes through the outbox. Its transaction id is the number of its
//     row, so a homeserver that keeps to the specification makes one event of it,
//     however often it is sent. What goes to a room arrives in the order in which it
//     was sent.
//   - Events of rooms that the service's user is in, and invitations of it, are found
//     by the service if the homeserver does not tell of them: in the rooms' history and
//     in /sync. The service speaks as this one user only.
//   - An event that cannot be handled is set aside after three retries; it holds up
//     its room for two minutes, and others never.
//   - Tokens are compared in constant time, and appear in no log or error.
//
// One process works on a database at a time; another that tries the same does no
// harm, but the order within a room is lost.
//
// # Locks
//
// lanes.mu guards the table of what is being done; nothing else is taken while it is
// held, and there is no I/O under it. It is taken on the database's writer, when a
// commit wakes a lane.
package kit
