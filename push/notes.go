package push

import (
	"context"
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// roomNotes is what was found about the events of a room for all its members.
// Until it is loaded it has only what was found since that began.
type roomNotes struct {
	loaded   bool
	all      []highlightRow     // that stand out to everybody, by position
	redacted []redacted         // by position
	gone     map[int64]struct{} // redacted while this was being loaded
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

// of returns what is known beyond the running counts for a user in rooms.
func (l *ledger) of(ctx context.Context, user matrix.UserID, in []rooms.RoomNID) (map[rooms.RoomNID]*Judged, error) {
	for {
		all, cold := l.known(user, in)
		if all != nil {
			return all, nil
		}
		if err := l.load(ctx, user, cold); err != nil {
			return nil, err
		}
	}
}

// known takes what is known from memory; if something is missing there, the
// rooms that are to be loaded are returned instead, beside the user.
func (l *ledger) known(user matrix.UserID, in []rooms.RoomNID) (map[rooms.RoomNID]*Judged, []rooms.RoomNID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var cold []rooms.RoomNID
	for _, nid := range in {
		if n := l.rooms[nid]; n == nil || !n.loaded {
			cold = append(cold, nid)
		}
	}
	own := l.users[user]
	if len(cold) > 0 || own == nil || !own.loaded {
		return nil, cold
	}
	all := make(map[rooms.RoomNID]*Judged, len(in))
	for _, nid := range in {
		n := l.rooms[nid]
		j := &Judged{user: user, own: own.highlights[nid], all: n.all, redacted: n.redacted}
		if lines := own.lines[nid]; len(lines) > 0 {
			j.lines = maps.Clone(lines)
		}
		all[nid] = j
	}
	return all, nil
}

// load reads what is not in memory. The entries are made before that, so that
// whatever is found from then on is in them; an entry that is dropped meanwhile
// stays out.
func (l *ledger) load(ctx context.Context, user matrix.UserID, cold []rooms.RoomNID) error {
	l.mu.Lock()
	if len(l.rooms)+len(cold) > roomNotesKept {
		clear(l.rooms)
	}
	entries := make(map[rooms.RoomNID]*roomNotes, len(cold))
	for _, nid := range cold {
		if l.rooms[nid] == nil {
			l.rooms[nid] = &roomNotes{gone: map[int64]struct{}{}}
		}
		entries[nid] = l.rooms[nid]
	}
	if l.users[user] == nil {
		if len(l.users) >= userNotesKept {
			clear(l.users)
		}
		l.users[user] = &userNotes{
			highlights: map[rooms.RoomNID][]highlightRow{}, lines: map[rooms.RoomNID]map[matrix.EventID]line{}, gone: map[rooms.RoomNID]map[int64]struct{}{},
		}
	}
	own := l.users[user]
	loaded := own.loaded
	l.mu.Unlock()
	if err := l.settle(ctx); err != nil {
		return err
	}
	if len(cold) > 0 {
		if err := l.loadRooms(ctx, entries, cold); err != nil {
			return err
		}
	}
	if loaded {
		return nil
	}
	return l.loadUser(ctx, own, user)
}

func (l *ledger) loadRooms(ctx context.Context, entries map[rooms.RoomNID]*roomNotes, cold []rooms.RoomNID) error {
	rows, err := db.All(ctx, l.db, highlightsOfAll, scanHighlight, cold)
	if err != nil {
		return err
	}
	stand := map[rooms.RoomNID][]highlightRow{}
	for _, h := range rows {
		stand[h.room] = append(stand[h.room], h)
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
	for nid, n := range entries {
		if n.loaded {
			continue
		}
		for _, h := range stand[nid] {
			if _, ok := n.gone[h.position]; !ok {
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

func (l *ledger) loadUser(ctx context.Context, n *userNotes, user matrix.UserID) error {
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
	if n.loaded {
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
