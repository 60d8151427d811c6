package server

import (
	"github.com/teahouse-chat/teahouse/accounts"
	"github.com/teahouse-chat/teahouse/discovery"
	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/httpx"
)

// accountsConfig is the part of the configuration that accounts obey.
func accountsConfig(cfg *config.Config) accounts.Config {
	c := accounts.Config{
		Registration: accounts.Mode(cfg.Registration.Mode), SharedSecret: string(cfg.Registration.SharedSecret),
		Guests: cfg.Registration.Guests,
		Passwords: accounts.PasswordParams{
			Time: cfg.Passwords.Time, MemoryKiB: cfg.Passwords.MemoryKiB, Threads: cfg.Passwords.Threads,
		},
		AccessTokenLifetime: cfg.Sessions.AccessTokenLifetime, RefreshTokenLifetime: cfg.Sessions.RefreshTokenLifetime,
	}
	if cfg.RateLimits.Enabled {
		c.FailedLogin = httpx.Rate(cfg.RateLimits.FailedLogin)
	}
	for _, t := range cfg.Registration.Terms {
		p := accounts.Policy{ID: t.ID, Version: t.Version, Documents: map[string]accounts.Document{}}
		for lang, d := range t.Documents {
			p.Documents[lang] = accounts.Document(d)
		}
		c.Terms = append(c.Terms, p)
	}
	return c
}

func support(cfg *config.Config) discovery.Support {
	s := discovery.Support{Page: cfg.Support.Page}
	for _, c := range cfg.Support.Contacts {
		s.Contacts = append(s.Contacts, discovery.Contact{Role: c.Role, MatrixID: c.MatrixID, Email: c.EmailAddress})
	}
	return s
}

func turn(cfg *config.Config) discovery.TURN {
	t := cfg.TURN
	return discovery.TURN{
		URIs: t.URIs, SharedSecret: t.SharedSecret.Reveal(), Username: t.Username, Password: t.Password.Reveal(), Lifetime: t.Lifetime,
	}
}

// rates are the limits by class.
func rates(c config.RateLimits) map[string]httpx.Rate {
	limits := map[string]httpx.Rate{}
	for class, r := range c.Classes() {
		limits[class] = httpx.Rate(r)
	}
	return limits
}
