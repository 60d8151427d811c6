// Package appservices is the application service protocol: bots and bridges plug in
// by a registration, act as the users they claim, and are sent what concerns them.
//
// # How events get to a service
//
// A follower goes through all commits in their order, one step behind, and notes for
// each service which events it has to get. A courier for each service makes
// transactions of them, stores each before it is sent, and sends one at a time until
// the service takes it.
//
// Beside events there is what happens in memory or is kept elsewhere: typing,
// presence, receipts, messages to devices, device lists and keys. A watcher notices
// it and tells the couriers of the services concerned where to look (news). What is
// then put into the next transaction is how things stand at that moment, so that of
// what happens often only the newest is sent, and nothing grows while a service is
// away.
//
// # Invariants
//
//   - Whether a service is interested in an event is decided by the room as it was
//     just after the event, also if that is looked at much later.
//   - That an event is noted, and how far the follower is, are stored in one step:
//     each event is noted once for a service, whatever crashes.
//   - A transaction is stored before it is first sent. Its text and its id never
//     change, and no id is used twice, not even by a service that was removed and
//     came back.
//   - A service gets its events in the order of their positions, each at least once;
//     whoever stores the ids of transactions, or of events, gets each once.
//   - What a service does not take waits for it, however long. Only an event that a
//     service refuses by itself while it takes an empty transaction is put aside, as
//     a dead letter, so that what is behind it goes on.
//   - What comes beside events never decides when, or in which order, these are sent;
//     if a service refuses it, it is parted from them.
//   - Receipts and changes of device lists are given from a position on that is
//     stored with the transaction that has them (beside); messages to devices leave
//     their inboxes in the write that stores the transaction. So neither is lost.
//   - Messages to a device are for the service only if its user is the service's
//     alone. Private receipts are told of its own users only.
//   - A service gets nothing of what happened before it was registered.
//   - Look-ups at a service never wait behind its transactions.
//   - Errors and logs never show a token.
//
// # Locks
//
// Services.registering is held over reads and writes of the database, and taken
// before any other. Services.mu guards the table of couriers, courier.mu what one is
// about to do; neither is held over I/O.
package appservices
