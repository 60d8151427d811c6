// Package preview looks at the pages that messages link to and says what they are
// about: by OpenGraph, Twitter's tags, plain HTML, and oEmbed.
//
// Invariants:
//   - Every request goes through the client that was given, whose dialer judges
//     addresses, and to hosts that the lists allow, redirects included.
//   - A page is read as a stream of tokens, never as a tree, up to a number of bytes
//     and tokens: how deep it is nested does not matter.
//   - Nothing that a page says is longer or more than the caps, and all of it is text.
package preview
