package push

import (
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/db"
)

var _ = db.Schema("push", `
CREATE TABLE push_rules (
	user_id TEXT NOT NULL PRIMARY KEY,
	book    {blob} NOT NULL
) {without rowid};
`)

var (
	selectBook  = db.SQL(`SELECT book FROM push_rules WHERE user_id = $1`)
	selectBooks = db.SQL(`SELECT user_id, book FROM push_rules WHERE user_id IN {texts $1}`)
	upsertBook  = db.SQL(`INSERT INTO push_rules (user_id, book) VALUES ($1, $2) ON CONFLICT (user_id) DO UPDATE SET book = excluded.book`)
	deleteBook  = db.SQL(`DELETE FROM push_rules WHERE user_id = $1`)
)

func scanBook(s db.Scanner) (*book, error) {
	var raw []byte
	if err := s.Scan(&raw); err != nil {
		return nil, err
	}
	b := &book{}
	return b, json.Unmarshal(raw, b)
}
