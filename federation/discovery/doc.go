// Package discovery finds where a server is reached from its name: the address
// to connect to, the name that its certificate must bear, and the Host header.
//
// Invariants:
//   - The certificate's name is the server's own or the one that its .well-known
//     document, fetched over verified HTTPS, delegates to; never one that came
//     from DNS.
//   - A .well-known document is read for a bounded time and to a bounded size,
//     over HTTPS throughout. A bad one is as good as none.
//   - Results, failures among them, are remembered in bounded memory for a bounded
//     time. A delegation that cannot be fetched anew stays in force for as long as
//     it could have been remembered at most, since a broken web server should not
//     send us to another host.
package discovery
