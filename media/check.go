package media

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/media/storage"
)

// Finding is something that is not as it should be.
type Finding struct {
	What     string
	Repaired bool // it is put right
}

// CheckOptions say how closely Check looks.
type CheckOptions struct {
	Contents bool // read every file and compare it with its hash
	Repair   bool // put right what can be; nothing may be served meanwhile
}

var (
	selectHashes = db.SQL(`SELECT hash FROM media WHERE hash > $1 UNION SELECT hash FROM media_thumbnails WHERE hash > $1 ORDER BY 1 LIMIT 1000`)
	// What can be had again.
	deleteLostRemote = db.SQL(`DELETE FROM media WHERE hash = $1 AND kind <> 0 AND quarantined = 0`)
	deleteLostThumbs = db.SQL(`DELETE FROM media_thumbnails WHERE hash = $1`)
)

// Check compares the database with the depot. A user's file whose bytes are gone
// cannot be repaired but from a backup; everything else can.
func (m *Media) Check(ctx context.Context, o CheckOptions, found func(Finding)) error {
	stored := map[storage.Hash]bool{} // whether something needs it
	err := m.Depot.Each(ctx, func(h storage.Hash, _ int64) error {
		stored[h] = false
		return nil
	})
	if err != nil {
		return err
	}
	after := storage.Hash("")
	for {
		list, err := db.All(ctx, m.DB, selectHashes, scanHash, after)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			break
		}
		for _, h := range list {
			if err := m.checkOne(ctx, o, h, stored, found); err != nil {
				return err
			}
			after = h
		}
	}
	for h, needed := range stored {
		if needed {
			continue
		}
		if o.Repair {
			if err := m.drop(ctx, h); err != nil {
				return err
			}
		}
		found(Finding{fmt.Sprintf("%s is needed by nothing", h), o.Repair})
	}
	return nil
}

// checkOne looks for the bytes of a hash.
func (m *Media) checkOne(ctx context.Context, o CheckOptions, h storage.Hash, stored map[storage.Hash]bool, found func(Finding)) error {
	_, there := stored[h]
	if there {
		stored[h] = true
		if !o.Contents {
			return nil
		}
		same, err := m.intact(ctx, h)
		if err != nil || same {
			return err
		}
		found(Finding{fmt.Sprintf("%s has other bytes than it should", h), o.Repair})
		if !o.Repair {
			return nil
		}
		if err := m.Depot.Delete(ctx, h); err != nil {
			return err
		}
	}
	repaired := false
	if o.Repair {
		err := m.DB.Write(ctx, func(tx *db.Tx) error {
			remote, err := tx.Changed(deleteLostRemote, h)
			if err != nil {
				return err
			}
			thumbs, err := tx.Changed(deleteLostThumbs, h)
			repaired = remote+thumbs > 0
			return err
		})
		if err != nil {
			return err
		}
		if needed, err := isNeeded(ctx, m.DB, h); err != nil || needed {
			repaired = false
		}
	}
	found(Finding{fmt.Sprintf("%s is missing", h), repaired})
	return nil
}

// intact reads a file and compares.
func (m *Media) intact(ctx context.Context, h storage.Hash) (bool, error) {
	o, err := m.Depot.Open(ctx, h)
	if err != nil {
		return false, err
	}
	defer func() { _ = o.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, o); err != nil {
		return false, err
	}
	return hex.EncodeToString(sum.Sum(nil)) == string(h), ctx.Err()
}
