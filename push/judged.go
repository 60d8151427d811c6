package push

import (
	"context"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Judged returns what is known of rooms' events for a user beyond the shared
// running counts.
func (p *Push) Judged(ctx context.Context, user matrix.UserID, in []rooms.RoomNID) (map[rooms.RoomNID]*Judged, error) {
	ignored, err := p.People.Ignored(ctx, []matrix.UserID{user})
	if err != nil {
		return nil, err
	}
	all, err := p.ledger.of(ctx, user, in)
	for _, j := range all {
		j.ignored = ignored[user]
	}
	return all, err
}

// Judged is what is known of a room's events for one user beyond the shared
// running counts. It never changes.
type Judged struct {
	user     matrix.UserID
	own, all []highlightRow
	redacted []redacted
	lines    map[matrix.EventID]line
	ignored  map[matrix.UserID]struct{} // by now
}

// Ignoring tells whether the user ignores anybody.
func (j *Judged) Ignoring() bool { return len(j.ignored) > 0 }

// Hidden tells whether Between counts an event of somebody whom the user has begun
// to ignore since. What stands out among such it leaves out itself.
func (j *Judged) Hidden(ev *rooms.Stored) bool {
	if _, ignored := j.ignored[ev.Sender]; !ignored {
		return false
	}
	gone := slices.ContainsFunc(j.redacted, func(r redacted) bool { return r.position == ev.Position })
	return !gone && j.lines[ev.Thread].counted(ev.Position, ev.Unread, ev.Counted)
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
		if _, ignored := j.ignored[h.sender]; ignored {
			continue
		}
		if h.kind != plainTo {
			highlights++
		}
		if h.kind == addsTo {
			notifications++
		}
	}
	for i := len(j.all) - 1; i >= 0 && j.all[i].position > after; i-- {
		h := j.all[i]
		_, said := own[h.position]
		_, ignored := j.ignored[h.sender]
		if h.thread == thread && h.position <= upTo && h.sender != j.user && !said && !ignored {
			highlights++
			if h.kind == addsTo {
				notifications++
			}
		}
	}
	return max(notifications, 0), highlights
}
