// Package spec is state resolution word for word: on maps from (type, state key)
// to event id, with sets where the text has sets, and no thought of speed. Tests
// compare the resolver of package resolve with it; nothing else imports it.
//
// It takes two liberties, both in resolve's doc.go too: rejected events are never
// applied, and the auth chain of a power event is followed inside the full
// conflicted set.
package spec
