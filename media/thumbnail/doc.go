// Package thumbnail makes small pictures of large ones. It takes JPEG, PNG, GIF and
// WebP, told apart by their first bytes, and gives JPEG, PNG or animated GIF.
//
// Invariants:
//   - Nothing is decoded before its size is known and within the limits: pixels, and
//     for animations frames and the pixels of all frames.
//   - Whatever the bytes are, the result is a picture or an error, after bounded time
//     and memory.
//   - A result is never larger than its source, and covers what was asked for unless
//     the source does not.
//   - Pictures come out upright, and without the notes that cameras leave in them.
package thumbnail
