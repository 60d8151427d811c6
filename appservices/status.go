package appservices

import (
	"context"
	"encoding/json"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Status is how it stands with a service, for operators.
type Status struct {
	ID          string
	URL         string
	File        string // that it is configured by; "" if it was added at run time
	Sender      matrix.UserID
	Paused      bool
	Failures    int // since it last took something
	LastSuccess time.Time
	NextTry     time.Time // zero if it is not resting
	Problem     string    // of the last failure
	Waiting     int64     // events
	Oldest      time.Time // since when the first has been waiting that the service has not taken; zero if none is
	DeadLetters int64
}

// List tells how it stands with each service.
func (s *Services) List(ctx context.Context) ([]Status, error) {
	var rows []record
	numbers := map[*db.Stmt]map[int64]int64{countEvents: nil, countTxns: nil, countDead: nil, oldestEvent: nil}
	err := s.DB.View(ctx, func(q db.Querier) (err error) {
		if rows, err = db.All(ctx, q, listServices, scanRecord); err != nil {
			return err
		}
		for stmt := range numbers {
			if numbers[stmt], err = counts(ctx, q, stmt); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	set := s.current.Load()
	var list []Status
	for _, row := range rows {
		v := set.byID[row.id]
		if v == nil {
			continue
		}
		list = append(list, Status{
			ID: v.ID, URL: v.URL, File: v.File, Sender: v.Sender, Paused: row.paused, Failures: row.failures,
			LastSuccess: moment(row.lastSuccess), NextTry: moment(row.retryAt), Problem: row.problem,
			Waiting: numbers[countEvents][row.nid] + numbers[countTxns][row.nid], Oldest: moment(numbers[oldestEvent][row.nid]),
			DeadLetters: numbers[countDead][row.nid],
		})
	}
	return list, nil
}

func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// Retry has what waits for a service sent at once, by whichever process delivers it.
func (s *Services) Retry(ctx context.Context, id string) error {
	return s.change(ctx, func() error {
		return s.DB.Write(ctx, func(tx *db.Tx) error {
			n, err := tx.Changed(forgiveService, id)
			if err != nil {
				return err
			}
			if n == 0 {
				return noService(id)
			}
			return tx.Exec(bumpVersion)
		})
	})
}

// Hurry has what waits for a service sent at once, if it is not paused.
func (s *Services) Hurry(id string) {
	if c := s.courierOf(id); c != nil {
		c.hurry()
	}
}

func (s *Services) courierOf(id string) *courier {
	v := s.current.Load().byID[id]
	if v == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.couriers[v.nid]
}

// Pause stops sending to a service, or goes on. What comes meanwhile waits.
func (s *Services) Pause(ctx context.Context, id string, paused bool) error {
	return s.change(ctx, func() error {
		return s.DB.Write(ctx, func(tx *db.Tx) error {
			n, err := tx.Changed(updatePaused, paused, id)
			if err != nil {
				return err
			}
			if n == 0 {
				return noService(id)
			}
			return tx.Exec(bumpVersion)
		})
	})
}

// DeadLetter is an event that a service refused for ever.
type DeadLetter struct {
	NID     int64           `json:"id"`
	At      int64           `json:"ts"` // ms since 1970
	Problem string          `json:"problem"`
	Event   json.RawMessage `json:"event"` // or a whole transaction that has none
}

// DeadLetters lists what a service refused, behind the one with a number.
func (s *Services) DeadLetters(ctx context.Context, id string, after int64, limit int) ([]DeadLetter, error) {
	v := s.current.Load().byID[id]
	if v == nil {
		return nil, noService(id)
	}
	return db.All(ctx, s.DB, listDead, scanDead, v.nid, after, limit)
}

func scanDead(s db.Scanner) (d DeadLetter, err error) {
	var body []byte
	if err := s.Scan(&d.NID, &d.At, &d.Problem, &body); err != nil {
		return d, err
	}
	var c content
	if err := json.Unmarshal(body, &c); err != nil {
		return d, err
	}
	if d.Event = body; len(c.Events) > 0 {
		d.Event = c.Events[0]
	}
	return d, nil
}

// Replay sends dead letters again, behind all that has been sent: the one with the
// number, or all if that is 0. It tells how many there are.
func (s *Services) Replay(ctx context.Context, id string, nid int64) (int, error) {
	v := s.current.Load().byID[id]
	if v == nil {
		return 0, noService(id)
	}
	var n int
	err := s.DB.Write(ctx, func(tx *db.Tx) error {
		n = 0
		letters, err := db.All(ctx, tx, deadOf, scanLetter, v.nid, nid)
		if err != nil {
			return err
		}
		last, _, err := db.One(ctx, tx, lastPlace, scanPlace, v.nid)
		if err != nil {
			return err
		}
		for i, l := range letters {
			if err := tx.Exec(insertTxn, s.txnIDs.Next(), v.nid, last+1+int64(i), true, 1, s.Now().UnixMilli(), l.body); err != nil {
				return err
			}
			if err := tx.Exec(deleteDead, l.nid); err != nil {
				return err
			}
		}
		n = len(letters)
		return tx.Exec(bumpVersion) // for the process that delivers
	})
	if err != nil { // the write may still go on
		return 0, err
	}
	if n == 0 && nid != 0 {
		return 0, matrix.NotFound("The service %q has no dead letter with the number %d", id, nid)
	}
	s.waiting([]int64{v.nid})
	return n, nil
}

type letter struct {
	nid  int64
	body []byte
}

func scanLetter(s db.Scanner) (l letter, err error) {
	err = s.Scan(&l.nid, &l.body)
	return l, err
}

func scanPlace(s db.Scanner) (place int64, err error) {
	err = s.Scan(&place)
	return place, err
}
