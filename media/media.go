package media

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/tus/tusd/v2/pkg/handler"
	"golang.org/x/sync/singleflight"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/media/preview"
	"github.com/teahouse-chat/teahouse/media/storage"
)

// Mode says what may be downloaded without a token.
type Mode string

// The modes.
const (
	Off    Mode = "off"    // nothing: the deprecated endpoints are not there
	Frozen Mode = "frozen" // what came while the mode was Open
	Open   Mode = "open"   // everything that is here
)

// Config is what an operator decides. Sizes are in bytes; 0 is without limit,
// but for MaxUpload and MaxRemote, which are above 0.
type Config struct {
	MaxUpload       int64
	MaxRemote       int64
	UserQuota       int64
	PendingUploads  int
	PendingTime     time.Duration
	Unauthenticated Mode
	RemoteCache     int64
	RemoteKeep      time.Duration
	LocalKeep       time.Duration
	BlockedServers  []string
	DeleteRedacted  bool
	MaxPixels       int
	PreviewKeep     time.Duration
	Redirect        bool // other servers fetch from the store, if it is a storage.Sharer
}

// Remote asks other servers for files.
type Remote interface {
	// Download begins to fetch a file, and waits up to the given time for one that was
	// announced only. The error is a *matrix.Error for the user who asked.
	Download(ctx context.Context, ref Ref, wait time.Duration) (*Download, error)
}

// Download is a file that comes from another server.
type Download struct {
	Body io.ReadCloser // fails if it ends before the file does
	Type string        // "" if it was not told
	Name string        // "" for none
}

// Deps is what New needs.
type Deps struct {
	DB         *db.DB
	ServerName matrix.ServerName
	Depot      *storage.Depot
	PublicURL  string // where clients reach the server
	Config     Config
	Remote     Remote // nil: no other server is asked
	Rooms      Rooms
	Pages      *preview.Fetcher // nil: there are no previews
	Now        func() time.Time
	Rand       io.Reader
	Log        *slog.Logger
}

// Media is the feature.
type Media struct {
	Deps
	nids    *db.Sequence
	waiting waiting // for uploads that were announced
	flights flights // files that are being fetched
	used    usedFiles
	work    workshop
	cache   *lru.Cache[storage.Hash, []byte]
	looks   singleflight.Group // pages that are being looked at
	looking chan struct{}
	parts   *handler.UnroutedHandler

	commits *db.Tail      // nil unless redactions delete files
	wake    chan struct{} // something may be removed
}

// New makes the feature.
func New(d Deps) *Media {
	if d.Log == nil {
		d.Log = slog.Default()
	}
	m := &Media{Deps: d, nids: d.DB.Sequence("media"), wake: make(chan struct{}, 1), work: newWorkshop(d.Config.MaxPixels), looking: make(chan struct{}, maxLooks)}
	m.waiting.of = map[Ref]chan struct{}{}
	m.flights.of = map[Ref]*flight{}
	m.flights.failed = newFailures(d.Now)
	m.parts = m.resumable()
	m.cache, _ = lru.New[storage.Hash, []byte](cachedFiles) // it fails for a size below 1 only
	if d.Config.DeleteRedacted {
		m.commits = d.DB.Tail(maxBehind, committed)
	}
	return m
}

func (m *Media) now() int64 { return m.Now().UnixMilli() }

// waiting lets requests for a file that was announced wait until it is there.
type waiting struct {
	mu sync.Mutex
	of map[Ref]chan struct{}
}

// wait gives a channel that is closed when the file is there.
func (w *waiting) wait(ref Ref) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of[ref] == nil {
		w.of[ref] = make(chan struct{})
	}
	return w.of[ref]
}

// arrived wakes those who wait.
func (w *waiting) arrived(ref Ref) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ch := w.of[ref]; ch != nil {
		close(ch)
		delete(w.of, ref)
	}
}

// usedFiles collects what was asked for, so that it is written down now and then.
type usedFiles struct {
	mu   sync.Mutex
	nids map[int64]struct{}
}

// usedStep is how exactly the last use of a file is known.
const usedStep = time.Hour

// use notes that a file was asked for.
func (m *Media) use(r *Record) {
	if m.now()-r.UsedTS < usedStep.Milliseconds() {
		return
	}
	m.used.mu.Lock()
	defer m.used.mu.Unlock()
	if m.used.nids == nil {
		m.used.nids = map[int64]struct{}{}
	}
	m.used.nids[r.NID] = struct{}{}
}

// writeUsed writes down what use has collected.
func (m *Media) writeUsed(ctx context.Context) error {
	m.used.mu.Lock()
	nids := make([]int64, 0, len(m.used.nids))
	for nid := range m.used.nids {
		nids = append(nids, nid)
	}
	m.used.nids = nil
	m.used.mu.Unlock()
	if len(nids) == 0 {
		return nil
	}
	return m.DB.Write(ctx, func(tx *db.Tx) error { return tx.Exec(touchMedia, nids, m.now()) })
}
