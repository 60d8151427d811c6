package push

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Judged returns what is known of rooms' events for a user beyond the shared
// running counts.
func (p *Push) Judged(ctx context.Context, user matrix.UserID, in []rooms.RoomNID) (map[rooms.RoomNID]*Judged, error) {
	return p.ledger.of(ctx, user, in)
}

// Judged is what is known of a room's events for one user beyond the shared
// running counts. It never changes.
type Judged struct {
	user     matrix.UserID
	own, all []highlightRow
	redacted []redacted
	lines    map[matrix.EventID]line
}

// Between counts the events of a thread, or of the main timeline if it is "",
// that notify the user above one position and up to another, and those that
// stand out among them; from and to are the shared running counts there.
func (j *Judged) Between(thread matrix.EventID, after, from, upTo, to int64) (notifications, highlights int64) {
	l := j.lines[thread]
	notifications = l.between(after, from, upTo, to)
	for i := len(j.redacted) - 1; i >= 0 && j.redacted[i].position > after; i-- {
		if r := j.redacted[i]; r.thread == thread && r.position <= upTo && l.counted(r.position, r.common, r.counted) {
			notifications--
		}
	}
	own := map[int64]highlightKind{}
	for i := len(j.own) - 1; i >= 0 && j.own[i].position > after; i-- {
		h := j.own[i]
		if h.thread != thread || h.position > upTo {
			continue
		}
		own[h.position] = h.kind
		if h.kind != plainTo {
			highlights++
		}
		if h.kind == addsTo {
			notifications++
		}
	}
	for i := len(j.all) - 1; i >= 0 && j.all[i].position > after; i-- {
		h := j.all[i]
		if _, said := own[h.position]; h.thread == thread && h.position <= upTo && h.sender != j.user && !said {
			highlights++
			if h.kind == addsTo {
				notifications++
			}
		}
	}
	return max(notifications, 0), highlights
}
