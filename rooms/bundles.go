package rooms

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// bundles gathers, for those of the events that others relate to, the members of
// their m.relations object.
// spec: client-server#aggregations-of-child-events
func (e *Engine) bundles(ctx context.Context, r *Room, v Viewer, events []*Stored) (map[matrix.EventID][]byte, error) {
	targets := r.mayBeTargets(events)
	if len(targets) == 0 {
		return nil, nil
	}
	rows, err := e.Relations(ctx, targets)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	byTarget := map[matrix.EventID][]RelationRow{}
	for _, row := range rows {
		byTarget[row.Target] = append(byTarget[row.Target], row)
	}
	b := &bundler{e: e, room: r, viewer: v, rows: byTarget}
	if err := b.fetch(ctx); err != nil {
		return nil, err
	}
	bundles := make(map[matrix.EventID][]byte, len(byTarget))
	for _, st := range events {
		if len(byTarget[st.ID]) > 0 && st.RedactedBy == 0 {
			bundles[st.ID] = b.members(st)
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

type bundler struct {
	e      *Engine
	room   *Room
	viewer Viewer
	rows   map[matrix.EventID][]RelationRow
	events map[state.EventNID]*Stored
}

// fetch reads, in bulk, the events that appear in bundles: all replacements, and
// each thread's latest event with its own replacements.
func (b *bundler) fetch(ctx context.Context) error {
	var nids []state.EventNID
	var latest []matrix.EventID
	for _, rows := range b.rows {
		var last state.EventNID
		for _, row := range rows {
			switch row.RelType {
			case relReplace, relReference:
				nids = append(nids, row.Event)
			case relThread:
				last = row.Event
			}
		}
		if last != 0 {
			nids = append(nids, last)
		}
	}
	if err := b.read(ctx, nids); err != nil {
		return err
	}
	for _, st := range b.events {
		if st.Relation.Type == relThread {
			latest = append(latest, st.ID)
		}
	}
	if len(latest) == 0 {
		return nil
	}
	rows, err := b.e.Relations(ctx, latest)
	if err != nil {
		return err
	}
	nids = nids[:0]
	for _, row := range rows {
		if row.RelType == relReplace {
			b.rows[row.Target] = append(b.rows[row.Target], row)
			nids = append(nids, row.Event)
		}
	}
	return b.read(ctx, nids)
}

func (b *bundler) read(ctx context.Context, nids []state.EventNID) error {
	read, err := b.e.Events(ctx, nids)
	if err != nil {
		return err
	}
	if b.events == nil {
		b.events = make(map[state.EventNID]*Stored, len(read))
	}
	for _, st := range read {
		b.events[st.NID] = st
	}
	return nil
}

// members renders what belongs into st's m.relations.
func (b *bundler) members(st *Stored) []byte {
	var out []byte
	sep := func() {
		if out != nil {
			out = append(out, ',')
		}
	}
	if edit := b.latestEdit(st); edit != nil {
		out = append(out, `"m.replace":`...)
		out = edit.AppendClient(out, event.ClientFormat{})
	}
	if refs := b.references(st); refs != nil {
		sep()
		out = append(out, `"m.reference":{"chunk":[`...)
		out = append(out, refs...)
		out = append(out, `]}`...)
	}
	if thread := b.thread(st); thread != nil {
		sep()
		out = append(out, `"m.thread":`...)
		out = append(out, thread...)
	}
	return out
}

// latestEdit finds the valid replacement with the greatest origin_server_ts.
// spec: client-server#validity-of-replacement-events
func (b *bundler) latestEdit(st *Stored) *Stored {
	var best *Stored
	if st.Relation.Type == relReplace {
		return nil
	}
	for _, row := range b.rows[st.ID] {
		edit := b.events[row.Event]
		if row.RelType != relReplace || edit == nil || edit.RedactedBy != 0 || edit.Sender != st.Sender || edit.Type != st.Type {
			continue
		}
		if edit.Type != matrix.TypeEncrypted && !bytes.Contains(edit.Content, []byte(`"m.new_content"`)) {
			continue
		}
		if best == nil || edit.OriginServerTS > best.OriginServerTS ||
			edit.OriginServerTS == best.OriginServerTS && edit.ID > best.ID {
			best = edit
		}
	}
	return best
}

func (b *bundler) references(st *Stored) []byte {
	var out []byte
	for _, row := range b.rows[st.ID] {
		ref := b.events[row.Event]
		if row.RelType != relReference || ref == nil {
			continue
		}
		if out != nil {
			out = append(out, ',')
		}
		out = append(out, `{"event_id":`...)
		out = appendString(out, string(ref.ID))
		out = append(out, '}')
	}
	return out
}

// thread renders the summary of the thread that st is the root of.
// spec: client-server#server-side-aggregation-of-mthread-relationships
func (b *bundler) thread(st *Stored) []byte {
	var count int
	var latest *Stored
	participated := st.Sender == b.viewer.User
	for _, row := range b.rows[st.ID] {
		if row.RelType != relThread {
			continue
		}
		count++
		participated = participated || row.Sender == b.viewer.User
		if ev := b.events[row.Event]; ev != nil {
			latest = ev
		}
	}
	if latest == nil {
		return nil
	}
	var unsigned []byte
	if edit := b.latestEdit(latest); edit != nil {
		unsigned = append(unsigned, `{"m.relations":{"m.replace":`...)
		unsigned = edit.AppendClient(unsigned, event.ClientFormat{})
		unsigned = append(unsigned, `}}`...)
	}
	out := append([]byte(nil), `{"latest_event":`...)
	out = latest.AppendClient(out, event.ClientFormat{Unsigned: json.RawMessage(unsigned)})
	out = append(out, `,"count":`...)
	out = strconv.AppendInt(out, int64(count), 10)
	out = append(out, `,"current_user_participated":`...)
	out = strconv.AppendBool(out, participated)
	return append(out, '}')
}
