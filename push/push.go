package push

import (
	"encoding/json"
	"errors"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// AccountStore keeps what clients are shown of their users' settings.
type AccountStore interface {
	// Put stores account data of any type within a write.
	Put(tx *db.Tx, user matrix.UserID, typ string, content json.RawMessage) error
}

// Deps are what the feature is made of.
type Deps struct {
	DB   *db.DB
	Data AccountStore
}

// Push is the feature.
type Push struct {
	Deps
	books *books
}

// New makes the feature.
func New(d Deps) (*Push, error) {
	if d.DB == nil || d.Data == nil {
		return nil, errors.New("push: DB and Data are needed")
	}
	p := &Push{Deps: d, books: newBooks(d.DB)}
	d.DB.Subscribe(p.committed)
	return p, nil
}

// committed keeps what is cached true. It runs on the database's writer.
func (p *Push) committed(b db.Batch) {
	for _, change := range b.Changes {
		if c, ok := change.(rulesChanged); ok {
			p.books.change(c.user, c.book)
		}
	}
}
