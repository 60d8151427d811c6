package data

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Users is a set of users.
type Users map[matrix.UserID]struct{}

// Has tells whether the set holds user.
func (u Users) Has(user matrix.UserID) bool {
	_, ok := u[user]
	return ok
}

// Ignored returns whom user ignores. The set is shared: do not change it.
// spec: client-server#ignoring-users
func (d *Data) Ignored(ctx context.Context, user matrix.UserID) (Users, error) {
	all, err := d.IgnoredBy(ctx, []matrix.UserID{user})
	return all[user], err
}

// IgnoredBy returns whom each of users ignores, in one read; who ignores nobody
// is absent. The sets are shared: do not change them.
func (d *Data) IgnoredBy(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]Users, error) {
	found := make(map[matrix.UserID]Users)
	missing, age := d.ignored.get(users, found)
	if len(missing) == 0 {
		return found, nil
	}
	err := db.Each(ctx, d.db, selectIgnored, func(row db.Scanner) error {
		var user string
		var content []byte
		if err := row.Scan(&user, &content); err != nil {
			return err
		}
		if set := parseIgnored(matrix.UserID(user), content); len(set) > 0 {
			found[matrix.UserID(user)] = set
		}
		return nil
	}, missing)
	if err != nil {
		return nil, err
	}
	d.ignored.put(missing, found, age)
	return found, nil
}

// Ignoring lists everybody who ignores somebody.
func (d *Data) Ignoring(ctx context.Context) ([]matrix.UserID, error) {
	var users []matrix.UserID
	return users, db.Each(ctx, d.db, selectIgnoring, func(row db.Scanner) error {
		var user matrix.UserID
		var content []byte
		err := row.Scan(&user, &content)
		if len(parseIgnored(user, content)) > 0 {
			users = append(users, user)
		}
		return err
	})
}

// parseIgnored takes whatever a client stored: what is not a list ignores
// nobody, and nobody ignores themselves.
func parseIgnored(user matrix.UserID, content []byte) Users {
	var list struct {
		Users map[matrix.UserID]json.RawMessage `json:"ignored_users"`
	}
	if json.Unmarshal(content, &list) != nil {
		return nil
	}
	set := make(Users, len(list.Users))
	for u := range list.Users {
		if u != user {
			set[u] = struct{}{}
		}
	}
	return set
}
