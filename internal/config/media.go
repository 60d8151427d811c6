package config

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The modes of downloads without a token.
const (
	UnauthenticatedOff    = "off"
	UnauthenticatedFrozen = "frozen"
	UnauthenticatedOpen   = "open"
)

// Media is how files are kept.
type Media struct {
	// Store is a folder, or s3:// and the name of a bucket with an optional prefix;
	// empty means the folder media in DataDir.
	Store string `yaml:"store"`
	S3    S3     `yaml:"s3"`
	// MaxUpload is the largest file that is taken from users, MaxRemote from other
	// servers.
	MaxUpload Size `yaml:"max_upload"`
	MaxRemote Size `yaml:"max_remote"`
	// UserQuota is how much one user may keep; 0 is without limit.
	UserQuota Size `yaml:"user_quota"`
	// PendingUploads is how many files a user may have announced, or begun, and not
	// sent yet; PendingTime how long each may take.
	PendingUploads int           `yaml:"pending_uploads"`
	PendingTime    time.Duration `yaml:"pending_time"`
	// Unauthenticated says what may be downloaded without a token.
	Unauthenticated string `yaml:"unauthenticated"`
	// RemoteCache is how much of other servers' files is kept at most, and
	// RemoteKeep for how long after the last use; 0 is without limit.
	RemoteCache Size          `yaml:"remote_cache"`
	RemoteKeep  time.Duration `yaml:"remote_keep"`
	// LocalKeep is how long users' files are kept after the last use; 0 is for ever.
	LocalKeep time.Duration `yaml:"local_keep"`
	// BlockedServers are not asked for files.
	BlockedServers []string `yaml:"blocked_servers"`
	// DeleteRedacted removes the files of an event with the event's content.
	DeleteRedacted bool     `yaml:"delete_redacted"`
	MaxPixels      int      `yaml:"max_pixels"` // of images that thumbnails are made of
	Previews       Previews `yaml:"previews"`
}

// S3 is how an S3 server is reached, where Store names a bucket.
type S3 struct {
	Endpoint  string `yaml:"endpoint"` // https://host or http://host:port
	Region    string `yaml:"region"`
	AccessKey Secret `yaml:"access_key" env:"TEAHOUSE_S3_ACCESS_KEY"`
	SecretKey Secret `yaml:"secret_key" env:"TEAHOUSE_S3_SECRET_KEY"`
	// Redirect has other servers fetch files from the S3 server themselves.
	Redirect bool `yaml:"redirect"`
}

// Previews are looks at the pages that messages link to.
type Previews struct {
	Enabled  bool          `yaml:"enabled"`
	Allow    []string      `yaml:"allow"` // if there are any, only these hosts
	Deny     []string      `yaml:"deny"`  // never these hosts
	Language string        `yaml:"language"`
	Keep     time.Duration `yaml:"keep"`
}

func defaultMedia() Media {
	return Media{
		MaxUpload: 100 << 20, MaxRemote: 100 << 20, PendingUploads: 20, PendingTime: 24 * time.Hour,
		Unauthenticated: UnauthenticatedFrozen, RemoteCache: 10 << 30, RemoteKeep: 30 * 24 * time.Hour,
		S3: S3{Region: "us-east-1"}, BlockedServers: []string{}, MaxPixels: 50_000_000,
		Previews: Previews{Language: "en", Keep: 24 * time.Hour, Allow: []string{}, Deny: []string{}},
	}
}

// Bucket splits the address of an S3 store; ok is false for a folder.
func (m *Media) Bucket() (bucket, prefix string, ok bool) {
	rest, ok := strings.CutPrefix(m.Store, "s3://")
	bucket, prefix, _ = strings.Cut(rest, "/")
	return bucket, strings.Trim(prefix, "/"), ok
}

func (m *Media) check(r *reader) {
	bucket, _, s3 := m.Bucket()
	switch {
	case s3 && bucket == "":
		r.bad("media.store", "names no bucket; use s3://bucket or s3://bucket/prefix")
	case s3:
		u, err := url.Parse(m.S3.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" {
			r.bad("media.s3.endpoint", "%q is not the address of an S3 server; use one like https://s3.example.org", m.S3.Endpoint)
		}
		if m.S3.Redirect && err == nil && u.Scheme != "https" {
			r.bad("media.s3.redirect", "needs an endpoint that begins with https://, since other servers follow no other redirects")
		}
		if m.S3.AccessKey == "" || m.S3.SecretKey == "" {
			r.bad("media.s3", "needs access_key and secret_key; the environment variables TEAHOUSE_S3_ACCESS_KEY and TEAHOUSE_S3_SECRET_KEY go before them")
		}
	case m.S3.Redirect:
		r.bad("media.s3.redirect", "needs a store of the form s3://bucket")
	case strings.Contains(m.Store, "://"):
		r.bad("media.store", "%q is neither a folder nor s3://bucket", m.Store)
	}
	for key, n := range map[string]Size{"max_upload": m.MaxUpload, "max_remote": m.MaxRemote} {
		if n < 1 {
			r.bad("media."+key, "must be more than 0; 100 MiB is the default")
		}
	}
	for key, n := range map[string]int64{
		"user_quota": int64(m.UserQuota), "remote_cache": int64(m.RemoteCache), "remote_keep": int64(m.RemoteKeep), "local_keep": int64(m.LocalKeep),
	} {
		if n < 0 {
			r.bad("media."+key, "must not be below 0; 0 is without limit")
		}
	}
	if m.PendingUploads < 1 {
		r.bad("media.pending_uploads", "must be at least 1; 20 is the default")
	}
	if m.PendingTime < time.Minute {
		r.bad("media.pending_time", "must be at least 1m; 24h is the default")
	}
	oneOf(r, "media.unauthenticated", m.Unauthenticated, UnauthenticatedOff, UnauthenticatedFrozen, UnauthenticatedOpen)
	checkNames(r, "media.blocked_servers", m.BlockedServers)
	if m.MaxPixels < 1 || m.MaxPixels > 1<<30 {
		r.bad("media.max_pixels", "must be from 1 to %d; 50000000 is the default", 1<<30)
	}
	checkNames(r, "media.previews.allow", m.Previews.Allow)
	checkNames(r, "media.previews.deny", m.Previews.Deny)
	if m.Previews.Keep < time.Minute {
		r.bad("media.previews.keep", "must be at least 1m; 24h is the default")
	}
}

// Size is a number of bytes, written 500 KiB, 100 MiB or 5 GiB; a plain number
// counts bytes.
type Size int64

var units = []struct {
	name  string
	shift int
}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	number, shift := string(text), 0
	for _, u := range units {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, shift = strings.TrimRight(rest, " "), u.shift
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n<<shift>>shift != n {
		return fmt.Errorf("%q is not a size", text)
	}
	*s = Size(n << shift)
	return nil
}

// String writes a size with the largest unit that divides it.
func (s Size) String() string {
	for _, u := range units {
		if s != 0 && s%(1<<u.shift) == 0 {
			return fmt.Sprintf("%d %s", s>>u.shift, u.name)
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText writes what UnmarshalText reads.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
