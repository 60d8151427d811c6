package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/news"
	"github.com/teahouse-chat/teahouse/appservices/news/feed"
	"github.com/teahouse-chat/teahouse/appservices/registration"
	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/dialer"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// insideID is the id of the registration of the news service within this process.
const insideID = "teahouse-news-inside"

// NewsRegistration is a registration of the news service, which a homeserver reaches at
// url.
func NewsRegistration(cfg *config.Config, name, url, asToken, hsToken string) []byte {
	user := cfg.Services.News.User
	text, _ := json.MarshalIndent(map[string]any{ // JSON is YAML, and strings can always be written
		"id": name, "url": url, "as_token": asToken, "hs_token": hsToken, "sender_localpart": user, "rate_limited": false,
		"namespaces": map[string]any{
			"users":   []any{},
			"aliases": []any{map[string]any{"regex": regexp.QuoteMeta("#"+user+"_") + ".*" + regexp.QuoteMeta(":"+string(cfg.ServerName)), "exclusive": true}},
			"rooms":   []any{},
		},
	}, "", "  ")
	return append(text, '\n')
}

// OpenNews opens the news service for a homeserver that has the registration. change
// has the last word on the kit's configuration.
func OpenNews(ctx context.Context, cfg *config.Config, deps Deps, r *registration.Registration, change func(*kit.Config)) (*news.News, error) {
	deps.complete()
	n := &cfg.Services.News
	c := kit.Config{
		ID: r.ID, User: id.UserID(matrix.NewUserID(n.User, cfg.ServerName)), ASToken: r.ASToken, HSToken: r.HSToken,
		Database: n.Database.Reveal(), DisplayName: n.DisplayName, Log: deps.Log.With("service", "news"),
	}
	change(&c)
	d := dialer.New(dialer.Options{Allow: n.Allowed(), Resolve: deps.Resolve, Dial: deps.Dial})
	s, err := news.Open(ctx, c, news.Options{
		HTTP:      d.Client(dialer.ClientOptions{Timeout: feed.Timeout, MaxBody: feed.MaxBody, MaxRedirects: feed.MaxRedirects}),
		UserAgent: "Teahouse/" + deps.Version + " (news)", MinInterval: n.MinInterval,
	})
	if err != nil {
		return nil, fmt.Errorf("services.news: %w", err)
	}
	return s, nil
}

// newsInside is the news service within this process. It speaks the protocols that it
// would speak from elsewhere.
type newsInside struct {
	*news.News
	events *inside // to the service
	asks   *inside // to the homeserver
	ends   []*http.Server
}

// startNews begins the news service, or ends its registration where it is switched off.
func (s *Server) startNews(ctx context.Context) error {
	if !s.cfg.Services.News.Enabled {
		return s.withoutNews(ctx)
	}
	user := matrix.NewUserID(s.cfg.Services.News.User, s.cfg.ServerName)
	switch u, found, err := s.Accounts.User(ctx, user); {
	case err != nil:
		return err
	case found && u.Appservice == "":
		s.deps.Log.Error("the news service is off: its user is somebody's account. Name another one as services.news.user, or switch the service off",
			"user", user)
		return s.withoutNews(ctx)
	}
	n := &newsInside{events: newInside(), asks: newInside()}
	text := NewsRegistration(s.cfg, insideID, "http://news"+insideSuffix, registration.NewToken(), registration.NewToken())
	r, err := s.Appservices.Install(ctx, "services.news", text)
	if clash, ok := errors.AsType[*matrix.Error](err); ok && clash.Status == http.StatusConflict {
		s.deps.Log.Error("the news service is off: another application service has its user or its aliases. Name another user as services.news.user, change the other service, or switch this one off",
			"user", user, "error", clash.Text)
		return s.withoutNews(ctx)
	}
	if err != nil {
		return fmt.Errorf("services.news: %w", err)
	}
	n.News, err = OpenNews(ctx, s.cfg, s.deps, r, func(c *kit.Config) {
		c.Homeserver, c.Transport, c.Metrics = "http://homeserver"+insideSuffix, n.asks.transport(), s.deps.registerer()
	})
	if err != nil {
		return err
	}
	s.news = n
	n.serve(s, n.events, n.Handler())
	n.serve(s, n.asks, s.Handler("client", "media"))
	s.worker.Go(func() {
		if err := n.Run(s.background); err != nil {
			s.deps.Log.Error("the news service has ended; restart the server", "error", err)
		}
	})
	return nil
}

// withoutNews ends the registration of the news service, if there is one.
func (s *Server) withoutNews(ctx context.Context) error {
	err := s.Appservices.Uninstall(ctx, insideID)
	if e, ok := errors.AsType[*matrix.Error](err); ok && e.Status == http.StatusNotFound {
		return nil // it never was on
	}
	return err
}

func (n *newsInside) serve(s *Server, l *inside, h http.Handler) {
	end := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute}
	n.ends = append(n.ends, end)
	s.worker.Go(func() { _ = end.Serve(l) }) // it ends when it is closed
	s.worker.Go(func() {
		<-s.background.Done()
		_ = end.Close()
	})
}

// close closes the service's database, once the service has ended.
func (n *newsInside) close() error {
	if n == nil {
		return nil
	}
	return errors.Join(n.events.Close(), n.asks.Close(), n.News.Close())
}
