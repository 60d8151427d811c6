package rooms

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// bundledRows lists the edits of events and the references to them. Others that
// relate to them, such as the replies of a long thread, are not looked at.
var bundledRows = db.SQL(`SELECT r.target, r.event_nid, r.rel_type, r.type, r.sender, e.event_id, e.ts,
		CASE WHEN e.snapshot = e.resolved THEN e.position ELSE 0 END
	FROM relations r JOIN events e ON e.event_nid = r.event_nid
	WHERE r.target IN {texts $1} AND r.rel_type IN ('m.replace', 'm.reference') AND e.room_nid = $2
	ORDER BY r.position, r.event_nid`)

// bundledRow is an edit or a reference.
type bundledRow struct {
	target  matrix.EventID
	nid     state.EventNID
	relType string
	typ     string
	sender  matrix.UserID
	id      matrix.EventID
	ts      int64
	since   int64 // the position, if the event was committed on the room's own state; 0 else
}

// bundles gathers, for those of the events that others relate to, the members of
// their m.relations object. What the viewer may not see of what relates to them
// is left out.
// spec: client-server#aggregations-of-child-events
func (e *Engine) bundles(ctx context.Context, r *Room, v Viewer, events []*Stored) (map[matrix.EventID][]byte, error) {
	targets := r.mayBeTargets(events)
	if len(targets) == 0 {
		return nil, nil
	}
	b := &bundler{e: e, room: r, viewer: v, refs: map[matrix.EventID][]matrix.EventID{}, edits: map[matrix.EventID]*Stored{}}
	rows, err := b.rows(ctx, targets)
	if err != nil {
		return nil, err
	}
	if b.threads, err = e.Threads(ctx, r, targets); err != nil {
		return nil, err
	}
	if len(rows) == 0 && len(b.threads) == 0 {
		return nil, nil
	}
	if b.sight, err = e.visibilities(ctx, r, v.User); err != nil {
		return nil, err
	}
	if err := b.leaveIgnored(ctx); err != nil {
		return nil, err
	}
	latest, err := b.fetchThreads(ctx)
	if err != nil {
		return nil, err
	}
	more, err := b.rows(ctx, latest)
	if err != nil {
		return nil, err
	}
	if rows, err = b.visibleRows(ctx, append(rows, more...)); err != nil {
		return nil, err
	}
	if err := b.fetchEdits(ctx, events, rows); err != nil {
		return nil, err
	}
	bundles := map[matrix.EventID][]byte{}
	for _, st := range events {
		if members := b.members(st); members != nil {
			bundles[st.ID] = members
		}
	}
	return bundles, nil
}

// mayBeTargets lists those of the events that the database has to be asked
// about: of a recent event it is known whether anything relates to it, since
// whatever does is recent, too.
func (r *Room) mayBeTargets(events []*Stored) []matrix.EventID {
	v := r.View()
	related := map[matrix.EventID]bool{}
	for _, st := range v.Recent {
		if st.Relation.Target != "" {
			related[st.Relation.Target] = true
		}
	}
	var targets []matrix.EventID
	for _, st := range events {
		if !st.IsState() && (st.Position <= v.RecentFrom || related[st.ID]) {
			targets = append(targets, st.ID)
		}
	}
	return targets
}

// bundler holds what was read for bundles.
type bundler struct {
	e       *Engine
	room    *Room
	viewer  Viewer
	sight   *visibilities // the viewer's
	threads map[matrix.EventID]Thread
	joined  map[matrix.EventID]bool    // threads that the viewer has written in
	latest  map[matrix.EventID]*Stored // the newest reply, by root
	refs    map[matrix.EventID][]matrix.EventID
	edits   map[matrix.EventID]*Stored // the newest edit
}

func (b *bundler) rows(ctx context.Context, targets []matrix.EventID) ([]bundledRow, error) {
	if len(targets) == 0 {
		return nil, nil
	}
	rows, err := db.All(ctx, b.e.DB, bundledRows, func(s db.Scanner) (r bundledRow, err error) {
		err = s.Scan(&r.target, &r.nid, &r.relType, &r.typ, &r.sender, &r.id, &r.ts, &r.since)
		return r, err
	}, targets, b.room.NID)
	return slices.DeleteFunc(rows, func(row bundledRow) bool { return b.viewer.ignores(row.sender) }), err
}

// ignoredReplies counts the replies of some users, by thread.
var ignoredReplies = db.SQL(`SELECT r.target, COUNT(*) FROM relations r JOIN events e ON e.event_nid = r.event_nid
	WHERE r.target IN {texts $1} AND r.rel_type = 'm.thread' AND r.sender IN {texts $2} AND e.room_nid = $3 GROUP BY r.target`)

// ignores tells whether the viewer wants to see nothing of a user's.
func (v Viewer) ignores(user matrix.UserID) bool {
	_, ok := v.Ignores[user]
	return ok && user != v.User
}

// leaveIgnored takes the replies of ignored users out of the threads' counts.
func (b *bundler) leaveIgnored(ctx context.Context) error {
	if len(b.viewer.Ignores) == 0 {
		return nil
	}
	roots, ignored := slices.Collect(maps.Keys(b.threads)), slices.Collect(maps.Keys(b.viewer.Ignores))
	return db.Each(ctx, b.e.DB, ignoredReplies, func(s db.Scanner) error {
		var root matrix.EventID
		var n int64
		err := s.Scan(&root, &n)
		t := b.threads[root]
		t.Replies -= n
		b.threads[root] = t
		return err
	}, roots, ignored, b.room.NID)
}

// visibleRows leaves the rows of events that the viewer may see. Of those that
// were sent while they have been joined this is known without reading them.
func (b *bundler) visibleRows(ctx context.Context, rows []bundledRow) ([]bundledRow, error) {
	certain := func(row bundledRow) bool {
		return b.sight.own.Membership == matrix.MembershipJoin && row.since != 0 && row.since >= b.sight.own.Position
	}
	var doubtful []state.EventNID
	for _, row := range rows {
		if !certain(row) {
			doubtful = append(doubtful, row.nid)
		}
	}
	if len(doubtful) == 0 {
		return rows, nil
	}
	read, err := b.e.Events(ctx, doubtful)
	if err != nil {
		return nil, err
	}
	hidden := map[state.EventNID]bool{}
	for _, st := range read {
		ok, err := b.sight.allows(ctx, st)
		if err != nil {
			return nil, err
		}
		hidden[st.NID] = !ok
	}
	return slices.DeleteFunc(rows, func(row bundledRow) bool { return hidden[row.nid] }), nil
}

// maxHidden bounds how many hidden replies are passed over in search of a
// thread's newest visible one.
const maxHidden = 500

// visiblePart cuts a thread down to what the viewer may see of it; nil if that
// is nothing, or but what ignored users say.
func (b *bundler) visiblePart(ctx context.Context, t Thread) (*Stored, Thread, error) {
	children, err := b.e.Children(ctx, ChildrenQuery{
		Room: b.room, Targets: []matrix.EventID{t.Root}, After: minPosition, UpTo: t.Position, RelType: relThread, Backwards: true, Limit: maxHidden,
	})
	if err != nil {
		return nil, t, err
	}
	var nids []state.EventNID
	for _, c := range children {
		nids = append(nids, c.Event)
	}
	read, err := b.e.Events(ctx, nids)
	if err != nil {
		return nil, t, err
	}
	var newest *Stored
	for _, st := range read {
		if b.viewer.ignores(st.Sender) {
			continue // not counted any more
		}
		ok, err := b.sight.allows(ctx, st)
		switch {
		case err != nil:
			return nil, t, err
		case !ok:
			t.Replies--
		case newest == nil:
			newest = st
		}
	}
	return newest, t, nil
}

// fetchThreads reads the newest replies, whose ids it returns.
func (b *bundler) fetchThreads(ctx context.Context) ([]matrix.EventID, error) {
	var roots, ids []matrix.EventID
	var nids []state.EventNID
	for root, t := range b.threads {
		if t.Replies > 0 {
			roots, nids = append(roots, root), append(nids, t.Latest)
		}
	}
	if len(roots) == 0 {
		return nil, nil
	}
	replies, err := b.e.Events(ctx, nids)
	if err != nil {
		return nil, err
	}
	b.latest = make(map[matrix.EventID]*Stored, len(replies))
	for i, st := range replies {
		ok, err := b.sight.allows(ctx, st)
		if err != nil {
			return nil, err
		}
		if !ok || b.viewer.ignores(st.Sender) {
			if st, b.threads[roots[i]], err = b.visiblePart(ctx, b.threads[roots[i]]); err != nil {
				return nil, err
			}
		}
		if st == nil {
			continue
		}
		b.latest[roots[i]] = st
		ids = append(ids, st.ID)
	}
	b.joined, err = b.e.ThreadsJoined(ctx, b.room, b.viewer.User, roots)
	return ids, err
}

// fetchEdits finds each event's newest valid replacement, and notes the
// references. Of an event with many edits only the newest one is read, and
// those below it while they turn out to be none.
// spec: client-server#validity-of-replacement-events
func (b *bundler) fetchEdits(ctx context.Context, events []*Stored, rows []bundledRow) error {
	originals := make(map[matrix.EventID]*Stored, len(events)+len(b.latest))
	for _, st := range events {
		originals[st.ID] = st
	}
	for _, st := range b.latest {
		originals[st.ID] = st
	}
	candidates := map[matrix.EventID][]bundledRow{}
	for _, row := range rows {
		original := originals[row.target]
		switch {
		case row.relType == relReference:
			b.refs[row.target] = append(b.refs[row.target], row.id)
		case original.RedactedBy == 0 && original.Relation.Type != relReplace && !original.IsState() &&
			row.sender == original.Sender && row.typ == original.Type:
			candidates[row.target] = append(candidates[row.target], row)
		}
	}
	for _, edits := range candidates {
		slices.SortFunc(edits, func(x, y bundledRow) int { return cmp.Or(cmp.Compare(x.ts, y.ts), cmp.Compare(x.id, y.id)) })
	}
	for len(candidates) > 0 {
		var nids []state.EventNID
		for target, edits := range candidates {
			last := len(edits) - 1
			nids = append(nids, edits[last].nid)
			if candidates[target] = edits[:last]; last == 0 {
				delete(candidates, target)
			}
		}
		read, err := b.e.Events(ctx, nids)
		if err != nil {
			return err
		}
		for _, st := range read {
			if validEdit(st) {
				b.edits[st.Relation.Target] = st
				delete(candidates, st.Relation.Target)
			}
		}
	}
	return nil
}

// validEdit tells whether an event that replaces another says by what.
func validEdit(st *Stored) bool {
	return st.RedactedBy == 0 && !st.IsState() &&
		(st.Type == matrix.TypeEncrypted || bytes.Contains(st.Content, []byte(`"m.new_content"`)))
}

// members renders what belongs into st's m.relations.
func (b *bundler) members(st *Stored) []byte {
	var out []byte
	sep := func() {
		if out != nil {
			out = append(out, ',')
		}
	}
	if edit := b.edits[st.ID]; edit != nil {
		out = append(out, `"m.replace":`...)
		out = edit.AppendClient(out, event.ClientFormat{})
	}
	if refs := b.refs[st.ID]; refs != nil {
		sep()
		out = append(out, `"m.reference":{"chunk":[`...)
		for i, id := range refs {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(out, `{"event_id":`...)
			out = append(appendString(out, string(id)), '}')
		}
		out = append(out, `]}`...)
	}
	if latest := b.latest[st.ID]; latest != nil {
		sep()
		out = append(out, `"m.thread":`...)
		out = b.appendThread(out, st, latest)
	}
	return out
}

// appendThread renders the summary of the thread that root is the first event
// of.
// spec: client-server#server-side-aggregation-of-mthread-relationships
func (b *bundler) appendThread(out []byte, root, latest *Stored) []byte {
	var unsigned []byte
	if edit := b.edits[latest.ID]; edit != nil {
		unsigned = append(unsigned, `{"m.relations":{"m.replace":`...)
		unsigned = edit.AppendClient(unsigned, event.ClientFormat{})
		unsigned = append(unsigned, `}}`...)
	}
	out = append(out, `{"latest_event":`...)
	out = latest.AppendClient(out, event.ClientFormat{Unsigned: json.RawMessage(unsigned)})
	out = append(out, `,"count":`...)
	out = strconv.AppendInt(out, b.threads[root.ID].Replies, 10)
	out = append(out, `,"current_user_participated":`...)
	out = strconv.AppendBool(out, root.Sender == b.viewer.User || b.joined[root.ID])
	return append(out, '}')
}
