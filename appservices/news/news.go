package news

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"
	_ "time/tzdata" // people name their time zones, whatever the machine knows of them

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/news/feed"
)

// Prefix is what commands begin with in rooms.
const Prefix = "!news"

// Options are what the service is made of, beside the kit.
type Options struct {
	// HTTP fetches feeds: it must judge addresses, follow feed.MaxRedirects redirects,
	// and bound time and size as package feed says.
	HTTP      *http.Client
	UserAgent string
	// MinInterval is how often one feed is fetched at most; 0 means feed.MinInterval.
	MinInterval time.Duration
}

const (
	// fetchers is how many feeds are fetched at a time, and parsers how many documents
	// are read at a time; these take the memory.
	fetchers = 24
	parsers  = 2
	// deliverers is how many rooms are sent to at a time; their transactions become one
	// commit.
	deliverers = 16
	// feedsAtOnce, roomsAtOnce and jobsAtOnce are how much work is read at a time.
	feedsAtOnce = 1000
	roomsAtOnce = 1000
	jobsAtOnce  = 100
	// retry is how long a loop rests after the database failed.
	retry = 5 * time.Second
	// housekeeping is how often what is old is removed, and keep how long it stays: so
	// long is a message edited, and counted among the top stories.
	housekeeping = 6 * time.Hour
	keep         = 30 * 24 * time.Hour
)

// News is the service: a kit with what is done beside.
type News struct {
	*kit.Service
	fetcher     *feed.Fetcher
	minInterval time.Duration
	log         *slog.Logger
	parsing     chan struct{} // tokens

	fetch, deliver, work, old loop
}

// Open opens the service; its tables and the prefix of its commands are added to c.
func Open(ctx context.Context, c kit.Config, o Options) (*News, error) {
	c.Schema, c.Prefix, c.Texts = schema, Prefix, words()
	k, err := kit.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	n := &News{Service: k, log: c.Log, minInterval: o.MinInterval, parsing: make(chan struct{}, parsers)}
	if n.log == nil {
		n.log = slog.Default()
	}
	n.fetcher = &feed.Fetcher{Client: o.HTTP, UserAgent: o.UserAgent, Now: n.now}
	n.fetch.start("fetching feeds", n.fetchDue)
	n.deliver.start("delivering entries", n.deliverDue)
	n.work.start("doing what was asked", n.workDue)
	n.old.start("removing what is old", n.tidy)
	n.listen()
	return n, nil
}

// Run receives, fetches and delivers until ctx ends. An error says why it could not
// begin.
func (n *News) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	defer loops.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, l := range []*loop{&n.fetch, &n.deliver, &n.work, &n.old} {
		loops.Go(func() { l.run(ctx, n.Clock(), n.log) })
	}
	return n.Service.Run(ctx)
}

// Idle tells that nothing is being done: what waits, waits for a time to come.
func (n *News) Idle() bool {
	return n.Service.Idle() && n.fetch.idle() && n.deliver.idle() && n.work.idle() && n.old.idle()
}

func (n *News) now() time.Time { return n.Clock().Now() }

// each calls do for every item, width at a time, and gives the first error.
func each[T any](ctx context.Context, items []T, width int, do func(context.Context, T) error) error {
	var work sync.WaitGroup
	var mu sync.Mutex
	var first error
	slots := make(chan struct{}, width)
	for _, item := range items {
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			if err := do(ctx, item); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if first == nil {
					first = err
				}
			}
		})
	}
	work.Wait()
	return first
}

// tidy removes what is old.
func (n *News) tidy(ctx context.Context) (time.Time, error) {
	before := n.now().Add(-keep).UnixMilli()
	err := n.Do(ctx, func(tx *kit.Tx) error {
		if err := tx.Exec(prunePosts, before, n.now().Add(-refusedFor).UnixMilli()); err != nil {
			return err
		}
		return tx.Exec(pruneVotes, before)
	})
	return n.now().Add(housekeeping), err
}
