// Package content fetches files from other servers.
//
// Invariants:
//   - A file that was cut off is never taken for a whole one.
//   - What is no multipart answer as the specification has it is no file.
//   - A redirect leads through the shared dialer, over HTTPS, with caps; until its
//     file has come it counts as a request to the server that redirects.
//   - Nothing waits long for a first byte, or for the next one.
//   - A server that knows only the deprecated endpoints is asked there, without a
//     signature, and told not to ask on.
package content
