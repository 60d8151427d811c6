package rooms

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// The relation types that the server itself reads.
const (
	relThread     = "m.thread"
	relReplace    = "m.replace"
	relAnnotation = "m.annotation"
	relReference  = "m.reference"
)

// threadsKept is how many threads' unread counts a room's head remembers.
const threadsKept = 64

// relationOf reads m.relates_to; anything malformed is no relation.
// spec: client-server#forming-relationships-between-events
func relationOf(ev *event.Event) Relation {
	if ev.IsState() || !bytes.Contains(ev.Content, []byte(`"m.relates_to"`)) {
		return Relation{}
	}
	var c struct {
		RelatesTo struct {
			Type   string         `json:"rel_type"`
			Target matrix.EventID `json:"event_id"`
			Key    string         `json:"key"`
		} `json:"m.relates_to"`
	}
	if json.Unmarshal(ev.Content, &c) != nil || c.RelatesTo.Type == "" || c.RelatesTo.Target == "" {
		return Relation{}
	}
	return Relation(c.RelatesTo)
}

// RelationRow is one event that relates to another.
type RelationRow struct {
	Target   matrix.EventID
	Event    state.EventNID
	RelType  string
	Type     string
	Sender   matrix.UserID
	Key      string
	Position int64
}

// Relations lists what relates to the targets, oldest first.
func (e *Engine) Relations(ctx context.Context, targets []matrix.EventID) ([]RelationRow, error) {
	return db.All(ctx, e.DB, relationsOf, func(s db.Scanner) (r RelationRow, err error) {
		err = s.Scan(&r.Target, &r.Event, &r.RelType, &r.Type, &r.Sender, &r.Key, &r.Position)
		return r, err
	}, targets)
}

// Thread is what is kept of a thread.
type Thread struct {
	Root     matrix.EventID
	Latest   state.EventNID
	Position int64 // of the latest event
	Replies  int64
	Unread   int64 // running count
}

func scanThread(s db.Scanner) (t Thread, err error) {
	err = s.Scan(&t.Root, &t.Latest, &t.Position, &t.Replies, &t.Unread)
	return t, err
}

// Threads returns the threads with these roots; those that never had a reply are
// left out.
func (e *Engine) Threads(ctx context.Context, r *Room, roots []matrix.EventID) (map[matrix.EventID]Thread, error) {
	rows, err := db.All(ctx, e.DB, threadsByRoot, scanThread, r.NID, roots)
	if err != nil {
		return nil, err
	}
	threads := make(map[matrix.EventID]Thread, len(rows))
	for _, t := range rows {
		threads[t.Root] = t
	}
	return threads, nil
}

// ThreadsBefore lists a room's threads by their latest event, newest first,
// from below a position.
func (e *Engine) ThreadsBefore(ctx context.Context, r *Room, position int64, limit int) ([]Thread, error) {
	return db.All(ctx, e.DB, threadsBefore, scanThread, r.NID, position, limit)
}

// Annotated tells whether the sender has annotated the target so already.
// spec: client-server#avoiding-duplicate-annotations
func (e *Engine) Annotated(ctx context.Context, target matrix.EventID, sender matrix.UserID, typ, key string) (bool, error) {
	_, found, err := db.One(ctx, e.DB, annotationBy, scanOne[state.EventNID], target, sender, key, typ)
	return found, err
}
