package kit

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
)

// tidyBatch is how many rows are deleted in one transaction, so that nothing else
// waits long for it.
const tidyBatch = 1000

var (
	deleteEvents = basis.SQL(`
		DELETE FROM kit_inbox WHERE nid IN (SELECT nid FROM kit_inbox WHERE state = 1 AND finished < $1 ORDER BY finished LIMIT $2)`)
	deleteRows = basis.SQL(`
		DELETE FROM kit_outbox WHERE nid IN (SELECT nid FROM kit_outbox WHERE state <> 0 AND finished < $1 ORDER BY finished LIMIT $2)`)
	deleteDialogs = basis.SQL(`DELETE FROM kit_dialogs WHERE expires < $1`)
)

// tidy deletes what is not remembered any longer: events that are done, what was
// sent, links, and questions that nobody answered.
func (s *Service) tidy(ctx context.Context) {
	now := s.clock.Now()
	for _, st := range []*db.Stmt{deleteEvents, deleteRows} {
		for more := true; more && ctx.Err() == nil; {
			var n int64
			err := s.db.Write(ctx, func(tx *db.Tx) (err error) {
				n, err = tx.Changed(st, now.Add(-s.cfg.Keep).UnixMilli(), tidyBatch)
				return err
			})
			if err != nil {
				s.tidyFailed(ctx, err)
				break
			}
			more = n == tidyBatch
		}
	}
	// An answer that comes a little late still learns that the question is too old.
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		if err := tx.Exec(deleteLinks, now.UnixMilli()); err != nil {
			return err
		}
		return tx.Exec(deleteDialogs, now.Add(-sweepEvery).UnixMilli())
	})
	if err != nil {
		s.tidyFailed(ctx, err)
	}
}

func (s *Service) tidyFailed(ctx context.Context, err error) {
	if ctx.Err() == nil {
		s.log.Error("old rows could not be deleted; trying again in an hour", "error", err)
	}
}
