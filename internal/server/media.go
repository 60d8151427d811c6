package server

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/teahouse-chat/teahouse/federation/content"
	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/media"
	"github.com/teahouse-chat/teahouse/media/preview"
	"github.com/teahouse-chat/teahouse/media/storage"
)

// mediaConfig is the part of the configuration that media obey.
func mediaConfig(c *config.Media) media.Config {
	return media.Config{
		MaxUpload: int64(c.MaxUpload), MaxRemote: int64(c.MaxRemote), UserQuota: int64(c.UserQuota), PendingUploads: c.PendingUploads,
		PendingTime: c.PendingTime, Unauthenticated: media.Mode(c.Unauthenticated), RemoteCache: int64(c.RemoteCache), RemoteKeep: c.RemoteKeep,
		LocalKeep: c.LocalKeep, BlockedServers: c.BlockedServers, DeleteRedacted: c.DeleteRedacted, MaxPixels: c.MaxPixels,
		PreviewKeep: c.Previews.Keep, Redirect: c.S3.Redirect,
	}
}

// openDepot opens where files are kept. Temporary ones are in a folder in any case.
func openDepot(cfg *config.Config) (*storage.Depot, *os.Root, error) {
	c := &cfg.Media
	bucket, prefix, remote := c.Bucket()
	dir := c.Store
	if remote || dir == "" {
		dir = filepath.Join(cfg.DataDir, "media")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("media.store: %w; choose a folder that the server may write", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("media.store: %w", err)
	}
	var store storage.Store
	if remote {
		store, err = storage.NewBucket(storage.BucketOptions{
			Endpoint: c.S3.Endpoint, Region: c.S3.Region, Bucket: bucket, Prefix: prefix, AccessKey: c.S3.AccessKey.Reveal(), SecretKey: c.S3.SecretKey.Reveal(),
		})
	} else {
		store, err = storage.NewFolder(root)
	}
	if err == nil {
		var depot *storage.Depot
		if depot, err = storage.NewDepot(root, store); err == nil {
			return depot, root, nil
		}
	}
	_ = root.Close()
	return nil, nil, fmt.Errorf("media.store: %w", err)
}

// remoteMedia asks other servers for their files.
type remoteMedia struct{ fetcher *content.Fetcher }

func (r remoteMedia) Download(ctx context.Context, ref media.Ref, wait time.Duration) (*media.Download, error) {
	file, err := r.fetcher.Download(ctx, ref.Server, ref.ID, wait)
	if err != nil {
		return nil, err
	}
	d := &media.Download{Body: file.Body, Type: file.Header.Get("Content-Type")}
	if _, params, err := mime.ParseMediaType(file.Header.Get("Content-Disposition")); err == nil {
		d.Name = params["filename"]
	}
	return d, nil
}

// roomTexts gives operators what is in rooms.
type roomTexts struct{ db *db.DB }

var textsOf = db.SQL(`SELECT e.event_nid, j.json FROM rooms r JOIN events e ON e.room_nid = r.room_nid JOIN event_json j ON j.event_nid = e.event_nid
	WHERE r.room_id = $1 AND e.event_nid > $2 ORDER BY e.event_nid LIMIT 500`)

func (r roomTexts) Texts(ctx context.Context, room matrix.RoomID, each func(json []byte) error) error {
	type text struct {
		nid  int64
		json []byte
	}
	for after := int64(0); ; {
		list, err := db.All(ctx, r.db, textsOf, func(row db.Scanner) (t text, err error) {
			err = row.Scan(&t.nid, &t.json)
			return t, err
		}, room, after)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, t := range list {
			if err := each(t.json); err != nil {
				return err
			}
			after = t.nid
		}
	}
}

// openMedia makes the feature.
func (s *Server) openMedia() error {
	depot, root, err := openDepot(s.cfg)
	if err != nil {
		return err
	}
	d := media.Deps{
		DB: s.db, ServerName: s.cfg.ServerName, Depot: depot, Config: mediaConfig(&s.cfg.Media), Rooms: roomTexts{s.db}, Now: s.deps.Now, Rand: s.deps.Rand, Log: s.deps.Log,
	}
	if s.cfg.Federation.Enabled {
		d.Remote = remoteMedia{content.New(s.outside.client, s.outside.dialer, s.outside.secure(&s.cfg.Federation), int64(s.cfg.Media.MaxRemote))}
	}
	d.PublicURL = s.cfg.ClientURL()
	if p := s.cfg.Media.Previews; p.Enabled {
		d.Pages = preview.New(preview.Options{
			Dialer: s.outside.dialer, Allow: p.Allow, Deny: p.Deny, Language: p.Language, UserAgent: "Teahouse/" + s.deps.Version + " (link preview)",
		})
	}
	s.Media, s.mediaFolder = media.New(d), root
	return nil
}

// signedMedia makes a route at which other servers get files.
func (o *outside) signedMedia(method, path string, h func(http.ResponseWriter, *http.Request) error) httpx.Route {
	return o.auth.Route(method, path, func(w http.ResponseWriter, r *http.Request, _ matrix.ServerName, _ []byte) error { return h(w, r) })
}
