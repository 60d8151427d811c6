package config

import (
	"net/netip"
	"strings"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Services are the application services that come with the program.
type Services struct {
	News News `yaml:"news"`
}

// News is the service that people follow feeds with.
type News struct {
	Enabled     bool   `yaml:"enabled"`      // inside "teahouse serve"
	User        string `yaml:"user"`         // the local part of its user id
	DisplayName string `yaml:"display_name"` // of its user
	// Database is sqlite:// and a path, or postgres://...; empty means news.db in
	// DataDir, on SQLite. It is never the homeserver's.
	Database       DatabaseURL   `yaml:"database" env:"TEAHOUSE_NEWS_DATABASE"`
	AllowAddresses []Network     `yaml:"allow_addresses"`
	MinInterval    time.Duration `yaml:"min_interval"` // between two fetches of a feed
	// As a process of its own, "teahouse news".
	Homeserver string  `yaml:"homeserver"` // empty: PublicURL
	Listen     string  `yaml:"listen"`
	URL        string  `yaml:"url"` // where the homeserver reaches it; empty: http:// and Listen
	Metrics    Metrics `yaml:"metrics"`
}

func defaultServices() Services {
	return Services{News: News{User: "news", DisplayName: "News", AllowAddresses: []Network{}, MinInterval: 15 * time.Minute, Listen: "127.0.0.1:29330"}}
}

// Allowed lists the addresses that may be fetched from whatever they are.
func (n *News) Allowed() []netip.Prefix {
	list := make([]netip.Prefix, len(n.AllowAddresses))
	for i, a := range n.AllowAddresses {
		list[i] = a.Prefix
	}
	return list
}

func (n *News) complete() {
	n.Homeserver, n.URL = strings.TrimRight(n.Homeserver, "/"), strings.TrimRight(n.URL, "/")
}

// Address is where the homeserver reaches the service.
func (n *News) Address() string {
	if n.URL != "" {
		return n.URL
	}
	return "http://" + n.Listen
}

func (n *News) check(r *reader) {
	if _, err := matrix.ParseUserID(string(matrix.NewUserID(n.User, "x"))); n.User == "" || strings.ContainsAny(n.User, "@: ") || err != nil {
		r.bad("services.news.user", "%q is not the local part of a user id; use the characters a-z, 0-9 and ._=-/+, as in news", n.User)
	}
	checkDatabase(r, "services.news.database", n.Database)
	if n.MinInterval < time.Second {
		r.bad("services.news.min_interval", "must be at least 1s; 15m is the default, and what sites expect")
	}
	checkAddress(r, "services.news.listen", n.Listen)
	if n.Metrics.Address != "" {
		checkAddress(r, "services.news.metrics.address", n.Metrics.Address)
	}
	if n.Homeserver != "" && !isURL(n.Homeserver) {
		r.bad("services.news.homeserver", "%q is not a URL; use one like https://matrix.example.org", n.Homeserver)
	}
	if n.URL != "" && !isURL(n.URL) {
		r.bad("services.news.url", "%q is not a URL; use one like http://127.0.0.1:29330", n.URL)
	}
}
