// Package acl tells which servers a room lets in: its server ACL, the event
// m.room.server_acl in its current state.
//
// An ACL is about what other servers ask of us and send us, not about what we
// send them: events go out to every server with members in the room, which is to
// apply the ACL itself. Whoever serves a request of another server about a room,
// or takes an event or an ephemeral event of a room from one, asks Allows first.
//
// Invariants:
//   - Names are compared without their ports and in either case; a list that is
//     absent or malformed lets nobody in.
//   - A check costs a pass over the name, whatever the patterns are.
package acl
