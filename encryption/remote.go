package encryption

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// How long, and how many at a time, other servers are asked.
const (
	defaultWait = 10 * time.Second
	maxWait     = 60 * time.Second
	askedAtOnce = 32
	keptAtOnce  = 200 // lists of one write
)

// failures say which servers could not be reached.
type failures map[matrix.ServerName]*matrix.Error

// asked asks every server for its part, all at the same time, and takes what
// comes within the timeout, one answer after the other. Servers that could not be
// reached a moment ago are not waited for.
func asked[Q, A any](ctx context.Context, e *Encryption, timeout int64, parts map[matrix.ServerName]Q, failed failures,
	ask func(context.Context, matrix.ServerName, Q) (A, error), take func(Q, A)) {
	if len(parts) == 0 {
		return
	}
	wait := defaultWait
	if timeout > 0 {
		wait = min(time.Duration(min(timeout, maxWait.Milliseconds()))*time.Millisecond, maxWait)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(askedAtOnce)
	for server, part := range parts {
		if e.Remote == nil || e.resync.away(server) {
			mu.Lock()
			failed[server] = unreachable(nil)
			mu.Unlock()
			continue
		}
		group.Go(func() error {
			got, err := ask(ctx, server, part)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed[server] = unreachable(err)
				return nil
			}
			e.resync.reachable(server)
			take(part, got)
			return nil
		})
	}
	_ = group.Wait() // every error is a failure of its server
}

func unreachable(err error) *matrix.Error {
	if errors.Is(err, context.DeadlineExceeded) {
		return matrix.NewError(http.StatusGatewayTimeout, matrix.CodeConnectionTimeout, "The server did not answer in time")
	}
	return matrix.NewError(http.StatusBadGateway, matrix.CodeConnectionFailed, "The server cannot be reached")
}

// asking are the remote users who are being asked about, and for how many requests.
type asking struct {
	mu    sync.Mutex
	users map[matrix.UserID]int
}

// note notes users until the function that it returns is called.
func (a *asking) note(users wantedKeys) (done func()) {
	add := func(n int) {
		a.mu.Lock()
		defer a.mu.Unlock()
		for u := range users {
			if a.users[u] += n; a.users[u] == 0 {
				delete(a.users, u)
			}
		}
	}
	add(1)
	return func() { add(-1) }
}

func (a *asking) about(u matrix.UserID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.users[u] > 0
}

// byServer parts what is wanted of remote users by whom to ask.
func byServer(users wantedKeys) map[matrix.ServerName]wantedKeys {
	parts := map[matrix.ServerName]wantedKeys{}
	for user, devices := range users {
		if parts[user.Server()] == nil {
			parts[user.Server()] = wantedKeys{}
		}
		parts[user.Server()][user] = devices
	}
	return parts
}

// remoteLists gives the lists of remote users: those that are known, and for the
// others what their servers answer. If a server does not answer its users have
// what was known of them last, if anything. Users whom nobody knows are left out.
// spec: server-server#device-management
func (e *Encryption) remoteLists(ctx context.Context, timeout int64, users wantedKeys, failed failures) (map[matrix.UserID]*deviceList, error) {
	lists, err := e.trackedLists(ctx, slices.Collect(maps.Keys(users)))
	if err != nil {
		return nil, err
	}
	rest := maps.Clone(users)
	maps.DeleteFunc(rest, func(u matrix.UserID, _ []matrix.DeviceID) bool { return lists[u] != nil })
	if len(rest) == 0 {
		return lists, nil
	}
	together, err := e.Rooms.InCompany(ctx, e.DB, slices.Collect(maps.Keys(rest)), math.MaxInt64)
	if err != nil {
		return nil, err
	}
	for _, user := range together {
		rest[user] = nil // all of the list, so that it can be kept
	}
	got := map[matrix.UserID]fetched{}
	defer e.asked.note(rest)()
	at := e.DB.Position()
	asked(ctx, e, timeout, byServer(rest), failed, e.queryServer, func(part wantedKeys, keys *Keys) {
		for user := range part { // a server speaks for whom it was asked about
			l := listOfKeys(user, keys)
			if keys.Devices[user] != nil || len(l.cross) > 0 {
				lists[user] = l.list(user)
			}
			if slices.Contains(together, user) {
				got[user] = fetched{l, unknownStream, at}
			}
		}
	})
	e.keepAll(ctx, got)
	missing := slices.DeleteFunc(together, func(u matrix.UserID) bool { _, ok := got[u]; return ok })
	if err := e.askLater(ctx, missing); err != nil {
		return nil, err
	}
	return lists, addOutdated(ctx, e.DB, missing, lists)
}

func (e *Encryption) queryServer(ctx context.Context, server matrix.ServerName, users wantedKeys) (*Keys, error) {
	return e.Remote.QueryKeys(ctx, server, users)
}

// keepAll keeps lists that were asked for on behalf of a client, who gets them
// even if that fails.
func (e *Encryption) keepAll(ctx context.Context, got map[matrix.UserID]fetched) {
	for some := range slices.Chunk(slices.Collect(maps.Keys(got)), keptAtOnce) {
		part := map[matrix.UserID]fetched{}
		for _, user := range some {
			part[user] = got[user]
		}
		if _, err := e.keep(ctx, part); err != nil {
			e.Log.Warn("device lists of other servers could not be stored; they are asked for again", "error", err)
		}
	}
}

// askLater makes users be asked about again once their servers answer. Local users
// are told then.
func (e *Encryption) askLater(ctx context.Context, users []matrix.UserID) error {
	if len(users) == 0 || e.Remote == nil {
		return nil
	}
	servers := make([]matrix.ServerName, len(users))
	for i, u := range users {
		servers[i] = u.Server()
	}
	err := e.DB.Write(context.WithoutCancel(ctx), func(tx *db.Tx) error {
		return tx.Exec(insertStale, users, servers, unknownStream, tx.Position())
	})
	for _, s := range servers {
		e.resync.add(s)
	}
	return err
}

// addOutdated adds what was known last of users whose servers did not answer.
func addOutdated(ctx context.Context, q db.Querier, users []matrix.UserID, lists map[matrix.UserID]*deviceList) error {
	if len(users) == 0 {
		return nil
	}
	stored, err := readRemote(ctx, q, users)
	for user, l := range stored {
		lists[user] = l.list(user)
	}
	return err
}

// queryRemote adds the keys of remote users to an answer.
func (e *Encryption) queryRemote(ctx context.Context, asker matrix.UserID, timeout int64, users wantedKeys, answer *queryAnswer) error {
	lists, err := e.remoteLists(ctx, timeout, users, answer.failures)
	if err != nil {
		return err
	}
	signed, err := e.signedBy(ctx, asker)
	if err != nil {
		return err
	}
	for user, devices := range users {
		l := lists[user]
		if l != nil || answer.failures[user.Server()] == nil {
			answer.take(user, l, devices)
			answer.takeCross(user, l, asker, signed)
		}
	}
	return nil
}

// claimServer asks a server for one-time keys, and leaves out of what it gives
// what was not asked for or could not be used.
func (e *Encryption) claimServer(ctx context.Context, server matrix.ServerName, claims Claims) (Claimed, error) {
	got, err := e.Remote.ClaimKeys(ctx, server, claims)
	if err != nil {
		return nil, err
	}
	good := Claimed{}
	for user, devices := range claims {
		for id, algorithm := range devices {
			for keyID, raw := range got[user][id] {
				_, _, key, err := checkOneTime(keyID, raw, user)
				if err != nil || !strings.HasPrefix(keyID, algorithm+":") {
					continue
				}
				if good[user] == nil {
					good[user] = map[matrix.DeviceID]map[string]json.RawMessage{}
				}
				good[user][id] = map[string]json.RawMessage{keyID: json.RawMessage(key)}
				break
			}
		}
	}
	return good, nil
}
