// Package storage keeps bytes by what they are: each file under the SHA-256 of
// its content, in a folder or on an S3 server. It knows nothing of Matrix.
//
// Invariants:
//   - What a Store has under a hash is whole and on the disk: bytes are received
//     into a temporary file, and only a complete, synced one gets the name.
//   - The same bytes are there once.
//   - Reading and writing take the memory of a buffer, however large the file is.
//   - Names of files are hashes that were checked, below one os.Root: nothing that a
//     client says becomes part of a path.
//   - Whoever received something hands it to Keep or discards it; what a crash left
//     behind is removed at the next start.
package storage
