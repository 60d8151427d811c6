package media

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/media/storage"
)

// A row of media is a file: with a hash if it is here, with expires_ts if it was
// announced and not uploaded yet, with neither if nothing is known but that it is
// quarantined. media_unused holds the hashes that may have lost their last row.
var _ = db.Schema("media", `
CREATE TABLE media (
	nid         INTEGER PRIMARY KEY,
	server      TEXT NOT NULL,
	media_id    TEXT NOT NULL,
	hash        TEXT NOT NULL,
	size        INTEGER NOT NULL,
	type        TEXT NOT NULL,
	name        TEXT NOT NULL,
	uploader    TEXT NOT NULL,
	kind        INTEGER NOT NULL,
	created_ts  INTEGER NOT NULL,
	used_ts     INTEGER NOT NULL,
	expires_ts  INTEGER NOT NULL,
	open        {bool} NOT NULL,
	quarantined {bool} NOT NULL,
	UNIQUE (server, media_id)
);
CREATE INDEX media_hash ON media (hash);
CREATE INDEX media_uploader ON media (uploader, size) WHERE uploader <> '';
CREATE INDEX media_pending ON media (expires_ts) WHERE expires_ts <> 0;
CREATE INDEX media_used ON media (kind, used_ts, size);
CREATE TABLE media_bans (
	hash      TEXT NOT NULL PRIMARY KEY,
	banned_ts INTEGER NOT NULL
) {without rowid};
CREATE TABLE media_thumbnails (
	source     TEXT NOT NULL,
	width      INTEGER NOT NULL,
	height     INTEGER NOT NULL,
	crop       {bool} NOT NULL,
	animated   {bool} NOT NULL,
	hash       TEXT NOT NULL,
	size       INTEGER NOT NULL,
	type       TEXT NOT NULL,
	PRIMARY KEY (source, width, height, crop, animated)
) {without rowid};
CREATE INDEX media_thumbnails_hash ON media_thumbnails (hash);
CREATE TABLE media_unused (
	hash  TEXT NOT NULL PRIMARY KEY,
	notes INTEGER NOT NULL
) {without rowid};
`, `
CREATE TABLE media_uses (
	event_id TEXT NOT NULL,
	server   TEXT NOT NULL,
	media_id TEXT NOT NULL,
	sender   TEXT NOT NULL,
	PRIMARY KEY (event_id, server, media_id)
) {without rowid};
CREATE INDEX media_uses_file ON media_uses (server, media_id);
CREATE TABLE media_parts (
	upload_id  TEXT NOT NULL PRIMARY KEY,
	uploader   TEXT NOT NULL,
	size       INTEGER NOT NULL,
	type       TEXT NOT NULL,
	name       TEXT NOT NULL,
	expires_ts INTEGER NOT NULL
) {without rowid};
CREATE INDEX media_parts_uploader ON media_parts (uploader);
CREATE INDEX media_parts_expires ON media_parts (expires_ts);
CREATE TABLE media_previews (
	url        TEXT NOT NULL PRIMARY KEY,
	answer     {blob} NOT NULL,
	fetched_ts INTEGER NOT NULL
) {without rowid};
CREATE INDEX media_previews_ts ON media_previews (fetched_ts);
`)

// Kind tells where a file comes from.
type Kind int

// The kinds of files.
const (
	KindUpload  Kind = iota // of a user of this server
	KindRemote              // of another server
	KindPreview             // a picture of a page that somebody linked to
)

// Record is what is known of a file.
type Record struct {
	Ref
	NID         int64
	Hash        storage.Hash // "" while it is not here
	Size        int64
	Type        string        // as its uploader says
	Name        string        // "" for none
	Uploader    matrix.UserID // "" if it is not of this server
	Kind        Kind
	CreatedTS   int64 // milliseconds since 1970
	UsedTS      int64
	ExpiresTS   int64 // until when it has to be uploaded; 0 once it is
	Open        bool  // may be had without a token
	Quarantined bool
}

var (
	columns = `m.nid, m.server, m.media_id, m.hash, m.size, m.type, m.name, m.uploader, m.kind, m.created_ts, m.used_ts, m.expires_ts, m.open,
		CASE WHEN m.quarantined = 1 OR b.hash IS NOT NULL THEN 1 ELSE 0 END
		FROM media m LEFT JOIN media_bans b ON b.hash = m.hash`

	selectMedia = db.SQL(`SELECT ` + columns + ` WHERE m.server = $1 AND m.media_id = $2`)

	insertMedia = db.SQL(`INSERT INTO media (nid, server, media_id, hash, size, type, name, uploader, kind, created_ts, used_ts, expires_ts, open, quarantined)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT (server, media_id) DO NOTHING`)
	fillMedia = db.SQL(`UPDATE media SET hash = $2, size = $3, type = $4, name = $5, expires_ts = 0, created_ts = $6, used_ts = $6
		WHERE nid = $1 AND hash = '' AND expires_ts > $6`)
	// Fetched again after only the row was kept, since it was quarantined or evicted.
	refillMedia = db.SQL(`UPDATE media SET hash = $3, size = $4, type = $5, name = $6, used_ts = $7, open = $8 WHERE server = $1 AND media_id = $2 AND hash = ''`)

	selectUsed = db.SQL(`SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM media WHERE uploader = $1 AND uploader <> ''`)
	selectWait = db.SQL(`SELECT COUNT(*) FROM media WHERE uploader = $1 AND expires_ts > $2 AND expires_ts <> 0`)
	anyBan     = db.SQL(`SELECT hash FROM media_bans LIMIT 1`)
	selectBan  = db.SQL(`SELECT hash FROM media_bans WHERE hash = $1`)
	touchMedia = db.SQL(`UPDATE media SET used_ts = $2 WHERE nid IN {ints $1}`)
)

func scanRecord(row db.Scanner) (Record, error) {
	var r Record
	err := row.Scan(&r.NID, &r.Server, &r.ID, &r.Hash, &r.Size, &r.Type, &r.Name, &r.Uploader, &r.Kind, &r.CreatedTS, &r.UsedTS, &r.ExpiresTS,
		&r.Open, &r.Quarantined)
	return r, err
}

// lookup reads a row, if there is one.
func lookup(ctx context.Context, q db.Querier, ref Ref) (Record, bool, error) {
	return db.One(ctx, q, selectMedia, scanRecord, ref.Server, ref.ID)
}

func insert(tx *db.Tx, r *Record) (bool, error) {
	n, err := tx.Changed(insertMedia, r.NID, r.Server, r.ID, r.Hash, r.Size, r.Type, r.Name, r.Uploader, int(r.Kind), r.CreatedTS, r.UsedTS, r.ExpiresTS,
		r.Open, r.Quarantined)
	return n > 0, err
}

// usage is how many files a user has, and their bytes.
func usage(ctx context.Context, q db.Querier, user matrix.UserID) (files, bytes int64, err error) {
	err = db.Each(ctx, q, selectUsed, func(row db.Scanner) error { return row.Scan(&files, &bytes) }, user)
	return files, bytes, err
}
