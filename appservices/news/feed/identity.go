package feed

import "time"

// sameDate is how far apart two dates may be of what is one entry by its link.
const sameDate = 12 * time.Hour

// Known is what is kept of an entry to recognise it.
type Known struct {
	N         int64 // its number within the feed
	ID        string
	Link      string
	TitleHash string
	Print     string
	Published time.Time
	Hash      string
}

// Recognised is what is kept of an entry, without a number.
func (e *Entry) Recognised() Known {
	return Known{ID: e.ID, Link: e.Link, TitleHash: hash(e.Title), Print: e.print(), Published: e.Published, Hash: e.Hash}
}

// Match says which known entry each entry of a document is: the index of known, or -1
// for a new one, or -2 for a second copy within the document. The rules are those of
// the package's description.
func Match(known []Known, entries []Entry) []int {
	m := matcher{byID: map[string]int{}, byPrint: map[string]int{}, byLink: map[string]int{}, links: map[string]int{}, taken: map[int]bool{}}
	for i, k := range known { // of several the last, which is the newest, counts
		m.byID[k.ID] = i
		if k.Print != "" {
			m.byPrint[k.Print] = i
		}
		if k.Link != "" {
			m.byLink[k.Link+" "+k.TitleHash] = i
		}
	}
	result := make([]int, len(entries))
	seen := map[string]bool{}
	for i := range entries {
		e := &entries[i]
		m.links[e.Link]++
		result[i] = New
		if id, print := "id "+e.ID, "print "+e.print(); seen[id] || e.print() != "" && seen[print] {
			result[i] = Copy
		} else {
			seen[id], seen[print] = true, true
		}
		if at, ok := m.byID[e.ID]; ok && result[i] != Copy {
			result[i], m.taken[at] = at, true
		}
	}
	for i := range entries {
		if result[i] == New {
			result[i] = m.otherwise(known, &entries[i])
		}
	}
	return result
}

// What Match says beside indexes.
const (
	New  = -1
	Copy = -2
)

type matcher struct {
	byID, byPrint, byLink map[string]int
	links                 map[string]int // how many entries of the document have each
	taken                 map[int]bool   // known ones that an entry of the document is
}

// otherwise recognises an entry whose id is not known.
func (m *matcher) otherwise(known []Known, e *Entry) int {
	if at, ok := m.byPrint[e.print()]; ok && e.print() != "" {
		if m.taken[at] {
			return Copy
		}
		m.taken[at] = true
		return at
	}
	at, ok := m.byLink[e.Link+" "+hash(e.Title)]
	if !ok || e.Link == "" || m.links[e.Link] > 1 || m.taken[at] {
		return New
	}
	if a, b := known[at].Published, e.Published; !a.IsZero() && !b.IsZero() && a.Sub(b).Abs() >= sameDate {
		return New
	}
	m.taken[at] = true
	return at
}
