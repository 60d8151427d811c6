package news

import (
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/news/feed"
)

const (
	// maxEdits is how often the messages of an entry are edited: some feeds have the
	// time, or a counter, in their texts.
	maxEdits = 5
	// forgetAfter is how long an entry is recognised after it was last in the document.
	forgetAfter = 180 * 24 * time.Hour
)

// merge puts the entries of a document beside those that are known and gives the number
// of the newest one.
func (n *News) merge(tx *kit.Tx, s source, f *feed.Feed, now time.Time) (int64, error) {
	known, err := kit.All(tx.Context(), tx, knownEntries, scanKnown, s.nid)
	if err != nil {
		return 0, err
	}
	// Numbers and times grow together, also if the clock was put back: what is found
	// until a time has lower numbers than what is found later.
	last, _, err := kit.One(tx.Context(), tx, lastFound, func(r kit.Scanner) (v int64, err error) {
		err = r.Scan(&v)
		return v, err
	}, s.nid)
	if err != nil {
		return 0, err
	}
	found := max(last, now.UnixMilli())
	newest := s.newest
	var present []int64
	match := feed.Match(known, f.Entries)
	for i := range slices.Backward(f.Entries) { // the newest comes first in a document, and last in a room
		e := &f.Entries[i]
		switch at := match[i]; {
		case at == feed.New:
			newest++
			err = n.add(tx, s, newest, e, found)
		case at >= 0 && known[at].Hash != e.Hash:
			err = n.change(tx, s, known[at], e, now)
		case at >= 0:
			present = append(present, known[at].N)
			if k := e.Recognised(); k.ID != known[at].ID || k.Print != known[at].Print {
				err = tx.Exec(renameEntry, s.nid, known[at].N, k.ID, k.Link, k.TitleHash, k.Print, millis(k.Published), k.Hash)
			}
		}
		if err != nil {
			return 0, err
		}
	}
	if err := tx.Exec(presentEntries, s.nid, now.UnixMilli(), present); err != nil {
		return 0, err
	}
	return newest, tx.Exec(pruneEntries, s.nid, now.Add(-forgetAfter).UnixMilli())
}

func scanKnown(r kit.Scanner) (k feed.Known, err error) {
	var published int64
	err = r.Scan(&k.N, &k.ID, &k.Link, &k.TitleHash, &k.Print, &published, &k.Hash)
	if published != 0 {
		k.Published = time.UnixMilli(published)
	}
	return k, err
}

// millis is a date that may be missing.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// add stores a new entry. What is there at the first look is sent to nobody, so its
// text is not needed.
func (n *News) add(tx *kit.Tx, s source, number int64, e *feed.Entry, found int64) error {
	k, text, markup := e.Recognised(), e.Text, e.HTML
	if !s.fetched {
		text, markup = "", ""
	}
	return tx.Exec(addEntry, s.nid, number, k.ID, k.Link, k.TitleHash, k.Print, millis(k.Published), k.Hash, found,
		e.Title, e.Author, markup, text)
}

// change stores what a known entry became and edits the messages that show it.
func (n *News) change(tx *kit.Tx, s source, was feed.Known, e *feed.Entry, now time.Time) error {
	edits, _, err := kit.One(tx.Context(), tx, entryEdits, func(r kit.Scanner) (v int, err error) {
		err = r.Scan(&v)
		return v, err
	}, s.nid, was.N)
	if err != nil {
		return err
	}
	k := e.Recognised()
	if err := tx.Exec(changeEntry, s.nid, was.N, k.ID, k.Link, k.TitleHash, k.Print, millis(k.Published), k.Hash, now.UnixMilli(),
		e.Title, e.Author, e.HTML, e.Text); err != nil || edits >= maxEdits {
		return err
	}
	refs, err := kit.All(tx.Context(), tx, postsOfEntry, func(r kit.Scanner) (v int64, err error) {
		err = r.Scan(&v)
		return v, err
	}, s.nid, was.N)
	if err != nil {
		return err
	}
	shown := entry{from: s.title, address: s.url, link: e.Link, title: e.Title, author: e.Author, html: e.HTML, text: e.Text}
	for _, ref := range refs {
		tx.Edit(kit.Ref(ref), shown.message())
	}
	return nil
}
