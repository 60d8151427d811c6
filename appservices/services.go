package appservices

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Accounts is what services need of the feature that keeps accounts.
type Accounts interface {
	// Provide makes the account of a service's own user, unless it is there.
	Provide(ctx context.Context, user matrix.UserID, service string) error
}

// Aliases is what services need of the feature that keeps room aliases.
type Aliases interface {
	// AliasesOf lists a room's aliases of this server.
	AliasesOf(ctx context.Context, room matrix.RoomID) ([]matrix.RoomAlias, error)
	// AliasesMoved tells which room's aliases a change on the stream is about; ""
	// if it is about something else. It must not block.
	AliasesMoved(change any) matrix.RoomID
}

// Deps are what the feature is made of.
type Deps struct {
	DB         *db.DB
	ServerName matrix.ServerName
	Files      []string          // registration files of the configuration
	Inside     map[string]string // keys of the configuration by the ids of services within the server that they switch on
	HTTP       *http.Client      // to reach services with
	Now        func() time.Time
	Log        *slog.Logger
	Metrics    prometheus.Registerer // nil: nothing is measured
}

// Services is the feature.
type Services struct {
	Deps
	rooms     *rooms.Engine
	accounts  Accounts
	aliases   Aliases
	ephemeral Ephemeral
	devices   Devices

	current  atomic.Pointer[set]
	nids     *db.Sequence // of services
	txnIDs   *db.Sequence
	deadNIDs *db.Sequence
	metrics  *measures
	lookups  *lookups

	standings *standings
	watcher   *watcher

	registering sync.Mutex // held while the registrations are read or changed
	version     int64      // of the rows that current was made of
	files       map[string]fileState

	mu         sync.Mutex
	couriers   map[int64]*courier // by number of the service; nil while nothing is delivered
	background context.Context    // of the couriers
}

// New makes the feature and reads what is registered. A file of the configuration
// that is wrong does no harm beyond itself; the log tells of it.
func New(ctx context.Context, d Deps) (*Services, error) {
	s := &Services{
		Deps: d, nids: d.DB.Sequence("appservices"), txnIDs: d.DB.Sequence("appservice_txns"), deadNIDs: d.DB.Sequence("appservice_dead"),
		files: map[string]fileState{}, version: -1,
	}
	s.metrics = newMeasures(s)
	s.lookups = newLookups(s)
	s.standings, s.watcher = newStandings(s), newWatcher(s)
	s.current.Store(newSet(d.ServerName, nil))
	if err := s.retire(ctx); err != nil {
		return nil, err
	}
	return s, s.Reload(ctx)
}

// Connect gives the feature those that are made after it.
func (s *Services) Connect(engine *rooms.Engine, accounts Accounts, aliases Aliases) {
	s.rooms, s.accounts, s.aliases = engine, accounts, aliases
}

// Watch gives the feature those that know what happens beside events.
func (s *Services) Watch(ephemeral Ephemeral, devices Devices) {
	s.ephemeral, s.devices = ephemeral, devices
}

// ByToken finds the service that an as_token belongs to; nil if there is none.
func (s *Services) ByToken(token string) *Service { return s.current.Load().token(token) }

// Covers tells whether a user is the service's own or in its namespace.
func (s *Services) Covers(id string, user matrix.UserID) bool {
	for _, v := range s.current.Load().covering(user) {
		if v.ID == id {
			return true
		}
	}
	return false
}

// Exclusive finds the service that claims a user for itself alone.
func (s *Services) Exclusive(user matrix.UserID) (id string, ok bool) {
	if v := s.current.Load().exclusive(user); v != nil {
		return v.ID, true
	}
	return "", false
}

// MayAlias tells whether a user, or the service with an id that acts as them, may make
// and delete an alias: what a service claims for itself alone is its only, and no
// service goes beyond what it claims. Who logged in as a user of a service's alone
// acts for the service.
func (s *Services) MayAlias(alias matrix.RoomAlias, user matrix.UserID, service string) bool {
	set := s.current.Load()
	if v := set.exclusive(user); v != nil && service == "" {
		service = v.ID
	}
	if owner := set.exclusiveAlias(alias); owner != nil {
		return owner.ID == service
	}
	v := set.byID[service]
	return service == "" || v != nil && v.Aliases.Match(string(alias))
}

// OwnsAlias tells whether an alias is a service's, which claims it: for itself alone,
// or it was made by a user of the service's.
func (s *Services) OwnsAlias(alias matrix.RoomAlias, creator matrix.UserID, service string) bool {
	v := s.current.Load().byID[service]
	return v != nil && (v.Aliases.MatchExclusive(string(alias)) || v.covers(creator))
}
