package kit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/internal/clock"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/dialer"
)

// Config is what a service is told. The first block is needed.
type Config struct {
	ID         string    // of the registration
	User       id.UserID // the service's user, of the registration's sender_localpart: "@news:example.org"
	ASToken    string
	HSToken    string
	Homeserver string // where its client API is: "https://matrix.example.org"
	Database   string // sqlite:///path/to/file.db or postgres://user:password@host/name

	Schema      *Schema   // the service's own tables; nil if it has none
	Listen      string    // where Run listens for the homeserver: "127.0.0.1:9999"; "" if Handler is served otherwise
	DisplayName string    // of the service's user
	Prefix      string    // of commands in rooms: "!news"
	Texts       Catalogue // the service's texts; nil if it speaks English only, by itself
	Admins      id.RoomID // where it is said what went wrong for good; "" for the log alone
	PublicURL   string    // where people reach Handler, for links: "https://news.example.org"

	Keep      time.Duration         // how long it is remembered which events were handled; 0 means 90 days
	Clock     clock.Clock           // nil: the system's
	Log       *slog.Logger          // nil: slog.Default()
	Metrics   prometheus.Registerer // nil: nothing is measured
	Transport http.RoundTripper     // to the homeserver; nil: HTTP
	Dialer    *dialer.Dialer        // to addresses that people name; nil: public ones only
}

// Service is one service. Handlers are added between Open and Run.
type Service struct {
	cfg    Config
	db     *db.DB
	clock  clock.Clock
	log    *slog.Logger
	client *mautrix.Client
	web    *http.Client // for webhooks

	inbox     *lanes
	outbox    *lanes
	sweeps    *lanes
	inboxIDs  *db.Sequence
	outboxIDs *db.Sequence
	lastTxn   atomic.Int64
	synced    atomic.Pointer[string] // up to where invitations are known; nil: nowhere
	lastSent  atomic.Int64           // when an event was sent last, in milliseconds
	echoes    chan struct{}          // says that lastSent changed
	busy      atomic.Int64           // see Busy
	measures  *measures
	instance  string // of the database: makes transaction ids unlike those of another

	handlers map[string][]Handler
	commands map[string]*Command // by name and alias, in lower case
	listed   []*Command
	answers  map[string]func(*Tx, *Answer) error

	spoken    []func(tx *Tx, c *Call) error
	left      []func(tx *Tx, room id.RoomID) error
	refused   []func(tx *Tx, room id.RoomID, ref Ref) error
	ephemeral map[string][]Handler
	passing   chan passing
}

// Handler handles one event. What it writes and sends is committed with the note that
// the event is done. A handler that fails or panics is run again, three times, and
// then the event is set aside.
type Handler func(tx *Tx, ev *Event) error

const (
	// eventsAtOnce is how many rooms' events are handled at a time, and sendsAtOnce
	// how many rooms are sent to.
	eventsAtOnce = 16
	sendsAtOnce  = 16
	// askTimeout is how long a homeserver may take for an answer, maxAnswer how many
	// bytes it may have, and maxReceipt how many if it is to say hardly more than yes.
	askTimeout = time.Minute
	maxAnswer  = 32 << 20
	maxReceipt = 256 << 10
	// rememberFor is the default of Config.Keep.
	rememberFor = 90 * 24 * time.Hour
	// leastKeep is the least Config.Keep.
	leastKeep = 48 * time.Hour
)

// Open opens the service's database and makes everything ready. Nothing is sent or
// handled before Run.
func Open(ctx context.Context, c Config) (*Service, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	c.fill()
	d, err := db.Open(ctx, c.Database, db.Options{Set: c.set(), Log: c.Log})
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg: c, db: d, clock: c.Clock, log: c.Log, handlers: map[string][]Handler{},
		commands: map[string]*Command{}, answers: map[string]func(*Tx, *Answer) error{},
		ephemeral: map[string][]Handler{}, passing: make(chan passing, ephemeralKept), echoes: make(chan struct{}, 1),
		inboxIDs: d.Sequence("kit_inbox"), outboxIDs: d.Sequence("kit_outbox"),
		web: hookClient(c.Dialer), measures: newMeasures(),
	}
	s.inbox = newLanes(s.clock, s.log, eventsAtOnce, s.handleRoom)
	s.outbox = newLanes(s.clock, s.log, sendsAtOnce, s.sendLane)
	s.sweeps = newLanes(s.clock, s.log, sweepsAtOnce, s.sweep)
	if err := s.begin(ctx); err != nil {
		d.Close()
		return nil, err
	}
	return s, nil
}

func (c *Config) check() error {
	var missing []string
	for name, value := range map[string]string{
		"ID": c.ID, "User": string(c.User), "ASToken": c.ASToken, "HSToken": c.HSToken, "Homeserver": c.Homeserver, "Database": c.Database,
	} {
		if value == "" {
			missing = append(missing, name)
		}
	}
	if slices.Sort(missing); len(missing) > 0 {
		return fmt.Errorf("kit: the configuration lacks %s", strings.Join(missing, ", "))
	}
	if _, _, err := c.User.Parse(); err != nil {
		return fmt.Errorf("kit: User must be a whole user id such as @news:example.org: %w", err)
	}
	if c.Keep != 0 && c.Keep < leastKeep {
		return fmt.Errorf("kit: Keep must be at least %v, or what comes late is handled twice", leastKeep)
	}
	return c.Texts.check()
}

func (c *Config) fill() {
	if c.Clock == nil {
		c.Clock = clock.System
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Dialer == nil {
		c.Dialer = dialer.New(dialer.Options{})
	}
	if c.Keep == 0 {
		c.Keep = rememberFor
	}
}

func (c *Config) set() *db.Set {
	if c.Schema != nil {
		return c.Schema
	}
	return basis
}

// begin makes the client and reads what the database says of itself.
func (s *Service) begin(ctx context.Context) error {
	client, err := mautrix.NewClient(s.cfg.Homeserver, s.cfg.User, s.cfg.ASToken)
	if err != nil {
		return fmt.Errorf("kit: the homeserver must be given as an URL such as https://matrix.example.org: %w", err)
	}
	client.Client = &http.Client{Timeout: askTimeout, Transport: s.cfg.Transport}
	client.IgnoreRateLimit = true // the outbox heeds it
	client.ResponseSizeLimit = maxAnswer
	client.UserAgent = "teahouse-kit"
	s.client = client
	err = s.db.Write(ctx, func(tx *db.Tx) error { return tx.Exec(insertMeta, "instance", rand.Text()[:8]) })
	if err != nil {
		return err
	}
	if s.instance, _, err = db.One(ctx, s.db, selectMeta, scanText, "instance"); err != nil {
		return err
	}
	if err := s.measures.register(s); err != nil {
		return err
	}
	s.db.Subscribe(s.committed)
	s.busy.Store(1) // until Run has begun
	return nil
}

// What transactions publish: there is something to do in a room, or to be sent on a
// lane.
type (
	toHandle string
	toSend   string
)

func (s *Service) committed(b db.Batch) {
	for _, change := range b.Changes {
		switch v := change.(type) {
		case toHandle:
			s.inbox.wake(string(v))
		case toSend:
			s.outbox.wake(string(v))
		case then:
			v()
		}
	}
}

// On has a handler called for events of a type; several are called in the order in
// which they were added. Events of the service's own user are not handled.
func (s *Service) On(typ event.Type, h Handler) {
	s.handlers[typ.Type] = append(s.handlers[typ.Type], h)
}

// User is the service's own user.
func (s *Service) User() id.UserID { return s.cfg.User }

// Client is a client of the homeserver for what a service wants to know. What it
// wants to say belongs into a Tx.
func (s *Service) Client() *mautrix.Client { return s.client }

// Clock is the service's clock.
func (s *Service) Clock() clock.Clock { return s.clock }

func (s *Service) now() int64 { return s.clock.Now().UnixMilli() }

// Busy tells that work of the service's own is being done until done is called, but
// for the time that it spends in Sleep.
func (s *Service) Busy() (done func()) {
	s.busy.Add(1)
	return func() { s.busy.Add(-1) }
}

// Idle tells that nothing is being done: what waits, waits for a time to come.
func (s *Service) Idle() bool {
	return s.inbox.idle() && s.outbox.idle() && s.sweeps.idle() && s.busy.Load() == 0
}

// Waiting counts the events that are to be handled and the rows that are to be sent.
func (s *Service) Waiting(ctx context.Context) (events, sends int, err error) {
	_, _, err = db.One(ctx, s.db, countWaiting, func(r db.Scanner) (struct{}, error) {
		return struct{}{}, r.Scan(&events, &sends)
	})
	return events, sends, err
}

// Close closes the database. Run must have returned.
func (s *Service) Close() error {
	s.measures.unregister()
	return s.db.Close()
}

// Run receives, handles and sends until ctx ends. An error says why it could not
// begin.
func (s *Service) Run(ctx context.Context) error {
	s.builtIn()
	defer s.busy.Store(0)
	if err := s.resume(ctx); ctx.Err() != nil {
		return nil
	} else if err != nil {
		return err
	}
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work.Go(func() { s.inbox.run(ctx) })
	work.Go(func() { s.outbox.run(ctx) })
	work.Go(func() { s.sweeps.run(ctx) })
	work.Go(func() { s.handlePassing(ctx) })
	for _, f := range []func(context.Context){s.introduce, s.watch} {
		done := s.Busy()
		work.Go(func() {
			defer done()
			f(ctx)
		})
	}
	s.busy.Add(-1) // what Open said
	if s.cfg.Listen == "" {
		<-ctx.Done()
		return nil
	}
	return s.listen(ctx)
}

// resume wakes the lanes of what waits in the database.
func (s *Service) resume(ctx context.Context) error {
	err := db.Each(ctx, s.db, selectWaitingRooms, func(r Scanner) error {
		room, err := scanText(r)
		s.inbox.wake(room)
		return err
	})
	if err != nil {
		return err
	}
	return db.Each(ctx, s.db, selectLanes, func(r Scanner) error {
		var lane string
		var due int64
		err := r.Scan(&lane, &due)
		s.outbox.wakeAt(lane, time.UnixMilli(due))
		return err
	})
}

// listen serves Handler until ctx ends.
func (s *Service) listen(ctx context.Context) error {
	l, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("kit: cannot listen for the homeserver: %w", err)
	}
	server := s.server()
	var ended sync.WaitGroup
	defer ended.Wait()
	stop := context.AfterFunc(ctx, func() {
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(drain)
	})
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("kit: listening for the homeserver: %w", err)
	}
	return nil
}

// server serves Handler to whoever is not too slow.
func (s *Service) server() *http.Server {
	return &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: 2 * time.Minute, IdleTimeout: 5 * time.Minute,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}
