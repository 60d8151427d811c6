package media

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"
	"time"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/media/storage"
)

// Signed makes a route of the surface "federation" whose requests are signed.
type Signed func(method, path string, h func(http.ResponseWriter, *http.Request) error) httpx.Route

// FederationRoutes are what other servers ask.
func (m *Media) FederationRoutes(signed Signed) []httpx.Route {
	const v1 = "/_matrix/federation/v1/media/"
	return []httpx.Route{
		signed(http.MethodGet, v1+"download/{mediaId}", m.downloadFor),
		signed(http.MethodGet, v1+"thumbnail/{mediaId}", m.thumbnailFor),
	}
}

// own is a request of another server for a file of this one.
func (m *Media) own(r *http.Request) (*Record, error) {
	ref, err := NewRef(string(m.ServerName), r.PathValue("mediaId"))
	if err != nil {
		return nil, err
	}
	wait, err := waitTime(r.URL.Query().Get("timeout_ms"))
	if err != nil {
		return nil, err
	}
	return m.find(r.Context(), want{Ref: ref, wait: wait})
}

// downloadFor serves a file of this server to another.
// spec: server-server#get_matrixfederationv1mediadownloadmediaid
func (m *Media) downloadFor(w http.ResponseWriter, r *http.Request) error {
	rec, err := m.own(r)
	if err != nil {
		return err
	}
	return m.sendParts(w, r, content{rec.Hash, rec.Type, rec.Name, rec.CreatedTS}, nil)
}

// sharedTime is how long another server may take to begin to fetch what it was
// redirected to.
const sharedTime = 10 * time.Minute

// elsewhere is where another server can fetch bytes of the depot itself; "" if it
// gets them from here.
func (m *Media) elsewhere(ctx context.Context, c content) (string, error) {
	share, ok := m.Depot.Store.(storage.Sharer)
	if !ok || !m.Config.Redirect {
		return "", nil
	}
	return share.URL(ctx, c.hash, sharedTime, c.typ, disposition(c.typ, c.name))
}

// sendParts serves bytes as the second part of two, after an empty description:
// those of the depot, or data if it is not nil. The part may also say where else
// the bytes of the depot are.
func (m *Media) sendParts(w http.ResponseWriter, r *http.Request, c content, data []byte) error {
	size, reader := int64(len(data)), io.Reader(bytes.NewReader(data))
	header := textproto.MIMEHeader{"Content-Type": {c.typ}, "Content-Disposition": {disposition(c.typ, c.name)}}
	place := ""
	if data == nil {
		var err error
		if place, err = m.elsewhere(r.Context(), c); err != nil {
			return err
		}
	}
	h := w.Header()
	h.Set("Cache-Control", "private, max-age=86400")
	switch {
	case place != "":
		header = textproto.MIMEHeader{"Location": {place}}
		h.Set("Cache-Control", "no-store")
	case data == nil:
		o, err := m.Depot.Open(r.Context(), c.hash)
		if errors.Is(err, storage.ErrNotFound) {
			return errNotFound
		}
		if err != nil {
			return err
		}
		defer func() { _ = o.Close() }()
		size, reader = o.Size(), o
		if f := storage.File(o); f != nil {
			reader = f // so that the kernel sends it
		}
	}
	var frame bytes.Buffer
	parts := multipart.NewWriter(&frame)
	meta, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/json"}})
	if err == nil {
		_, err = meta.Write([]byte("{}"))
	}
	if err != nil {
		return err
	}
	if _, err := parts.CreatePart(header); err != nil {
		return err
	}
	before := bytes.Clone(frame.Bytes())
	frame.Reset()
	if err := parts.Close(); err != nil {
		return err
	}
	h.Set("Content-Type", "multipart/mixed; boundary="+parts.Boundary())
	h.Set("Content-Length", strconv.FormatInt(int64(len(before))+size+int64(frame.Len()), 10))
	if _, err := w.Write(before); err != nil {
		return err
	}
	if _, err := io.Copy(w, reader); err != nil {
		return err
	}
	_, err = w.Write(frame.Bytes())
	return err
}
