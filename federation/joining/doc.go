// Package joining lets users into rooms of other servers, and users of other
// servers into ours: joins, knocks, invitations, and leaving what one was only
// invited to. Both sides of each are here.
//
// Invariants:
//   - What this server signs is its own words. Of another server's template only
//     the place in the room's history is taken over, and who lets the user in; an
//     invitation is signed only as one of a user of ours by a user of the server
//     that sends it; a join is signed only if the user whom it names as the one who
//     lets in is ours, and the conditions are met.
//   - A server acts for its own users alone, in rooms that this server is in and
//     whose access list admits it; what the path says and what the body says is the
//     same.
//   - An answer to send_join is never held whole, be it given or taken: it is
//     written in chunks, and read event by event, signatures being checked while
//     more is read. Bounds on bytes, events and time apply, and few large ones are
//     under way at a time.
//   - A join that was begun is noted in the database before the other server hears
//     of it, and is tried again after a restart.
//   - Whoever asks on behalf of a client has an answer in bounded time, be the
//     others as slow as they may.
package joining
