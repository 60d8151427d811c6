package accounts

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	uiaLifetime    = 15 * time.Minute // since the last use
	maxUIASessions = 10_000
)

// Flow is the stages that authenticate together, in their order.
type Flow []string

// passwordFlow is what proves a logged-in user's presence.
var passwordFlow = []Flow{{StagePassword}}

// PasswordFlow is one flow of one stage, the caller's password: what guards
// device deletion, and whatever else a stolen token must not do.
func PasswordFlow() []Flow { return passwordFlow }

// UIARequest is what a UIA session is bound to beside the caller.
type UIARequest struct {
	Endpoint string          // method and path with its ids, such as "DELETE devices/ABC"
	Body     json.RawMessage // the whole request body; its auth member does not count
}

// UIA is user-interactive authentication.
// spec: client-server#user-interactive-authentication-api
type UIA struct {
	stages map[string]stage
	now    func() time.Time
	token  func() string

	mu       sync.Mutex
	sessions map[string]*list.Element // of *uiaSession
	order    *list.List               // least recently used first
}

// uiaSession is what one user has proved for one request. All but the id, the
// binding and the flows is guarded by UIA.mu.
type uiaSession struct {
	id        string
	binding   [sha256.Size]byte
	flows     []Flow
	completed []string
	proof     proof
	touched   time.Time
	spent     bool
}

// proof is what the stages found out on the way.
type proof struct {
	registrationToken string
	terms             string // what was accepted, as it is stored
}

// authData is what every auth dict may hold; a stage reads the rest itself.
type authData struct {
	Type    string `json:"type"`
	Session string `json:"session"`
}

func newUIA(a *Accounts) *UIA {
	return &UIA{
		stages:   a.stages(),
		now:      a.now,
		token:    func() string { return a.secrets.token("") },
		sessions: make(map[string]*list.Element),
		order:    list.New(),
	}
}

// Require returns nil once the caller has completed one of the flows for this
// very request, and uses the session up. Until then it returns a *matrix.Error: a
// challenge for the client, or the end of the attempt. auth is the request's
// auth member, nil if there is none.
func (u *UIA) Require(ctx context.Context, c *httpx.Caller, r UIARequest, auth json.RawMessage, flows []Flow) error {
	_, err := u.require(ctx, c, r, auth, flows)
	return err
}

func (u *UIA) require(ctx context.Context, c *httpx.Caller, r UIARequest, auth json.RawMessage, flows []Flow) (proof, error) {
	binding, err := bindUIA(c.User, r)
	if err != nil {
		return proof{}, err
	}
	var in authData
	if absent(auth) {
		return proof{}, u.challenge(u.open(binding, flows), nil)
	}
	if err := json.Unmarshal(auth, &in); err != nil {
		return proof{}, matrix.BadJSON("auth must be an object with a type and a session").Because(err)
	}
	s := u.find(in.Session)
	switch {
	case s == nil && in.Session != "": // ran out, or the server was restarted
		return proof{}, u.challenge(u.open(binding, flows), nil)
	case s == nil: // some clients complete the only stage at once
		s = u.open(binding, flows)
	case s.binding != binding:
		return proof{}, matrix.Forbidden("This authentication session was begun for another request; begin anew without auth")
	}
	if in.Type != "" {
		if err := u.attempt(ctx, c, s, in.Type, auth); err != nil {
			return proof{}, err
		}
	}
	if p, done := u.spend(s); done {
		return p, nil
	}
	return proof{}, u.challenge(s, nil)
}

// begun tells whether auth goes on with a session that somebody without an
// account began for just this request.
func (u *UIA) begun(r UIARequest, auth json.RawMessage) bool {
	var in authData
	if absent(auth) || json.Unmarshal(auth, &in) != nil {
		return false // require says what is wrong
	}
	binding, err := bindUIA("", r)
	s := u.find(in.Session)
	return err == nil && s != nil && s.binding == binding
}

// attempt runs a stage. Its error is a challenge if the client may try again.
func (u *UIA) attempt(ctx context.Context, c *httpx.Caller, s *uiaSession, name string, auth json.RawMessage) error {
	done, next := u.due(s, name)
	if done {
		return nil
	}
	if !next {
		return u.challenge(s, matrix.NewError(http.StatusUnauthorized, matrix.CodeForbidden, "The stage %q is not the next one of a flow", name))
	}
	found, err := u.stages[name].verify(ctx, c, auth)
	if err != nil {
		if e := matrix.AsError(err); e.Status == http.StatusUnauthorized && e.Code != matrix.CodeUserLocked {
			return u.challenge(s, e)
		}
		return err
	}
	u.complete(s, name, found)
	return nil
}

// due tells whether a stage of the session is done, or may be done next.
func (u *UIA) due(s *uiaSession, name string) (done, next bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if slices.Contains(s.completed, name) {
		return true, false
	}
	n := len(s.completed)
	return false, slices.ContainsFunc(s.flows, func(f Flow) bool {
		return len(f) > n && f[n] == name && slices.Equal(f[:n], s.completed)
	})
}

func (u *UIA) complete(s *uiaSession, name string, p proof) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if slices.Contains(s.completed, name) {
		return
	}
	s.completed = append(s.completed, name)
	if p.registrationToken != "" {
		s.proof.registrationToken = p.registrationToken
	}
	if p.terms != "" {
		s.proof.terms = p.terms
	}
}

// spend ends a session that has completed a flow. Of several requests that
// complete it at once, one gets it.
func (u *UIA) spend(s *uiaSession) (proof, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s.spent || !slices.ContainsFunc(s.flows, func(f Flow) bool { return slices.Equal(f, s.completed) }) {
		return proof{}, false
	}
	s.spent = true
	u.drop(u.sessions[s.id])
	return s.proof, true
}

// open begins a session; the least recently used one makes room.
func (u *UIA) open(binding [sha256.Size]byte, flows []Flow) *uiaSession {
	s := &uiaSession{id: u.token(), binding: binding, flows: flows, touched: u.now()}
	u.mu.Lock()
	defer u.mu.Unlock()
	for e := u.order.Front(); e != nil; e = u.order.Front() {
		if u.order.Len() < maxUIASessions && u.now().Sub(e.Value.(*uiaSession).touched) < uiaLifetime {
			break
		}
		u.drop(e)
	}
	u.sessions[s.id] = u.order.PushBack(s)
	return s
}

// find returns a session that has not run out, or nil.
func (u *UIA) find(id string) *uiaSession {
	u.mu.Lock()
	defer u.mu.Unlock()
	e := u.sessions[id]
	if e == nil {
		return nil
	}
	s := e.Value.(*uiaSession)
	if u.now().Sub(s.touched) >= uiaLifetime {
		u.drop(e)
		return nil
	}
	s.touched = u.now()
	u.order.MoveToBack(e)
	return s
}

func (u *UIA) drop(e *list.Element) {
	if e != nil {
		delete(u.sessions, u.order.Remove(e).(*uiaSession).id)
	}
}

// bindUIA sums up what a session is for: who asks for what. The body counts by
// its members, not by their order or spacing.
func bindUIA(user matrix.UserID, r UIARequest) ([sha256.Size]byte, error) {
	members := map[string]any{}
	if len(r.Body) > 0 {
		dec := json.NewDecoder(bytes.NewReader(r.Body))
		dec.UseNumber()
		if err := dec.Decode(&members); err != nil {
			return [sha256.Size]byte{}, matrix.BadJSON("The body must be an object").Because(err)
		}
	}
	delete(members, "auth")
	body, err := json.Marshal(members)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return sha256.Sum256(fmt.Appendf(nil, "%q %q %s", user, r.Endpoint, body)), nil
}

func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }
