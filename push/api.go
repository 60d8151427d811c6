package push

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Routes lists the client API. Clients differ in whether they end the paths of
// collections with a slash.
func (p *Push) Routes() []httpx.Route {
	const (
		v3   = "/_matrix/client/v3/"
		rule = v3 + "pushrules/global/{kind}/{ruleId}"
	)
	writes, size := httpx.Limit("send"), httpx.MaxBody(maxRuleBody)
	return []httpx.Route{
		httpx.JSON(http.MethodGet, v3+"pushrules", p.getAll, httpx.TrailingSlash),
		httpx.JSON(http.MethodGet, v3+"pushrules/global", p.getGlobal, httpx.TrailingSlash),
		httpx.JSON(http.MethodGet, v3+"pushrules/global/{kind}", p.getKind, httpx.TrailingSlash),
		httpx.JSON(http.MethodGet, rule, p.getRule),
		httpx.JSON(http.MethodPut, rule, p.putRule, writes, size),
		httpx.JSON(http.MethodDelete, rule, p.deleteRule, writes),
		httpx.JSON(http.MethodGet, rule+"/enabled", p.getEnabled),
		httpx.JSON(http.MethodPut, rule+"/enabled", p.putEnabled, writes, size),
		httpx.JSON(http.MethodGet, rule+"/actions", p.getActions),
		httpx.JSON(http.MethodPut, rule+"/actions", p.putActions, writes, size),
		httpx.JSON(http.MethodGet, v3+"pushers", p.getPushers),
		httpx.JSON(http.MethodPost, v3+"pushers/set", p.setPusher, writes),
		p.notificationsRoute(),
	}
}

type nothing struct{}

// spec: client-server#get_matrixclientv3pushrules
func (p *Push) getAll(ctx context.Context, c *httpx.Caller, _ *nothing) (*account, error) {
	b, err := p.books.one(ctx, c.User)
	if err != nil {
		return nil, err
	}
	return &account{b.book.rules(c.User)}, nil
}

// spec: client-server#get_matrixclientv3pushrulesglobal
func (p *Push) getGlobal(ctx context.Context, c *httpx.Caller, _ *nothing) (*Ruleset, error) {
	all, err := p.getAll(ctx, c, nil)
	if err != nil {
		return nil, err
	}
	return &all.Global, nil
}

type kindRequest struct {
	Kind string `path:"kind"`
}

// getKind is not specified any more, but clients know it from earlier versions.
func (p *Push) getKind(ctx context.Context, c *httpx.Caller, q *kindRequest) (*[]Rule, error) {
	all, err := p.getAll(ctx, c, nil)
	if err != nil {
		return nil, err
	}
	rules := all.Global.Kind(q.Kind)
	if rules == nil {
		return nil, errNoKind
	}
	return rules, nil
}

var (
	errNoKind = matrix.NotFound("There is no such kind of push rules; the kinds are override, content, room, sender and underride")
	errNoRule = matrix.NotFound("There is no such push rule")
)

type ruleRequest struct {
	Kind string `path:"kind"`
	ID   string `path:"ruleId"`
}

func (p *Push) find(ctx context.Context, user matrix.UserID, q *ruleRequest) (*Rule, error) {
	if predefined.Kind(q.Kind) == nil {
		return nil, errNoKind
	}
	b, err := p.books.one(ctx, user)
	if err != nil {
		return nil, err
	}
	rules := b.book.kind(q.Kind, user)
	if i := indexOf(rules, q.ID); i >= 0 {
		return &rules[i], nil
	}
	return nil, errNoRule
}

// spec: client-server#get_matrixclientv3pushrulesglobalkindruleid
func (p *Push) getRule(ctx context.Context, c *httpx.Caller, q *ruleRequest) (*Rule, error) {
	return p.find(ctx, c.User, q)
}

type enabledAnswer struct {
	Enabled bool `json:"enabled"`
}

// spec: client-server#get_matrixclientv3pushrulesglobalkindruleidenabled
func (p *Push) getEnabled(ctx context.Context, c *httpx.Caller, q *ruleRequest) (*enabledAnswer, error) {
	r, err := p.find(ctx, c.User, q)
	if err != nil {
		return nil, err
	}
	return &enabledAnswer{r.Enabled}, nil
}

type actionsAnswer struct {
	Actions []Action `json:"actions"`
}

// spec: client-server#get_matrixclientv3pushrulesglobalkindruleidactions
func (p *Push) getActions(ctx context.Context, c *httpx.Caller, q *ruleRequest) (*actionsAnswer, error) {
	r, err := p.find(ctx, c.User, q)
	if err != nil {
		return nil, err
	}
	return &actionsAnswer{r.Actions}, nil
}

type putRuleRequest struct {
	ruleRequest
	Before     string          `query:"before"`
	After      string          `query:"after"`
	Actions    json.RawMessage `json:"actions"`
	Conditions json.RawMessage `json:"conditions"`
	Pattern    *string         `json:"pattern"`
}

// spec: client-server#put_matrixclientv3pushrulesglobalkindruleid
func (p *Push) putRule(ctx context.Context, c *httpx.Caller, q *putRuleRequest) (*struct{}, error) {
	if predefined.Kind(q.Kind) == nil {
		return nil, errNoKind
	}
	if err := checkRuleID(q.ID); err != nil {
		return nil, err
	}
	rule, err := decodeRule(q.Kind, q.ID, q)
	if err != nil {
		return nil, err
	}
	return nil, p.edit(ctx, c.User, func(b *book) error { return b.put(q.Kind, rule, place{q.Before, q.After}) })
}

// spec: client-server#delete_matrixclientv3pushrulesglobalkindruleid
func (p *Push) deleteRule(ctx context.Context, c *httpx.Caller, q *ruleRequest) (*struct{}, error) {
	if predefined.Kind(q.Kind) == nil {
		return nil, errNoKind
	}
	return nil, p.edit(ctx, c.User, func(b *book) error { return b.remove(q.Kind, q.ID) })
}

type putEnabledRequest struct {
	ruleRequest
	Enabled *bool `json:"enabled"`
}

// spec: client-server#put_matrixclientv3pushrulesglobalkindruleidenabled
func (p *Push) putEnabled(ctx context.Context, c *httpx.Caller, q *putEnabledRequest) (*struct{}, error) {
	switch {
	case predefined.Kind(q.Kind) == nil:
		return nil, errNoKind
	case q.Enabled == nil:
		return nil, matrix.MissingParam(`"enabled" is missing`)
	}
	return nil, p.edit(ctx, c.User, func(b *book) error { return b.enable(q.Kind, q.ID, *q.Enabled) })
}

type putActionsRequest struct {
	ruleRequest
	Actions json.RawMessage `json:"actions"`
}

// spec: client-server#put_matrixclientv3pushrulesglobalkindruleidactions
func (p *Push) putActions(ctx context.Context, c *httpx.Caller, q *putActionsRequest) (*struct{}, error) {
	if predefined.Kind(q.Kind) == nil {
		return nil, errNoKind
	}
	actions, err := decodeActions(q.Actions)
	if err != nil {
		return nil, err
	}
	return nil, p.edit(ctx, c.User, func(b *book) error { return b.act(q.Kind, q.ID, actions) })
}
