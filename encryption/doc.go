// Package encryption keeps what end-to-end encryption needs of a server: the
// public keys of devices, one-time and fallback keys, cross-signing keys with
// their signatures, key backups, dehydrated devices, and the messages that
// devices send to each other.
//
// # What holds
//
//   - No signature of a local user is stored that was not verified. A device's own
//     signature on its keys may be missing, as clients judge that by themselves; a
//     wrong one is refused.
//   - A one-time key is given out at most once, also when its device uploads it
//     again: claimed keys are remembered for a while.
//   - Rows are written for devices that exist at that moment, in the same
//     transaction; what is read is seen through the list of devices. So a device
//     that is gone is gone at once, whatever of its rows still has to be removed.
//   - Messages to a device are numbered by the stream in the order of delivery. A
//     client gets each one with the token that covers its position, and again if
//     it asks with the older token; what a token acknowledges is deleted.
//   - Of one sender at most quota messages for a device stand in its inbox. The
//     others wait their turn outside of it, so nobody's flood delays others. The
//     first few requests a day of a local user come on top. Users of other servers
//     whom nobody here shares a room with share one quota for each server.
//   - A change of a user's devices is a position of the stream. Whoever shares a
//     room with the user finds it in their next answer, whether they came before
//     or after it.
//
// # Other servers
//
//   - A change of a local user's devices gets its place in the stream that other
//     servers follow in the write that makes it (note). The announcer turns the
//     newest change of each device into EDUs for the servers that share a room with
//     the user, in one write with the note of what each was told (told_servers). So
//     neither a crash nor a burst of changes loses or multiplies anything.
//   - Who asked for a list is told of its changes as if it had been sent. A server
//     that shares no room with the user, or does not do so yet as far as this one
//     knows, is told once it does (behind, asking_servers).
//   - The list of another server's user counts if its server told of every change
//     since it was asked for: if every update that came follows upon the one before
//     (else the list is stale), and if the user shared rooms with local users
//     without a break (else it is forgotten). Where that is in doubt the list does
//     not count until it was looked into.
//   - Other servers' lists are asked for when somebody here asks for them, and kept
//     from then on; who is not asked about costs nothing but the notices of changes.
//   - An answer is stored only if nothing was heard of the user since it was asked
//     for. Stale lists are asked for again in the background, until they are had.
//   - What another server says is stored in the form in which clients get it: no
//     keys that could not be parsed, no signatures but the owner's.
package encryption
