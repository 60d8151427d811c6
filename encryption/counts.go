package encryption

import (
	"context"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// keysMoved is published when a device's one-time or fallback keys changed.
type keysMoved device

// counts are what a device still has to give out. They are shared.
type counts struct {
	oneTime  map[string]int // by algorithm
	fallback []string       // algorithms of the unused ones
}

func (e *Encryption) countsOf(ctx context.Context, d device) (counts, error) {
	return e.counts.get(ctx, d, func(ctx context.Context) (counts, error) { return readCounts(ctx, e.DB, d) })
}

func readCounts(ctx context.Context, q db.Querier, d device) (counts, error) {
	// Clients that are told of no signed_curve25519 keys at all do not upload any.
	n := counts{oneTime: map[string]int{signedCurve25519: 0}, fallback: []string{}}
	err := db.Each(ctx, q, countOneTime, func(s db.Scanner) error {
		var algorithm string
		var some int
		err := s.Scan(&algorithm, &some)
		n.oneTime[algorithm] = some
		return err
	}, d.user, d.id)
	if err != nil {
		return n, err
	}
	err = db.Each(ctx, q, selectFallback, func(s db.Scanner) error {
		k, used, err := scanFallback(s)
		if !used {
			n.fallback = append(n.fallback, k.algorithm)
		}
		return err
	}, d.user, d.id)
	slices.Sort(n.fallback)
	return n, err
}

// Keys counts the device's unclaimed one-time keys by algorithm, and lists the
// algorithms of its unused fallback keys. The answer is shared.
// spec: client-server#e2e-extensions-to-sync
func (e *Encryption) Keys(ctx context.Context, user matrix.UserID, id matrix.DeviceID) (map[string]int, []string, error) {
	n, err := e.countsOf(ctx, device{user, id})
	return n.oneTime, n.fallback, err
}
