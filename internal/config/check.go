package config

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// complete fills in what follows from other values, and makes paths absolute.
func (c *Config) complete(dir string) {
	place := func(path *string) {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	place(&c.DataDir)
	for name, url := range map[string]*DatabaseURL{"teahouse.db": &c.Database, "news.db": &c.Services.News.Database} {
		if *url == "" && c.DataDir != "" {
			*url = DatabaseURL("sqlite://" + filepath.Join(c.DataDir, name))
		}
		if path, ok := strings.CutPrefix(string(*url), "sqlite://"); ok {
			place(&path)
			*url = DatabaseURL("sqlite://" + path)
		}
	}
	c.Services.News.complete()
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if len(l.Serves) == 0 {
			l.Serves = defaultServes
		}
		place(&l.TLS.Cert)
		place(&l.TLS.Key)
	}
	place(&c.Federation.CAFile)
	if !strings.Contains(c.Media.Store, "://") {
		place(&c.Media.Store)
	}
	for i := range c.Appservices {
		place(&c.Appservices[i])
	}
	c.PublicURL = strings.TrimRight(c.PublicURL, "/")
	c.Log.Level, c.Log.Format = strings.ToLower(c.Log.Level), strings.ToLower(c.Log.Format)
}

// check looks at every value.
func (c *Config) check(r *reader) {
	switch _, err := matrix.ParseServerName(string(c.ServerName)); {
	case c.ServerName == "":
		r.bad("server_name", "is missing; set it to the part behind the colon of your users' names, such as example.org")
	case err != nil:
		r.bad("server_name", "%q is not a server name; use one like example.org, without https:// and without a path", c.ServerName)
	}
	if c.DataDir == "" {
		r.bad("data_dir", "is empty; name the folder for the server's data")
	}
	checkDatabase(r, "database", c.Database)
	if len(c.Listeners) == 0 {
		r.bad("listeners", "is empty, so nobody could connect; give at least one address")
	}
	for i := range c.Listeners {
		c.Listeners[i].check(r, fmt.Sprintf("listeners[%d]", i))
	}
	if c.PublicURL != "" && !isURL(c.PublicURL) {
		r.bad("public_url", "%q is not a URL; use one like https://matrix.example.org", c.PublicURL)
	}
	if c.ShutdownGrace <= 0 {
		r.bad("shutdown_grace", "must be longer than 0, such as 20s")
	}
	c.Registration.check(r)
	c.checkPasswords(r)
	c.checkSessions(r)
	c.checkRates(r)
	if n, err := strconv.Atoi(c.DefaultRoomVersion); err != nil || n < 1 || n > 12 || strconv.Itoa(n) != c.DefaultRoomVersion {
		r.bad("default_room_version", "%q is not a room version; use one of \"1\" to \"12\", in quotes", c.DefaultRoomVersion)
	}
	if c.Sync.MaxTimeout < time.Second { // else clients would ask without a pause
		r.bad("sync.max_timeout", "must be at least 1s; 2m is the default")
	}
	if c.Sync.MaxTimelineLimit < 1 {
		r.bad("sync.max_timeline_limit", "must be at least 1; 500 is the default")
	}
	c.checkSupport(r)
	c.Federation.check(r)
	c.Media.check(r)
	c.Services.News.check(r)
	if c.Metrics.Address != "" {
		checkAddress(r, "metrics.address", c.Metrics.Address)
	}
	oneOf(r, "push.badge", c.Push.Badge, BadgeMessages, BadgeRooms)
	c.TURN.check(r)
	oneOf(r, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf(r, "log.format", c.Log.Format, "text", "json")
}

func checkDatabase(r *reader, key string, database DatabaseURL) {
	const remedy = "use sqlite:///path/to/teahouse.db or postgres://user:password@host/database"
	scheme, rest, ok := strings.Cut(string(database), "://")
	switch {
	case !ok || rest == "" || !slices.Contains([]string{"sqlite", "postgres", "postgresql"}, scheme):
		r.bad(key, "is not the address of a database that is supported; %s", remedy)
	case scheme != "sqlite":
		// The parser's error would repeat the password.
		if u, err := url.Parse(string(database)); err != nil || u.Path == "" && u.RawQuery == "" {
			r.bad(key, "is not a PostgreSQL address; percent-encode special characters in the password, and %s", remedy)
		}
	}
}

func (l *Listener) check(r *reader, key string) {
	checkAddress(r, key+".address", l.Address)
	for _, s := range l.Serves {
		oneOf(r, key+".serves", s, Surfaces...)
	}
	switch {
	case (l.TLS.Cert == "") != (l.TLS.Key == ""):
		r.bad(key+".tls", "needs both cert and key, or neither for plain HTTP")
	case l.TLS.Cert != "":
		readable(r, key+".tls.cert", l.TLS.Cert)
		readable(r, key+".tls.key", l.TLS.Key)
	}
}

func checkAddress(r *reader, key, address string) {
	_, port, err := net.SplitHostPort(address)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || strconv.FormatUint(n, 10) != port {
		r.bad(key, "%q is not an address with a port; use one like 127.0.0.1:8008 or [::]:8448", address)
	}
}

func (g *Registration) check(r *reader) {
	oneOf(r, "registration.mode", g.Mode, RegistrationClosed, RegistrationToken, RegistrationOpen)
	for i, t := range g.Terms {
		key := fmt.Sprintf("registration.terms[%d]", i)
		if t.ID == "" || t.Version == "" || len(t.Documents) == 0 {
			r.bad(key, "needs an id, a version and documents")
		}
		for lang, d := range t.Documents {
			if d.Name == "" || !isURL(d.URL) {
				r.bad(key+".documents."+lang, "needs a name and a url like https://example.org/terms")
			}
		}
	}
}

// checkPasswords keeps the parameters where argon2id is defined and a login
// cannot exhaust the machine.
func (c *Config) checkPasswords(r *reader) {
	p := c.Passwords
	if p.Time < 1 || p.Time > 100 {
		r.bad("passwords.time", "must be from 1 to 100; 2 is the default")
	}
	if p.Threads < 1 {
		r.bad("passwords.threads", "must be at least 1")
	}
	if p.MemoryKiB < 8*uint32(p.Threads) || p.MemoryKiB > 4<<20 {
		r.bad("passwords.memory_kib", "must be from 8 for each thread to %d; 19456 is the default", 4<<20)
	}
}

func (c *Config) checkSessions(r *reader) {
	s := c.Sessions
	if s.AccessTokenLifetime <= 0 {
		r.bad("sessions.access_token_lifetime", "must be longer than 0; 1h is the default")
	}
	if s.RefreshTokenLifetime <= s.AccessTokenLifetime {
		r.bad("sessions.refresh_token_lifetime", "must be longer than access_token_lifetime; 2160h is the default")
	}
}

func (c *Config) checkRates(r *reader) {
	for name, rate := range c.RateLimits.Classes() { // the reader sorts what this finds
		if rate.PerSecond <= 0 || rate.Burst < 1 {
			r.bad("rate_limits."+name, "needs a per_second above 0 and a burst of at least 1; to lift all limits set rate_limits.enabled to false")
		}
	}
}

func (c *Config) checkSupport(r *reader) {
	if c.Support.Page != "" && !isURL(c.Support.Page) {
		r.bad("support.page", "%q is not a URL; use one like https://example.org/support", c.Support.Page)
	}
	for i, contact := range c.Support.Contacts {
		key := fmt.Sprintf("support.contacts[%d]", i)
		if contact.Role == "" || contact.MatrixID == "" && contact.EmailAddress == "" {
			r.bad(key, "needs a role (m.role.admin or m.role.security) and a matrix_id or an email_address")
		}
		if contact.MatrixID != "" {
			if _, err := matrix.ParseUserID(contact.MatrixID); err != nil {
				r.bad(key+".matrix_id", "%q is not a user id; one looks like @name:example.org", contact.MatrixID)
			}
		}
	}
}

func (f *Federation) check(r *reader) {
	if f.CAFile != "" {
		readable(r, "federation.ca_file", f.CAFile)
	}
	if _, err := matrix.ParseServerName(f.Name); f.Name != "" && err != nil {
		r.bad("federation.name", "%q is not a host with an optional port; use one like matrix.example.org or matrix.example.org:443", f.Name)
	}
	checkNames(r, "federation.allow", f.Allow)
	checkNames(r, "federation.deny", f.Deny)
	for i, name := range f.Notaries {
		if _, err := matrix.ParseServerName(string(name)); err != nil {
			r.bad(fmt.Sprintf("federation.notaries[%d]", i), "%q is not a server name; use one like matrix.org", name)
		}
	}
}

// checkNames looks at a list of server names or patterns of them.
func checkNames(r *reader, key string, list []string) {
	for i, name := range list {
		if _, err := matrix.ParseServerName(strings.TrimPrefix(name, "*.")); err != nil {
			r.bad(fmt.Sprintf("%s[%d]", key, i), "%q is not a server name; use example.org, example.org:8448 or *.example.org", name)
		}
	}
}

func (t *TURN) check(r *reader) {
	for i, uri := range t.URIs {
		scheme, host, _ := strings.Cut(uri, ":")
		if host == "" || !slices.Contains([]string{"turn", "turns", "stun", "stuns"}, scheme) {
			r.bad(fmt.Sprintf("turn.uris[%d]", i), "%q is not the address of a TURN server; use one like turn:turn.example.org?transport=udp", uri)
		}
	}
	own := t.Username != "" || t.Password != ""
	switch {
	case t.SharedSecret != "" && own:
		r.bad("turn.shared_secret", "takes the place of turn.username and turn.password; leave those empty, or the secret")
	case own && (t.Username == "" || t.Password == ""):
		r.bad("turn.username", "and turn.password belong together; set both")
	case len(t.URIs) == 0 && (own || t.SharedSecret != ""):
		r.bad("turn.uris", "is empty, so the credentials are for no server; give at least one address")
	}
	if t.Lifetime < time.Minute {
		r.bad("turn.lifetime", "must be at least 1m; 24h is the default")
	}
}

func oneOf(r *reader, key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		r.bad(key, "%q is not known; use one of %s", value, strings.Join(allowed, ", "))
	}
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == ""
}

func readable(r *reader, key, path string) {
	f, err := os.Open(path)
	if err == nil {
		var info os.FileInfo
		if info, err = f.Stat(); err == nil && info.IsDir() {
			err = fmt.Errorf("it is a folder")
		}
		_ = f.Close()
	}
	if err != nil {
		r.bad(key, "%s cannot be read (%s); check the path and its permissions", path, reason(err))
	}
}
