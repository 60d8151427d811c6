package media

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Which events name which files is noted only while redactions delete files. It is
// noted a moment after the event is committed: what was sent just before a crash
// may keep its files.
var (
	insertUse = db.SQL(`INSERT INTO media_uses (event_id, server, media_id, sender) VALUES ($1, $2, $3, $4) ON CONFLICT (event_id, server, media_id) DO NOTHING`)
	selectUse = db.SQL(`SELECT u.server, u.media_id, u.sender, (SELECT COUNT(*) FROM media_uses o WHERE o.server = u.server AND o.media_id = u.media_id AND o.event_id <> u.event_id)
		FROM media_uses u WHERE u.event_id = $1`)
	deleteUses = db.SQL(`DELETE FROM media_uses WHERE event_id = $1`)
)

// maxBehind bounds the commits that wait to be looked at.
const maxBehind = 10_000

// mention is an event that names files, or one that was redacted if refs is nil.
type mention struct {
	event  matrix.EventID
	sender matrix.UserID
	refs   []Ref
}

// committed picks the changes that may name files.
func committed(change any) bool {
	_, ok := change.(*rooms.Committed)
	return ok
}

// follow notes which events name files, and deletes those of redacted ones.
func (m *Media) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.commits.Wake():
		}
		batches, missed := m.commits.Take()
		if missed > 0 {
			m.Log.WarnContext(ctx, "more was said at once than could be looked at: redactions will not delete the files of some events", "up_to", missed)
		}
		for _, b := range batches {
			for _, change := range b.Changes {
				m.noteCommit(ctx, change.(*rooms.Committed))
			}
		}
	}
}

// noteCommit goes through a commit.
func (m *Media) noteCommit(ctx context.Context, c *rooms.Committed) {
	var seen []mention
	for _, st := range c.Events {
		if refs := Mentions(st.JSON); refs != nil {
			seen = append(seen, mention{st.ID, st.Sender, refs})
		}
	}
	for _, st := range c.Redacted() {
		seen = append(seen, mention{event: st.ID})
	}
	for _, one := range seen {
		if err := m.noteMention(ctx, one); err != nil && ctx.Err() == nil {
			m.Log.ErrorContext(ctx, "the files of an event could not be noted or deleted", "event", one.event, "error", err)
		}
	}
}

func (m *Media) noteMention(ctx context.Context, one mention) error {
	if one.refs != nil {
		return m.DB.Write(ctx, func(tx *db.Tx) error {
			for _, ref := range one.refs {
				if err := tx.Exec(insertUse, one.event, ref.Server, ref.ID, one.sender); err != nil {
					return err
				}
			}
			return nil
		})
	}
	type use struct {
		Ref
		sender matrix.UserID
		others int64
	}
	uses, err := db.All(ctx, m.DB, selectUse, func(row db.Scanner) (u use, err error) {
		err = row.Scan(&u.Server, &u.ID, &u.sender, &u.others)
		return u, err
	}, one.event)
	if err != nil {
		return err
	}
	for _, u := range uses {
		rec, found, err := lookup(ctx, m.DB, u.Ref)
		if err != nil {
			return err
		}
		// Nobody gets rid of other people's files by sending and redacting them.
		own := rec.Uploader == u.sender || rec.Kind == KindRemote && rec.Server == u.sender.Server()
		if !found || u.others > 0 || !own || rec.Quarantined {
			continue
		}
		if _, err := m.Delete(ctx, Target{Ref: u.Ref}); err != nil {
			return err
		}
	}
	return m.DB.Write(ctx, func(tx *db.Tx) error { return tx.Exec(deleteUses, one.event) })
}
