package push

import (
	"context"
	"encoding/json"
	"unicode/utf8"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

type pushersAnswer struct {
	Pushers []pusherSettings `json:"pushers"`
}

// spec: client-server#get_matrixclientv3pushers
func (p *Push) getPushers(_ context.Context, c *httpx.Caller, _ *nothing) (*pushersAnswer, error) {
	a := &pushersAnswer{Pushers: []pusherSettings{}}
	for _, u := range p.pushers.of(c.User) {
		a.Pushers = append(a.Pushers, u.settings)
	}
	return a, nil
}

// Limits of a pusher.
// spec: client-server#post_matrixclientv3pushersset
const (
	maxPushKeyBytes = 512
	maxAppIDChars   = 64
	maxNameBytes    = 512
	maxURLBytes     = 2048
	maxDataBytes    = 8 << 10
	maxPushers      = 64 // of a user
)

type pusherRequest struct {
	Kind       json.RawMessage `json:"kind"` // null: the pusher is to go
	PushKey    *string         `json:"pushkey"`
	AppID      *string         `json:"app_id"`
	AppName    *string         `json:"app_display_name"`
	DeviceName *string         `json:"device_display_name"`
	ProfileTag string          `json:"profile_tag"`
	Lang       *string         `json:"lang"`
	Data       json.RawMessage `json:"data"`
	Append     bool            `json:"append"`
}

// setPusher makes, changes or removes a pusher.
// spec: client-server#post_matrixclientv3pushersset
func (p *Push) setPusher(ctx context.Context, c *httpx.Caller, q *pusherRequest) (*struct{}, error) {
	switch {
	case q.PushKey == nil:
		return nil, matrix.MissingParam(`"pushkey" is missing`)
	case q.AppID == nil:
		return nil, matrix.MissingParam(`"app_id" is missing`)
	case q.Kind == nil:
		return nil, matrix.MissingParam(`"kind" is missing; null removes the pusher`)
	case len(*q.PushKey) > maxPushKeyBytes:
		return nil, matrix.InvalidParam(`"pushkey" has at most %d bytes`, maxPushKeyBytes)
	case utf8.RuneCountInString(*q.AppID) > maxAppIDChars:
		return nil, matrix.InvalidParam(`"app_id" has at most %d characters`, maxAppIDChars)
	}
	same := p.pushers.named(*q.AppID, *q.PushKey)
	if string(q.Kind) == "null" {
		return nil, p.removePushers(ctx, of(c.User, same))
	}
	u, err := p.newPusher(c, q)
	if err != nil {
		return nil, err
	}
	if q.Append {
		same = of(c.User, same)
	}
	return nil, p.replacePushers(ctx, u, same)
}

// of picks a user's own pushers.
func of(user matrix.UserID, all []*pusher) []*pusher {
	var own []*pusher
	for _, u := range all {
		if u.user == user {
			own = append(own, u)
		}
	}
	return own
}

// newPusher reads what a client wants a pusher to be.
func (p *Push) newPusher(c *httpx.Caller, q *pusherRequest) (*pusher, error) {
	var kind string
	if json.Unmarshal(q.Kind, &kind) != nil {
		return nil, matrix.BadJSON(`"kind" must be a string or null`)
	}
	switch {
	case kind == "email":
		return nil, matrix.InvalidParam("This server sends no mail; only pushers of the kind \"http\" are supported")
	case kind != "http":
		return nil, matrix.InvalidParam("Pushers of the kind %q are not supported; use \"http\"", kind)
	case q.AppName == nil:
		return nil, matrix.MissingParam(`"app_display_name" is missing`)
	case q.DeviceName == nil:
		return nil, matrix.MissingParam(`"device_display_name" is missing`)
	case q.Lang == nil:
		return nil, matrix.MissingParam(`"lang" is missing`)
	case q.Data == nil:
		return nil, matrix.MissingParam(`"data" is missing`)
	case max(len(*q.AppName), len(*q.DeviceName), len(*q.Lang), len(q.ProfileTag)) > maxNameBytes:
		return nil, matrix.InvalidParam("Names, language and profile tag have at most %d bytes each", maxNameBytes)
	case len(q.Data) > maxDataBytes:
		return nil, matrix.InvalidParam(`"data" has at most %d bytes`, maxDataBytes)
	}
	u := &pusher{
		user: c.User, device: c.Device, ts: p.Now().UnixMilli(), sending: sending{badge: unknownBadge},
		settings: pusherSettings{
			PushKey: *q.PushKey, Kind: kind, AppID: *q.AppID, AppName: *q.AppName, DeviceName: *q.DeviceName,
			ProfileTag: q.ProfileTag, Lang: *q.Lang, Data: compact(q.Data),
		},
	}
	return u, u.prepare(p.PlainHTTP)
}

// replacePushers puts a pusher in the place of others.
func (p *Push) replacePushers(ctx context.Context, u *pusher, others []*pusher) error {
	own := len(p.pushers.of(u.user)) - len(of(u.user, others))
	if own >= maxPushers {
		return matrix.InvalidParam("There are at most %d pushers; remove some first", maxPushers)
	}
	settings, err := json.Marshal(u.settings)
	if err != nil {
		return err
	}
	u.nid = p.pushers.seq.Next()
	err = p.DB.Write(ctx, func(tx *db.Tx) error {
		for _, old := range others {
			if err := tx.Exec(deletePusher, old.nid); err != nil {
				return err
			}
		}
		tx.Publish(pusherSet{u, others})
		return tx.Exec(insertPusher, u.nid, u.user, u.device, u.settings.AppID, u.settings.PushKey, settings, u.ts)
	})
	if db.IsUnique(err) { // the same client asks twice at once
		return matrix.LimitExceeded(0)
	}
	if err != nil {
		return err
	}
	return p.Wait(ctx, p.DB.Position())
}

// pusherSet is published when a pusher took the place of others.
type pusherSet struct {
	pusher *pusher
	others []*pusher
}
