package keys

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// A server's latest answer is kept beside the keys, for whom we are a notary to.
// It no longer lists all keys: those that a server forgot stay in the other
// table, since events are still signed by them.
var _ = db.Schema("federation_keys", `
CREATE TABLE federation_keys (
	server      TEXT NOT NULL,
	key_id      TEXT NOT NULL,
	public      {blob} NOT NULL,
	valid_until INTEGER NOT NULL,
	expired     INTEGER NOT NULL,
	PRIMARY KEY (server, key_id)
) {without rowid};
CREATE TABLE federation_key_answers (
	server      TEXT PRIMARY KEY,
	answer      {blob} NOT NULL,
	valid_until INTEGER NOT NULL,
	fetched     INTEGER NOT NULL
) {without rowid};
`)

var (
	selectKeys    = db.SQL(`SELECT server, key_id, public, valid_until, expired FROM federation_keys WHERE server IN {texts $1}`)
	selectAnswers = db.SQL(`SELECT server, answer, valid_until, fetched FROM federation_key_answers WHERE server IN {texts $1}`)
	upsertKey     = db.SQL(`INSERT INTO federation_keys (server, key_id, public, valid_until, expired) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (server, key_id) DO UPDATE SET public = excluded.public, valid_until = excluded.valid_until, expired = excluded.expired`)
	upsertAnswer = db.SQL(`INSERT INTO federation_key_answers (server, answer, valid_until, fetched) VALUES ($1, $2, $3, $4)
		ON CONFLICT (server) DO UPDATE SET answer = excluded.answer, valid_until = excluded.valid_until, fetched = excluded.fetched`)
)

// loadRecords reads what is kept about servers; one that is not known has no
// record.
func loadRecords(ctx context.Context, d *db.DB, servers []matrix.ServerName) (map[matrix.ServerName]*record, error) {
	found := map[matrix.ServerName]*record{}
	at := func(server matrix.ServerName) *record {
		if found[server] == nil {
			found[server] = &record{kept: true}
		}
		return found[server]
	}
	err := d.View(ctx, func(q db.Querier) error {
		err := db.Each(ctx, q, selectKeys, func(s db.Scanner) error {
			var server matrix.ServerName
			var k Key
			if err := s.Scan(&server, &k.ID, (*[]byte)(&k.Public), &k.ValidUntil, &k.Expired); err != nil {
				return err
			}
			r := at(server)
			r.keys = append(r.keys, k)
			return nil
		}, servers)
		if err != nil {
			return err
		}
		return db.Each(ctx, q, selectAnswers, func(s db.Scanner) error {
			var server matrix.ServerName
			var json []byte
			var validUntil, fetched int64
			if err := s.Scan(&server, &json, &validUntil, &fetched); err != nil {
				return err
			}
			r := at(server)
			r.answer, r.validUntil, r.fetched = json, validUntil, fetched
			return nil
		}, servers)
	})
	return found, err
}

// saveRecord keeps what is known about a server.
func saveRecord(tx *db.Tx, server matrix.ServerName, r *record) error {
	for _, k := range r.keys {
		if err := tx.Exec(upsertKey, server, k.ID, []byte(k.Public), k.ValidUntil, k.Expired); err != nil {
			return err
		}
	}
	return tx.Exec(upsertAnswer, server, r.answer, r.validUntil, r.fetched)
}
