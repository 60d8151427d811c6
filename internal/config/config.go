package config

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Config is all that an operator decides. The tags name the keys of the file
// and, for secrets, the environment variable that goes before the file.
type Config struct {
	// ServerName is the part behind the colon in users' names. It cannot be
	// changed once there are users.
	ServerName matrix.ServerName `yaml:"server_name"`
	// DataDir holds everything that is not in the database.
	DataDir string `yaml:"data_dir"`
	// Database is sqlite:// and a path, or postgres://...; empty means
	// teahouse.db in DataDir, on SQLite.
	Database DatabaseURL `yaml:"database" env:"TEAHOUSE_DATABASE"`
	// SigningKey is the content of a file of signing keys; empty means the file
	// signing.key in DataDir.
	SigningKey Secret `yaml:"signing_key" env:"TEAHOUSE_SIGNING_KEY"`
	// Listeners are the addresses that are served.
	Listeners []Listener `yaml:"listeners"`
	// PublicURL is how clients reach the server; empty means https:// and
	// ServerName.
	PublicURL string `yaml:"public_url"`
	// TrustedProxies may say whom they speak for, in X-Forwarded-For.
	TrustedProxies []Network `yaml:"trusted_proxies"`
	// ShutdownGrace is how long a shutdown waits for running requests.
	ShutdownGrace time.Duration `yaml:"shutdown_grace"`

	Registration Registration `yaml:"registration"`
	Passwords    Passwords    `yaml:"passwords"`
	Sessions     Sessions     `yaml:"sessions"`
	RateLimits   RateLimits   `yaml:"rate_limits"`
	// DefaultRoomVersion is the version of rooms whose creator asks for none.
	DefaultRoomVersion string     `yaml:"default_room_version"`
	Presence           Presence   `yaml:"presence"`
	Sync               Sync       `yaml:"sync"`
	Support            Support    `yaml:"support"`
	Federation         Federation `yaml:"federation"`
	Push               Push       `yaml:"push"`
	Media              Media      `yaml:"media"`
	TURN               TURN       `yaml:"turn"`
	// Appservices are the registration files of application services.
	Appservices []string `yaml:"appservices"`
	Services    Services `yaml:"services"`
	Metrics     Metrics  `yaml:"metrics"`
	Log         Log      `yaml:"log"`

	// File is the file this was read from; empty for a local trial.
	File string `yaml:"-"`
}

// Listener is one address and what is served there.
type Listener struct {
	Address string   `yaml:"address"` // host:port
	Serves  []string `yaml:"serves"`  // names from Surfaces
	TLS     TLS      `yaml:"tls"`     // empty: plain HTTP
}

// TLS is a certificate with its key, both PEM files.
type TLS struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Surfaces are the parts of the API that a listener may serve.
var Surfaces = []string{"client", "federation", "media", "keys", "admin", "wellknown", "health", "metrics"}

// defaultServes is what a listener serves that does not say.
var defaultServes = []string{"client", "federation", "media"}

// The modes of registration.
const (
	RegistrationClosed = "closed"
	RegistrationToken  = "token"
	RegistrationOpen   = "open"
)

// Registration says who may make an account.
type Registration struct {
	Mode         string `yaml:"mode"`
	SharedSecret Secret `yaml:"shared_secret" env:"TEAHOUSE_REGISTRATION_SHARED_SECRET"` // for scripts; empty: off
	Guests       bool   `yaml:"guests"`
	Terms        []Term `yaml:"terms"` // what new users must accept
}

// Term is a document that new users must accept.
type Term struct {
	ID        string                  `yaml:"id"`
	Version   string                  `yaml:"version"`
	Documents map[string]TermDocument `yaml:"documents"` // by language code
}

// TermDocument is a document in one language.
type TermDocument struct {
	Name string `yaml:"name"`
	URL  string `yaml:"url"`
}

// Passwords are the parameters of argon2id.
type Passwords struct {
	Time      uint32 `yaml:"time"`
	MemoryKiB uint32 `yaml:"memory_kib"`
	Threads   uint8  `yaml:"threads"`
}

// Sessions are the lifetimes of logins.
type Sessions struct {
	AccessTokenLifetime  time.Duration `yaml:"access_token_lifetime"` // of clients that can refresh
	RefreshTokenLifetime time.Duration `yaml:"refresh_token_lifetime"`
	QueryToken           bool          `yaml:"query_token"` // take ?access_token=
}

// Rate is how often one caller may do something: so often a second in the long
// run, and burst times at once.
type Rate struct {
	PerSecond float64 `yaml:"per_second"`
	Burst     int     `yaml:"burst"`
}

// RateLimits are the limits by class.
type RateLimits struct {
	Enabled      bool `yaml:"enabled"`
	Login        Rate `yaml:"login"`
	FailedLogin  Rate `yaml:"failed_login"` // by account
	Registration Rate `yaml:"registration"`
	Send         Rate `yaml:"send"`
	Join         Rate `yaml:"join"`
	Invite       Rate `yaml:"invite"`
	Keys         Rate `yaml:"keys"`
	Search       Rate `yaml:"search"`
	Media        Rate `yaml:"media"`
	Profile      Rate `yaml:"profile"`
	ProfileRead  Rate `yaml:"profile_read"`
	OpenID       Rate `yaml:"openid"`
	Report       Rate `yaml:"report"`
}

// Presence says whether users see who is online.
type Presence struct {
	Enabled bool `yaml:"enabled"`
}

// Sync bounds /sync.
type Sync struct {
	MaxTimeout       time.Duration `yaml:"max_timeout"`        // of a long poll
	MaxTimelineLimit int           `yaml:"max_timeline_limit"` // events of one room in one answer
}

// Support is what /.well-known/matrix/support tells.
type Support struct {
	Page     string    `yaml:"page"`
	Contacts []Contact `yaml:"contacts"`
}

// Contact is a person or an office that runs the server.
type Contact struct {
	Role         string `yaml:"role"` // m.role.admin or m.role.security
	MatrixID     string `yaml:"matrix_id"`
	EmailAddress string `yaml:"email_address"`
}

// Federation is how other servers are talked to.
type Federation struct {
	Enabled bool `yaml:"enabled"`
	// Name is the host, with a port if it is not 8448, at which other servers
	// reach this one; .well-known/matrix/server tells it. Empty: nothing is told.
	Name                  string              `yaml:"name"`
	Allow                 []string            `yaml:"allow"`    // if there are any, only these servers
	Deny                  []string            `yaml:"deny"`     // never these servers
	Notaries              []matrix.ServerName `yaml:"notaries"` // asked for keys that servers do not tell themselves
	AllowPrivateAddresses bool                `yaml:"allow_private_addresses"`
	AllowAddresses        []Network           `yaml:"allow_addresses"`
	DenyAddresses         []Network           `yaml:"deny_addresses"`
	CAFile                string              `yaml:"ca_file"`
	VerifyTLS             bool                `yaml:"verify_tls"`
}

// The numbers that apps may show on their icons.
const (
	BadgeMessages = "messages"
	BadgeRooms    = "rooms"
)

// Push is how phones are told of what happens.
type Push struct {
	Badge string `yaml:"badge"` // what the number on an app's icon counts
}

// TURN is the server through which calls go whose ends cannot reach each other.
type TURN struct {
	URIs         []string      `yaml:"uris"`
	SharedSecret Secret        `yaml:"shared_secret" env:"TEAHOUSE_TURN_SHARED_SECRET"` // credentials are made of it, by user and time
	Username     string        `yaml:"username"`                                        // everybody's, without a shared secret
	Password     Secret        `yaml:"password" env:"TEAHOUSE_TURN_PASSWORD"`
	Lifetime     time.Duration `yaml:"lifetime"` // of credentials, until clients ask again
}

// Metrics is the listener of the metrics.
type Metrics struct {
	Address string `yaml:"address"` // empty: off
}

// Log is what is logged and how.
type Log struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// Default is the configuration of a file that names nothing but the server.
func Default() *Config {
	return &Config{
		DataDir:            "teahouse-data",
		Listeners:          []Listener{{Address: "127.0.0.1:8008", Serves: defaultServes}},
		TrustedProxies:     []Network{},
		ShutdownGrace:      20 * time.Second,
		Registration:       Registration{Mode: RegistrationClosed},
		Passwords:          Passwords{Time: 2, MemoryKiB: 19456, Threads: 1},
		Sessions:           Sessions{AccessTokenLifetime: time.Hour, RefreshTokenLifetime: 90 * 24 * time.Hour, QueryToken: true},
		RateLimits:         defaultRates(),
		DefaultRoomVersion: "12",
		Presence:           Presence{Enabled: true},
		Sync:               Sync{MaxTimeout: 2 * time.Minute, MaxTimelineLimit: 500},
		Federation: Federation{
			Enabled: true, VerifyTLS: true, Allow: []string{}, Deny: []string{}, Notaries: []matrix.ServerName{},
			AllowAddresses: []Network{}, DenyAddresses: []Network{},
		},
		Push:     Push{Badge: BadgeMessages},
		Media:    defaultMedia(),
		Services: defaultServices(),
		TURN:     TURN{URIs: []string{}, Lifetime: 24 * time.Hour},
		Log:      Log{Level: "info", Format: "text"},
	}
}

func defaultRates() RateLimits {
	return RateLimits{
		Enabled:      true,
		Login:        Rate{0.5, 20},
		FailedLogin:  Rate{0.1, 10},
		Registration: Rate{0.2, 20},
		Send:         Rate{10, 100},
		Join:         Rate{1, 30},
		Invite:       Rate{1, 30},
		Keys:         Rate{10, 100},
		Search:       Rate{2, 20},
		Media:        Rate{10, 100},
		Profile:      Rate{1, 20},
		ProfileRead:  Rate{20, 200},
		OpenID:       Rate{0.5, 10},
		Report:       Rate{0.2, 10},
	}
}

// Classes lists the limits by the names that routes use; nothing when they are
// switched off.
func (r *RateLimits) Classes() map[string]Rate {
	if !r.Enabled {
		return nil
	}
	return map[string]Rate{
		"login": r.Login, "failed_login": r.FailedLogin, "registration": r.Registration, "send": r.Send, "join": r.Join,
		"invite": r.Invite, "keys": r.Keys, "search": r.Search, "media": r.Media, "profile": r.Profile,
		"profile_read": r.ProfileRead, "openid": r.OpenID, "report": r.Report,
	}
}

// Trial tells whether this is a local trial without a file.
func (c *Config) Trial() bool { return c.File == "" }

// ClientURL is the URL that clients are told to use.
func (c *Config) ClientURL() string {
	if c.PublicURL != "" {
		return c.PublicURL
	}
	return "https://" + string(c.ServerName)
}

// Proxies lists the trusted proxies as package net/netip knows them.
func (c *Config) Proxies() []netip.Prefix {
	list := make([]netip.Prefix, len(c.TrustedProxies))
	for i, n := range c.TrustedProxies {
		list[i] = n.Prefix
	}
	return list
}

// SlogLevel is the level as log/slog knows it.
func (l *Log) SlogLevel() slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // was checked when it was read
	return level
}

// Network is an address or a range of them, "127.0.0.1" or "10.0.0.0/8".
type Network struct{ netip.Prefix }

// UnmarshalText reads an address or a range.
func (n *Network) UnmarshalText(text []byte) error {
	if a, err := netip.ParseAddr(string(text)); err == nil {
		n.Prefix = netip.PrefixFrom(a, a.BitLen())
		return nil
	}
	p, err := netip.ParsePrefix(string(text))
	n.Prefix = p
	return err
}
