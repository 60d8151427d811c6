package media

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/media/storage"
)

const (
	stallTime    = 30 * time.Second // without a byte of an upload
	maxTypeBytes = 255
	maxNameBytes = 255
	octetStream  = "application/octet-stream"
)

type uploaded struct {
	URI       string `json:"content_uri"`
	ExpiresTS int64  `json:"unused_expires_at,omitempty"`
}

// upload takes a file.
// spec: client-server#post_matrixmediav3upload
func (m *Media) upload(w http.ResponseWriter, r *http.Request, c *httpx.Caller) error {
	rec, err := m.newRecord(r, c)
	if err != nil {
		return err
	}
	if err := m.take(w, r, rec, func(tx *db.Tx) error {
		_, err := insert(tx, rec)
		return err
	}); err != nil {
		return err
	}
	return httpx.Write(w, &uploaded{URI: rec.String()})
}

// newRecord describes what a request is about to upload.
func (m *Media) newRecord(r *http.Request, c *httpx.Caller) (*Record, error) {
	name, err := query(r, "filename")
	if err != nil {
		return nil, err
	}
	id, err := newID(m.Rand)
	if err != nil {
		return nil, err
	}
	now := m.now()
	return &Record{
		Ref: Ref{m.ServerName, id}, NID: m.nids.Next(), Type: cleanType(r.Header.Get("Content-Type")), Name: CleanName(name), Uploader: c.User,
		Kind: KindUpload, CreatedTS: now, UsedTS: now, Open: m.Config.Unauthenticated == Open,
	}, nil
}

// take receives the body of a request and keeps it; store writes the row.
func (m *Media) take(w http.ResponseWriter, r *http.Request, rec *Record, store func(tx *db.Tx) error) error {
	ctx := r.Context()
	if r.ContentLength > m.Config.MaxUpload {
		w.Header().Set("Connection", "close") // the file is not read
		return m.tooLarge()
	}
	if err := m.checkQuota(ctx, m.DB, rec.Uploader, max(r.ContentLength, 0)); err != nil {
		w.Header().Set("Connection", "close")
		return err
	}
	in, err := m.Depot.Receive(httpx.Steady(w, r, stallTime), m.Config.MaxUpload)
	if err != nil {
		return m.failed(err)
	}
	return m.keep(ctx, in, rec, store)
}

// keep puts what was received into the depot, and writes the row of a user's file.
func (m *Media) keep(ctx context.Context, in *storage.Incoming, rec *Record, store func(tx *db.Tx) error) error {
	rec.Hash, rec.Size = in.Hash(), in.Size()
	err := m.Depot.Keep(ctx, in, func() error {
		return m.DB.Write(ctx, func(tx *db.Tx) error {
			if banned, err := isBanned(ctx, tx, rec.Hash); err != nil || banned {
				return errors.Join(err, errBanned)
			}
			if err := m.checkQuota(ctx, tx, rec.Uploader, rec.Size); err != nil {
				return err
			}
			return store(tx)
		})
	})
	if err != nil {
		return m.failed(errors.Join(err, m.unused(ctx, rec.Hash)))
	}
	return nil
}

var errBanned = matrix.Forbidden("This file may not be uploaded here; ask the server's administrator why")

func isBanned(ctx context.Context, q db.Querier, h storage.Hash) (bool, error) {
	_, banned, err := db.One(ctx, q, selectBan, scanHash, h)
	return banned, err
}

// failed makes an error that says what to do out of one of the depot.
func (m *Media) failed(err error) error {
	switch {
	case errors.Is(err, storage.ErrTooLarge):
		return m.tooLarge()
	case storage.Full(err):
		return matrix.NewError(http.StatusInsufficientStorage, matrix.CodeResourceLimitExceeded,
			"The server's disk is full; tell its administrator and try again later").Because(err)
	}
	return err
}

func (m *Media) tooLarge() error {
	return matrix.TooLarge("The file is larger than the %d bytes that this server takes", m.Config.MaxUpload)
}

// checkQuota tells whether a user may keep so many bytes more.
func (m *Media) checkQuota(ctx context.Context, q db.Querier, user matrix.UserID, more int64) error {
	if m.Config.UserQuota == 0 || user == "" {
		return nil
	}
	_, bytes, err := usage(ctx, q, user)
	if err != nil {
		return err
	}
	if bytes+more > m.Config.UserQuota {
		return matrix.NewError(http.StatusForbidden, matrix.CodeResourceLimitExceeded,
			"You have uploaded %d of the %d bytes that one user may keep here, too much for this file; ask the server's administrator for more or for old files to be deleted",
			bytes, m.Config.UserQuota)
	}
	return nil
}

// create announces a file that is uploaded later.
// spec: client-server#post_matrixmediav1create
func (m *Media) create(ctx context.Context, c *httpx.Caller, _ *struct{}) (*uploaded, error) {
	id, err := newID(m.Rand)
	if err != nil {
		return nil, err
	}
	now := m.now()
	rec := &Record{
		Ref: Ref{m.ServerName, id}, NID: m.nids.Next(), Type: octetStream, Uploader: c.User, Kind: KindUpload, CreatedTS: now, UsedTS: now,
		ExpiresTS: now + m.Config.PendingTime.Milliseconds(), Open: m.Config.Unauthenticated == Open,
	}
	err = m.DB.Write(ctx, func(tx *db.Tx) error {
		if err := m.checkPending(ctx, tx, c.User); err != nil {
			return err
		}
		_, err := insert(tx, rec)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &uploaded{rec.String(), rec.ExpiresTS}, nil
}

// checkPending bounds what a user has announced or begun.
func (m *Media) checkPending(ctx context.Context, q db.Querier, user matrix.UserID) error {
	pending, _, err := db.One(ctx, q, selectWait, scanCount, user, m.now())
	if err != nil {
		return err
	}
	if pending >= int64(m.Config.PendingUploads) {
		return matrix.NewError(http.StatusTooManyRequests, matrix.CodeLimitExceeded,
			"%d files that you have announced are not uploaded yet; upload those first, or wait until they expire", pending).
			With("retry_after_ms", m.Config.PendingTime.Milliseconds())
	}
	return nil
}

// fill uploads a file that was announced.
// spec: client-server#put_matrixmediav3uploadservernamemediaid
func (m *Media) fill(w http.ResponseWriter, r *http.Request, c *httpx.Caller) error {
	ref, err := NewRef(r.PathValue("serverName"), r.PathValue("mediaId"))
	if err != nil {
		return err
	}
	old, found, err := lookup(r.Context(), m.DB, ref)
	switch {
	case err != nil:
		return err
	case !found || ref.Server != m.ServerName || old.Hash == "" && old.ExpiresTS <= m.now():
		return matrix.NotFound("No upload was announced under this URI, or the time for it is over; announce another")
	case old.Uploader != c.User:
		return matrix.Forbidden("Somebody else has announced this upload")
	case old.Hash != "":
		return errUploaded
	case old.Quarantined:
		return errBanned
	}
	rec, err := m.newRecord(r, c)
	if err != nil {
		return err
	}
	rec.Ref, rec.NID = ref, old.NID
	if err := m.take(w, r, rec, func(tx *db.Tx) error {
		n, err := tx.Changed(fillMedia, rec.NID, rec.Hash, rec.Size, rec.Type, rec.Name, m.now())
		if err == nil && n == 0 {
			err = errUploaded
		}
		return err
	}); err != nil {
		return err
	}
	m.waiting.arrived(ref)
	return httpx.Write(w, nil)
}

var errUploaded = matrix.NewError(http.StatusConflict, matrix.CodeCannotOverwriteMedia, "The file was uploaded already and cannot be changed; upload another")

// cleanType takes over a content type that is one.
func cleanType(text string) string {
	if _, _, err := mime.ParseMediaType(text); err != nil || len(text) > maxTypeBytes || strings.ContainsFunc(text, unprintable) {
		return octetStream
	}
	return strings.TrimSpace(text)
}

func unprintable(r rune) bool { return r < ' ' || r > '~' }

// CleanName takes from a file's name what would deceive a reader or lead out of a
// folder: control characters, marks that turn the direction of text, slashes.
func CleanName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r == '/' || r == '\\':
			return '_'
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, ""))
	if strings.Trim(name, ". ") == "" {
		return ""
	}
	if len(name) > maxNameBytes {
		name = strings.ToValidUTF8(name[:maxNameBytes], "")
	}
	return name
}
