package media

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	defaultWait = 20 * time.Second
	maxWait     = time.Minute
)

// want is what somebody asks about a file.
type want struct {
	Ref
	wait   time.Duration // for a file that was announced
	fetch  bool          // ask its server if it is not here
	openly bool          // without a token
}

// read takes a request apart. Who has no token makes nothing be fetched.
func (m *Media) read(r *http.Request, c *httpx.Caller, openly bool) (want, error) {
	ref, err := NewRef(r.PathValue("serverName"), r.PathValue("mediaId"))
	if err != nil {
		return want{}, err
	}
	q := r.URL.Query()
	wait, err := waitTime(q.Get("timeout_ms"))
	if err != nil {
		return want{}, err
	}
	return want{Ref: ref, wait: wait, openly: openly, fetch: !c.Anonymous() && (!openly || q.Get("allow_remote") != "false")}, nil
}

func waitTime(text string) (time.Duration, error) {
	if text == "" {
		return defaultWait, nil
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 0 {
		return 0, matrix.InvalidParam(`"timeout_ms" is not a number of milliseconds`)
	}
	return time.Duration(min(ms, maxWait.Milliseconds())) * time.Millisecond, nil
}

// find looks for a file that is here, or waits until it is. Every door goes
// through it. The record has no hash if the file has to be fetched.
func (m *Media) find(ctx context.Context, w want) (*Record, error) {
	deadline := time.NewTimer(w.wait)
	defer deadline.Stop()
	local := w.Server == m.ServerName
	var arrived <-chan struct{}
	for {
		rec, found, err := lookup(ctx, m.DB, w.Ref)
		if err != nil {
			return nil, err
		}
		pending := found && rec.Hash == "" && rec.ExpiresTS > m.now()
		switch {
		case found && rec.Quarantined, local && !found, local && rec.Hash == "" && !pending:
			return nil, errNotFound
		case w.openly && !pending && m.Config.Unauthenticated != Open && !(found && rec.Open):
			return nil, errNotFound
		case found && rec.Hash != "":
			m.use(&rec)
			return &rec, nil
		case !local && !w.fetch:
			return nil, errNotFound
		case !local:
			return &Record{Ref: w.Ref}, nil
		case arrived == nil:
			arrived = m.waiting.wait(w.Ref) // and look again, since it may have come just now
			continue
		}
		select {
		case <-arrived:
			arrived = nil
		case <-deadline.C:
			return nil, errNotYet
		case <-httpx.Draining(ctx):
			return nil, errNotYet
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

var errNotYet = matrix.NewError(http.StatusGatewayTimeout, matrix.CodeNotYetUploaded, "The file was announced but is not uploaded yet; try again later")

// download serves a file to a user.
// spec: client-server#get_matrixclientv1mediadownloadservernamemediaid
// spec: client-server#get_matrixclientv1mediadownloadservernamemediaidfilename
func (m *Media) download(openly bool) func(http.ResponseWriter, *http.Request, *httpx.Caller) error {
	return func(w http.ResponseWriter, r *http.Request, c *httpx.Caller) error {
		q, err := m.read(r, c, openly)
		if err != nil {
			return err
		}
		rec, err := m.find(r.Context(), q)
		if err != nil {
			return err
		}
		name := CleanName(r.PathValue("fileName"))
		if rec.Hash == "" {
			return m.pass(w, r, q, name)
		}
		if name == "" {
			name = rec.Name
		}
		return m.send(w, r, content{rec.Hash, rec.Type, name, rec.CreatedTS})
	}
}
