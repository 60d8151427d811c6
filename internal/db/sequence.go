package db

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// sequenceBlock is how many numbers one write reserves.
const sequenceBlock = 4096

// sequences are the sequences of a database.
//
// On SQLite this process is the only writer. Numbers need no write of their
// own: whatever commits next carries the reservation along, in time, because a
// number counts as used only once a transaction with it has committed. On
// PostgreSQL several processes may take numbers, so each reserves its blocks,
// in transactions of their own on a read connection, before handing them out.
type sequences struct {
	pool *pool // PostgreSQL; nil on SQLite

	mu     sync.Mutex
	byName map[string]*Sequence
	stored map[string]int64 // SQLite: next as found at start
}

// Sequence gives numbers from 1 on that grow and are never reused for another
// row, not after a restart either. There may be gaps.
type Sequence struct {
	name string
	all  *sequences

	mu    sync.Mutex
	next  int64
	limit int64 // numbers below are reserved
}

func (q *sequences) get(name string) *Sequence {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.byName[name]
	if s == nil {
		s = &Sequence{name: name, all: q}
		if q.pool == nil {
			s.next = max(q.stored[name], 1)
			s.limit = s.next
		}
		q.byName[name] = s
	}
	return s
}

// Next returns the next number. It may be called anywhere, within an op too. On
// PostgreSQL it panics if a block can't be reserved because the database is
// gone, which makes an op fail.
func (s *Sequence) Next() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all.pool != nil && s.next == s.limit {
		if err := s.reserve(); err != nil {
			panic(fmt.Errorf("db: reserving numbers of %s: %w", s.name, err))
		}
	}
	s.next++
	return s.next - 1
}

var saveSequence = common.SQL(`
	INSERT INTO sequences (name, next) VALUES ($1, $2)
	ON CONFLICT (name) DO UPDATE SET next = excluded.next`)

// save adds the reservations that are due to the writer's transaction. They
// count once confirm is told that it has committed.
func (q *sequences) save(c conn) (due []reservation, err error) {
	if q.pool != nil {
		return nil, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.byName {
		s.mu.Lock()
		r := reservation{s, s.next + sequenceBlock}
		enough := s.next <= s.limit-sequenceBlock/2
		s.mu.Unlock()
		if enough {
			continue
		}
		if err := c.exec(saveSequence, []any{s.name, r.limit}); err != nil {
			return nil, err
		}
		due = append(due, r)
	}
	return due, nil
}

// reservation is a new limit of a sequence.
type reservation struct {
	sequence *Sequence
	limit    int64
}

func confirm(due []reservation) {
	for _, r := range due {
		r.sequence.mu.Lock()
		r.sequence.limit = r.limit
		r.sequence.mu.Unlock()
	}
}

var growSequence = common.SQL(`
	INSERT INTO sequences (name, next) VALUES ($1, 1 + CAST($2 AS BIGINT))
	ON CONFLICT (name) DO UPDATE SET next = sequences.next + $2
	RETURNING next`)

// reserve takes the next block from the database.
func (s *Sequence) reserve() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		c, used, err := s.all.pool.get(ctx)
		if err != nil {
			return err
		}
		limit, err := growOn(ctx, c, s.name)
		retry := used && c.lost() && ctx.Err() == nil
		s.all.pool.put(c)
		if err == nil {
			s.next, s.limit = limit-sequenceBlock, limit
		}
		if !retry || err == nil {
			return err
		}
	}
}

func growOn(ctx context.Context, c conn, name string) (limit int64, err error) {
	if err := c.begin(true); err != nil {
		return 0, err
	}
	err = eachOn(ctx, c, growSequence, func(r Scanner) error { return r.Scan(&limit) }, name, sequenceBlock)
	if err != nil {
		c.rollback()
		return 0, err
	}
	return limit, c.commit()
}
