package media

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/tus/tusd/v2/pkg/handler"
	"github.com/tus/tusd/v2/pkg/memorylocker"
	"golang.org/x/exp/slog"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// partsPath is where files are uploaded in parts, by the tus protocol 1.0.0
// (https://tus.io), which is no part of Matrix.
const partsPath = "/_matrix/media/unstable/chat.teahouse.resumable/upload"

var (
	insertPart      = db.SQL(`INSERT INTO media_parts (upload_id, uploader, size, type, name, expires_ts) VALUES ($1, $2, $3, $4, $5, $6)`)
	selectPart      = db.SQL(`SELECT uploader, size, type, name FROM media_parts WHERE upload_id = $1 AND expires_ts > $2`)
	deletePart      = db.SQL(`DELETE FROM media_parts WHERE upload_id = $1`)
	countParts      = db.SQL(`SELECT COUNT(*) FROM media_parts WHERE uploader = $1 AND expires_ts > $2`)
	sumParts        = db.SQL(`SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM media_parts WHERE uploader = $1 AND expires_ts > $2`)
	selectLateParts = db.SQL(`SELECT upload_id FROM media_parts WHERE expires_ts <= $1 LIMIT 500`)
)

// callerKey finds who uploads in a context.
type callerKey struct{}

// resumable makes the handler of the protocol.
func (m *Media) resumable() *handler.UnroutedHandler {
	composer := handler.NewStoreComposer()
	store := &parts{m}
	composer.UseCore(store)
	composer.UseTerminater(store)
	memorylocker.New().UseIn(composer)
	h, err := handler.NewUnroutedHandler(handler.Config{
		StoreComposer: composer, BasePath: m.PublicURL + partsPath + "/", MaxSize: m.Config.MaxUpload, NetworkTimeout: stallTime,
		Cors: &handler.CorsConfig{Disable: true}, Logger: slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError + 1})), PreFinishResponseCallback: store.finish,
	})
	if err != nil {
		panic(err) // the configuration above is wrong
	}
	return h
}

// part answers a request of the protocol. Nobody sees another user's upload. GET is
// ours: it tells the URI of an upload whose last answer was lost.
func (m *Media) part(w http.ResponseWriter, r *http.Request, c *httpx.Caller) error {
	id := r.PathValue("id")
	var do http.HandlerFunc
	switch r.Method {
	case http.MethodPost:
		if err := m.mayBegin(r, c.User); err != nil {
			return err
		}
		do = m.parts.PostFile
	case http.MethodPatch:
		do = m.parts.PatchFile
	case http.MethodDelete:
		do = m.parts.DelFile
	case http.MethodHead:
		do = m.parts.HeadFile
	}
	if id != "" {
		if _, err := m.partOf(r.Context(), id, c.User); err != nil {
			return err
		}
	}
	if do == nil {
		return m.partURI(w, r, id, c.User)
	}
	r = r.WithContext(context.WithValue(r.Context(), callerKey{}, c.User))
	http.StripPrefix(partsPath, m.parts.Middleware(do)).ServeHTTP(w, r)
	control := http.NewResponseController(w) // the deadlines were this request's
	_ = control.SetReadDeadline(time.Time{})
	_ = control.SetWriteDeadline(time.Time{})
	return nil
}

// mayBegin tells whether a user may begin an upload.
func (m *Media) mayBegin(r *http.Request, user matrix.UserID) error {
	ctx := r.Context()
	size, err := strconv.ParseInt(r.Header.Get("Upload-Length"), 10, 64)
	if err != nil || size < 0 {
		return matrix.InvalidParam("The header Upload-Length must tell how large the file is")
	}
	if size > m.Config.MaxUpload {
		return m.tooLarge()
	}
	begun, _, err := db.One(ctx, m.DB, countParts, scanCount, user, m.now())
	if err != nil {
		return err
	}
	if begun >= int64(m.Config.PendingUploads) {
		return matrix.NewError(http.StatusTooManyRequests, matrix.CodeLimitExceeded, "You have begun %d uploads; finish or end one first", begun).
			With("retry_after_ms", m.Config.PendingTime.Milliseconds())
	}
	reserved, _, err := db.One(ctx, m.DB, sumParts, scanCount, user, m.now())
	if err != nil {
		return err
	}
	return m.checkQuota(ctx, m.DB, user, reserved+size)
}

// begun is an upload.
type begun struct {
	m    *Media
	id   string
	user matrix.UserID
	size int64
	typ  string
	name string
	done bool // its file has its place
}

// partOf finds an upload of a user, also one that is complete.
func (m *Media) partOf(ctx context.Context, id string, user matrix.UserID) (*begun, error) {
	if !validID(id) {
		return nil, errNoPart
	}
	b, found, err := db.One(ctx, m.DB, selectPart, func(row db.Scanner) (b begun, err error) {
		err = row.Scan(&b.user, &b.size, &b.typ, &b.name)
		return b, err
	}, id, m.now())
	if err != nil {
		return nil, err
	}
	if !found {
		rec, there, err := lookup(ctx, m.DB, Ref{m.ServerName, id})
		if err != nil {
			return nil, err
		}
		if found = there && rec.Hash != ""; found {
			b = begun{user: rec.Uploader, size: rec.Size, done: true}
		}
	}
	if !found || b.user != user || user == "" {
		return nil, errNoPart
	}
	b.m, b.id = m, id
	return &b, nil
}

var errNoPart = matrix.NotFound("There is no such upload, or the time for it is over; begin another")

// partURI tells where the file of a complete upload is.
func (m *Media) partURI(w http.ResponseWriter, r *http.Request, id string, user matrix.UserID) error {
	b, err := m.partOf(r.Context(), id, user)
	if err != nil {
		return err
	}
	if !b.done {
		have, _, err := m.Depot.PartSize(id)
		if err != nil {
			return err
		}
		if have < b.size {
			return matrix.NewError(http.StatusConflict, matrix.CodeNotYetUploaded, "%d of %d bytes have come; go on with PATCH", have, b.size)
		}
		if err := b.keep(r.Context()); err != nil {
			return err
		}
	}
	return httpx.Write(w, &uploaded{URI: Ref{m.ServerName, id}.String()})
}

// keep makes a file of an upload that is complete.
func (b *begun) keep(ctx context.Context) error {
	m := b.m
	in, err := m.Depot.AdoptPart(ctx, b.id)
	if err != nil {
		return err
	}
	now := m.now()
	rec := &Record{
		Ref: Ref{m.ServerName, b.id}, NID: m.nids.Next(), Type: cleanType(b.typ), Name: CleanName(b.name), Uploader: b.user, Kind: KindUpload,
		CreatedTS: now, UsedTS: now, Open: m.Config.Unauthenticated == Open,
	}
	return m.keep(ctx, in, rec, func(tx *db.Tx) error {
		if _, err := insert(tx, rec); err != nil {
			return err
		}
		return tx.Exec(deletePart, b.id)
	})
}

// expireParts forgets uploads that were not finished in time.
func (m *Media) expireParts(ctx context.Context) error {
	ids, err := db.All(ctx, m.DB, selectLateParts, func(row db.Scanner) (id string, err error) {
		err = row.Scan(&id)
		return id, err
	}, m.now())
	for _, id := range ids {
		err = errors.Join(err, m.Depot.RemovePart(id), m.DB.Write(ctx, func(tx *db.Tx) error { return tx.Exec(deletePart, id) }))
	}
	return err
}

// parts is how the protocol's handler keeps uploads.
type parts struct{ m *Media }

// told makes an error for the handler, which answers with it.
func told(err error) error {
	e := matrix.AsError(err)
	body, encodeErr := json.Marshal(e)
	if encodeErr != nil {
		return encodeErr
	}
	answer := handler.NewError(string(e.Code), e.Text, e.Status)
	answer.HTTPResponse.Body = string(body)
	answer.HTTPResponse.Header = handler.HTTPHeader{"Content-Type": "application/json"}
	return answer
}

func userIn(ctx context.Context) matrix.UserID {
	user, _ := ctx.Value(callerKey{}).(matrix.UserID)
	return user
}

// NewUpload begins an upload.
func (p *parts) NewUpload(ctx context.Context, info handler.FileInfo) (handler.Upload, error) {
	m := p.m
	id, err := newID(m.Rand)
	if err != nil {
		return nil, err
	}
	b := &begun{m: m, id: id, user: userIn(ctx), size: info.Size, typ: cleanType(info.MetaData["filetype"]), name: CleanName(info.MetaData["filename"])}
	if b.user == "" {
		return nil, handler.ErrNotFound
	}
	if err := m.Depot.CreatePart(id); err != nil {
		return nil, told(m.failed(err))
	}
	if err := m.DB.Write(ctx, func(tx *db.Tx) error {
		return tx.Exec(insertPart, id, b.user, b.size, b.typ, b.name, m.now()+m.Config.PendingTime.Milliseconds())
	}); err != nil {
		return nil, told(errors.Join(err, m.Depot.RemovePart(id)))
	}
	return b, nil
}

// GetUpload finds an upload of the user who asks.
func (p *parts) GetUpload(ctx context.Context, id string) (handler.Upload, error) {
	b, err := p.m.partOf(ctx, id, userIn(ctx))
	if err != nil {
		return nil, told(err)
	}
	return b, nil
}

// AsTerminatableUpload lets uploads be ended by their users.
func (p *parts) AsTerminatableUpload(u handler.Upload) handler.TerminatableUpload { return u.(*begun) }

// finish makes the file, and tells its URI.
func (p *parts) finish(event handler.HookEvent) (handler.HTTPResponse, error) {
	b, err := p.m.partOf(event.Context, event.Upload.ID, userIn(event.Context))
	if err == nil && !b.done {
		err = b.keep(event.Context)
	}
	if err != nil {
		return handler.HTTPResponse{}, told(err)
	}
	return handler.HTTPResponse{Header: handler.HTTPHeader{"Matrix-Content-Uri": Ref{p.m.ServerName, b.id}.String()}}, nil
}

// WriteChunk adds what comes. What has come before an error stays.
func (b *begun) WriteChunk(_ context.Context, _ int64, src io.Reader) (int64, error) {
	n, err := b.m.Depot.AppendPart(b.id, src)
	if err != nil {
		return n, told(b.m.failed(err))
	}
	return n, nil
}

// GetInfo tells how far the upload is.
func (b *begun) GetInfo(context.Context) (handler.FileInfo, error) {
	info := handler.FileInfo{ID: b.id, Size: b.size, Offset: b.size}
	if !b.done {
		have, _, err := b.m.Depot.PartSize(b.id)
		if err != nil {
			return info, err
		}
		info.Offset = have
	}
	return info, nil
}

// GetReader reads what has come.
func (b *begun) GetReader(context.Context) (io.ReadCloser, error) { return b.m.Depot.OpenPart(b.id) }

// FinishUpload has nothing to do: finish keeps the file.
func (b *begun) FinishUpload(context.Context) error { return nil }

// Terminate ends an upload; a file that has its place stays.
func (b *begun) Terminate(ctx context.Context) error {
	if b.done {
		return nil
	}
	return errors.Join(b.m.Depot.RemovePart(b.id), b.m.DB.Write(ctx, func(tx *db.Tx) error { return tx.Exec(deletePart, b.id) }))
}
