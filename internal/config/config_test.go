package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/teahouse-chat/teahouse/internal/httpx"
)

func noEnv(string) string { return "" }

func write(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "t.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func mustLoad(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Load(write(t, text), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The keys and forms that scripts and operators rely on.
func TestEveryForm(t *testing.T) {
	file := write(t, `
server_name: example.org
data_dir: /var/lib/teahouse
database: sqlite:///var/lib/teahouse/teahouse.db
listeners:
  - address: 127.0.0.1:8008
  - {address: 0.0.0.0:8448, tls: {cert: t.yaml, key: t.yaml}, serves: [federation]}
public_url: https://matrix.example.org/
registration: {mode: token, shared_secret: "hush", guests: true}
passwords: {time: 3, memory_kib: 1024, threads: 2}
rate_limits: {enabled: false}
default_room_version: "11"
federation: {enabled: false, allow_private_addresses: true, ca_file: t.yaml, verify_tls: false}
appservices: [t.yaml]
services: {news: {enabled: true, user: feeds, database: "postgres://u:p@h/news", allow_addresses: [10.0.0.7], homeserver: "https://h/", url: "http://h:1/", metrics: {address: "127.0.0.1:9101"}}}
metrics: {address: 127.0.0.1:9100}
log: {level: DEBUG, format: json}
trusted_proxies: [127.0.0.1, "fd00::/8"]
`)
	c, err := Load(file, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.File, want.ServerName, want.DataDir, want.Database = file, "example.org", "/var/lib/teahouse", "sqlite:///var/lib/teahouse/teahouse.db"
	want.Listeners = []Listener{{Address: "127.0.0.1:8008", Serves: defaultServes},
		{Address: "0.0.0.0:8448", Serves: []string{"federation"}, TLS: TLS{file, file}}}
	want.PublicURL = "https://matrix.example.org"
	want.Registration = Registration{Mode: "token", SharedSecret: "hush", Guests: true}
	want.Passwords = Passwords{3, 1024, 2}
	want.RateLimits.Enabled = false
	want.DefaultRoomVersion = "11"
	want.Federation.Enabled, want.Federation.AllowPrivateAddresses, want.Federation.CAFile, want.Federation.VerifyTLS = false, true, file, false
	want.Appservices = []string{file}
	want.Services.News = News{Enabled: true, User: "feeds", DisplayName: "News", Database: "postgres://u:p@h/news", AllowAddresses: c.Services.News.AllowAddresses,
		MinInterval: 15 * time.Minute, Homeserver: "https://h", Listen: "127.0.0.1:29330", URL: "http://h:1", Metrics: Metrics{"127.0.0.1:9101"}}
	want.Metrics.Address = "127.0.0.1:9100"
	want.Log = Log{"debug", "json"}
	want.TrustedProxies = c.TrustedProxies
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if fmt.Sprint(c.Proxies()) != "[127.0.0.1/32 fd00::/8]" || c.Log.SlogLevel() != slog.LevelDebug || c.RateLimits.Classes() != nil || c.Trial() || fmt.Sprint(c.Services.News.Allowed()) != "[10.0.0.7/32]" {
		t.Errorf("%v %v", c.Proxies(), c.Log.SlogLevel())
	}
}

func TestDefaults(t *testing.T) {
	c := mustLoad(t, "server_name: example.org\nrate_limits: {login: {burst: 3}}\nlisteners: [{address: \"[::]:80\"}]\n")
	dir := filepath.Dir(c.File)
	if c.Registration.Mode != RegistrationClosed || c.DataDir != filepath.Join(dir, "teahouse-data") ||
		string(c.Database) != "sqlite://"+filepath.Join(dir, "teahouse-data/teahouse.db") ||
		string(c.Services.News.Database) != "sqlite://"+filepath.Join(dir, "teahouse-data/news.db") || c.Services.News.Address() != "http://127.0.0.1:29330" || c.ClientURL() != "https://example.org" {
		t.Errorf("%+v", c)
	}
	if c.RateLimits.Classes()["login"] != (Rate{0.5, 3}) || len(c.Listeners) != 1 || len(c.Listeners[0].Serves) != 3 {
		t.Errorf("%+v %+v", c.RateLimits, c.Listeners)
	}
	if c := mustLoad(t, "server_name: a\ndatabase: sqlite://x/y.db\n"); string(c.Database) != "sqlite://"+filepath.Join(filepath.Dir(c.File), "x/y.db") {
		t.Errorf("%s", c.Database)
	}
}

// Sizes read as they are written.
func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "1": 1, "500 KiB": 500 << 10, "100MiB": 100 << 20, "5 GiB": 5 << 30, "2 TiB": 2 << 40} {
		var s, again Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%s is written %s", text, s)
		}
	}
	c := mustLoad(t, "server_name: a\nmedia: {store: \"s3://tea/house/\", max_upload: 5 GiB, s3: {endpoint: \"https://s3.example.org\", access_key: a, secret_key: b}}\n")
	if bucket, prefix, ok := c.Media.Bucket(); bucket != "tea" || prefix != "house" || !ok || c.Media.MaxUpload != 5<<30 {
		t.Errorf("%+v", c.Media)
	}
}

func TestTrial(t *testing.T) {
	dir := t.TempDir()
	c, err := Trial(dir, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Trial() || !c.Services.News.Enabled || c.ServerName != "localhost" || c.Registration.Mode != RegistrationOpen || c.DataDir != filepath.Join(dir, "teahouse-data") ||
		len(c.Listeners) != 1 || c.Listeners[0].Address != "127.0.0.1:8008" || c.ClientURL() != "http://localhost:8008" {
		t.Errorf("%+v", c)
	}
}

func TestEnvironment(t *testing.T) {
	env := map[string]string{"TEAHOUSE_DATABASE": "postgres://u:p@h/d", "TEAHOUSE_REGISTRATION_SHARED_SECRET": "from outside"}
	getenv := func(k string) string { return env[k] }
	c, err := Load(write(t, "server_name: a\nregistration: {shared_secret: inside}\n"), getenv)
	if err != nil {
		t.Fatal(err)
	}
	if c.Database.Reveal() != env["TEAHOUSE_DATABASE"] || c.Registration.SharedSecret.Reveal() != "from outside" {
		t.Errorf("%q %q", c.Database.Reveal(), c.Registration.SharedSecret.Reveal())
	}
	env["TEAHOUSE_DATABASE"] = "mysql://hidden"
	if _, err := Trial(t.TempDir(), getenv); err == nil || strings.Contains(err.Error(), "hidden") {
		t.Errorf("%v", err)
	}
}

func TestProblems(t *testing.T) {
	const head = "server_name: example.org\n" // line 1
	cases := []struct{ name, text, want string }{
		{"empty", "", "t.yaml: server_name: is missing; set it"},
		{"unknown key", head + "\nservr_name: x\n", `t.yaml:3: servr_name: is not a known key; did you mean "server_name"?`},
		{"unknown nested key", head + "log:\n  levle: info\n", `t.yaml:3: log.levle: is not a known key; did you mean "level"?`},
		{"unlike any key", head + "metrics:\n  xyzzyplugh: 1\n", `t.yaml:3: metrics.xyzzyplugh: is not a known key; known here are address`},
		{"key in a list", head + "listeners:\n  - address: :80\n    serve: [client]\n", `t.yaml:4: listeners[0].serve: is not a known key; did you mean "serves"?`},
		{"hidden field", head + "\"-\": x\n", `t.yaml:2: -: is not a known key`},
		{"twice", head + "log: {}\nlog: {}\n", "t.yaml:3: log: stands in line 2 already"},
		{"kind bool", head + "presence:\n  enabled: perhaps\n", "t.yaml:3: presence.enabled: must be true or false"},
		{"kind number", head + "passwords: {time: two}\n", "t.yaml:2: passwords.time: must be a whole number"},
		{"kind range", head + "passwords: {threads: 300}\n", "t.yaml:2: passwords.threads: must be a whole number in range"},
		{"kind text", head + "log: {level: [info]}\n", "t.yaml:2: log.level: must be text"},
		{"kind list", head + "appservices: a.yaml\n", "t.yaml:2: appservices: must be a list"},
		{"kind group", head + "log: info\n", "t.yaml:2: log: must be a group of keys"},
		{"kind duration", head + "shutdown_grace: 20\n", "t.yaml:2: shutdown_grace: must be a duration like 30s"},
		{"kind network", head + "trusted_proxies: [10.0.0.0/99]\n", "t.yaml:2: trusted_proxies[0]: must be an address like"},
		{"not YAML", head + "a: [\n", "t.yaml:2: is not YAML"},
		{"tab", head + "log:\n\tlevel: info\n", "t.yaml:3: is not YAML"},
		{"server name", "server_name: https://example.org\n", `t.yaml:1: server_name: "https://example.org" is not a server name`},
		{"database", head + "database: mysql://u:pa55same@h/d\n", "t.yaml:2: database: is not the address of a database"},
		{"database password", head + "database: postgres://u:pa55%zzsame@h/d\n", "t.yaml:2: database: is not a PostgreSQL address; percent-encode"},
		{"address", head + "listeners:\n  - {address: 8008}\n", `t.yaml:3: listeners[0].address: "8008" is not an address`},
		{"port", head + "listeners:\n  - {address: \"a:99999\"}\n", `t.yaml:3: listeners[0].address: "a:99999" is not an address`},
		{"no listeners", head + "listeners: []\n", "t.yaml:2: listeners: is empty"},
		{"surface", head + "listeners:\n  - address: :80\n    serves: [clients]\n", `t.yaml:4: listeners[0].serves: "clients" is not known; use one of client, `},
		{"half TLS", head + "listeners:\n  - address: :80\n    tls: {cert: t.yaml}\n", "t.yaml:4: listeners[0].tls: needs both"},
		{"unreadable", head + "federation: {ca_file: nowhere.pem}\n", "nowhere.pem cannot be read (no such file or directory); check"},
		{"folder", head + "federation: {ca_file: .}\n", "t.yaml:2: federation.ca_file: "},
		{"public URL", head + "public_url: matrix.example.org\n", "t.yaml:2: public_url: "},
		{"mode", head + "registration:\n  mode: opne\n", `t.yaml:3: registration.mode: "opne" is not known; use one of closed, token, open`},
		{"terms", head + "registration:\n  terms:\n    - id: x\n", "t.yaml:4: registration.terms[0]: needs an id, a version and documents"},
		{"memory", head + "passwords: {memory_kib: 7}\n", "t.yaml:2: passwords.memory_kib: "},
		{"rate", head + "rate_limits:\n  login: {per_second: 0}\n", "t.yaml:3: rate_limits.login: needs a per_second above 0"},
		{"room version", head + "default_room_version: 13\n", `t.yaml:2: default_room_version: "13" is not a room version`},
		{"sessions", head + "sessions: {access_token_lifetime: 0s}\n", "t.yaml:2: sessions.access_token_lifetime: "},
		{"support", head + "support:\n  contacts:\n    - role: m.role.admin\n", "t.yaml:4: support.contacts[0]: "},
		{"metrics", head + "metrics: {address: localhost}\n", "t.yaml:2: metrics.address: "},
		{"level", head + "log: {level: loud}\n", `t.yaml:2: log.level: "loud" is not known; use one of debug, info, warn, error`},
		{"sync", head + "sync: {max_timeline_limit: 0}\n", "t.yaml:2: sync.max_timeline_limit: "},
		{"size", head + "media: {max_upload: 5 MB}\n", "t.yaml:2: media.max_upload: must be a size like 500 KiB, 100 MiB or 5 GiB"},
		{"size out of range", head + "media: {max_upload: 9999999999 GiB}\n", "t.yaml:2: media.max_upload: must be a size"},
		{"no uploads", head + "media: {max_upload: 0}\n", "t.yaml:2: media.max_upload: must be more than 0"},
		{"store", head + "media: {store: \"ftp://x\"}\n", "t.yaml:2: media.store: \"ftp://x\" is neither a folder nor s3://bucket"},
		{"bucket", head + "media: {store: \"s3://\"}\n", "t.yaml:2: media.store: names no bucket"},
		{"redirect without a bucket", head + "media: {s3: {redirect: true}}\n", "t.yaml:2: media.s3.redirect: needs a store of the form s3://bucket"},
		{"redirect without https", head + "media: {store: \"s3://b\", s3: {endpoint: \"http://x\", redirect: true}}\n", "t.yaml:2: media.s3.redirect: needs an endpoint that begins with https://"},
		{"endpoint", head + "media: {store: \"s3://b\", s3: {endpoint: x, secret_key: pa55}}\n", "t.yaml:2: media.s3.endpoint: \"x\" is not the address"},
		{"unauthenticated", head + "media: {unauthenticated: on}\n", "use one of off, frozen, open"},
		{"blocked", head + "media: {blocked_servers: [\"*\"]}\n", "t.yaml:2: media.blocked_servers[0]: \"*\" is not a server name"},
		{"previews", head + "media: {previews: {deny: [\"a/b\"]}}\n", "t.yaml:2: media.previews.deny[0]: "},
		{"TURN address", head + "turn:\n  uris: [turn.example.org]\n", `t.yaml:3: turn.uris[0]: "turn.example.org" is not the address of a TURN server`},
		{"TURN twice", head + "turn: {uris: [\"turn:a\"], shared_secret: a, username: b, password: c}\n", "t.yaml:2: turn.shared_secret: takes the place of"},
		{"half TURN", head + "turn: {uris: [\"turn:a\"], username: b}\n", "t.yaml:2: turn.username: and turn.password belong together"},
		{"TURN for nothing", head + "turn: {shared_secret: pa55}\n", "turn.uris: is empty"},
		{"TURN lifetime", head + "turn: {lifetime: 1s}\n", "t.yaml:2: turn.lifetime: "},
		{"badge", head + "push: {badge: none}\n", `t.yaml:2: push.badge: "none" is not known; use one of messages, rooms`},
		{"news user", head + "services: {news: {user: \"@news\"}}\n", "t.yaml:2: services.news.user: \"@news\" is not the local part"},
		{"news database", head + "services: {news: {database: news.db}}\n", "t.yaml:2: services.news.database: is not the address of a database"},
		{"news listener", head + "services: {news: {listen: here}}\n", "t.yaml:2: services.news.listen: "},
		{"news metrics", head + "services: {news: {metrics: {address: here}}}\n", "t.yaml:2: services.news.metrics.address: "},
		{"news interval", head + "services: {news: {min_interval: 0s}}\n", "t.yaml:2: services.news.min_interval: must be at least 1s"},
		{"news homeserver", head + "services: {news: {homeserver: example.org}}\n", "t.yaml:2: services.news.homeserver: "},
		{"news address", head + "services: {news: {url: example.org}}\n", "t.yaml:2: services.news.url: "},
		{"sync wait", head + "sync: {max_timeout: 0s}\n", "t.yaml:2: sync.max_timeout: "},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(write(t, c.text), noEnv)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got  %v\nwant %s", err, c.want)
			}
			if strings.Contains(err.Error(), "pa55") {
				t.Fatalf("the password is told: %v", err)
			}
		})
	}
	t.Run("all at once, in order", func(t *testing.T) {
		_, err := Load(write(t, "default_room_version: x\nlog: {level: x}\npublic_url: x\n"), noEnv)
		if lines := strings.Split(fmt.Sprint(err), "\n"); len(lines) != 4 || !strings.Contains(lines[1], ":1:") || !strings.Contains(lines[3], ":3:") {
			t.Fatalf("%v", err)
		}
	})
	t.Run("no file", func(t *testing.T) {
		_, err := Load("/nowhere/t.yaml", noEnv)
		if err == nil || err.Error() != "/nowhere/t.yaml: cannot be read (no such file or directory); give the right path with --config" {
			t.Fatalf("%v", err)
		}
	})
}

// config.yaml holds every key, a comment for each, and the defaults.
func TestDocumentedFile(t *testing.T) {
	const file = "../../config.yaml"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Load(file, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.ServerName = "localhost"
	want.complete(filepath.Dir(got.File))
	a, _ := yaml.Marshal(got)
	b, _ := yaml.Marshal(want)
	if !bytes.Equal(a, b) {
		t.Errorf("config.yaml differs from the defaults:\n%s\nthe defaults are\n%s", a, b)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	documented(t, string(text), doc.Content[0], reflect.TypeFor[Config](), "")
}

func documented(t *testing.T, text string, n *yaml.Node, typ reflect.Type, path string) {
	for f := range typ.Fields() {
		tag := f.Tag.Get("yaml")
		if tag == "-" {
			continue
		}
		name, value := (*yaml.Node)(nil), (*yaml.Node)(nil)
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == tag {
				name, value = n.Content[i], n.Content[i+1]
			}
		}
		if name == nil {
			t.Errorf("%s%s is missing", path, tag)
			continue
		}
		flow := n.Style&yaml.FlowStyle != 0 // its comment is the group's
		if !flow && name.HeadComment == "" && value.HeadComment == "" && name.LineComment == "" && n.HeadComment == "" {
			t.Errorf("%s%s has no comment", path, tag)
		}
		switch {
		case f.Type.Kind() == reflect.Struct:
			documented(t, text, value, f.Type, path+tag+".")
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct && len(value.Content) > 0:
			documented(t, text, value.Content[0], f.Type.Elem(), path+tag+"[0].")
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct && f.Type.Elem() != reflect.TypeFor[Network]():
			for inner := range f.Type.Elem().Fields() { // shown in the comment's example
				if !strings.Contains(name.HeadComment, inner.Tag.Get("yaml")+":") {
					t.Errorf("the example of %s%s lacks %s", path, tag, inner.Tag.Get("yaml"))
				}
			}
		}
		if env := f.Tag.Get("env"); env != "" && !strings.Contains(text, env) {
			t.Errorf("%s is not mentioned", env)
		}
	}
}

// The limits that routes name are those that can be configured.
func TestClassesAreKeys(t *testing.T) {
	c := Default()
	classes := c.RateLimits.Classes()
	for f := range reflect.TypeFor[RateLimits]().Fields() {
		if tag := f.Tag.Get("yaml"); tag != "enabled" {
			if _, ok := classes[tag]; !ok {
				t.Errorf("rate_limits.%s is no class", tag)
			}
		}
	}
	if len(classes) != reflect.TypeFor[RateLimits]().NumField()-1 {
		t.Errorf("%v", classes)
	}
}

func TestSurfacesAreServed(t *testing.T) {
	known := map[string]bool{}
	for _, s := range httpx.Surfaces() {
		known[s] = true
	}
	for _, s := range Surfaces {
		if !known[s] {
			t.Errorf("%s is not served by anything", s)
		}
	}
	if len(known) != len(Surfaces) {
		t.Errorf("%v and %v differ", known, Surfaces)
	}
}

// Secrets show in no form that a program prints.
func TestSecretsAreHidden(t *testing.T) {
	c := Default()
	c.Registration.SharedSecret = "hunter2"
	c.Database = "postgres://user:hunter2@host/db?password=hunter2"
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T%v"} {
		fmt.Fprintf(&out, verb+"\n", *c)
		fmt.Fprintf(&out, verb+"\n", c.Registration.SharedSecret)
		fmt.Fprintf(&out, verb+"\n", c.Database)
		fmt.Fprintf(&out, verb+"\n", &c.Registration)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", "config", c, "secret", c.Registration.SharedSecret, "database", c.Database, "any", slog.AnyValue(*c))
	}
	j, _ := json.Marshal(c)
	y, _ := yaml.Marshal(c)
	out.Write(j)
	out.Write(y)
	fmt.Fprintln(&out, fmt.Errorf("cannot open %s: %w", c.Database, os.ErrNotExist))
	text := out.String()
	for _, form := range []string{"hunter2", fmt.Sprintf("%x", "hunter2")} {
		if i := strings.Index(text, form); i >= 0 {
			t.Errorf("a secret shows: ...%s", text[max(0, i-80):i+20])
		}
	}
	if !strings.Contains(text, "user:xxxxx@host/db") || !strings.Contains(text, redacted) {
		t.Error("nothing of the values shows, so nothing was tested")
	}
	for _, bad := range []DatabaseURL{"postgres:u:hunter2@h", "hunter2", "postgres://u:hunter2 @h/%zz", "host=h password=hunter2"} {
		if strings.Contains(bad.String(), "hunter2") {
			t.Errorf("%s", bad.String())
		}
	}
}

// FuzzLoad: whatever the file holds, there is a configuration that passes its
// own checks or an error that names the file, in reasonable time.
func FuzzLoad(f *testing.F) {
	// Small seeds: a large one is minimised for longer than it is fuzzed.
	for _, s := range []string{"server_name: a\n", "server_name: a\nregistration: {mode: open, guests: true}\npasswords: {time: 3}\nshutdown_grace: 3s\n",
		"server_name: a\ndatabase: postgres://u:p@h/d\ntrusted_proxies: [10.0.0.0/8]\n", "a: &a [*a]\n", "log: {level: x}\n", "<<: {a: b}\n", "listeners: [{address: 1, tls: ~}]", "? [a]\n: b\n", "server_name: !!binary aGk=\n", "---\n---\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		began := time.Now()
		c, err := parse("t.yaml", text, noEnv)
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("took %v", took)
		}
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if line == "" {
					t.Fatalf("an empty line in %q", err)
				}
			}
			return
		}
		r := &reader{}
		if c.check(r); len(r.problems) > 0 || c.ServerName == "" || !filepath.IsAbs(c.DataDir) {
			t.Fatalf("accepted %+v: %v", c, r.err())
		}
	})
}
