package news

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/news/feed"
)

const feedColumns = `nid, url, title, site, etag, modified, body_hash, fetched, newest, next_fetch, failures, since, told, problem`

// source is a feed that is followed.
type source struct {
	nid       int64
	url       string
	title     string
	site      string
	etag      string
	modified  string
	bodyHash  string
	fetched   bool
	newest    int64
	nextFetch int64
	failures  int
	since     int64 // of the first of these failures
	told      bool  // rooms were told that it is broken
	problem   string
}

func scanSource(r kit.Scanner) (s source, err error) {
	err = r.Scan(&s.nid, &s.url, &s.title, &s.site, &s.etag, &s.modified, &s.bodyHash, &s.fetched, &s.newest, &s.nextFetch, &s.failures, &s.since, &s.told, &s.problem)
	return s, err
}

// name is how people are told of a feed.
func (s *source) name() string {
	if s.title != "" {
		return s.title
	}
	return s.url
}

// fetchDue fetches the feeds whose time has come, and tells when the next one's comes.
func (n *News) fetchDue(ctx context.Context) (time.Time, error) {
	for {
		due, err := kit.All(ctx, n, dueFeeds, scanSource, n.now().UnixMilli(), feedsAtOnce)
		if err != nil {
			return time.Time{}, err
		}
		if len(due) == 0 {
			return n.earliest(ctx, nextFetch)
		}
		if err := each(ctx, lanes(due), fetchers, n.fetchLane); err != nil {
			return time.Time{}, err
		}
		if err := ctx.Err(); err != nil {
			return time.Time{}, err
		}
	}
}

// earliest reads a time that may be NULL; the zero time for none.
func (n *News) earliest(ctx context.Context, s *kit.Stmt, args ...any) (time.Time, error) {
	at, _, err := kit.One(ctx, n, s, func(r kit.Scanner) (v *int64, err error) {
		err = r.Scan(&v)
		return v, err
	}, args...)
	if err != nil || at == nil {
		return time.Time{}, err
	}
	return time.UnixMilli(*at), nil
}

// refresh fetches a feed and stores what became of it. It tells until when the host is
// to be left alone: for as long as it took. Its error is the database's.
func (n *News) refresh(ctx context.Context, s source) (until time.Time, _ error) {
	began := n.now()
	d, err := n.look(ctx, s)
	if ctx.Err() != nil {
		return until, ctx.Err()
	}
	now := n.now()
	until = now.Add(min(now.Sub(began), longestPause))
	stored := n.Do(ctx, func(tx *kit.Tx) error { return n.take(tx, s, d, err) })
	if stored != nil && ctx.Err() == nil {
		// Else it would be fetched again and again, as often as the database allows.
		n.log.Error("what was fetched could not be stored", "feed", s.url, "error", stored)
		stored = n.Do(ctx, func(tx *kit.Tx) error { return n.take(tx, s, nil, errStore) })
	}
	if stored == nil {
		n.deliver.wake()
	}
	return until, stored
}

// errStore is a failure of ours rather than the feed's.
var errStore = errors.New("news: what was fetched could not be stored")

// take stores what became of a fetch, unless somebody ended the feed or was faster.
func (n *News) take(tx *kit.Tx, s source, d *document, why error) error {
	now, found, err := kit.One(tx.Context(), tx, feedByNID, scanSource, s.nid)
	if err != nil || !found || now.url != s.url || now.nextFetch != s.nextFetch {
		return err
	}
	switch {
	case errors.Is(why, feed.ErrGone):
		return n.drop(tx, now)
	case why != nil:
		return n.failed(tx, now, why)
	}
	return n.store(tx, now, d)
}

// document is what a fetch brought.
type document struct {
	answer *feed.Answer
	parsed *feed.Feed // nil if nothing has changed
	hash   string
}

// look fetches a feed and reads it if it has changed.
func (n *News) look(ctx context.Context, s source) (*document, error) {
	a, err := n.fetcher.Fetch(ctx, feed.Request{URL: s.url, ETag: s.etag, LastModified: s.modified})
	if err != nil {
		return nil, err
	}
	d := &document{answer: a, hash: s.bodyHash}
	if a.Body == nil {
		return d, nil
	}
	sum := sha256.Sum256(a.Body)
	if d.hash = hex.EncodeToString(sum[:16]); d.hash == s.bodyHash {
		return d, nil
	}
	d.parsed, err = n.parse(a)
	return d, err
}

// parse reads a document, few at a time for the sake of memory.
func (n *News) parse(a *feed.Answer) (*feed.Feed, error) {
	n.parsing <- struct{}{}
	defer func() { <-n.parsing }()
	f, err := feed.Parse(a.Body, a.ContentType, a.URL)
	a.Body = nil
	return f, err
}

// store takes a document in: new entries get numbers, changed ones change the messages
// that show them.
func (n *News) store(tx *kit.Tx, s source, d *document) error {
	now := n.now()
	pace := feed.Pace{URL: s.url, Min: n.minInterval, AtLeast: d.answer.MaxAge}
	if d.parsed == nil {
		dates, err := n.dates(tx, s.nid)
		if err != nil {
			return err
		}
		pace.Published = dates
		return tx.Exec(unchangedFeed, s.nid, d.answer.ETag, d.answer.LastModified, now.Add(feed.Interval(pace, now)).UnixMilli())
	}
	newest, err := n.merge(tx, s, d.parsed, now)
	if err != nil {
		return err
	}
	if pace.Published, err = n.dates(tx, s.nid); err != nil {
		return err
	}
	pace.AtLeast = max(pace.AtLeast, d.parsed.TTL)
	if !s.fetched { // what was there before does not concern those who followed it unseen
		if err := tx.Exec(firstCursor, s.nid, newest); err != nil {
			return err
		}
	}
	if d.answer.Moved != s.url {
		if s.url, err = n.movedTo(tx, s.url, d.answer.Moved); err != nil {
			return err
		}
	}
	if d.parsed.Title != "" {
		s.title = d.parsed.Title
	}
	return tx.Exec(fetchedFeed, s.nid, s.url, s.title, d.parsed.Site, d.answer.ETag, d.answer.LastModified, d.hash, newest,
		now.Add(feed.Interval(pace, now)).UnixMilli())
}

// movedTo is the new address of a feed, unless that is another feed's, which is
// followed by others under its own: then the old one goes on leading there.
func (n *News) movedTo(tx *kit.Tx, old, moved string) (string, error) {
	moved, err := feed.CheckURL(moved)
	if err != nil {
		return old, nil
	}
	_, taken, err := kit.One(tx.Context(), tx, feedByURL, scanSource, moved)
	if err != nil || taken {
		return old, err
	}
	return moved, nil
}

// dates are when the last entries were published, or found if they do not say.
func (n *News) dates(tx *kit.Tx, nid int64) ([]time.Time, error) {
	return kit.All(tx.Context(), tx, entryDates, func(r kit.Scanner) (time.Time, error) {
		var published, found int64
		err := r.Scan(&published, &found)
		if published == 0 || published > found {
			published = found
		}
		return time.UnixMilli(published), err
	}, nid)
}

const (
	// brokenAfter is how long a feed fails, and brokenTimes how often, before rooms are
	// told of it.
	brokenAfter = 24 * time.Hour
	brokenTimes = 5
)

// failed notes a failure, and tells the rooms once of a feed that goes on failing.
func (n *News) failed(tx *kit.Tx, s source, why error) error {
	now := n.now()
	if s.failures++; s.failures == 1 {
		s.since = now.UnixMilli()
	}
	dates, err := n.dates(tx, s.nid)
	if err != nil {
		return err
	}
	pace := feed.Pace{URL: s.url, Min: n.minInterval, Published: dates, Failures: s.failures}
	if status, ok := errors.AsType[*feed.StatusError](why); ok {
		pace.AtLeast = status.RetryAfter
	}
	problem := problemOf(why)
	n.log.Info("a feed could not be fetched", "feed", s.url, "failures", s.failures, "error", why)
	if !s.told && s.failures >= brokenTimes && now.Sub(time.UnixMilli(s.since)) >= brokenAfter {
		s.told = true
		if err := n.tell(tx, s, "broken", problem); err != nil {
			return err
		}
	}
	return tx.Exec(failedFeed, s.nid, now.Add(feed.Interval(pace, now)).UnixMilli(), s.failures, s.since, s.told, problem)
}

// drop ends a feed that says that it is gone for good.
func (n *News) drop(tx *kit.Tx, s source) error {
	if err := n.tell(tx, s, "gone", statusProblem+"410"); err != nil {
		return err
	}
	if err := tx.Exec(subsOfFeed, s.nid); err != nil {
		return err
	}
	return forget(tx, s.nid)
}

// forget removes a feed that nobody follows.
func forget(tx *kit.Tx, nid int64) error {
	for _, remove := range []*kit.Stmt{removePosts, removeEntries, removeFeed} {
		if err := tx.Exec(remove, nid); err != nil {
			return err
		}
	}
	return nil
}

// tell says something in all rooms that follow a feed, in each one's language.
func (n *News) tell(tx *kit.Tx, s source, key, problem string) error {
	type follower struct{ room, language string }
	followers, err := kit.All(tx.Context(), tx, roomsOfFeed, func(r kit.Scanner) (f follower, err error) {
		err = r.Scan(&f.room, &f.language)
		return f, err
	}, s.nid)
	if err != nil {
		return err
	}
	for _, f := range followers {
		tx.Say(roomID(f.room), say(f.language, key, s.name(), s.url, inWords(f.language, problem)))
	}
	return nil
}
