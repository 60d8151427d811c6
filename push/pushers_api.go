package push

import (
	"context"
	"unicode/utf8"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

type pushersAnswer struct {
	Pushers []struct{} `json:"pushers"`
}

// spec: client-server#get_matrixclientv3pushers
func (p *Push) getPushers(context.Context, *httpx.Caller, *nothing) (*pushersAnswer, error) {
	return &pushersAnswer{Pushers: []struct{}{}}, nil
}

// Limits of a pusher.
// spec: client-server#post_matrixclientv3pushersset
const (
	maxPushKeyBytes = 512
	maxAppIDChars   = 64
)

type pusherRequest struct {
	Kind    *string `json:"kind"` // null: the pusher is to go
	PushKey *string `json:"pushkey"`
	AppID   *string `json:"app_id"`
}

// setPusher takes the removal of pushers, of which there are none, and refuses
// new ones: a pusher that is accepted but never pushes would leave its owner
// waiting.
// spec: client-server#post_matrixclientv3pushersset
func (p *Push) setPusher(_ context.Context, _ *httpx.Caller, q *pusherRequest) (*struct{}, error) {
	switch {
	case q.PushKey == nil:
		return nil, matrix.MissingParam(`"pushkey" is missing`)
	case q.AppID == nil:
		return nil, matrix.MissingParam(`"app_id" is missing`)
	case len(*q.PushKey) > maxPushKeyBytes:
		return nil, matrix.InvalidParam(`"pushkey" has at most %d bytes`, maxPushKeyBytes)
	case utf8.RuneCountInString(*q.AppID) > maxAppIDChars:
		return nil, matrix.InvalidParam(`"app_id" has at most %d characters`, maxAppIDChars)
	case q.Kind != nil:
		return nil, matrix.InvalidParam("This server does not deliver push notifications of the kind %q", *q.Kind)
	}
	return nil, nil
}
