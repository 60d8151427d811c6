package outbound

import "github.com/teahouse-chat/teahouse/internal/matrix"

// Crash ends everything without storing anything.
func (q *Queues) Crash() {
	q.mu.Lock()
	q.closed = true
	if q.saver != nil {
		q.saver.Stop()
	}
	for _, d := range q.all {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	q.mu.Unlock()
	q.stop()
	q.flights.Wait()
}

// Remembers tells whether there is a record of a server in memory.
func (q *Queues) Remembers(server matrix.ServerName) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.all[server] != nil
}

// Head is the position up to which everybody without a cursor is said to have
// everything, in the database.
func (q *Queues) Head() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stored
}

// Sent is the position up to which a server has everything.
func (q *Queues) Sent(server matrix.ServerName) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	if d := q.all[server]; d != nil {
		return d.sent
	}
	return 0
}
