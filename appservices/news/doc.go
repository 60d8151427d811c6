// Package news is a service that people follow feeds with: @news in a direct chat, or
// in a room, where entries arrive as they are published.
//
// A feed is fetched once for all rooms that follow it. What is new in it gets the
// feed's next number; a room has a cursor for each feed that it follows, and is owed
// the entries above it. Sending them, as messages of their own or as a list, and
// moving the cursor happen in one transaction.
//
// # Invariants
//
//   - An entry is stored once, and its feed fetched once, however many rooms follow it.
//   - An entry counts as seen for a room only when its message is in the outbox, in the
//     same transaction; so it is neither lost nor sent twice, whatever crashes.
//   - What a room refuses, because the service may not speak there, is kept and sent when
//     it may; nothing else is sent there meanwhile. What is refused again and again though
//     it may speak is given up.
//   - What a feed had before a room followed it is not sent there.
//   - Entries above the number that a room is sent one by one come as a list: a feed that
//     publishes everything anew is one message, not hundreds.
//   - A command that changes a room is obeyed if its sender may change the room's state,
//     or if it came in a direct chat. It waits in the database, as a job, until that is
//     known and the web was asked, and its effect and its answer are one transaction.
//   - A message that shows an entry is edited when the entry changes, at most a few
//     times and not after a month. Lists are not.
//   - People are told of failures in fixed words, which tell nothing of the inner network.
//   - Feeds are fetched by the kit's client, which judges addresses; those of one host a
//     few at a time, with pauses (lanes).
package news
