package encryption

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// askingKept is how long a server that asked without sharing a room may take to
// turn out to share one.
const askingKept = 24 * time.Hour

// FederationRequest is a request of a server that proved to be origin.
type FederationRequest struct {
	Origin matrix.ServerName
	Value  func(name string) string // of the path
	Body   []byte                   // "" or a JSON object
}

// Signed makes a route of the surface "federation" whose requests are signed; the
// answer is encoded as JSON.
type Signed func(method, path string, h func(context.Context, *FederationRequest) (any, error)) httpx.Route

// FederationRoutes are what other servers ask.
func (e *Encryption) FederationRoutes(signed Signed) []httpx.Route {
	const v1 = "/_matrix/federation/v1/user/"
	return []httpx.Route{
		signed(http.MethodGet, v1+"devices/{userId}", e.devicesFor),
		signed(http.MethodPost, v1+"keys/query", e.queryFor),
		signed(http.MethodPost, v1+"keys/claim", e.claimFor),
	}
}

// UserDevices is the whole list of a user's devices, at a point of the stream.
// spec: server-server#get_matrixfederationv1userdevicesuserid
type UserDevices struct {
	UserID      matrix.UserID     `json:"user_id"`
	StreamID    int64             `json:"stream_id"`
	Devices     []json.RawMessage `json:"devices"` // userDevice
	Master      json.RawMessage   `json:"master_key,omitempty"`
	SelfSigning json.RawMessage   `json:"self_signing_key,omitempty"`
}

type userDevice struct {
	ID   matrix.DeviceID `json:"device_id"`
	Keys json.RawMessage `json:"keys"`
	Name string          `json:"device_display_name,omitempty"`
}

// devicesFor gives a server the list of a user's devices. Whoever there is not
// has an empty one, as somebody without devices has.
// spec: server-server#get_matrixfederationv1userdevicesuserid
func (e *Encryption) devicesFor(ctx context.Context, r *FederationRequest) (any, error) {
	user, err := matrix.ParseUserID(r.Value("userId"))
	if err != nil {
		return nil, err
	}
	if !e.local(user) {
		return nil, matrix.InvalidParam("%s is not a user of this server", user)
	}
	company, err := e.noteAsking(ctx, r.Origin, []matrix.UserID{user})
	if err != nil {
		return nil, err
	}
	answer := &UserDevices{UserID: user, Devices: []json.RawMessage{}}
	var l *deviceList
	err = e.DB.View(ctx, func(q db.Querier) error {
		lists, err := e.localLists(ctx, q, []matrix.UserID{user})
		if err != nil {
			return err
		}
		l = lists[user]
		return db.Each(ctx, q, selectStreams, func(row db.Scanner) error {
			var announced, forgotten int64
			return row.Scan(&answer.UserID, &answer.StreamID, &announced, &forgotten)
		}, []matrix.UserID{user})
	})
	if err != nil || l == nil {
		return answer, err
	}
	for _, id := range slices.Sorted(maps.Keys(l.devices)) {
		d := userDevice{ID: id, Keys: l.nameless(id, "")}
		if company[user] {
			d.Name = l.names[id]
		}
		raw, err := json.Marshal(d)
		if err != nil {
			return nil, err
		}
		answer.Devices = append(answer.Devices, raw)
	}
	if k := l.cross[usageMaster]; k != nil {
		answer.Master = k.raw
	}
	if k := l.cross[usageSelfSigning]; k != nil {
		answer.SelfSigning = k.raw
	}
	return answer, nil
}

// queryFor gives a server the keys of users.
// spec: server-server#post_matrixfederationv1userkeysquery
func (e *Encryption) queryFor(ctx context.Context, r *FederationRequest) (any, error) {
	var q queryRequest
	if err := json.Unmarshal(r.Body, &q); err != nil {
		return nil, matrix.BadJSON("The body does not have the form of a query for keys").Because(err)
	}
	if q.DeviceKeys == nil {
		return nil, matrix.MissingParam("device_keys is missing")
	}
	if len(*q.DeviceKeys) > maxQueried {
		return nil, matrix.InvalidParam("At most %d users can be asked about at once", maxQueried)
	}
	var users []matrix.UserID
	for user := range *q.DeviceKeys {
		if _, err := matrix.ParseUserID(string(user)); err == nil && e.local(user) {
			users = append(users, user)
		}
	}
	company, err := e.noteAsking(ctx, r.Origin, users)
	if err != nil {
		return nil, err
	}
	lists, err := e.listsOf(ctx, users)
	if err != nil {
		return nil, err
	}
	keys := newKeys(len(users))
	for _, user := range users {
		l := lists[user]
		keys.take(user, l, (*q.DeviceKeys)[user])
		if l != nil && !company[user] {
			keys.Devices[user] = l.withoutNames(keys.Devices[user])
		}
		keys.takeCross(user, l, "", nil)
	}
	return keys, nil
}

// withoutNames are devices as strangers see them: how somebody names their
// devices is not what they need to know.
func (l *deviceList) withoutNames(devices map[matrix.DeviceID]json.RawMessage) map[matrix.DeviceID]json.RawMessage {
	bare := make(map[matrix.DeviceID]json.RawMessage, len(devices))
	for id := range devices {
		bare[id] = l.nameless(id, `,"unsigned":{}`)
	}
	return bare
}

// claimFor gives a server one-time keys.
// spec: server-server#post_matrixfederationv1userkeysclaim
func (e *Encryption) claimFor(ctx context.Context, r *FederationRequest) (any, error) {
	var q claimRequest
	if err := json.Unmarshal(r.Body, &q); err != nil {
		return nil, matrix.BadJSON("The body does not have the form of a claim of keys").Because(err)
	}
	if q.OneTimeKeys == nil {
		return nil, matrix.MissingParam("one_time_keys is missing")
	}
	total := 0
	claims := Claims{}
	for user, devices := range *q.OneTimeKeys {
		total += len(devices)
		if _, err := matrix.ParseUserID(string(user)); err == nil && e.local(user) {
			claims[user] = devices
		}
	}
	if total > maxClaims {
		return nil, matrix.InvalidParam("At most %d keys can be claimed at once", maxClaims)
	}
	claimed, err := e.ClaimLocal(ctx, claims)
	return &claimedAnswer{claimed}, err
}

type claimedAnswer struct {
	OneTimeKeys Claimed `json:"one_time_keys"`
}

// noteAsking notes that a server knows the lists of local users from now on, so
// that it hears of changes, and tells which of them it shares a room with. A
// server that shares none, as far as this one knows, hears of changes once it
// does: a user of it may have joined elsewhere a moment ago.
func (e *Encryption) noteAsking(ctx context.Context, origin matrix.ServerName, users []matrix.UserID) (company map[matrix.UserID]bool, err error) {
	if company, err = e.companyOf(ctx, origin, users); err != nil {
		return nil, err
	}
	noted := map[matrix.UserID]bool{}
	for _, s := range []*db.Stmt{toldUsers, askedUsers} {
		there, err := db.All(ctx, e.DB, s, scanUser, origin, users)
		if err != nil {
			return nil, err
		}
		for _, u := range there {
			noted[u] = true
		}
	}
	lists, err := e.listsOf(ctx, users)
	if err != nil {
		return nil, err
	}
	var near, strange []matrix.UserID
	for user := range lists {
		switch {
		case noted[user]:
		case company[user]:
			near = append(near, user)
		default:
			strange = append(strange, user)
		}
	}
	if len(near)+len(strange) == 0 || e.Outbox == nil {
		return company, nil
	}
	err = e.DB.Write(ctx, func(tx *db.Tx) error {
		if err := tx.Exec(insertTold, origin, near); err != nil {
			return err
		}
		if err := tx.Exec(insertAsking, origin, e.Now().UnixMilli(), strange); err != nil {
			return err
		}
		return e.prune(tx)
	})
	if err != nil || len(strange) == 0 {
		return company, err
	}
	return company, e.noteArrival(ctx, origin, strange)
}

// noteArrival looks for users whom a server came to share a room with while it
// was noted that it does not.
func (e *Encryption) noteArrival(ctx context.Context, origin matrix.ServerName, users []matrix.UserID) error {
	company, err := e.companyOf(ctx, origin, users)
	if err != nil {
		return err
	}
	if len(company) > 0 {
		e.backlog.add(slices.Collect(maps.Keys(company)))
	}
	return nil
}

// companyOf finds those of the local users who share a room with a server.
func (e *Encryption) companyOf(ctx context.Context, server matrix.ServerName, users []matrix.UserID) (map[matrix.UserID]bool, error) {
	common, err := e.Rooms.RoomsWith(ctx, server)
	if err != nil || len(common) == 0 {
		return nil, err
	}
	theirs := map[rooms.RoomNID]bool{}
	for _, n := range common {
		theirs[n] = true
	}
	shared, err := e.Rooms.SharedRooms(ctx, users)
	if err != nil {
		return nil, err
	}
	company := map[matrix.UserID]bool{}
	for user, list := range shared {
		if slices.ContainsFunc(list, func(n rooms.RoomNID) bool { return theirs[n] }) {
			company[user] = true
		}
	}
	return company, nil
}
