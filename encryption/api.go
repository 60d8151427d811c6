package encryption

import "github.com/teahouse-chat/teahouse/internal/httpx"

// The rate-limit classes of the routes here.
const (
	LimitKeys = "keys"
	LimitSend = "send"
)

// Routes are the feature's part of the client surface.
func (e *Encryption) Routes() []httpx.Route {
	const v3 = "/_matrix/client/v3/"
	const backup = v3 + "room_keys/"
	const dehydrated = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
	keys, send, guests := httpx.Limit(LimitKeys), httpx.Limit(LimitSend), httpx.GuestsAllowed
	large := httpx.MaxBody(8 << 20) // a whole backup comes in few requests
	return []httpx.Route{
		// spec: client-server#guest-access
		httpx.JSON("POST", v3+"keys/upload", e.upload, keys, guests),
		// Older clients name their device in the path; it is the token's.
		httpx.JSON("POST", v3+"keys/upload/{deviceId}", e.uploadNamed, keys),
		httpx.JSON("POST", v3+"keys/query", e.query, keys, guests),
		httpx.JSON("POST", v3+"keys/claim", e.claim, keys, guests),
		httpx.JSON("GET", v3+"keys/changes", e.changes, keys),
		httpx.JSON("POST", v3+"keys/device_signing/upload", challenged(e.uploadCross), keys, httpx.Versions("unstable")),
		httpx.JSON("POST", v3+"keys/signatures/upload", e.uploadSignatures, keys, httpx.Versions("unstable")),

		httpx.JSON("PUT", v3+"sendToDevice/{eventType}/{txnId}", e.send, send, guests, httpx.MaxBody(4<<20), httpx.Versions("unstable")),

		httpx.JSON("POST", backup+"version", e.createBackup, keys, httpx.Versions("unstable")),
		httpx.JSON("GET", backup+"version", e.currentBackup, httpx.Versions("unstable")),
		httpx.JSON("GET", backup+"version/{version}", e.getBackup, httpx.Versions("unstable")),
		httpx.JSON("PUT", backup+"version/{version}", e.putBackup, keys, httpx.Versions("unstable")),
		httpx.JSON("DELETE", backup+"version/{version}", e.deleteBackup, keys, httpx.Versions("unstable")),

		httpx.JSON("PUT", backup+"keys", e.putKeys, keys, large, httpx.Versions("unstable")),
		httpx.JSON("GET", backup+"keys", e.getKeys, keys, httpx.Versions("unstable")),
		httpx.JSON("DELETE", backup+"keys", e.deleteKeys, keys, httpx.Versions("unstable")),
		httpx.JSON("PUT", backup+"keys/{roomId}", e.putRoomKeys, keys, large, httpx.Versions("unstable")),
		httpx.JSON("GET", backup+"keys/{roomId}", e.getRoomKeys, keys, httpx.Versions("unstable")),
		httpx.JSON("DELETE", backup+"keys/{roomId}", e.deleteRoomKeys, keys, httpx.Versions("unstable")),
		httpx.JSON("PUT", backup+"keys/{roomId}/{sessionId}", e.putSessionKey, keys, httpx.Versions("unstable")),
		httpx.JSON("GET", backup+"keys/{roomId}/{sessionId}", e.getSessionKey, keys, httpx.Versions("unstable")),
		httpx.JSON("DELETE", backup+"keys/{roomId}/{sessionId}", e.deleteSessionKey, keys, httpx.Versions("unstable")),

		httpx.JSON("PUT", dehydrated, e.dehydrate, keys),
		httpx.JSON("GET", dehydrated, e.getDehydrated, keys),
		httpx.JSON("DELETE", dehydrated, e.deleteDehydrated, keys),
		httpx.JSON("POST", dehydrated+"/{deviceId}/events", e.dehydratedEvents, keys, httpx.EmptyBodyOK),
	}
}
