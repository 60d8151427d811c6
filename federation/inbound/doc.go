// Package inbound takes what other servers send: transactions of events and of
// ephemeral data.
//
// A transaction is authenticated, its events are staged in the database, and it
// is answered. Then, room by room, signatures are verified, what is missing is
// fetched, and the events are given to the engine in order.
//
// # Invariants
//
//   - A transaction is answered with 200 after its events are durable, staged or
//     known before, and its EDUs were handled. The answer is remembered, so that
//     the same transaction is answered alike, after a restart too.
//   - A staged event leaves the database after the engine has committed what
//     became of it, or when it is given up, which is told in the log. The engine
//     knows events that come twice.
//   - No bad event fails its neighbours: each is refused, dropped, set aside or
//     given up by itself, with those that build on it.
//   - Every event is given to the engine after all that it refers to and that is
//     staged; gaps are filled before what is newer is brought in, so that positions
//     in the timeline are in order.
//   - An event for which something cannot be had waits, with a delay that doubles,
//     and holds up only what builds on it.
//   - Of what others can make grow without end, there are limits: rows by origin
//     and in all, what one gap may cost, how much work for one origin and in one
//     room is done at the same time. In memory is of each staged event only what
//     orders it; its text stays in the database.
//
// # Locks
//
// Inbound.mu guards the queues and nothing is waited for under it; fair.mu is
// taken inside of it.
package inbound
