// Package keys knows by which keys servers sign: our own, which it publishes,
// and those of others, which it fetches, keeps and verifies signatures with.
//
// A Ring finds a key in memory, in the database, at the server itself, and at
// the configured notaries, in this order, for many servers at once.
//
// Invariants:
//   - A key is believed if the server itself told it over a connection whose
//     certificate was verified, or a configured notary did and signed for it; and
//     if the server's own signature stands on the answer.
//   - A published key counts until its valid_until_ts or for seven days after it
//     was fetched, whichever is less. An old key counts for what was signed
//     before its expired_ts. Room versions 1 to 4 look at neither.
//   - Of several signatures of one server, one by a key that counts suffices.
//   - A server is asked by one request at a time, however many wait for its keys;
//     one that fails is left alone for a while that doubles with each failure, one
//     that answers for a minute.
//   - Keys whose private half is public (specimens of the specification, points of
//     small order) are nobody's: they are refused for others and for ourselves.
//   - What strangers make us ask about is held in bounded memory; only servers
//     whose signatures we had to verify are kept in the database.
package keys
