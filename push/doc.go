// Package push decides which events are worth a user's attention: the push
// rules, what they say about an event, what that makes of unread counts and of the
// list of notifications, and which push gateways are told.
//
// # How an event is counted
//
// The predefined rules look at the user in two ways only (is the user mentioned,
// is the user invited), so that one call of judge gives the verdict for all
// members of a room at once; its cost does not grow with the room. The room
// engine asks Counts when an event is built and gives it its place in a running
// count that everybody in the room shares.
//
// The follower then goes through all commits, one step behind, and writes down in
// the ledger where the shared count does not tell the truth: an event that stands
// out to somebody or everybody (highlightRow), one that was redacted (redacted),
// and for those who have rules of their own, or ignore somebody, where their own
// count bends away from the shared one (line). Who needs a count waits for the
// follower and takes the difference of two places: Judged.Between.
//
// # How a notification is delivered
//
// The follower offers an event to the pushers of those whom it notifies; delivery
// sends from queues by gateway, so that one that fails or hangs holds up nobody
// else's. Nothing is stored per notification: the checkpoint keeps up to where the
// follower came and from where each pusher has something to deliver, in one
// write; after a restart the rest is looked for among the events.
//
// # Invariants
//
//   - Matching is linear in the event's text, whatever the pattern, and what a
//     user may have matched is bounded (decode.go).
//   - Verdict.For agrees with evaluating the rules for that user alone.
//   - Nobody is notified of their own event, nor by anybody they ignore.
//   - A user's m.push_rules account data changes in the write that changes the
//     rules. What was sent before is counted by the rules that were in force then;
//     what somebody sent who was ignored later is no longer unread.
//   - A message writes a row only if it stands out, or bends the line of a user
//     with rules of their own; muting a room bends a line twice, however much is
//     said there.
//   - Going through an event a second time, after a crash, changes no count.
//   - An event that was committed is pushed at least once while the gateway works,
//     unless it was read, redacted, or is older than a day; of many that wait for a
//     pusher the newest are pushed. Failures are counted by gateway and survive
//     restarts.
//   - Gateways are reached through the program's one dialer, follow no redirects,
//     and may say little, and only for some seconds.
//   - Of lines nothing is kept that was read, but the last bend; of highlights what
//     is listed as notifications, or is unread for less than a year.
//
// # Locks
//
// Each is taken alone, but badge.counting, which is held over reads of the
// database and before badges.mu, and delivery.mu, which comes before pushers.mu.
// The database's writer takes books.mu only.
package push
