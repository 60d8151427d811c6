package accounts

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Mode says who may create an account by /register.
type Mode string

// The registration modes.
const (
	ModeClosed Mode = "closed"
	ModeToken  Mode = "token"
	ModeOpen   Mode = "open"
)

// Config is what an operator decides about accounts. Zero durations and zero
// password parameters mean the defaults.
type Config struct {
	Registration Mode   // "" is closed
	SharedSecret string // of /_synapse/admin/v1/register; "" turns it off
	Guests       bool
	Terms        []Policy // what new users must accept
	Passwords    PasswordParams

	AccessTokenLifetime  time.Duration // for clients that can refresh; 1 hour
	RefreshTokenLifetime time.Duration // 90 days
	LoginTokenLifetime   time.Duration // 2 minutes

	// FailedLogin bounds how often a password may be wrong, for each account.
	// The zero Rate sets no bound.
	FailedLogin httpx.Rate
}

// Policy is one document that new users must accept.
// spec: client-server#terms-of-service-at-registration
type Policy struct {
	ID        string
	Version   string
	Documents map[string]Document // by language code
}

// Document is a policy in one language.
type Document struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

// Rooms is what deactivation needs of the room engine.
type Rooms interface {
	// LeaveAll makes a local user leave every room and reject every invite. It
	// may be called again for a user who has left some of them.
	LeaveAll(ctx context.Context, user matrix.UserID) error
}

// Hooks are called after the commit that they name, but for Renamed. Each may be
// nil.
type Hooks struct {
	// Registered is called once for a new account that is not a guest's.
	// displayName is "" unless the one who registered it gave one.
	Registered func(ctx context.Context, user matrix.UserID, displayName string) error
	// Deactivated removes what other features keep of the user; with erase also
	// account data and contacts. It is repeated until it returns nil.
	Deactivated func(ctx context.Context, user matrix.UserID, erase bool) error
	// Renamed is called in the write that gives a device another name.
	Renamed func(tx *db.Tx, user matrix.UserID, device matrix.DeviceID) error
}

// Deps is what New needs.
type Deps struct {
	DB          *db.DB
	ServerName  matrix.ServerName
	Config      Config
	Now         func() time.Time
	Rand        io.Reader // crypto/rand.Reader outside tests
	Log         *slog.Logger
	Rooms       Rooms       // nil: nothing to leave
	Appservices Appservices // nil: there are none
	Hooks       Hooks
}

// Accounts is the feature.
type Accounts struct {
	db          *db.DB
	server      matrix.ServerName
	cfg         Config
	now         func() time.Time
	secrets     secrets
	log         *slog.Logger
	rooms       Rooms
	appservices Appservices
	hooks       Hooks

	// UIA guards endpoints of this and other features.
	UIA *UIA

	hasher   *hasher
	cache    *sessionCache
	seen     *lastSeen
	failures *failureLimit
	nonces   *nonces

	userNIDs    *db.Sequence
	sessionNIDs *db.Sequence

	endMu sync.Mutex
	onEnd []func(matrix.UserID, matrix.DeviceID)
}

// New makes the feature on an open database.
func New(d Deps) (*Accounts, error) {
	if d.DB == nil || d.ServerName == "" || d.Now == nil || d.Rand == nil || d.Log == nil {
		return nil, errors.New("accounts: DB, ServerName, Now, Rand and Log are needed")
	}
	cfg, err := d.Config.withDefaults()
	if err != nil {
		return nil, err
	}
	a := &Accounts{
		db: d.DB, server: d.ServerName, cfg: cfg, now: d.Now, secrets: secrets{d.Rand}, log: d.Log,
		rooms: d.Rooms, appservices: d.Appservices, hooks: d.Hooks,
		cache:       newSessionCache(),
		seen:        newLastSeen(),
		failures:    newFailureLimit(cfg.FailedLogin),
		nonces:      newNonces(),
		userNIDs:    d.DB.Sequence("user_nid"),
		sessionNIDs: d.DB.Sequence("session_nid"),
	}
	if a.hasher, err = newHasher(cfg.Passwords, a.secrets); err != nil {
		return nil, err
	}
	a.UIA = newUIA(a)
	d.DB.Subscribe(a.committed)
	return a, nil
}

func (c Config) withDefaults() (Config, error) {
	switch c.Registration {
	case "":
		c.Registration = ModeClosed
	case ModeClosed, ModeToken, ModeOpen:
	default:
		return c, errors.New("accounts: registration mode must be closed, token or open, not " + string(c.Registration))
	}
	if c.AccessTokenLifetime == 0 {
		c.AccessTokenLifetime = time.Hour
	}
	if c.RefreshTokenLifetime == 0 {
		c.RefreshTokenLifetime = 90 * 24 * time.Hour
	}
	if c.LoginTokenLifetime == 0 {
		c.LoginTokenLifetime = 2 * time.Minute
	}
	return c, nil
}

// OnLogout registers fn for every session that ends: by logout, by deletion of
// its device, by a login that takes the device over, by deactivation or a lock.
// An empty device means all of the user's. fn runs on the database's writer and
// must not block; open long polls of the device are to be answered.
func (a *Accounts) OnLogout(fn func(user matrix.UserID, device matrix.DeviceID)) {
	a.endMu.Lock()
	defer a.endMu.Unlock()
	a.onEnd = append(a.onEnd, fn)
}

// nowMS is the clock as it is stored: milliseconds since the epoch.
func (a *Accounts) nowMS() int64 { return a.now().UnixMilli() }
