package push

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// booksKept is how many users' rules are kept in memory, compiled.
const booksKept = 20_000

// shelf is a user's rules, ready for use. It never changes.
type shelf struct {
	book  *book
	rules *compiled
}

func newShelf(b *book, user matrix.UserID) *shelf { return &shelf{b, compile(b, user)} }

// books keeps the rules of users who were looked at lately.
type books struct {
	db    *db.DB
	mu    sync.Mutex
	known *lru.Cache[matrix.UserID, *shelf]
	// clock counts changes, so that what was read while one happened is not kept.
	clock int64
}

func newBooks(d *db.DB) *books {
	known, err := lru.New[matrix.UserID, *shelf](booksKept)
	if err != nil {
		panic(err) // the size is a constant
	}
	return &books{db: d, known: known}
}

func (k *books) one(ctx context.Context, user matrix.UserID) (*shelf, error) {
	all, err := k.of(ctx, []matrix.UserID{user})
	return all[user], err
}

// of returns the rules of users, read in one query where they are not known.
func (k *books) of(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]*shelf, error) {
	all := make(map[matrix.UserID]*shelf, len(users))
	var cold []matrix.UserID
	k.mu.Lock()
	for _, u := range users {
		if s, ok := k.known.Get(u); ok {
			all[u] = s
		} else {
			cold = append(cold, u)
		}
	}
	began := k.clock
	k.mu.Unlock()
	if len(cold) == 0 {
		return all, nil
	}
	read := make(map[matrix.UserID]*book, len(cold))
	err := db.Each(ctx, k.db, selectBooks, func(s db.Scanner) error {
		var user matrix.UserID
		var raw []byte
		if err := s.Scan(&user, &raw); err != nil {
			return err
		}
		read[user] = &book{}
		return json.Unmarshal(raw, read[user])
	}, cold)
	if err != nil {
		return nil, err
	}
	for _, u := range cold {
		b := read[u]
		if b == nil {
			b = &book{}
		}
		all[u] = newShelf(b, u)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.clock == began {
		for _, u := range cold {
			k.known.Add(u, all[u])
		}
	}
	return all, nil
}

// change replaces what is known of a user's rules.
func (k *books) change(user matrix.UserID, s *shelf) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.clock++
	k.known.Add(user, s)
}

// rulesChanged is published with every change of a user's rules.
type rulesChanged struct {
	user matrix.UserID
	*shelf
}

// edit changes a user's rules and what their clients see of them. What happened
// before is first held against the rules that were in force then.
func (p *Push) edit(ctx context.Context, user matrix.UserID, fn func(*book) error) error {
	if err := p.Wait(ctx, p.DB.Position()); err != nil {
		return err
	}
	p.ledger.write(p.checkpoint()) // also if the server is killed now
	return p.DB.Write(ctx, func(tx *db.Tx) error {
		old, found, err := db.One(ctx, tx, selectBook, scanBook, user)
		if err != nil {
			return err
		}
		if !found {
			old = &book{}
		}
		changed := old.copy()
		if err := fn(changed); err != nil {
			return err
		}
		was, now := old.encode(), changed.encode()
		switch {
		case bytes.Equal(was, now):
			return nil
		case changed.count() > maxRules:
			return matrix.InvalidParam("There are at most %d push rules; delete some first", maxRules)
		case len(now) > maxBookBytes:
			return matrix.TooLarge("All push rules together have at most %d bytes; delete some first", maxBookBytes)
		}
		if changed.plain() {
			err = tx.Exec(deleteBook, user)
		} else {
			err = tx.Exec(upsertBook, user, now)
		}
		if err != nil {
			return err
		}
		tx.Publish(rulesChanged{user, newShelf(changed, user)})
		return p.Data.Put(tx, user, typePushRules, changed.accountData(user))
	})
}

const typePushRules = "m.push_rules"
