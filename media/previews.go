package media

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/media/preview"
	"github.com/teahouse-chat/teahouse/media/thumbnail"
)

const (
	previewTime     = 30 * time.Second // for a page and its picture
	maxPreviewImage = 10 << 20
	maxLooks        = 16 // pages that are looked at, at the same time
)

var (
	selectPreview  = db.SQL(`SELECT answer FROM media_previews WHERE url = $1 AND fetched_ts > $2`)
	upsertPreview  = db.SQL(`INSERT INTO media_previews (url, answer, fetched_ts) VALUES ($1, $2, $3) ON CONFLICT (url) DO UPDATE SET answer = excluded.answer, fetched_ts = excluded.fetched_ts`)
	deletePreviews = db.SQL(`DELETE FROM media_previews WHERE fetched_ts <= $1`)
)

type previewRequest struct {
	URL string `query:"url"`
	TS  int64  `query:"ts"` // what is cached is shown whatever time is preferred
}

// preview says what a page is about.
// spec: client-server#get_matrixclientv1mediapreview_url
func (m *Media) preview(ctx context.Context, _ *httpx.Caller, q *previewRequest) (*httpx.RawJSON, error) {
	if m.Pages == nil {
		return nil, matrix.Forbidden("Previews of links are switched off on this server")
	}
	u, err := url.Parse(q.URL)
	if err != nil || preview.CheckURL(u) != nil {
		return nil, matrix.InvalidParam(`"url" is not the address of a web page`)
	}
	u.Fragment = ""
	address := u.String()
	answer, found, err := db.One(ctx, m.DB, selectPreview, func(row db.Scanner) (j httpx.RawJSON, err error) {
		err = row.Scan((*[]byte)(&j))
		return j, err
	}, address, m.now()-m.Config.PreviewKeep.Milliseconds())
	if err != nil || found {
		return &answer, err
	}
	failed := Ref{ID: address}
	if err := m.flights.failed.get(failed); err != nil {
		return nil, err
	}
	made := m.looks.DoChan(address, func() (any, error) {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), previewTime)
		defer cancel()
		answer, err := m.look(limited, address)
		if err != nil {
			err = notLooked(err)
			m.flights.failed.put(failed, err)
		}
		return answer, err
	})
	select {
	case r := <-made:
		if r.Err != nil {
			return nil, r.Err
		}
		answer := r.Val.(httpx.RawJSON)
		return &answer, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// notLooked is what is told of a page that there is no preview of. It does not say
// what is in our network.
func notLooked(err error) error {
	switch {
	case errors.Is(err, preview.ErrRefused):
		return matrix.Forbidden("This server does not look at this address").Because(err)
	case errors.Is(err, preview.ErrNothing):
		return matrix.NotFound("There is nothing at this address that could be shown").Because(err)
	}
	return matrix.NewError(http.StatusBadGateway, matrix.CodeUnknown, "The page cannot be looked at now").Because(err)
}

// look asks a page, keeps its picture, and writes down what it says.
func (m *Media) look(ctx context.Context, address string) (httpx.RawJSON, error) {
	select {
	case m.looking <- struct{}{}:
		defer func() { <-m.looking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	page, err := m.Pages.Look(ctx, address)
	if err != nil {
		return nil, err
	}
	answer := make(map[string]any, len(page.Tags)+5)
	for name, value := range page.Tags {
		answer[name] = value
	}
	if page.Image != "" {
		if err := m.addPicture(ctx, page.Image, answer); err != nil {
			m.Log.DebugContext(ctx, "the picture of a preview could not be had", "error", err)
		}
	}
	if len(answer) == 0 {
		return nil, preview.ErrNothing
	}
	raw, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	return raw, m.DB.Write(ctx, func(tx *db.Tx) error { return tx.Exec(upsertPreview, address, raw, m.now()) })
}

// addPicture fetches a picture and keeps it as a file of its own.
func (m *Media) addPicture(ctx context.Context, address string, answer map[string]any) error {
	body, err := m.Pages.Picture(ctx, address)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	in, err := m.Depot.Receive(body, maxPreviewImage)
	if err != nil {
		return err
	}
	defer in.Discard()
	info, err := thumbnail.Probe(in.File)
	if err != nil {
		return err
	}
	id, err := newID(m.Rand)
	if err != nil {
		return err
	}
	now := m.now()
	rec := &Record{Ref: Ref{m.ServerName, id}, NID: m.nids.Next(), Type: info.Type, Kind: KindPreview, CreatedTS: now, UsedTS: now, Open: m.Config.Unauthenticated == Open}
	if err := m.keep(ctx, in, rec, func(tx *db.Tx) error {
		_, err := insert(tx, rec)
		return err
	}); err != nil {
		return err
	}
	answer["og:image"], answer["og:image:type"] = rec.String(), info.Type
	answer["og:image:width"], answer["og:image:height"], answer["matrix:image:size"] = info.Width, info.Height, rec.Size
	return nil
}
