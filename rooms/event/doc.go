// Package event is the room event itself: canonical JSON, the scanner, hashes,
// signatures, redaction, the table of room versions, building and rendering.
//
// It is pure: functions from values to values, no clock, no network, no log.
//
// Invariants:
//   - An *Event never changes after Parse, Load or Build returned it, so it is
//     shared between goroutines without locks. Redact and Sign return new ones.
//   - Event.JSON is canonical JSON without "unsigned" (and, from room version 3
//     on, without "event_id"). Content and the package's inner spans are slices
//     of it and the string fields alias its bytes: nobody may write to JSON, nor
//     to the bytes given to Parse and Load, which the event may keep (a slice
//     of a larger buffer keeps all of that buffer alive).
//   - What differs between room versions is a field of Version; no code here or
//     elsewhere compares version numbers.
//   - The id of an event is a function of what redaction keeps of it, so neither
//     Redact nor Sign nor anything in "unsigned" changes it.
//   - Everything that walks JSON is iterative or bounded in depth (maxNesting).
package event
