// Package feed fetches and reads what web sites publish: RSS, Atom and JSON Feed,
// and the lists of feeds that readers exchange (OPML).
//
// All of it was written by strangers. A document is fetched by a client that judges
// addresses, within a size and a time; it becomes a bounded number of entries of
// bounded length, whose text is plain and whose HTML is the subset that Matrix
// clients show.
//
// # Which entry is which
//
// Feeds promise an id for each entry and often do not keep it. So an entry of a new
// document is the same as a known one if, tried in this order,
//
//  1. the ids are the same; what a feed gives as id, else the link, else a hash of
//     title and text,
//  2. title, text and date are the same, under whatever id and link,
//  3. link and title are the same, the known id is gone from the document, no other
//     entry of the document has that link, and the dates, if both have one, are less
//     than half a day apart.
//
// The second rule keeps a site that moved, with new ids and links, from being
// published all over again; the third one a feed that makes up ids, or texts with
// the time in them, at each request. Half a day is twice the longest time between
// two fetches of a feed that works, so that dates made up at each request stay near,
// while a new "Weather of the day" under yesterday's link is new.
// What none of this recognises is new: an entry is rather posted twice than lost.
//
// # Invariants
//
//   - Match is a function of the known entries and the document; no two entries of a
//     document become the same known one.
//   - Nothing in an Entry is longer than the caps, and it holds neither NUL nor broken
//     UTF-8.
//   - HTML of an Entry is balanced, not deeply nested, and has no attributes but links
//     to the web and mail addresses.
package feed
