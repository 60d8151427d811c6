package data

import (
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/db"
)

// room_id is ” for the account's own data.
var _ = db.Schema("accountdata",
	`CREATE TABLE account_data (
		user_id TEXT NOT NULL,
		room_id TEXT NOT NULL,
		type TEXT NOT NULL,
		content {blob} NOT NULL,
		position BIGINT NOT NULL,
		PRIMARY KEY (user_id, room_id, type)
	)`,
	`CREATE INDEX account_data_position ON account_data (user_id, position)`,
	`CREATE TABLE filters (
		user_id TEXT NOT NULL,
		filter_id TEXT NOT NULL,
		definition {blob} NOT NULL,
		PRIMARY KEY (user_id, filter_id)
	)`,
	`CREATE TABLE openid_tokens (
		token_hash TEXT NOT NULL PRIMARY KEY,
		user_id TEXT NOT NULL,
		expires_ts BIGINT NOT NULL
	)`,
	`CREATE INDEX openid_tokens_expires ON openid_tokens (expires_ts)`,
)

var (
	selectContent = db.SQL(`SELECT content FROM account_data WHERE user_id = $1 AND room_id = $2 AND type = $3`)
	upsertContent = db.SQL(`INSERT INTO account_data (user_id, room_id, type, content, position) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (user_id, room_id, type) DO UPDATE SET content = excluded.content, position = excluded.position`)
	selectAll     = db.SQL(`SELECT room_id, type, content, position FROM account_data WHERE user_id = $1 ORDER BY room_id, type`)
	selectSince   = db.SQL(`SELECT room_id, type, content, position FROM account_data WHERE user_id = $1 AND position > $2 AND position <= $3 ORDER BY position`)
	selectIgnored = db.SQL(`SELECT user_id, content FROM account_data WHERE user_id IN {texts $1} AND room_id = '' AND type = 'm.ignored_user_list'`)

	selectIgnoring = db.SQL(`SELECT user_id, content FROM account_data WHERE room_id = '' AND type = 'm.ignored_user_list'`)

	eraseContent = db.SQL(`DELETE FROM account_data WHERE user_id = $1`)
	eraseFilters = db.SQL(`DELETE FROM filters WHERE user_id = $1`)
	eraseOpenID  = db.SQL(`DELETE FROM openid_tokens WHERE user_id = $1`)

	insertFilter = db.SQL(`INSERT INTO filters (user_id, filter_id, definition) VALUES ($1, $2, $3) ON CONFLICT (user_id, filter_id) DO NOTHING`)
	selectFilter = db.SQL(`SELECT definition FROM filters WHERE user_id = $1 AND filter_id = $2`)

	insertOpenID  = db.SQL(`INSERT INTO openid_tokens (token_hash, user_id, expires_ts) VALUES ($1, $2, $3)`)
	selectOpenID  = db.SQL(`SELECT user_id FROM openid_tokens WHERE token_hash = $1 AND expires_ts > $2`)
	deleteExpired = db.SQL(`DELETE FROM openid_tokens WHERE expires_ts <= $1`)
)

func scanContent(row db.Scanner) (json.RawMessage, error) {
	var content []byte
	err := row.Scan(&content)
	return content, err
}

func scanEntry(row db.Scanner) (Entry, error) {
	var e Entry
	err := row.Scan((*string)(&e.Room), &e.Type, (*[]byte)(&e.Content), &e.Position)
	return e, err
}
