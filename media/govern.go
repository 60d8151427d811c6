package media

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

var (
	setQuarantined = db.SQL(`UPDATE media SET quarantined = $2 WHERE nid IN {ints $1}`)
	insertBan      = db.SQL(`INSERT INTO media_bans (hash, banned_ts) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING`)
	deleteBan      = db.SQL(`DELETE FROM media_bans WHERE hash = $1`)
	selectUsers    = db.SQL(`SELECT uploader, COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM media
		WHERE uploader <> '' AND uploader > $1 GROUP BY uploader ORDER BY uploader LIMIT $2`)
	selectServers = db.SQL(`SELECT server, COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM media WHERE kind = 1 AND hash <> '' GROUP BY server ORDER BY 3 DESC, server LIMIT $1`)
	selectPurge   = db.SQL(`SELECT nid, hash, size, used_ts FROM media
		WHERE kind = 1 AND hash <> '' AND quarantined = 0 AND used_ts < $1 AND ($2 = '' OR server = $2) ORDER BY used_ts LIMIT 500`)
)

// Quarantine keeps files from everybody until Release, however they are asked for,
// and tells how many there are. Files of other servers are not shown even if they
// are fetched only later; of a hash, files that are uploaded later are refused.
func (m *Media) Quarantine(ctx context.Context, t Target) (int, error) {
	return m.quarantine(ctx, t, true)
}

// Release ends a quarantine.
func (m *Media) Release(ctx context.Context, t Target) (int, error) {
	return m.quarantine(ctx, t, false)
}

func (m *Media) quarantine(ctx context.Context, t Target, on bool) (int, error) {
	if t.Hash != "" {
		count := 0
		err := m.each(ctx, t, func(list []Record) error { count += len(list); return nil })
		if err != nil {
			return 0, err
		}
		return count, m.DB.Write(ctx, func(tx *db.Tx) error {
			if on {
				return tx.Exec(insertBan, t.Hash, m.now())
			}
			return tx.Exec(deleteBan, t.Hash)
		})
	}
	count := 0
	err := m.each(ctx, t, func(list []Record) error {
		return m.DB.Write(ctx, func(tx *db.Tx) error {
			var nids []int64
			for i := range list {
				rec := &list[i]
				if rec.NID == 0 {
					if !on || rec.Server == m.ServerName {
						continue
					}
					made, err := insert(tx, &Record{Ref: rec.Ref, NID: m.nids.Next(), Kind: KindRemote, CreatedTS: m.now(), UsedTS: m.now(), Quarantined: true})
					if err != nil || made {
						if err != nil {
							return err
						}
						count++
						continue
					}
				}
				nids = append(nids, rec.NID)
			}
			count += len(nids)
			return tx.Exec(setQuarantined, nids, on)
		})
	})
	return count, err
}

// Delete removes files for good, and tells how many. Files of other servers are
// removed from the cache; they may be fetched again.
func (m *Media) Delete(ctx context.Context, t Target) (int, error) {
	count := 0
	err := m.each(ctx, t, func(list []Record) error {
		var nids []int64
		var hashes []string
		for _, rec := range list {
			if rec.NID != 0 {
				nids, hashes = append(nids, rec.NID), append(hashes, string(rec.Hash))
			}
		}
		count += len(nids)
		return m.DB.Write(ctx, func(tx *db.Tx) error { return remove(tx, nids, hashes) })
	})
	m.stir()
	return count, err
}

// Purge removes files of other servers from the cache that were not used since
// before, in milliseconds since 1970: those of a server, or of all if it is "".
func (m *Media) Purge(ctx context.Context, server matrix.ServerName, before int64) (int, error) {
	count := 0
	for {
		list, err := db.All(ctx, m.DB, selectPurge, scanOld, before, server)
		if err != nil || len(list) == 0 {
			m.stir()
			return count, err
		}
		var nids []int64
		var hashes []string
		for _, f := range list {
			nids, hashes = append(nids, f.nid), append(hashes, f.hash)
		}
		if err := m.DB.Write(ctx, func(tx *db.Tx) error { return remove(tx, nids, hashes) }); err != nil {
			return count, err
		}
		count += len(nids)
	}
}

// Usage is how much somebody or something has.
type Usage struct {
	Name  string // a user, a server or a room
	Files int64
	Bytes int64
}

func scanUsage(row db.Scanner) (u Usage, err error) {
	err = row.Scan(&u.Name, &u.Files, &u.Bytes)
	return u, err
}

// Users lists what the users of this server have uploaded, in the order of their
// names, those after a name.
func (m *Media) Users(ctx context.Context, after matrix.UserID, limit int) ([]Usage, error) {
	return db.All(ctx, m.DB, selectUsers, scanUsage, after, limit)
}

// Servers lists of which servers there is most.
func (m *Media) Servers(ctx context.Context, limit int) ([]Usage, error) {
	return db.All(ctx, m.DB, selectServers, scanUsage, limit)
}

// RoomUsage counts what the unencrypted events of a room name, as far as it is here.
func (m *Media) RoomUsage(ctx context.Context, room matrix.RoomID) (Usage, error) {
	u := Usage{Name: string(room)}
	err := m.each(ctx, Target{Room: room}, func(list []Record) error {
		for _, rec := range list {
			if rec.Hash != "" {
				u.Files++
				u.Bytes += rec.Size
			}
		}
		return nil
	})
	return u, err
}
