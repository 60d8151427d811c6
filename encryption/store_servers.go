package encryption

import "github.com/teahouse-chat/teahouse/internal/db"

// What other servers are told of local users.
var (
	upsertStreamChanges = db.SQL(`INSERT INTO stream_changes (user_id, device_id, stream_id)
		SELECT $1, a.value, a.value2 FROM {texts $2, ints $3} AS a WHERE 1 = 1
		ON CONFLICT (user_id, device_id) DO UPDATE SET stream_id = excluded.stream_id`)
	selectStreamChanges = db.SQL(`SELECT device_id, stream_id FROM stream_changes WHERE user_id = $1 ORDER BY stream_id`)
	deleteStreamChanges = db.SQL(`DELETE FROM stream_changes WHERE user_id = $1 AND device_id IN {texts $2}`)

	upsertStream = db.SQL(`INSERT INTO device_streams (user_id, newest, announced, forgotten) VALUES ($1, $2, 0, 0)
		ON CONFLICT (user_id) DO UPDATE SET newest = excluded.newest`)
	selectStreams   = db.SQL(`SELECT user_id, newest, announced, forgotten FROM device_streams WHERE user_id IN {texts $1}`)
	selectDue       = db.SQL(`SELECT user_id FROM device_streams WHERE announced < newest`)
	updateAnnounced = db.SQL(`UPDATE device_streams SET announced = $2 WHERE user_id = $1`)
	updateForgotten = db.SQL(`UPDATE device_streams SET forgotten = $2 WHERE user_id = $1`)

	selectTold = db.SQL(`SELECT server, stream_id FROM told_servers WHERE user_id = $1`)
	toldUsers  = db.SQL(`SELECT user_id FROM told_servers WHERE server = $1 AND user_id IN {texts $2}`)
	// The servers that know all of a user that there is to know.
	toldAll = db.SQL(`SELECT t.user_id, t.server FROM told_servers t JOIN device_streams s ON s.user_id = t.user_id
		WHERE t.user_id IN {texts $1} AND t.stream_id >= s.newest`)
	upsertTold = db.SQL(`INSERT INTO told_servers (user_id, server, stream_id, behind) SELECT $1, a.value, $2, 0 FROM {texts $3} AS a WHERE 1 = 1
		ON CONFLICT (user_id, server) DO UPDATE SET stream_id = excluded.stream_id, behind = 0`)
	// Who has asked has what there was at that moment, or later.
	insertTold = db.SQL(`INSERT INTO told_servers (user_id, server, stream_id, behind) SELECT s.user_id, $1, s.newest, 0
		FROM device_streams s WHERE s.user_id IN {texts $2} ON CONFLICT (user_id, server) DO NOTHING`)
	markBehind = db.SQL(`UPDATE told_servers SET behind = 1
		WHERE user_id = $1 AND stream_id < $2 AND behind = 0 AND server NOT IN {texts $3}`)
	selectBehind   = db.SQL(`SELECT user_id FROM told_servers WHERE behind = 1 UNION SELECT user_id FROM asking_servers`)
	selectBehindOf = db.SQL(`SELECT user_id FROM told_servers WHERE server = $1 AND behind = 1
		UNION SELECT user_id FROM asking_servers WHERE server = $1`)

	selectAsked  = db.SQL(`SELECT server FROM asking_servers WHERE user_id = $1`)
	askedUsers   = db.SQL(`SELECT user_id FROM asking_servers WHERE server = $1 AND user_id IN {texts $2}`)
	insertAsking = db.SQL(`INSERT INTO asking_servers (server, user_id, ts) SELECT $1, a.value, $2 FROM {texts $3} AS a WHERE 1 = 1
		ON CONFLICT (server, user_id) DO NOTHING`)
	deleteAsked = db.SQL(`DELETE FROM asking_servers WHERE user_id = $1 AND server IN {texts $2}`)
	pruneAsking = db.SQL(`DELETE FROM asking_servers WHERE ts < $1`)
)

// The lists of other servers' users.
var (
	selectRemoteUsers = db.SQL(`SELECT user_id, stream_id, touched, stale FROM remote_users WHERE user_id IN {texts $1}`)
	upsertRemoteUser  = db.SQL(`INSERT INTO remote_users (user_id, server, stream_id, touched, stale) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (user_id) DO UPDATE SET stream_id = excluded.stream_id, touched = excluded.touched, stale = excluded.stale`)
	insertStale = db.SQL(`INSERT INTO remote_users (user_id, server, stream_id, touched, stale)
		SELECT a.value, a.value2, $3, $4, 1 FROM {texts $1, texts $2} AS a WHERE 1 = 1
		ON CONFLICT (user_id) DO NOTHING`)
	selectRemotePage = db.SQL(`SELECT user_id FROM remote_users WHERE user_id > $1 ORDER BY user_id LIMIT $2`)
	selectStale      = db.SQL(`SELECT user_id FROM remote_users WHERE server = $1 AND stale = 1 AND user_id > $2 ORDER BY user_id LIMIT $3`)
	staleServers     = db.SQL(`SELECT DISTINCT server FROM remote_users WHERE stale = 1`)
	deleteRemoteUser = db.SQL(`DELETE FROM remote_users WHERE user_id IN {texts $1}`)

	selectRemoteDevices = db.SQL(`SELECT user_id, device_id, keys FROM remote_devices WHERE user_id IN {texts $1}`)
	countRemoteDevices  = db.SQL(`SELECT count(*) FROM remote_devices WHERE user_id = $1 AND device_id <> $2`)
	upsertRemoteDevices = db.SQL(`INSERT INTO remote_devices (user_id, device_id, keys)
		SELECT $1, a.value, a.value2 FROM {texts $2, texts $3} AS a WHERE 1 = 1
		ON CONFLICT (user_id, device_id) DO UPDATE SET keys = excluded.keys`)
	deleteRemoteDevices    = db.SQL(`DELETE FROM remote_devices WHERE user_id = $1 AND device_id IN {texts $2}`)
	deleteAllRemoteDevices = db.SQL(`DELETE FROM remote_devices WHERE user_id IN {texts $1}`)

	selectRemoteCross = db.SQL(`SELECT user_id, usage, keys FROM remote_cross_keys WHERE user_id IN {texts $1}`)
	upsertRemoteCross = db.SQL(`INSERT INTO remote_cross_keys (user_id, usage, keys)
		SELECT $1, a.value, a.value2 FROM {texts $2, texts $3} AS a WHERE 1 = 1
		ON CONFLICT (user_id, usage) DO UPDATE SET keys = excluded.keys`)
	deleteRemoteCross    = db.SQL(`DELETE FROM remote_cross_keys WHERE user_id = $1 AND usage IN {texts $2}`)
	deleteAllRemoteCross = db.SQL(`DELETE FROM remote_cross_keys WHERE user_id IN {texts $1}`)
)

// Messages that other servers sent.
var (
	insertReceived = db.SQL(`INSERT INTO received_messages (origin, message_id, ts) VALUES ($1, $2, $3)
		ON CONFLICT (origin, message_id) DO NOTHING`)
	pruneReceived = db.SQL(`DELETE FROM received_messages WHERE ts < $1`)
)
