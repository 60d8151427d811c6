package profiles

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// profile_debts holds the users whose rooms have yet to hear of a change; round
// grows with every further change.
var _ = db.Schema("profiles",
	`CREATE TABLE profile_fields (
		user_id TEXT NOT NULL,
		name TEXT NOT NULL,
		value {blob} NOT NULL,
		PRIMARY KEY (user_id, name)
	)`,
	`CREATE TABLE profile_debts (
		user_id TEXT NOT NULL PRIMARY KEY,
		round BIGINT NOT NULL
	)`,
)

var (
	selectFields = db.SQL(`SELECT user_id, name, value FROM profile_fields WHERE user_id IN {texts $1}`)
	upsertField  = db.SQL(`INSERT INTO profile_fields (user_id, name, value) VALUES ($1, $2, $3)
		ON CONFLICT (user_id, name) DO UPDATE SET value = excluded.value`)
	deleteField  = db.SQL(`DELETE FROM profile_fields WHERE user_id = $1 AND name = $2`)
	deleteFields = db.SQL(`DELETE FROM profile_fields WHERE user_id = $1`)

	addDebt = db.SQL(`INSERT INTO profile_debts (user_id, round) VALUES ($1, 1)
		ON CONFLICT (user_id) DO UPDATE SET round = profile_debts.round + 1`)
	selectDebt  = db.SQL(`SELECT user_id, round FROM profile_debts WHERE user_id = $1`)
	selectDebts = db.SQL(`SELECT user_id, round FROM profile_debts ORDER BY user_id`)
	settleDebt  = db.SQL(`DELETE FROM profile_debts WHERE user_id = $1 AND round = $2`)
	deleteDebt  = db.SQL(`DELETE FROM profile_debts WHERE user_id = $1`)
)

// readFields adds the profiles of users to into.
func readFields(ctx context.Context, q db.Querier, users []matrix.UserID, into map[matrix.UserID]Fields) error {
	return db.Each(ctx, q, selectFields, func(row db.Scanner) error {
		var user, name string
		var value []byte
		if err := row.Scan(&user, &name, &value); err != nil {
			return err
		}
		u := matrix.UserID(user)
		if into[u] == nil {
			into[u] = make(Fields)
		}
		into[u][name] = value
		return nil
	}, users)
}

type debt struct {
	user  matrix.UserID
	round int64
}

func scanDebt(row db.Scanner) (debt, error) {
	var d debt
	var user string
	err := row.Scan(&user, &d.round)
	d.user = matrix.UserID(user)
	return d, err
}

// owe notes that the user's rooms have to be told, and returns the round.
func owe(ctx context.Context, tx *db.Tx, user matrix.UserID) (int64, error) {
	if err := tx.Exec(addDebt, user); err != nil {
		return 0, err
	}
	d, _, err := db.One(ctx, tx, selectDebt, scanDebt, user)
	return d.round, err
}
