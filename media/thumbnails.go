package media

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/media/storage"
	"github.com/teahouse-chat/teahouse/media/thumbnail"
)

const (
	maxThumbnailSide = 2048             // wishes for more get this much
	maxThumbnails    = 32               // of one picture that are kept
	thumbnailTime    = 30 * time.Second // to make one
)

var (
	selectThumbnail = db.SQL(`SELECT hash, size, type FROM media_thumbnails WHERE source = $1 AND width = $2 AND height = $3 AND crop = $4 AND animated = $5`)
	countThumbnails = db.SQL(`SELECT COUNT(*) FROM media_thumbnails WHERE source = $1`)
	insertThumbnail = db.SQL(`INSERT INTO media_thumbnails (source, width, height, crop, animated, hash, size, type)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (source, width, height, crop, animated) DO NOTHING`)
)

// workshop is where thumbnails are made: as many at a time as there are cores,
// and with as many pixels in all as one picture may have.
type workshop struct {
	cores  *semaphore.Weighted
	pixels *semaphore.Weighted
	same   singleflight.Group
}

func newWorkshop(maxPixels int) workshop {
	return workshop{cores: semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))), pixels: semaphore.NewWeighted(int64(max(maxPixels, 1)))}
}

// small is a thumbnail: in the depot, or only here if data is not nil.
type small struct {
	hash storage.Hash
	size int64
	typ  string
	data []byte
}

// wishOf reads what a request wants.
func wishOf(r *http.Request) (thumbnail.Wish, error) {
	q := r.URL.Query()
	var w thumbnail.Wish
	for name, side := range map[string]*int{"width": &w.Width, "height": &w.Height} {
		text := q.Get(name)
		if text == "" {
			return w, matrix.MissingParam("%q is missing; it is a number of pixels", name)
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return w, matrix.InvalidParam("%q must be a number of pixels above 0", name)
		}
		*side = n
	}
	switch q.Get("method") {
	case "", "scale":
	case "crop":
		w.Crop = true
	default:
		return w, matrix.InvalidParam(`"method" is "crop" or "scale"`)
	}
	w.Animated = q.Get("animated") == "true"
	if most := max(w.Width, w.Height); most > maxThumbnailSide {
		w.Width, w.Height = max(1, w.Width*maxThumbnailSide/most), max(1, w.Height*maxThumbnailSide/most)
	}
	return w, nil
}

// thumbnail serves a small picture to a user.
// spec: client-server#get_matrixclientv1mediathumbnailservernamemediaid
func (m *Media) thumbnail(openly bool) func(http.ResponseWriter, *http.Request, *httpx.Caller) error {
	return func(w http.ResponseWriter, r *http.Request, c *httpx.Caller) error {
		q, err := m.read(r, c, openly)
		if err != nil {
			return err
		}
		wish, err := wishOf(r)
		if err != nil {
			return err
		}
		rec, err := m.find(r.Context(), q)
		if err == nil && rec.Hash == "" {
			rec, err = m.fetched(r.Context(), q)
		}
		if err != nil {
			return err
		}
		s, err := m.shrink(r.Context(), rec, wish)
		if err != nil {
			return err
		}
		if s.data != nil {
			describe(w.Header(), s.typ, fileName(s.typ))
			http.ServeContent(w, r, "", time.UnixMilli(rec.CreatedTS), bytes.NewReader(s.data))
			return nil
		}
		return m.send(w, r, content{s.hash, s.typ, fileName(s.typ), rec.CreatedTS})
	}
}

// fileName is how a thumbnail is called.
func fileName(typ string) string { return "thumbnail." + strings.TrimPrefix(typ, "image/") }

// thumbnailFor serves a small picture to another server.
// spec: server-server#get_matrixfederationv1mediathumbnailmediaid
func (m *Media) thumbnailFor(w http.ResponseWriter, r *http.Request) error {
	wish, err := wishOf(r)
	if err != nil {
		return err
	}
	rec, err := m.own(r)
	if err != nil {
		return err
	}
	s, err := m.shrink(r.Context(), rec, wish)
	if err != nil {
		return err
	}
	return m.sendParts(w, r, content{s.hash, s.typ, fileName(s.typ), rec.CreatedTS}, s.data)
}

// shrink finds a thumbnail, or makes and keeps it.
func (m *Media) shrink(ctx context.Context, rec *Record, w thumbnail.Wish) (*small, error) {
	s, found, err := db.One(ctx, m.DB, selectThumbnail, func(row db.Scanner) (s small, err error) {
		err = row.Scan(&s.hash, &s.size, &s.typ)
		return s, err
	}, rec.Hash, w.Width, w.Height, w.Crop, w.Animated)
	if err != nil || found {
		return &s, err
	}
	key := fmt.Sprintf("%s %+v", rec.Hash, w)
	made := m.work.same.DoChan(key, func() (any, error) {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), thumbnailTime)
		defer cancel()
		return m.makeThumbnail(limited, rec, w)
	})
	select {
	case r := <-made:
		if r.Err != nil {
			return nil, notMade(rec, r.Err)
		}
		return r.Val.(*small), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// notMade is what is told of a thumbnail that cannot be.
func notMade(rec *Record, err error) error {
	switch {
	case errors.Is(err, thumbnail.ErrTooLarge) && rec.Kind == KindRemote:
		return matrix.NewError(http.StatusBadGateway, matrix.CodeTooLarge, "The picture has too many pixels for a thumbnail").Because(err)
	case errors.Is(err, thumbnail.ErrTooLarge):
		return matrix.TooLarge("The picture has too many pixels for a thumbnail").Because(err)
	case errors.Is(err, thumbnail.ErrFormat):
		return matrix.NewError(http.StatusBadRequest, matrix.CodeUnknown, "There are no thumbnails of this file: it is no picture of a known kind, or a broken one").Because(err)
	case errors.Is(err, context.DeadlineExceeded):
		return matrix.NewError(http.StatusServiceUnavailable, matrix.CodeUnknown, "The thumbnail takes too long to make; try again later").Because(err)
	}
	return err
}

// makeThumbnail makes a thumbnail once it is its turn.
func (m *Media) makeThumbnail(ctx context.Context, rec *Record, w thumbnail.Wish) (*small, error) {
	source, err := m.Depot.Open(ctx, rec.Hash)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, errNotFound
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = source.Close() }()
	info, err := thumbnail.Probe(source)
	if err != nil {
		return nil, err
	}
	limits := thumbnail.Limits{MaxPixels: m.Config.MaxPixels}
	pixels := int64(info.Width) * int64(info.Height)
	if pixels > int64(limits.MaxPixels) {
		return nil, thumbnail.ErrTooLarge
	}
	if err := m.work.cores.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer m.work.cores.Release(1)
	if err := m.work.pixels.Acquire(ctx, pixels); err != nil {
		return nil, err
	}
	defer m.work.pixels.Release(pixels)
	p, err := thumbnail.Make(ctx, source, w, limits)
	if err != nil {
		return nil, err
	}
	if p.Data == nil {
		return m.keepThumbnail(ctx, rec, w, &small{hash: rec.Hash, size: rec.Size, typ: p.Type})
	}
	s := &small{size: int64(len(p.Data)), typ: p.Type, data: p.Data}
	in, err := m.Depot.Receive(bytes.NewReader(p.Data), s.size)
	if err != nil {
		m.Log.WarnContext(ctx, "a thumbnail could not be kept", "error", err)
		return s, nil
	}
	s.hash = in.Hash()
	err = m.Depot.Keep(ctx, in, func() error {
		_, err := m.keepThumbnail(ctx, rec, w, s)
		return err
	})
	return s, err
}

// keepThumbnail writes the row, unless there are enough of this picture or the
// picture is gone. s.data stays only where the bytes are nowhere else.
func (m *Media) keepThumbnail(ctx context.Context, rec *Record, w thumbnail.Wish, s *small) (*small, error) {
	kept := false
	err := m.DB.Write(ctx, func(tx *db.Tx) error {
		kept = false
		there, err := isNeeded(ctx, tx, rec.Hash)
		if err != nil {
			return err
		}
		count, _, err := db.One(ctx, tx, countThumbnails, scanCount, rec.Hash)
		if err != nil {
			return err
		}
		if !there || count >= maxThumbnails {
			if s.hash == rec.Hash {
				return nil
			}
			return tx.Exec(noteUnused, s.hash)
		}
		kept = true
		return tx.Exec(insertThumbnail, rec.Hash, w.Width, w.Height, w.Crop, w.Animated, s.hash, s.size, s.typ)
	})
	if kept {
		s.data = nil
	}
	return s, err
}

func scanCount(row db.Scanner) (n int64, err error) {
	err = row.Scan(&n)
	return n, err
}
