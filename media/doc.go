// Package media is the content repository: what users upload, what other servers
// hold, thumbnails of it, and previews of links.
//
// A file has an mxc:// URI (Ref) and a row that says what it is; its bytes are in
// the depot of package storage under their hash, once, however many rows name it.
// Packages thumbnail and preview turn bytes into smaller pictures and pages into
// descriptions; they know neither database nor Matrix.
//
// Invariants:
//   - A row with a hash is written after the bytes are durable, while the depot holds
//     them for it; bytes are removed only when no row, thumbnail or upload needs them.
//   - What is quarantined, by its row or by its hash, is given to nobody, in no form:
//     every door looks the row up (find) before it looks at bytes. That outlives the
//     cache.
//   - A server name and a media id have passed their grammars before they are used.
//   - What is served carries a sandbox policy and nosniff, and is an attachment unless
//     its type is known to be harmless.
//   - Files of other servers are fetched for users only, once at a time, within the
//     size that is allowed.
//   - The type that somebody tells is passed on and never believed: thumbnails go by
//     the first bytes.
package media
