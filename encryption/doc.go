// Package encryption keeps what end-to-end encryption needs of a server: the
// public keys of devices, one-time and fallback keys, cross-signing keys with
// their signatures, key backups, dehydrated devices, and the messages that
// devices send to each other.
//
// # What holds
//
//   - No signature is stored that was not verified. A device's own signature on
//     its keys may be missing, as clients judge that by themselves; a wrong one is
//     refused.
//   - A one-time key is given out at most once, also when its device uploads it
//     again: claimed keys are remembered for a while.
//   - Rows are written for devices that exist at that moment, in the same
//     transaction; what is read is seen through the list of devices. So a device
//     that is gone is gone at once, whatever of its rows still has to be removed.
//   - Messages to a device are numbered by the stream in the order of delivery. A
//     client gets each one with the token that covers its position, and again if
//     it asks with the older token; what a token acknowledges is deleted.
//   - Of one sender at most quota messages for a device stand in its inbox. The
//     others wait their turn outside of it, so nobody's flood delays others.
//   - A change of a user's devices is a position of the stream. Whoever shares a
//     room with the user finds it in their next answer, whether they came before
//     or after it.
package encryption
