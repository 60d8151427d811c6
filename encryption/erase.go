package encryption

import (
	"context"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Erase removes what is kept of a user whose account was deactivated and whose
// devices are gone: cross-signing keys, the dehydrated device, backups. It may be
// called again.
func (e *Encryption) Erase(ctx context.Context, user matrix.UserID) error {
	return e.change(ctx, user, true, func(tx *db.Tx) ([]matrix.DeviceID, error) {
		for _, s := range []*db.Stmt{eraseBackups, eraseBackupKeys} {
			if err := tx.Exec(s, user); err != nil {
				return nil, err
			}
		}
		var changed []matrix.DeviceID
		d, found, err := dehydratedOf(ctx, tx, user)
		if err != nil {
			return nil, err
		}
		if found {
			if changed, err = e.evict(ctx, tx, d.device); err != nil {
				return nil, err
			}
			if err := tx.Exec(deleteDehydrated, user); err != nil {
				return nil, err
			}
		}
		keys, err := crossKeysOf(ctx, tx, user)
		if err != nil || len(keys) == 0 {
			return changed, err
		}
		lost, err := forgetCross(ctx, tx, user, keys)
		if err != nil {
			return nil, err
		}
		changed = append(changed, lost...)
		slices.Sort(changed)
		return slices.Compact(changed), tx.Exec(eraseCrossKeys, user)
	})
}
