package push

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// highlightKind says how an event stands out to a user.
type highlightKind int

const (
	plainTo  highlightKind = iota // it does not, though it does to everybody else
	standsTo                      // it does
	addsTo                        // it does, and notifies the user though it does not notify everybody
)

// highlightRow is an event that stands out to a user, or to everybody in the
// room if user is "".
type highlightRow struct {
	user     matrix.UserID
	room     rooms.RoomNID
	position int64
	event    state.EventNID
	thread   matrix.EventID
	sender   matrix.UserID
	kind     highlightKind
	ts       int64 // of the event; not read back
}

// redacted is an event that lost its content after it was counted.
type redacted struct {
	position int64
	thread   matrix.EventID
	common   int64 // shared running count, the event included
	counted  bool  // is in it
}

// roomNotes is what was found about the events of a room for all its members.
type roomNotes struct {
	loaded   bool
	all      []highlightRow // that stand out to everybody, by position
	redacted []redacted     // by position
	gone     map[int64]struct{}
}

// userNotes is what was found about events for one user.
type userNotes struct {
	loaded     bool
	highlights map[rooms.RoomNID][]highlightRow // unseen, by position
	lines      map[rooms.RoomNID]map[matrix.EventID]line
	gone       map[rooms.RoomNID]map[int64]struct{} // redacted while this was being loaded
}

// What is kept in memory; what goes beyond is dropped as a whole.
const (
	roomNotesKept = 20_000
	userNotesKept = 10_000
)

// ledger keeps what the shared running counts do not say: which events stand out
// to whom, how the counts of users with rules of their own go, and which events
// were redacted. It is written by the follower alone, to the database and to
// what is in memory; whoever reads waits until what was written before is there.
type ledger struct {
	db *db.DB

	mu    sync.Mutex
	last  *db.Pending // the newest write
	rooms map[rooms.RoomNID]*roomNotes
	users map[matrix.UserID]*userNotes
}

func newLedger(d *db.DB) *ledger {
	return &ledger{db: d, rooms: map[rooms.RoomNID]*roomNotes{}, users: map[matrix.UserID]*userNotes{}}
}

// write submits what is to be stored. Its order is the order of the calls.
func (l *ledger) write(op func(tx *db.Tx) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = l.db.Submit(op)
}

// settle waits until what was written before is in the database.
func (l *ledger) settle(ctx context.Context) error {
	l.mu.Lock()
	last := l.last
	l.mu.Unlock()
	if last == nil {
		return nil
	}
	return last.Wait(ctx)
}

// found is what one event, or one redaction, adds to the ledger.
type found struct {
	highlights []highlightRow
	bends      map[matrix.UserID]bend
	room       rooms.RoomNID
	thread     matrix.EventID // of the bends
	redacted   *redacted
}

func (f *found) empty() bool { return len(f.highlights) == 0 && len(f.bends) == 0 && f.redacted == nil }

// add takes over what was found.
func (l *ledger) add(f *found) {
	if f.empty() {
		return
	}
	l.mu.Lock()
	for _, h := range f.highlights {
		if h.user == "" {
			if n := l.rooms[h.room]; n != nil {
				n.all = withHighlight(n.all, h)
			}
		} else if n := l.users[h.user]; n != nil {
			n.highlights[h.room] = withHighlight(n.highlights[h.room], h)
		}
	}
	for u, b := range f.bends {
		if n := l.users[u]; n != nil {
			n.bend(f.room, f.thread, b)
		}
	}
	if f.redacted != nil {
		l.redact(f.room, *f.redacted)
	}
	l.mu.Unlock()
	l.write(f.store)
}

// redact takes an event out of what is in memory; l.mu is held.
func (l *ledger) redact(room rooms.RoomNID, r redacted) {
	here := func(h highlightRow) bool { return h.position == r.position }
	if n := l.rooms[room]; n != nil {
		n.all = slices.DeleteFunc(slices.Clone(n.all), here)
		if !slices.ContainsFunc(n.redacted, func(old redacted) bool { return old.position == r.position }) {
			n.redacted = append(slices.Clone(n.redacted), r)
			slices.SortFunc(n.redacted, func(a, b redacted) int { return int(a.position - b.position) })
		}
		if !n.loaded {
			n.gone[r.position] = struct{}{}
		}
	}
	for _, n := range l.users {
		if list, ok := n.highlights[room]; ok {
			n.highlights[room] = slices.DeleteFunc(slices.Clone(list), here)
		}
		if !n.loaded {
			if n.gone[room] == nil {
				n.gone[room] = map[int64]struct{}{}
			}
			n.gone[room][r.position] = struct{}{}
		}
	}
}

func (f *found) store(tx *db.Tx) error {
	for _, h := range f.highlights {
		if err := tx.Exec(insertHighlight, h.user, h.room, h.position, h.event, h.thread, h.sender, int(h.kind), h.ts); err != nil {
			return err
		}
	}
	for u, b := range f.bends {
		if err := tx.Exec(insertBend, u, f.room, f.thread, b.position, b.common, b.own, b.follows); err != nil {
			return err
		}
	}
	if r := f.redacted; r != nil {
		if err := tx.Exec(deleteHighlights, f.room, r.position); err != nil {
			return err
		}
		return tx.Exec(insertRedacted, f.room, r.position, r.thread, r.common, r.counted)
	}
	return nil
}

// seen takes note that a user has read a thread of a room, or with every all of
// its threads, up to a position.
func (l *ledger) seen(user matrix.UserID, room rooms.RoomNID, every bool, thread matrix.EventID, position int64) {
	l.mu.Lock()
	n := l.users[user]
	if n != nil {
		read := func(h highlightRow) bool { return h.position <= position && (every || h.thread == thread) }
		if list, ok := n.highlights[room]; ok {
			n.highlights[room] = slices.DeleteFunc(slices.Clone(list), read)
		}
	}
	l.mu.Unlock()
	l.write(func(tx *db.Tx) error {
		if every {
			return tx.Exec(seeHighlights, user, room, position)
		}
		return tx.Exec(seeThread, user, room, position, thread)
	})
}

// room and user make the entry of what is about to be loaded, so that whatever is
// found from then on is in it.
func (l *ledger) room(nid rooms.RoomNID) (*roomNotes, bool) {
	n := l.rooms[nid]
	if n == nil {
		if len(l.rooms) >= roomNotesKept {
			clear(l.rooms)
		}
		n = &roomNotes{gone: map[int64]struct{}{}}
		l.rooms[nid] = n
	}
	return n, n.loaded
}

func (l *ledger) user(u matrix.UserID) (*userNotes, bool) {
	n := l.users[u]
	if n == nil {
		if len(l.users) >= userNotesKept {
			clear(l.users)
		}
		n = &userNotes{
			highlights: map[rooms.RoomNID][]highlightRow{}, lines: map[rooms.RoomNID]map[matrix.EventID]line{}, gone: map[rooms.RoomNID]map[int64]struct{}{},
		}
		l.users[u] = n
	}
	return n, n.loaded
}

// of returns what is known beyond the running counts for a user in rooms.
func (l *ledger) of(ctx context.Context, user matrix.UserID, in []rooms.RoomNID) (map[rooms.RoomNID]*Judged, error) {
	if err := l.loadRooms(ctx, in); err != nil {
		return nil, err
	}
	if err := l.loadUser(ctx, user); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	own, _ := l.user(user)
	all := make(map[rooms.RoomNID]*Judged, len(in))
	for _, nid := range in {
		n, _ := l.room(nid)
		j := &Judged{user: user, own: own.highlights[nid], all: n.all, redacted: n.redacted}
		if lines := own.lines[nid]; len(lines) > 0 {
			j.lines = maps.Clone(lines)
		}
		all[nid] = j
	}
	return all, nil
}

func (l *ledger) loadRooms(ctx context.Context, in []rooms.RoomNID) error {
	var cold []rooms.RoomNID
	l.mu.Lock()
	for _, nid := range in {
		if _, loaded := l.room(nid); !loaded {
			cold = append(cold, nid)
		}
	}
	l.mu.Unlock()
	if len(cold) == 0 {
		return nil
	}
	if err := l.settle(ctx); err != nil {
		return err
	}
	all, err := db.All(ctx, l.db, highlightsOfAll, scanHighlight, cold)
	if err != nil {
		return err
	}
	gone := map[rooms.RoomNID][]redacted{}
	err = db.Each(ctx, l.db, redactedIn, func(s db.Scanner) error {
		var nid rooms.RoomNID
		var r redacted
		err := s.Scan(&nid, &r.position, &r.thread, &r.common, &r.counted)
		gone[nid] = append(gone[nid], r)
		return err
	}, cold)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, nid := range cold {
		n, loaded := l.room(nid)
		if loaded {
			continue
		}
		for _, h := range all {
			if _, ok := n.gone[h.position]; h.room == nid && !ok {
				n.all = append(n.all, h)
			}
		}
		n.all = sortedHighlights(n.all)
		n.redacted = append(gone[nid], n.redacted...)
		slices.SortFunc(n.redacted, func(a, b redacted) int { return int(a.position - b.position) })
		n.redacted = slices.CompactFunc(n.redacted, func(a, b redacted) bool { return a.position == b.position })
		n.loaded, n.gone = true, nil
	}
	return nil
}

// withHighlight adds to a list that others may be reading; h may be there already.
func withHighlight(list []highlightRow, h highlightRow) []highlightRow {
	if n := len(list); n > 0 && list[n-1].position >= h.position {
		if slices.ContainsFunc(list, func(old highlightRow) bool { return old.position == h.position }) {
			return list
		}
		return sortedHighlights(append(slices.Clone(list), h))
	}
	return append(list, h)
}

func sortedHighlights(list []highlightRow) []highlightRow {
	slices.SortFunc(list, func(a, b highlightRow) int { return int(a.position - b.position) })
	return slices.CompactFunc(list, func(a, b highlightRow) bool { return a.position == b.position })
}

func (l *ledger) loadUser(ctx context.Context, user matrix.UserID) error {
	l.mu.Lock()
	_, loaded := l.user(user)
	l.mu.Unlock()
	if loaded {
		return nil
	}
	if err := l.settle(ctx); err != nil {
		return err
	}
	highlights, err := db.All(ctx, l.db, highlightsOf, scanHighlight, user)
	if err != nil {
		return err
	}
	bends, err := db.All(ctx, l.db, linesOf, scanBend, user)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n, loaded := l.user(user)
	if loaded {
		return nil
	}
	for _, h := range highlights {
		if _, ok := n.gone[h.room][h.position]; !ok {
			n.highlights[h.room] = append(n.highlights[h.room], h)
		}
	}
	for nid, list := range n.highlights {
		n.highlights[nid] = sortedHighlights(list)
	}
	for _, b := range bends {
		n.bend(b.room, b.thread, b.bend)
	}
	n.loaded, n.gone = true, nil
	return nil
}

// bend adds a bend to a line, which may be there already.
func (n *userNotes) bend(room rooms.RoomNID, thread matrix.EventID, b bend) {
	if n.lines[room] == nil {
		n.lines[room] = map[matrix.EventID]line{}
	}
	l := n.lines[room][thread]
	at, there := slices.BinarySearchFunc(l, b.position, func(b bend, position int64) int { return int(b.position - position) })
	if !there {
		n.lines[room][thread] = slices.Insert(slices.Clone(l), at, b)
	}
}

// bendRow is a bend as it is stored.
type bendRow struct {
	user   matrix.UserID
	room   rooms.RoomNID
	thread matrix.EventID
	bend
}

func scanBend(s db.Scanner) (b bendRow, err error) {
	err = s.Scan(&b.user, &b.room, &b.thread, &b.position, &b.common, &b.own, &b.follows)
	return b, err
}

// Judged returns what is known of rooms' events for a user beyond the shared
// running counts.
func (p *Push) Judged(ctx context.Context, user matrix.UserID, in []rooms.RoomNID) (map[rooms.RoomNID]*Judged, error) {
	return p.ledger.of(ctx, user, in)
}

// Judged is what is known of a room's events for one user beyond the shared
// running counts. It never changes.
type Judged struct {
	user     matrix.UserID
	own, all []highlightRow
	redacted []redacted
	lines    map[matrix.EventID]line
}

// Between counts the events of a thread, or of the main timeline if it is "",
// that notify the user above one position and up to another, and those that
// stand out among them; from and to are the shared running counts there.
func (j *Judged) Between(thread matrix.EventID, after, from, upTo, to int64) (notifications, highlights int64) {
	l := j.lines[thread]
	notifications = l.between(after, from, upTo, to)
	for i := len(j.redacted) - 1; i >= 0 && j.redacted[i].position > after; i-- {
		if r := j.redacted[i]; r.thread == thread && r.position <= upTo && l.counted(r.position, r.common, r.counted) {
			notifications--
		}
	}
	own := map[int64]highlightKind{}
	for i := len(j.own) - 1; i >= 0 && j.own[i].position > after; i-- {
		h := j.own[i]
		if h.thread != thread || h.position > upTo {
			continue
		}
		own[h.position] = h.kind
		if h.kind != plainTo {
			highlights++
		}
		if h.kind == addsTo {
			notifications++
		}
	}
	for i := len(j.all) - 1; i >= 0 && j.all[i].position > after; i-- {
		h := j.all[i]
		if _, said := own[h.position]; h.thread == thread && h.position <= upTo && h.sender != j.user && !said {
			highlights++
			if h.kind == addsTo {
				notifications++
			}
		}
	}
	return max(notifications, 0), highlights
}
