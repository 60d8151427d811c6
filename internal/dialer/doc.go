// Package dialer opens every outbound connection of the program: to other
// servers, push gateways, previewed pages and payment providers.
//
// A name that a stranger chose may lead anywhere, so the address is judged after
// it was resolved, and the connection goes to the very address that was judged:
// a second look-up with another answer cannot come between. A redirect dials
// anew and is judged anew. What is not plainly part of the public internet is
// refused: loopback, private and shared networks, link-local addresses with the
// metadata services of clouds, multicast, reserved and documentation ranges, and
// IPv6 forms that carry an IPv4 address inside.
//
// Invariants:
//   - No connection is made to an address that Check refuses.
//   - Proxies of the environment are not used: they would dial in our place.
//   - Clients made here end a request after a time and a body after a size; the
//     size counts bytes after decompression.
//
// The look-up and the dialling are parameters, so that tests run on a network
// in memory; the judgement stays the same.
package dialer
