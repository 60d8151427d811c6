package push

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"sync"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// pusher is where a user wants their notifications: an app on a device, behind a
// push gateway.
type pusher struct {
	nid      int64
	user     matrix.UserID
	device   matrix.DeviceID // "" if the token that made it belongs to none
	settings pusherSettings
	ts       int64           // when it was set; ms
	data     json.RawMessage // settings.Data without its url
	url      string
	host     string // of the gateway
	idOnly   bool   // the format event_id_only

	sending
}

// pusherSettings is what a client says of a pusher, and is shown again.
// spec: client-server#get_matrixclientv3pushers
type pusherSettings struct {
	PushKey    string          `json:"pushkey"`
	Kind       string          `json:"kind"`
	AppID      string          `json:"app_id"`
	AppName    string          `json:"app_display_name"`
	DeviceName string          `json:"device_display_name"`
	ProfileTag string          `json:"profile_tag,omitempty"`
	Lang       string          `json:"lang"`
	Data       json.RawMessage `json:"data"`
}

// prepare reads what delivery needs of the settings.
func (u *pusher) prepare(plainHTTP bool) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(u.settings.Data, &members); err != nil || members == nil {
		return matrix.BadJSON(`"data" must be an object`)
	}
	raw, ok := stringOf(members["url"])
	if !ok {
		return matrix.MissingParam(`"data" of an http pusher needs a "url"`)
	}
	where, err := url.Parse(raw)
	switch {
	case err != nil || where.Host == "" || where.User != nil || len(raw) > maxURLBytes:
		return matrix.InvalidParam(`"url" is not a URL`)
	case where.Scheme != "https" && !(plainHTTP && where.Scheme == "http"):
		return matrix.InvalidParam(`"url" must be an https URL`)
	case where.Path != gatewayPath:
		return matrix.InvalidParam(`The path of "url" must be %s`, gatewayPath)
	}
	where.Fragment = ""
	format, _ := stringOf(members["format"])
	u.url, u.host, u.idOnly = where.String(), where.Scheme+"://"+where.Host, format == "event_id_only"
	delete(members, "url")
	if u.data, err = json.Marshal(members); err != nil {
		return fmt.Errorf("push: the data of a pusher: %w", err)
	}
	return nil
}

// gatewayPath is where push gateways listen.
// spec: client-server#post_matrixclientv3pushersset
const gatewayPath = "/_matrix/push/v1/notify"

// pushers are all of the server's.
type pushers struct {
	seq *db.Sequence

	mu     sync.RWMutex
	byUser map[matrix.UserID][]*pusher // the lists are replaced, never changed
}

func (p *Push) loadPushers(ctx context.Context) (*pushers, error) {
	all := &pushers{seq: p.DB.Sequence("pusher"), byUser: map[matrix.UserID][]*pusher{}}
	return all, db.Each(ctx, p.DB, allPushers, func(s db.Scanner) error {
		u := &pusher{}
		var settings []byte
		if err := s.Scan(&u.nid, &u.user, &u.device, &u.settings.AppID, &u.settings.PushKey, &settings, &u.ts, &u.stored); err != nil {
			return err
		}
		if err := json.Unmarshal(settings, &u.settings); err != nil {
			return fmt.Errorf("push: a pusher of %s: %w", u.user, err)
		}
		if err := u.prepare(true); err != nil {
			return fmt.Errorf("push: a pusher of %s: %w", u.user, err)
		}
		u.resume, u.badge = u.stored, unknownBadge
		all.byUser[u.user] = append(all.byUser[u.user], u)
		return nil
	})
}

// has tells whether a user has pushers.
func (k *pushers) has(user matrix.UserID) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return len(k.byUser[user]) > 0
}

// of lists a user's pushers. The list is shared and not changed.
func (k *pushers) of(user matrix.UserID) []*pusher {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.byUser[user]
}

func (k *pushers) ofDevices(user matrix.UserID, devices []matrix.DeviceID) []*pusher {
	var some []*pusher
	for _, u := range k.of(user) {
		if u.device != "" && slices.Contains(devices, u.device) {
			some = append(some, u)
		}
	}
	return some
}

func (k *pushers) all() []*pusher {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var all []*pusher
	for _, list := range k.byUser {
		all = append(all, list...)
	}
	return all
}

// named lists the pushers of an app with a pushkey, whosever they are.
func (k *pushers) named(app, key string) []*pusher {
	var some []*pusher
	for _, u := range k.all() {
		if u.settings.AppID == app && u.settings.PushKey == key {
			some = append(some, u)
		}
	}
	return some
}

func (k *pushers) add(u *pusher) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.byUser[u.user] = append(slices.Clone(k.byUser[u.user]), u)
}

func (k *pushers) drop(gone []*pusher) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, u := range gone {
		left := slices.DeleteFunc(slices.Clone(k.byUser[u.user]), func(other *pusher) bool { return other == u })
		if len(left) == 0 {
			delete(k.byUser, u.user)
		} else {
			k.byUser[u.user] = left
		}
	}
}

// removePushers takes pushers away.
func (p *Push) removePushers(ctx context.Context, gone []*pusher) error {
	if len(gone) == 0 {
		return nil
	}
	p.pushers.drop(gone)
	p.delivery.stop(gone)
	return p.DB.Write(ctx, func(tx *db.Tx) error {
		for _, u := range gone {
			if err := tx.Exec(deletePusher, u.nid); err != nil {
				return err
			}
		}
		return nil
	})
}

// dropOrphans removes pushers of devices that were removed just before the server
// stopped.
func (p *Push) dropOrphans(ctx context.Context) error {
	owners := map[matrix.UserID]struct{}{}
	for _, u := range p.pushers.all() {
		owners[u.user] = struct{}{}
	}
	users := make([]matrix.UserID, 0, len(owners))
	for u := range owners {
		users = append(users, u)
	}
	for chunk := range slices.Chunk(users, 500) {
		devices, err := p.Sessions.Devices(ctx, chunk)
		if err != nil {
			return err
		}
		var gone []*pusher
		for _, user := range chunk {
			for _, u := range p.pushers.of(user) {
				if u.device != "" && !slices.Contains(devices[user], u.device) {
					gone = append(gone, u)
				}
			}
		}
		if err := p.removePushers(ctx, gone); err != nil {
			return err
		}
	}
	return nil
}
