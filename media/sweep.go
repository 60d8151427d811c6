package media

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/media/storage"
)

// sweepEvery is how often what nobody needs any more is looked for.
const sweepEvery = time.Minute

var (
	// A note that comes while an older one is looked at must not be forgotten with
	// that, so they are counted.
	noteUnused   = db.SQL(`INSERT INTO media_unused (hash, notes) VALUES ($1, 1) ON CONFLICT (hash) DO UPDATE SET notes = media_unused.notes + 1`)
	selectUnused = db.SQL(`SELECT hash, notes FROM media_unused ORDER BY hash LIMIT 500`)
	forgetUnused = db.SQL(`DELETE FROM media_unused WHERE hash = $1 AND notes = $2`)
	selectNeeds  = db.SQL(`SELECT CAST(1 AS BIGINT) FROM media WHERE hash = $1 UNION ALL SELECT 1 FROM media_thumbnails WHERE hash = $1 AND source <> $1 LIMIT 1`)
	// The thumbnails of what is gone go with it.
	noteThumbnails = db.SQL(`INSERT INTO media_unused (hash, notes) SELECT DISTINCT hash, 1 FROM media_thumbnails WHERE source = $1
		ON CONFLICT (hash) DO UPDATE SET notes = media_unused.notes + 1`)
	deleteThumbnails = db.SQL(`DELETE FROM media_thumbnails WHERE source = $1`)
)

// Run keeps the store in order until ctx ends: it removes what has expired, what
// is too much, and bytes that nothing needs. One process at a time may do so.
func (m *Media) Run(ctx context.Context) {
	if err := m.Depot.Clear(); err != nil {
		m.Log.ErrorContext(ctx, "temporary files of a run before could not be removed", "error", err)
	}
	var beside sync.WaitGroup
	if m.Config.DeleteRedacted {
		beside.Go(func() { m.follow(ctx) })
	}
	defer beside.Wait()
	defer m.flights.close()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-m.wake:
		}
		if err := m.Tidy(ctx); err != nil && ctx.Err() == nil {
			m.Log.ErrorContext(ctx, "old files could not be removed; it is tried again", "error", err)
		}
	}
}

// Tidy removes what is due once.
func (m *Media) Tidy(ctx context.Context) error {
	return errors.Join(m.writeUsed(ctx), m.expire(ctx), m.evict(ctx), m.sweep(ctx))
}

// stir makes Run look now.
func (m *Media) stir() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// unused notes that bytes may have lost what needed them.
func (m *Media) unused(ctx context.Context, h storage.Hash) error {
	return m.DB.Write(context.WithoutCancel(ctx), func(tx *db.Tx) error { return tx.Exec(noteUnused, h) })
}

// sweep removes the bytes that nothing needs.
func (m *Media) sweep(ctx context.Context) error {
	for ctx.Err() == nil {
		list, err := db.All(ctx, m.DB, selectUnused, scanUnused)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, u := range list {
			if err := m.drop(ctx, u.hash); err != nil {
				return err
			}
			if err := m.DB.Write(ctx, func(tx *db.Tx) error { return tx.Exec(forgetUnused, u.hash, u.notes) }); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

func scanHash(row db.Scanner) (h storage.Hash, err error) {
	err = row.Scan(&h)
	return h, err
}

// unusedNote is what is noted of bytes.
type unusedNote struct {
	hash  storage.Hash
	notes int64
}

func scanUnused(row db.Scanner) (u unusedNote, err error) {
	err = row.Scan(&u.hash, &u.notes)
	return u, err
}

// drop removes bytes and their thumbnails, if nothing needs them.
func (m *Media) drop(ctx context.Context, h storage.Hash) error {
	return m.Depot.Drop(ctx, h, func() (bool, error) {
		needed := false
		err := m.DB.Write(ctx, func(tx *db.Tx) error {
			var err error
			needed, err = isNeeded(ctx, tx, h)
			if err != nil || needed {
				return err
			}
			if err := tx.Exec(noteThumbnails, h); err != nil {
				return err
			}
			return tx.Exec(deleteThumbnails, h)
		})
		return !needed, err
	})
}

func isNeeded(ctx context.Context, q db.Querier, h storage.Hash) (bool, error) {
	_, needed, err := db.One(ctx, q, selectNeeds, scanCount, h)
	return needed, err
}
