package outbound

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const (
	firstRetry = 2 * time.Second // doubled with each failure
	maxRetry   = time.Hour
	ownFailure = 5 * time.Second // pause after a failure of our own
	firstWake  = time.Second     // from a failure until a sign of life counts; doubled with each that deceived
	maxWake    = 10 * time.Minute
	stubborn   = 8   // failures with the same answer from when on an event is suspected
	maxRefused = 3   // set aside in a row before the server is taken to fail
	maxProblem = 300 // bytes of an error that are kept
)

// doubled is a time that doubles with every step after the first.
func doubled(first time.Duration, step int, most time.Duration) time.Duration {
	return min(first<<min(step, 20), most)
}

// backoff is how long a destination rests after so many failures, give or take
// a quarter, so that those that failed together do not come back together.
func (q *Queues) backoff(failures int) time.Duration {
	pause := doubled(firstRetry, failures-1, maxRetry)
	var chance [2]byte
	if _, err := io.ReadFull(q.Rand, chance[:]); err != nil {
		return pause
	}
	return pause*3/4 + pause/2*time.Duration(binary.BigEndian.Uint16(chance[:]))/65536
}

// Wake tells that a server showed a sign of life. If it was resting after a
// failure, it is tried at once, or a little later if such signs were followed by
// failures before: some servers can reach us but not be reached.
func (q *Queues) Wake(server matrix.ServerName) {
	q.mu.Lock()
	defer q.mu.Unlock()
	d := q.all[server]
	if d == nil || !d.resting || d.failures == 0 {
		return
	}
	at := max(d.lastFailure+doubled(firstWake, d.woken, maxWake).Milliseconds(), d.notBefore)
	if at >= d.retryAt {
		return
	}
	d.woken++
	d.retryAt = at
	q.rest(d, time.UnixMilli(at).Sub(q.Now()))
}

// Retry tries a server now, however long it has failed. An operator asks for it.
func (q *Queues) Retry(server matrix.ServerName) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.Now().UnixMilli()
	if d := q.all[server]; d != nil && d.resting && d.retryAt > now {
		d.woken, d.retryAt = 0, now
		q.rest(d, 0)
	}
}

// explain is an error as operators see it.
func explain(err error) string {
	text := strings.ReplaceAll(strings.ToValidUTF8(err.Error(), ""), "\x00", "")
	if len(text) > maxProblem {
		text = strings.ToValidUTF8(text[:maxProblem], "") + "…"
	}
	return text
}

// retryAfter is when the server wants to be asked again.
func retryAfter(err error) time.Duration {
	if remote, ok := errors.AsType[*transport.RemoteError](err); ok {
		return min(remote.RetryAfter, maxRetry)
	}
	return 0
}

func notAllowed(err error) bool { return errors.Is(err, transport.ErrNotAllowed) }

// poisonous tells whether a transaction failed for what it carries: it would fail
// for ever. Others who answer so mean us, or are not what they should be.
func poisonous(err error) bool {
	if _, ok := errors.AsType[*event.FormatError](err); ok {
		return true // it can't be signed
	}
	remote, ok := errors.AsType[*transport.RemoteError](err)
	if !ok {
		return false
	}
	switch remote.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// answered tells whether it was the server itself that failed a transaction.
func answered(err error) bool {
	remote, ok := errors.AsType[*transport.RemoteError](err)
	if !ok {
		return poisonous(err)
	}
	switch remote.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return false
	}
	return true
}

// blames tells whether a transaction that carried one thing failed for it: it is
// poisonous, or the server breaks over it again and again.
func (q *Queues) blames(d *destination, err error) bool {
	if poisonous(err) {
		return true
	}
	remote, ok := errors.AsType[*transport.RemoteError](err)
	if !ok || remote.Status != http.StatusInternalServerError {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return d.failures >= stubborn
}
