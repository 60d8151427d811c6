// Package rooms is the room engine: it creates rooms, admits events, keeps state
// and history, and knows who is a member of what.
//
// # Invariants
//
//   - An event comes in by Append under its room's lock (local events), by Receive
//     (events of other servers), or by Backfill (older ones). All authorise before
//     they enqueue.
//   - Rejected and soft-failed are flags in the database. A rejected event is in
//     no snapshot, is no forward extremity and is never served. A soft-failed one
//     is no extremity either and gets no position; as the specification wants it,
//     the state after it counts once an accepted event builds on it.
//   - The current state is what the states after the forward extremities resolve
//     to. An event that builds on all of them continues the line of snapshots
//     that the room grows along (Resolved == Snapshot); any other forks it.
//   - nid(auth event) < nid(event): numbers are given out under the room's turn,
//     in the order in which events are built or admitted; outliers get theirs
//     after their auth events.
//   - A position is allotted inside the commit, so whoever has seen position P
//     has seen everything up to P.
//   - Backfill changes nothing of what a room is now: no head, view, membership
//     or count. Its events have positions below zero in the order of their depths,
//     in whatever order they come: each is below what builds on it.
//   - What the present state is made of, or was authorised by, is never rejected
//     on account of a state that others tell.
//   - A Room's head (what the next event builds on) runs ahead of its View (what
//     readers see): a View only ever shows what is committed.
//   - The members of other servers are counted by server in the commit that moves
//     the room's state. An event is outgoing if it was made here, or is to be
//     relayed, while other servers were in the room; each gets those of its stay.
//   - A room that nobody of this server is or was in is a shell: it has no state,
//     and nothing is received for it. Memberships that were told from outside are
//     kept apart from the events of rooms, which have what they rest on. Joining a
//     shell puts another *Room in its place.
//   - If a commit fails, the head is dropped with everything built on it, and
//     the room is loaded again.
//
// # Locks, in the order in which they may be taken
//
//	lock            guards                               held over
//	Room.intake     who brings in events of others       reads, resolution, commits
//	Room.turn       the head: extremities, state, nids   computation only; no I/O
//	keyTable.mu     the (type, state key) numbers        a map access
//	Room.mu         the committed view, ring, members    a copy of a pointer
//	Engine.mu       the table of loaded rooms            a map access
//	userCache.mu    memberships by user                  a map access
//	claims.mu       ids that are being brought in        a map access
//
// The database's writer goroutine takes Room.mu and userCache.mu when it
// publishes; it never takes Room.turn.
package rooms
