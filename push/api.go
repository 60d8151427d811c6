package push

import (
	"context"
	"net/http"
	"unicode/utf8"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Push is the feature.
type Push struct{}

// New makes the feature.
func New() (*Push, error) { return &Push{}, nil }

// Routes lists the client API. Clients differ in whether they end the paths of
// collections with a slash.
func (p *Push) Routes() []httpx.Route {
	const (
		v3   = "/_matrix/client/v3/"
		rule = v3 + "pushrules/global/{kind}/{ruleId}"
	)
	return []httpx.Route{
		httpx.JSON(http.MethodGet, v3+"pushrules", p.getAll, httpx.TrailingSlash),
		httpx.JSON(http.MethodGet, v3+"pushrules/global", p.getGlobal, httpx.TrailingSlash),
		httpx.JSON(http.MethodGet, v3+"pushrules/global/{kind}", p.getKind, httpx.TrailingSlash),
		httpx.JSON(http.MethodGet, rule, p.getRule),
		httpx.JSON(http.MethodGet, rule+"/enabled", p.getEnabled),
		httpx.JSON(http.MethodGet, rule+"/actions", p.getActions),
		httpx.JSON(http.MethodGet, v3+"pushers", p.getPushers),
		httpx.JSON(http.MethodPost, v3+"pushers/set", p.setPusher),
	}
}

type nothing struct{}

// spec: client-server#get_matrixclientv3pushrules
func (p *Push) getAll(_ context.Context, c *httpx.Caller, _ *nothing) (*account, error) {
	return &account{Predefined(c.User)}, nil
}

// spec: client-server#get_matrixclientv3pushrulesglobal
func (p *Push) getGlobal(_ context.Context, c *httpx.Caller, _ *nothing) (*Ruleset, error) {
	rules := Predefined(c.User)
	return &rules, nil
}

type kindRequest struct {
	Kind string `path:"kind"`
}

// getKind is not specified any more, but clients know it from earlier versions.
func (p *Push) getKind(_ context.Context, c *httpx.Caller, q *kindRequest) (*[]Rule, error) {
	all := Predefined(c.User)
	rules, ok := all.Kind(q.Kind)
	if !ok {
		return nil, errNoKind
	}
	return &rules, nil
}

var (
	errNoKind = matrix.NotFound("There is no such kind of push rules; the kinds are override, content, room, sender and underride")
	errNoRule = matrix.NotFound("There is no such push rule")
)

type ruleRequest struct {
	Kind string `path:"kind"`
	ID   string `path:"ruleId"`
}

func find(user matrix.UserID, q *ruleRequest) (*Rule, error) {
	all := Predefined(user)
	rules, ok := all.Kind(q.Kind)
	if !ok {
		return nil, errNoKind
	}
	for i := range rules {
		if rules[i].ID == q.ID {
			return &rules[i], nil
		}
	}
	return nil, errNoRule
}

// spec: client-server#get_matrixclientv3pushrulesglobalkindruleid
func (p *Push) getRule(_ context.Context, c *httpx.Caller, q *ruleRequest) (*Rule, error) {
	return find(c.User, q)
}

type enabledAnswer struct {
	Enabled bool `json:"enabled"`
}

// spec: client-server#get_matrixclientv3pushrulesglobalkindruleidenabled
func (p *Push) getEnabled(_ context.Context, c *httpx.Caller, q *ruleRequest) (*enabledAnswer, error) {
	r, err := find(c.User, q)
	if err != nil {
		return nil, err
	}
	return &enabledAnswer{r.Enabled}, nil
}

type actionsAnswer struct {
	Actions []Action `json:"actions"`
}

// spec: client-server#get_matrixclientv3pushrulesglobalkindruleidactions
func (p *Push) getActions(_ context.Context, c *httpx.Caller, q *ruleRequest) (*actionsAnswer, error) {
	r, err := find(c.User, q)
	if err != nil {
		return nil, err
	}
	return &actionsAnswer{r.Actions}, nil
}

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
