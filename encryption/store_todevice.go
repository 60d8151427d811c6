package encryption

import "github.com/teahouse-chat/teahouse/internal/db"

// Messages to devices.
var (
	insertTxn = db.SQL(`INSERT INTO to_device_txns (user_id, device_id, event_type, txn_id, ts)
		VALUES ($1, $2, $3, $4, $5) ON CONFLICT (user_id, device_id, event_type, txn_id) DO NOTHING`)
	deleteTxns = db.SQL(`DELETE FROM to_device_txns WHERE user_id = $1 AND device_id IN {texts $2}`)
	pruneTxns  = db.SQL(`DELETE FROM to_device_txns WHERE ts < $1`)

	insertMessage = db.SQL(`INSERT INTO to_device (user_id, device_id, position, event) VALUES ($1, $2, $3, $4)`)
	insertCounted = db.SQL(`INSERT INTO to_device (user_id, device_id, position, account, event) VALUES ($1, $2, $3, $4, $5)`)
	insertWaiting = db.SQL(`INSERT INTO to_device_waiting (user_id, device_id, sender, arrival, event) VALUES ($1, $2, $3, $4, $5)`)
	// How many requests of a user are known, counted up to a limit, and whether any of their messages wait.
	countRequests = db.SQL(`SELECT (SELECT count(*) FROM (SELECT 1 AS one FROM to_device_txns WHERE user_id = $1 LIMIT $2) AS few),
		EXISTS (SELECT 1 FROM to_device_waiting WHERE sender = $1)`)
	countByAccount = db.SQL(`SELECT user_id, device_id, 0 AS waits, count(*) FROM to_device
		WHERE account = $1 AND user_id IN {texts $2} GROUP BY user_id, device_id
		UNION ALL SELECT user_id, device_id, 1 AS waits, count(*) FROM to_device_waiting
		WHERE sender = $1 AND user_id IN {texts $2} GROUP BY user_id, device_id`)
	selectMessages = db.SQL(`SELECT position, event FROM to_device
		WHERE user_id = $1 AND device_id = $2 AND position > $3 AND position <= $4 ORDER BY position LIMIT $5`)
	selectMessagesOf = db.SQL(`SELECT user_id, device_id, position, event FROM to_device
		WHERE user_id IN {texts $1} ORDER BY position LIMIT $2`)
	selectReceivers = db.SQL(`SELECT DISTINCT user_id FROM to_device`)
	oldestMessage   = db.SQL(`SELECT position FROM to_device WHERE user_id = $1 AND device_id = $2 ORDER BY position LIMIT 1`)
	deleteMessages  = db.SQL(`DELETE FROM to_device WHERE user_id = $1 AND device_id = $2 AND position <= $3`)
	selectWaiters   = db.SQL(`SELECT DISTINCT sender FROM to_device_waiting WHERE user_id = $1 AND device_id = $2 ORDER BY sender`)
	countPending    = db.SQL(`SELECT count(*) FROM to_device WHERE account = $1 AND user_id = $2 AND device_id = $3`)
	selectWaiting   = db.SQL(`SELECT arrival, event FROM to_device_waiting
		WHERE user_id = $1 AND device_id = $2 AND sender = $3 ORDER BY arrival LIMIT $4`)
	deleteWaiting = db.SQL(`DELETE FROM to_device_waiting WHERE user_id = $1 AND device_id = $2 AND sender = $3 AND arrival <= $4`)

	deleteInboxes = db.SQL(`DELETE FROM to_device WHERE user_id = $1 AND device_id IN {texts $2}`)
	deleteQueues  = db.SQL(`DELETE FROM to_device_waiting WHERE user_id = $1 AND device_id IN {texts $2}`)
)
