package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/media/storage"
)

const (
	fetchTime  = time.Hour // for one file, however large
	maxFlights = 64        // files that are fetched at the same time
)

// flights are the files that are being fetched, each once.
type flights struct {
	mu     sync.Mutex
	of     map[Ref]*flight
	failed *failures
	closed bool
	all    sync.WaitGroup
}

// flight is a file on its way here. Whoever asks for it meanwhile reads what has
// come so far and waits for more.
type flight struct {
	cancel context.CancelFunc

	mu      sync.Mutex
	changed chan struct{} // closed at every change
	started bool          // typ and name are known
	in      *storage.Incoming
	typ     string
	name    string
	size    int64
	done    bool
	err     error
	record  *Record // once it is kept
}

// close ends all flights.
func (f *flights) close() {
	f.mu.Lock()
	f.closed = true
	for _, one := range f.of {
		one.cancel()
	}
	f.mu.Unlock()
	f.all.Wait()
}

// fetch joins the flight of a file, or begins it.
func (m *Media) fetch(w want) (*flight, error) {
	switch {
	case m.Remote == nil:
		return nil, errNotFound
	case w.Server.In(m.Config.BlockedServers):
		return nil, matrix.NotFound("Files of %s are not shown on this server", w.Server)
	}
	f := &m.flights
	f.mu.Lock()
	defer f.mu.Unlock()
	if one := f.of[w.Ref]; one != nil {
		return one, nil
	}
	if err := f.failed.get(w.Ref); err != nil {
		return nil, err
	}
	if f.closed || len(f.of) >= maxFlights {
		return nil, matrix.NewError(http.StatusServiceUnavailable, matrix.CodeUnknown, "The server is fetching too many files; try again in a moment")
	}
	ctx, cancel := context.WithTimeout(context.Background(), fetchTime)
	one := &flight{cancel: cancel, changed: make(chan struct{})}
	f.of[w.Ref] = one
	f.all.Go(func() {
		defer cancel()
		rec, err := m.fly(ctx, one, w)
		f.mu.Lock()
		delete(f.of, w.Ref)
		f.mu.Unlock()
		if err != nil {
			f.failed.put(w.Ref, err)
		}
		one.change(func() { one.done, one.err, one.record = true, err, rec })
		m.stir() // there may be too much now
	})
	return one, nil
}

func (f *flight) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	close(f.changed)
	f.changed = make(chan struct{})
}

// fly fetches a file and keeps it.
func (m *Media) fly(ctx context.Context, f *flight, w want) (*Record, error) {
	rec, found, err := lookup(ctx, m.DB, w.Ref)
	if err != nil || found && rec.Hash != "" {
		return &rec, err // it has come since the caller looked
	}
	d, err := m.Remote.Download(ctx, w.Ref, w.wait)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Body.Close() }()
	in, err := m.Depot.Begin()
	if err != nil {
		return nil, m.failed(err)
	}
	defer in.Discard()
	in.Grown = func(size int64) { f.change(func() { f.size = size }) }
	f.change(func() { f.started, f.in, f.typ, f.name = true, in, cleanType(d.Type), CleanName(d.Name) })
	if err := in.Fill(d.Body, m.Config.MaxRemote); err != nil {
		return nil, m.unfetched(w.Ref, err)
	}
	now := m.now()
	rec = Record{
		Ref: w.Ref, NID: m.nids.Next(), Hash: in.Hash(), Size: in.Size(), Type: f.typ, Name: f.name, Kind: KindRemote, CreatedTS: now, UsedTS: now,
		Open: m.Config.Unauthenticated == Open,
	}
	err = m.Depot.Keep(ctx, in, func() error {
		return m.DB.Write(ctx, func(tx *db.Tx) error { return m.writeFetched(ctx, tx, &rec) })
	})
	if err != nil {
		return nil, m.failed(errors.Join(err, m.unused(ctx, rec.Hash)))
	}
	return &rec, nil
}

// writeFetched writes the row of what was fetched. What was quarantined meanwhile
// is not there.
func (m *Media) writeFetched(ctx context.Context, tx *db.Tx, rec *Record) error {
	if banned, err := isBanned(ctx, tx, rec.Hash); err != nil || banned {
		return errors.Join(err, errNotFound)
	}
	made, err := insert(tx, rec)
	if err != nil || made {
		return err
	}
	there, _, err := lookup(ctx, tx, rec.Ref)
	if err != nil {
		return err
	}
	if there.Quarantined {
		return errNotFound
	}
	return tx.Exec(refillMedia, rec.Server, rec.ID, rec.Hash, rec.Size, rec.Type, rec.Name, rec.UsedTS, rec.Open)
}

// unfetched is what a user is told when a file did not come whole.
func (m *Media) unfetched(ref Ref, err error) error {
	switch {
	case errors.Is(err, storage.ErrTooLarge):
		return matrix.NewError(http.StatusBadGateway, matrix.CodeTooLarge, "The file is larger than the %d bytes that this server takes from others", m.Config.MaxRemote)
	case storage.Full(err):
		return m.failed(err)
	}
	return matrix.NewError(http.StatusBadGateway, matrix.CodeUnknown, "%s did not send the file to its end; try again later", ref.Server).Because(err)
}

// wait gives the state of the flight once ready says so.
func (f *flight) wait(ctx context.Context, ready func() bool) error {
	for {
		f.mu.Lock()
		ok, changed := ready() || f.done, f.changed
		f.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fetched waits until a file is here.
func (m *Media) fetched(ctx context.Context, w want) (*Record, error) {
	f, err := m.fetch(w)
	if err != nil {
		return nil, err
	}
	if err := f.wait(ctx, func() bool { return false }); err != nil {
		return nil, err
	}
	return f.record, f.err
}

// pass serves a file of another server while it comes. A part of it, or only its
// header, is served once it is here.
func (m *Media) pass(w http.ResponseWriter, r *http.Request, q want, name string) error {
	ctx := r.Context()
	f, err := m.fetch(q)
	if err != nil {
		return err
	}
	whole := r.Method == http.MethodGet && r.Header.Get("Range") == ""
	if whole {
		// What its hash may forbid is not shown before the hash is known.
		_, bans, err := db.One(ctx, m.DB, anyBan, scanHash)
		if err != nil {
			return err
		}
		whole = !bans
	}
	if err := f.wait(ctx, func() bool { return f.started && whole }); err != nil {
		return err
	}
	f.mu.Lock()
	in, rec, done, err := f.in, f.record, f.done, f.err
	f.mu.Unlock()
	if done {
		if err != nil {
			return err
		}
		if name == "" {
			name = rec.Name
		}
		return m.send(w, r, content{rec.Hash, rec.Type, name, rec.CreatedTS})
	}
	file, err := in.Reader()
	if err != nil { // it has just moved to its place
		if err := f.wait(ctx, func() bool { return false }); err != nil {
			return err
		}
		return m.pass(w, r, q, name)
	}
	defer func() { _ = file.Close() }()
	if name == "" {
		name = f.name
	}
	describe(w.Header(), f.typ, name)
	if _, err := io.Copy(&flushing{w, http.NewResponseController(w)}, &follower{ctx, f, file, 0}); err != nil {
		return fmt.Errorf("passing on a file: %w", err)
	}
	return nil
}

// flushing lets nothing wait for more.
type flushing struct {
	w       io.Writer
	control *http.ResponseController
}

func (f *flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}

// follower reads a file while it grows.
type follower struct {
	ctx  context.Context
	f    *flight
	file io.ReaderAt
	at   int64
}

func (r *follower) Read(p []byte) (int, error) {
	if err := r.f.wait(r.ctx, func() bool { return r.f.size > r.at }); err != nil {
		return 0, err
	}
	r.f.mu.Lock()
	size, done, err := r.f.size, r.f.done, r.f.err
	r.f.mu.Unlock()
	if left := size - r.at; left > 0 {
		n, err := r.file.ReadAt(p[:min(int64(len(p)), left)], r.at)
		r.at += int64(n)
		return n, err
	}
	if done && err != nil {
		return 0, err
	}
	return 0, io.EOF
}
