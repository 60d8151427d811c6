package media

import (
	"context"
	"errors"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
)

// removed is how many rows one transaction removes at most.
const removed = 500

// previewKeep is how long the pictures of previews are kept after their last use.
const previewKeep = 7 * 24 * time.Hour

var (
	// An announcement that ran out is kept for a while, so that it is answered for
	// as what it was.
	deleteExpired = db.SQL(`DELETE FROM media WHERE hash = '' AND quarantined = 0 AND expires_ts <> 0 AND expires_ts < $1`)

	selectOld = db.SQL(`SELECT nid, hash, size, used_ts FROM media
		WHERE kind = $1 AND hash <> '' AND quarantined = 0 AND used_ts < $2 ORDER BY used_ts LIMIT $3`)
	sumKind    = db.SQL(`SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM media WHERE kind = $1`)
	deleteRows = db.SQL(`DELETE FROM media WHERE nid IN {ints $1}`)
)

// expire removes announcements that nobody has followed, and files that were not
// used for as long as the operator keeps them.
func (m *Media) expire(ctx context.Context) error {
	now := m.now()
	err := m.DB.Write(ctx, func(tx *db.Tx) error {
		if err := tx.Exec(deletePreviews, now-m.Config.PreviewKeep.Milliseconds()); err != nil {
			return err
		}
		return tx.Exec(deleteExpired, now-m.Config.PendingTime.Milliseconds())
	})
	err = errors.Join(err, m.expireParts(ctx))
	for kind, keep := range map[Kind]time.Duration{KindUpload: m.Config.LocalKeep, KindRemote: m.Config.RemoteKeep, KindPreview: previewKeep} {
		if err == nil && keep > 0 {
			err = m.removeOld(ctx, kind, now-keep.Milliseconds(), -1)
		}
	}
	return err
}

// evict removes files of other servers, the least recently used first, until what
// is left is within the limit.
func (m *Media) evict(ctx context.Context) error {
	if m.Config.RemoteCache == 0 {
		return nil
	}
	total, _, err := db.One(ctx, m.DB, sumKind, scanCount, int(KindRemote))
	if err != nil || total <= m.Config.RemoteCache {
		return err
	}
	return m.removeOld(ctx, KindRemote, m.now()+1, total-m.Config.RemoteCache)
}

type oldFile struct {
	nid, size, usedTS int64
	hash              string
}

func scanOld(row db.Scanner) (f oldFile, err error) {
	err = row.Scan(&f.nid, &f.hash, &f.size, &f.usedTS)
	return f, err
}

// removeOld removes the files of a kind that were not used since before, the
// oldest first, until enough bytes are gone; below 0 all are removed.
func (m *Media) removeOld(ctx context.Context, kind Kind, before, enough int64) error {
	for enough != 0 {
		list, err := db.All(ctx, m.DB, selectOld, scanOld, int(kind), before, removed)
		if err != nil || len(list) == 0 {
			return err
		}
		var nids []int64
		var hashes []string
		for _, f := range list {
			if enough == 0 {
				break
			}
			if enough > 0 {
				enough = max(enough-f.size, 0)
			}
			nids, hashes = append(nids, f.nid), append(hashes, f.hash)
		}
		if err := m.DB.Write(ctx, func(tx *db.Tx) error { return remove(tx, nids, hashes) }); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes rows, and notes that their bytes may be needed no more.
func remove(tx *db.Tx, nids []int64, hashes []string) error {
	for _, h := range hashes {
		if h == "" {
			continue
		}
		if err := tx.Exec(noteUnused, h); err != nil {
			return err
		}
	}
	return tx.Exec(deleteRows, nids)
}
