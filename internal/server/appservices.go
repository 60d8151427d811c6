package server

import (
	"context"
	"net/http"

	"github.com/teahouse-chat/teahouse/accounts"
	"github.com/teahouse-chat/teahouse/appservices"
	"github.com/teahouse-chat/teahouse/directory"
	"github.com/teahouse-chat/teahouse/internal/dialer"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// services makes the application services. They are made first: who asks for an
// account or an alias may ask for one of theirs.
func (s *Server) services(ctx context.Context) (err error) {
	s.Appservices, err = appservices.New(ctx, appservices.Deps{
		DB: s.db, ServerName: s.cfg.ServerName, Files: s.cfg.Appservices, HTTP: s.servicesClient(), Now: s.deps.Now, Log: s.deps.Log,
		Metrics: s.deps.registerer(), Inside: map[string]string{insideID: "services.news"},
	})
	return err
}

// servicesClient reaches services wherever the operator has put them; as a rule
// that is this machine. Each request has a time limit of its own.
func (s *Server) servicesClient() *http.Client {
	d := dialer.New(dialer.Options{AllowPrivate: true, Resolve: s.deps.Resolve, Dial: s.deps.Dial})
	return &http.Client{
		Transport:     s.reach(d.Transport(nil)),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// serviceIdentities tells accounts of the services.
type serviceIdentities struct{ *appservices.Services }

func (s serviceIdentities) ByToken(token string) (accounts.Appservice, bool) {
	v := s.Services.ByToken(token)
	if v == nil {
		return accounts.Appservice{}, false
	}
	return accounts.Appservice{ID: v.ID, Sender: v.Sender, Exempt: !v.RateLimited}, true
}

// serviceAliases tells services of room aliases.
type serviceAliases struct{ *directory.Directory }

func (serviceAliases) AliasesMoved(change any) matrix.RoomID {
	if c, ok := change.(directory.AliasesMoved); ok {
		return c.Room
	}
	return ""
}

// newcomers are local users who may still have to be made by the service that
// claims them.
type newcomers struct {
	*users
	services *appservices.Services
}

func (n newcomers) Exists(ctx context.Context, user matrix.UserID) (bool, error) {
	found, err := presentable{n.users}.Exists(ctx, user)
	if err != nil || found {
		return found, err
	}
	made, err := n.services.MakeUser(ctx, user)
	if err != nil || !made {
		return false, err
	}
	return presentable{n.users}.Exists(ctx, user)
}

// welcoming has services make the users who are invited, if they do not exist yet.
type welcoming struct {
	inviteRules
	newcomers newcomers
}

func (w welcoming) Allows(ctx context.Context, user, sender matrix.UserID) error {
	if _, err := w.newcomers.Exists(ctx, user); err != nil {
		return err
	}
	return w.inviteRules.Allows(ctx, user, sender)
}
