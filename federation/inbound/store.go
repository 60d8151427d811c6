package inbound

import (
	"github.com/teahouse-chat/teahouse/internal/db"
)

// inbound_staged holds events that the engine has not had yet, in the order of
// seq as they came. checked tells that the signatures were verified, pdu is
// canonical; received and retry_at are milliseconds since 1970.
//
// inbound_transactions remembers the latest transactions of each server. The slot
// is a hash of the transaction's id, so that a server has a few rows, whatever it
// sends; a server repeats only its last transaction.
var _ = db.Schema("inbound", `
CREATE TABLE inbound_staged (
	seq      INTEGER PRIMARY KEY,
	room_nid INTEGER NOT NULL,
	event_id TEXT NOT NULL,
	origin   TEXT NOT NULL,
	received INTEGER NOT NULL,
	checked  {bool} NOT NULL,
	tries    INTEGER NOT NULL,
	retry_at INTEGER NOT NULL,
	pdu      {blob} NOT NULL
);
CREATE UNIQUE INDEX inbound_staged_event ON inbound_staged (room_nid, event_id);
CREATE TABLE inbound_transactions (
	origin TEXT NOT NULL,
	slot   INTEGER NOT NULL,
	txn_id TEXT NOT NULL,
	ts     INTEGER NOT NULL,
	answer {blob} NOT NULL,
	PRIMARY KEY (origin, slot)
) {without rowid};
CREATE INDEX inbound_transactions_ts ON inbound_transactions (ts);
`)

var (
	// An event id does not cover the signatures. Whoever spoils them and is faster
	// must not keep out what was verified, or what the sender's own server sends.
	insertStaged = db.SQL(`INSERT INTO inbound_staged (seq, room_nid, event_id, origin, received, checked, tries, retry_at, pdu)
		VALUES ($1, $2, $3, $4, $5, $6, 0, 0, $7)
		ON CONFLICT (room_nid, event_id) DO UPDATE SET seq = excluded.seq, origin = excluded.origin, received = excluded.received,
			checked = excluded.checked, tries = 0, retry_at = 0, pdu = excluded.pdu
		WHERE inbound_staged.checked = 0 AND (excluded.checked = 1 OR $8 = 1 AND inbound_staged.origin <> excluded.origin)`)
	stagedOf    = db.SQL(`SELECT seq FROM inbound_staged WHERE seq IN {ints $1}`)
	stagedRooms = db.SQL(`SELECT DISTINCT room_nid FROM inbound_staged`)
	stagedIn    = db.SQL(`SELECT seq, event_id, origin, received, checked, tries, retry_at, pdu FROM inbound_staged
		WHERE room_nid = $1 ORDER BY seq`)
	pdusBySeq    = db.SQL(`SELECT seq, event_id, pdu FROM inbound_staged WHERE seq IN {ints $1}`)
	pdusByID     = db.SQL(`SELECT seq, event_id, pdu FROM inbound_staged WHERE room_nid = $1 AND event_id IN {texts $2}`)
	deleteStaged = db.SQL(`DELETE FROM inbound_staged WHERE seq IN {ints $1}`)
	deleteRoom   = db.SQL(`DELETE FROM inbound_staged WHERE room_nid = $1`)
	delayStaged  = db.SQL(`UPDATE inbound_staged SET tries = $1, retry_at = $2 WHERE seq = $3`)

	transactionAt     = db.SQL(`SELECT txn_id, answer FROM inbound_transactions WHERE origin = $1 AND slot = $2`)
	upsertTransaction = db.SQL(`INSERT INTO inbound_transactions (origin, slot, txn_id, ts, answer) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (origin, slot) DO UPDATE SET txn_id = excluded.txn_id, ts = excluded.ts, answer = excluded.answer`)
	pruneTransactions = db.SQL(`DELETE FROM inbound_transactions WHERE ts < $1`)
)
