// Package profiles keeps what local users say about themselves: display name,
// avatar, time zone and any further field, by key.
//
// Invariants:
//   - A stored profile, written out as JSON, is at most MaxProfileBytes; a key
//     is at most MaxKeyBytes and fits the grammar.
//   - An empty display name or avatar is no display name or avatar: the field
//     is deleted.
//   - A changed display name or avatar is noted as owed to the user's rooms in
//     the same transaction. The debt is paid by Rooms.ProfileChanged before the
//     client is answered, and by Resume if the server stopped in between.
//   - What Get returned may be shared by others and must not be changed.
package profiles
