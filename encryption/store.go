package encryption

import (
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// JSON is stored as canonical text, in which U+0000 stands escaped.
//
// device_keys.keys and cross_keys.keys are without signatures, which are rows of
// key_signatures: target_id is a device id or the public half of a cross-signing
// key.
//
// one_time_keys.claimed_ts is 0 until the key is given out.
//
// device_changes.seen_by is ” where everybody may know of the change, else the
// user for whom alone there is something new. device_changes and to_device hold
// positions of the stream. to_device_waiting holds what does not fit into the
// quota of its sender.
//
// The second migration is for other servers. device_streams and stream_changes
// say what they are to be told of local users: newest and stream_id are the
// stream ids of m.device_list_update, announced is the newest one that all
// servers concerned have been told, or are about to be, and what lies at or below
// forgotten is not known in detail any more. stream_changes.device_id is ” for
// the cross-signing keys. told_servers has what a server has been told; behind
// marks those that missed something as they shared no room with the user.
// asking_servers asked about users without sharing a room.
//
// remote_users are users of other servers who share a room with one of ours.
// touched is the position of the newest notice of a change; the list counts
// unless it is stale. remote_devices and remote_cross_keys hold keys with the
// signatures of their owners, canonical.
//
// The third and fourth migrations keep to_device in the order in which it is
// written: the messages of one request go to devices that lie far apart. account
// is whose quota a message counts against, NULL if it does not count: most do not,
// and cost one index less.
var _ = db.Schema("encryption", `
CREATE TABLE device_keys (
	user_id   TEXT NOT NULL,
	device_id TEXT NOT NULL,
	keys      TEXT NOT NULL,
	PRIMARY KEY (user_id, device_id)
) {without rowid};
CREATE TABLE cross_keys (
	user_id TEXT NOT NULL,
	usage   TEXT NOT NULL,
	public  TEXT NOT NULL,
	keys    TEXT NOT NULL,
	PRIMARY KEY (user_id, usage)
) {without rowid};
CREATE TABLE key_signatures (
	user_id    TEXT NOT NULL,
	target_id  TEXT NOT NULL,
	signer     TEXT NOT NULL,
	signer_key TEXT NOT NULL,
	signature  TEXT NOT NULL,
	PRIMARY KEY (user_id, target_id, signer, signer_key)
) {without rowid};
CREATE INDEX key_signatures_signer ON key_signatures (signer, signer_key);
CREATE TABLE one_time_keys (
	user_id    TEXT NOT NULL,
	device_id  TEXT NOT NULL,
	algorithm  TEXT NOT NULL,
	key_id     TEXT NOT NULL,
	keys       TEXT NOT NULL,
	batch      INTEGER NOT NULL,
	claimed_ts INTEGER NOT NULL,
	PRIMARY KEY (user_id, device_id, algorithm, key_id)
) {without rowid};
CREATE INDEX one_time_keys_next ON one_time_keys (user_id, device_id, algorithm, batch, key_id) WHERE claimed_ts = 0;
CREATE INDEX one_time_keys_claimed ON one_time_keys (claimed_ts) WHERE claimed_ts > 0;
CREATE TABLE fallback_keys (
	user_id   TEXT NOT NULL,
	device_id TEXT NOT NULL,
	algorithm TEXT NOT NULL,
	key_id    TEXT NOT NULL,
	keys      TEXT NOT NULL,
	used      {bool} NOT NULL,
	PRIMARY KEY (user_id, device_id, algorithm)
) {without rowid};
CREATE TABLE device_changes (
	user_id  TEXT NOT NULL,
	seen_by  TEXT NOT NULL,
	position INTEGER NOT NULL,
	PRIMARY KEY (user_id, seen_by)
) {without rowid};
CREATE INDEX device_changes_position ON device_changes (seen_by, position);
CREATE TABLE dehydrated_devices (
	user_id      TEXT NOT NULL,
	device_id    TEXT NOT NULL,
	device_data  TEXT NOT NULL,
	display_name TEXT NOT NULL,
	PRIMARY KEY (user_id)
) {without rowid};
CREATE TABLE to_device (
	user_id   TEXT NOT NULL,
	device_id TEXT NOT NULL,
	position  INTEGER NOT NULL,
	sender    TEXT NOT NULL,
	event     {blob} NOT NULL,
	PRIMARY KEY (user_id, device_id, position)
) {without rowid};
CREATE INDEX to_device_sender ON to_device (sender, user_id, device_id);
CREATE TABLE to_device_waiting (
	user_id   TEXT NOT NULL,
	device_id TEXT NOT NULL,
	sender    TEXT NOT NULL,
	arrival   INTEGER NOT NULL,
	event     {blob} NOT NULL,
	PRIMARY KEY (user_id, device_id, sender, arrival)
) {without rowid};
CREATE INDEX to_device_waiting_sender ON to_device_waiting (sender, user_id, device_id);
CREATE TABLE to_device_txns (
	user_id    TEXT NOT NULL,
	device_id  TEXT NOT NULL,
	event_type TEXT NOT NULL,
	txn_id     TEXT NOT NULL,
	ts         INTEGER NOT NULL,
	PRIMARY KEY (user_id, device_id, event_type, txn_id)
) {without rowid};
CREATE INDEX to_device_txns_ts ON to_device_txns (ts);
CREATE TABLE key_backups (
	user_id   TEXT NOT NULL,
	version   INTEGER NOT NULL,
	algorithm TEXT NOT NULL,
	auth_data TEXT NOT NULL,
	etag      INTEGER NOT NULL,
	keys      INTEGER NOT NULL,
	deleted   {bool} NOT NULL,
	PRIMARY KEY (user_id, version)
) {without rowid};
CREATE TABLE backup_keys (
	user_id       TEXT NOT NULL,
	version       INTEGER NOT NULL,
	room_id       TEXT NOT NULL,
	session_id    TEXT NOT NULL,
	first_index   INTEGER NOT NULL,
	forwarded     INTEGER NOT NULL,
	verified      {bool} NOT NULL,
	session       {blob} NOT NULL,
	PRIMARY KEY (user_id, version, room_id, session_id)
) {without rowid};
`, `
CREATE TABLE device_streams (
	user_id   TEXT NOT NULL,
	newest    INTEGER NOT NULL,
	announced INTEGER NOT NULL,
	forgotten INTEGER NOT NULL,
	PRIMARY KEY (user_id)
) {without rowid};
CREATE INDEX device_streams_due ON device_streams (user_id) WHERE announced < newest;
CREATE TABLE stream_changes (
	user_id   TEXT NOT NULL,
	device_id TEXT NOT NULL,
	stream_id INTEGER NOT NULL,
	PRIMARY KEY (user_id, device_id)
) {without rowid};
CREATE TABLE told_servers (
	user_id   TEXT NOT NULL,
	server    TEXT NOT NULL,
	stream_id INTEGER NOT NULL,
	behind    {bool} NOT NULL,
	PRIMARY KEY (user_id, server)
) {without rowid};
CREATE INDEX told_servers_behind ON told_servers (server) WHERE behind = 1;
CREATE TABLE asking_servers (
	server  TEXT NOT NULL,
	user_id TEXT NOT NULL,
	ts      INTEGER NOT NULL,
	PRIMARY KEY (server, user_id)
) {without rowid};
CREATE INDEX asking_servers_user ON asking_servers (user_id);
CREATE INDEX asking_servers_ts ON asking_servers (ts);
CREATE TABLE remote_users (
	user_id   TEXT NOT NULL,
	server    TEXT NOT NULL,
	stream_id INTEGER NOT NULL,
	touched   INTEGER NOT NULL,
	stale     {bool} NOT NULL,
	PRIMARY KEY (user_id)
) {without rowid};
CREATE INDEX remote_users_stale ON remote_users (server, user_id) WHERE stale = 1;
CREATE TABLE remote_devices (
	user_id   TEXT NOT NULL,
	device_id TEXT NOT NULL,
	keys      TEXT NOT NULL,
	PRIMARY KEY (user_id, device_id)
) {without rowid};
CREATE TABLE remote_cross_keys (
	user_id TEXT NOT NULL,
	usage   TEXT NOT NULL,
	keys    TEXT NOT NULL,
	PRIMARY KEY (user_id, usage)
) {without rowid};
CREATE TABLE received_messages (
	origin     TEXT NOT NULL,
	message_id TEXT NOT NULL,
	ts         INTEGER NOT NULL,
	PRIMARY KEY (origin, message_id)
) {without rowid};
CREATE INDEX received_messages_ts ON received_messages (ts);
`, `
DROP INDEX to_device_sender;
ALTER TABLE to_device RENAME TO old_to_device;
CREATE TABLE to_device (
	position  INTEGER PRIMARY KEY,
	user_id   TEXT NOT NULL,
	device_id TEXT NOT NULL,
	sender    TEXT NOT NULL,
	event     {blob} NOT NULL
);
INSERT INTO to_device (position, user_id, device_id, sender, event)
	SELECT position, user_id, device_id, sender, event FROM old_to_device ORDER BY position;
DROP TABLE old_to_device;
CREATE INDEX to_device_inbox ON to_device (user_id, device_id, position);
CREATE INDEX to_device_sender ON to_device (sender, user_id, device_id);
`, `
DROP INDEX to_device_inbox;
DROP INDEX to_device_sender;
ALTER TABLE to_device RENAME TO old_to_device;
CREATE TABLE to_device (
	position  INTEGER PRIMARY KEY,
	user_id   TEXT NOT NULL,
	device_id TEXT NOT NULL,
	account   TEXT,
	event     {blob} NOT NULL
);
INSERT INTO to_device (position, user_id, device_id, account, event)
	SELECT position, user_id, device_id, sender, event FROM old_to_device ORDER BY position;
DROP TABLE old_to_device;
CREATE INDEX to_device_inbox ON to_device (user_id, device_id, position);
CREATE INDEX to_device_account ON to_device (account, user_id, device_id) WHERE account IS NOT NULL;
`)

// Device and cross-signing keys.
var (
	selectDeviceKeys = db.SQL(`SELECT user_id, device_id, keys FROM device_keys WHERE user_id IN {texts $1}`)
	selectKeysOf     = db.SQL(`SELECT keys FROM device_keys WHERE user_id = $1 AND device_id = $2`)
	upsertDeviceKeys = db.SQL(`INSERT INTO device_keys (user_id, device_id, keys) VALUES ($1, $2, $3)
		ON CONFLICT (user_id, device_id) DO UPDATE SET keys = excluded.keys`)
	deleteDeviceKeys = db.SQL(`DELETE FROM device_keys WHERE user_id = $1 AND device_id IN {texts $2}`)

	selectCrossKeys = db.SQL(`SELECT user_id, usage, public, keys FROM cross_keys WHERE user_id IN {texts $1}`)
	upsertCrossKeys = db.SQL(`INSERT INTO cross_keys (user_id, usage, public, keys) VALUES ($1, $2, $3, $4)
		ON CONFLICT (user_id, usage) DO UPDATE SET public = excluded.public, keys = excluded.keys`)
	eraseCrossKeys  = db.SQL(`DELETE FROM cross_keys WHERE user_id = $1`)
	deleteCrossKeys = db.SQL(`DELETE FROM cross_keys WHERE user_id = $1 AND usage = $2`)

	// A user sees what the owner of a key and they themselves have signed.
	selectOwnSignatures = db.SQL(`SELECT user_id, target_id, signer, signer_key, signature FROM key_signatures
		WHERE user_id IN {texts $1} AND signer = user_id ORDER BY user_id, target_id, signer_key`)
	selectSignaturesBy = db.SQL(`SELECT user_id, target_id, signer, signer_key, signature FROM key_signatures
		WHERE signer = $1 AND user_id <> $1`)
	selectSignedBy  = db.SQL(`SELECT DISTINCT target_id FROM key_signatures WHERE user_id = $1 AND signer = $1 AND signer_key IN {texts $2}`)
	upsertSignature = db.SQL(`INSERT INTO key_signatures (user_id, target_id, signer, signer_key, signature)
		VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (user_id, target_id, signer, signer_key) DO UPDATE SET signature = excluded.signature
		WHERE key_signatures.signature <> excluded.signature`)
	deleteSignaturesOn = db.SQL(`DELETE FROM key_signatures WHERE user_id = $1 AND target_id IN {texts $2}`)
	deleteSignaturesBy = db.SQL(`DELETE FROM key_signatures WHERE signer = $1 AND signer_key IN {texts $2}`)

	// Those of a user's devices that others were told of, or would be.
	selectKnownDevices = db.SQL(`SELECT device_id FROM device_keys WHERE user_id = $1 AND device_id IN {texts $2}
		UNION SELECT device_id FROM stream_changes WHERE user_id = $1 AND device_id IN {texts $2}`)
	// The devices that anything is stored for.
	selectOwners = db.SQL(`SELECT user_id, device_id FROM device_keys
		UNION SELECT user_id, device_id FROM one_time_keys
		UNION SELECT user_id, device_id FROM fallback_keys
		UNION SELECT user_id, device_id FROM to_device`)
)

// One-time and fallback keys.
var (
	selectOneTime = db.SQL(`SELECT algorithm, key_id, keys FROM one_time_keys
		WHERE user_id = $1 AND device_id = $2 AND algorithm IN {texts $3} AND key_id IN {texts $4}`)
	insertOneTime = db.SQL(`INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, keys, batch, claimed_ts)
		SELECT $1, $2, a.value, a.value2, a.value3, $3, 0 FROM {texts $4, texts $5, texts $6} AS a`)
	countOneTime = db.SQL(`SELECT algorithm, count(*) FROM one_time_keys
		WHERE user_id = $1 AND device_id = $2 AND claimed_ts = 0 GROUP BY algorithm`)
	// The condition outside decides between processes that found the same key.
	claimOneTime = db.SQL(`UPDATE one_time_keys SET claimed_ts = $1
		WHERE user_id = $2 AND device_id = $3 AND algorithm = $4 AND claimed_ts = 0 AND key_id = (
			SELECT key_id FROM one_time_keys
			WHERE user_id = $2 AND device_id = $3 AND algorithm = $4 AND claimed_ts = 0
			ORDER BY batch, key_id LIMIT 1)
		RETURNING key_id, keys`)
	anyOneTime = db.SQL(`SELECT 1 FROM one_time_keys
		WHERE user_id = $1 AND device_id = $2 AND algorithm = $3 AND claimed_ts = 0 LIMIT 1`)
	deleteOneTime = db.SQL(`DELETE FROM one_time_keys WHERE user_id = $1 AND device_id IN {texts $2}`)
	pruneClaimed  = db.SQL(`DELETE FROM one_time_keys WHERE claimed_ts > 0 AND claimed_ts < $1`)

	selectFallback = db.SQL(`SELECT algorithm, key_id, keys, used FROM fallback_keys WHERE user_id = $1 AND device_id = $2`)
	upsertFallback = db.SQL(`INSERT INTO fallback_keys (user_id, device_id, algorithm, key_id, keys, used)
		VALUES ($1, $2, $3, $4, $5, 0) ON CONFLICT (user_id, device_id, algorithm)
		DO UPDATE SET key_id = excluded.key_id, keys = excluded.keys, used = 0`)
	useFallback    = db.SQL(`UPDATE fallback_keys SET used = 1 WHERE user_id = $1 AND device_id = $2 AND algorithm = $3`)
	deleteFallback = db.SQL(`DELETE FROM fallback_keys WHERE user_id = $1 AND device_id IN {texts $2}`)
)

// Changes of device lists.
var (
	upsertChange = db.SQL(`INSERT INTO device_changes (user_id, seen_by, position) VALUES ($1, $2, $3)
		ON CONFLICT (user_id, seen_by) DO UPDATE SET position = excluded.position`)
	selectChanges = db.SQL(`SELECT user_id, seen_by FROM device_changes
		WHERE (seen_by = '' OR seen_by = $1) AND position > $2 AND position <= $3 ORDER BY position`)
	selectListChanges = db.SQL(`SELECT user_id, position FROM device_changes
		WHERE seen_by = '' AND position > $1 AND position <= $2 ORDER BY position LIMIT $3`)
)

// Dehydrated devices.
var (
	selectDehydrated = db.SQL(`SELECT user_id, device_id, device_data, display_name FROM dehydrated_devices WHERE user_id IN {texts $1}`)
	upsertDehydrated = db.SQL(`INSERT INTO dehydrated_devices (user_id, device_id, device_data, display_name)
		VALUES ($1, $2, $3, $4) ON CONFLICT (user_id)
		DO UPDATE SET device_id = excluded.device_id, device_data = excluded.device_data, display_name = excluded.display_name`)
	deleteDehydrated = db.SQL(`DELETE FROM dehydrated_devices WHERE user_id = $1`)
)

func scanDevice(s db.Scanner) (d device, err error) {
	err = s.Scan(&d.user, &d.id)
	return d, err
}

func scanUser(s db.Scanner) (u matrix.UserID, err error) {
	err = s.Scan(&u)
	return u, err
}

func scanDeviceID(s db.Scanner) (id matrix.DeviceID, err error) {
	err = s.Scan(&id)
	return id, err
}

func scanServer(s db.Scanner) (name matrix.ServerName, err error) {
	err = s.Scan(&name)
	return name, err
}

func scanText(s db.Scanner) (text string, err error) {
	err = s.Scan(&text)
	return text, err
}

func scanInt(s db.Scanner) (n int64, err error) {
	err = s.Scan(&n)
	return n, err
}

// Key backups.
var (
	selectBackup = db.SQL(`SELECT version, algorithm, auth_data, etag, keys, deleted FROM key_backups
		WHERE user_id = $1 AND version = $2`)
	latestBackup = db.SQL(`SELECT version, algorithm, auth_data, etag, keys, deleted FROM key_backups
		WHERE user_id = $1 AND deleted = 0 ORDER BY version DESC LIMIT 1`)
	lastVersion  = db.SQL(`SELECT version FROM key_backups WHERE user_id = $1 ORDER BY version DESC LIMIT 1`)
	insertBackup = db.SQL(`INSERT INTO key_backups (user_id, version, algorithm, auth_data, etag, keys, deleted)
		VALUES ($1, $2, $3, $4, 0, 0, 0)`)
	updateBackup = db.SQL(`UPDATE key_backups SET auth_data = $1 WHERE user_id = $2 AND version = $3`)
	dropBackup   = db.SQL(`UPDATE key_backups SET deleted = 1, keys = 0, auth_data = '{}' WHERE user_id = $1 AND version = $2`)
	touchBackup  = db.SQL(`UPDATE key_backups SET etag = etag + 1, keys = keys + $1 WHERE user_id = $2 AND version = $3
		RETURNING etag, keys`)

	selectMetadata = db.SQL(`SELECT room_id, session_id, first_index, forwarded, verified FROM backup_keys
		WHERE user_id = $1 AND version = $2 AND room_id IN {texts $3} AND session_id IN {texts $4}`)
	upsertBackupKey = db.SQL(`INSERT INTO backup_keys (user_id, version, room_id, session_id, first_index, forwarded, verified, session)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (user_id, version, room_id, session_id)
		DO UPDATE SET first_index = excluded.first_index, forwarded = excluded.forwarded, verified = excluded.verified, session = excluded.session`)
	backupPage = db.SQL(`SELECT room_id, session_id, first_index, forwarded, verified, session FROM backup_keys
		WHERE user_id = $1 AND version = $2 AND (room_id > $3 OR room_id = $3 AND session_id > $4)
		ORDER BY room_id, session_id LIMIT $5`)
	backupRoomPage = db.SQL(`SELECT room_id, session_id, first_index, forwarded, verified, session FROM backup_keys
		WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id > $4 ORDER BY session_id LIMIT $5`)
	backupSession = db.SQL(`SELECT room_id, session_id, first_index, forwarded, verified, session FROM backup_keys
		WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id = $4`)
	eraseBackups        = db.SQL(`DELETE FROM key_backups WHERE user_id = $1`)
	eraseBackupKeys     = db.SQL(`DELETE FROM backup_keys WHERE user_id = $1`)
	deleteBackupKeys    = db.SQL(`DELETE FROM backup_keys WHERE user_id = $1 AND version = $2`)
	deleteBackupRoom    = db.SQL(`DELETE FROM backup_keys WHERE user_id = $1 AND version = $2 AND room_id = $3`)
	deleteBackupSession = db.SQL(`DELETE FROM backup_keys WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id = $4`)
)
