// Package federation holds what lets this server talk to others, each part in a
// folder of its own:
//
//   - keys, discovery, transport: who others are, where they are, and signed
//     requests to and from them; checkup tells operators what is wrong with that
//   - joining: becoming a member of a room of another server, and letting others
//     into ours
//   - inbound: what others send; outbound: what we send, and when
//   - fetch, gather, past: asking for events, for the state that they rest on, and
//     for history from before this server came
//   - answers: what others may read of us; queries: what our users ask of others
//   - acl, policy: whom a room keeps out, and who judges its events
//
// # What holds
//
//   - Every event, by whichever door it comes, has its signatures checked in one
//     place (fetch.Client.Verify, keys.Ring) before the room engine judges it.
//   - No network call happens under a room's lock.
//   - What must not be lost (events, messages to devices, device lists) is in the
//     database before it is acknowledged, and leaves it after it was taken.
//   - Whatever another server does, what it can make us keep, ask and compute is
//     bounded, and holds up nobody else.
package federation
