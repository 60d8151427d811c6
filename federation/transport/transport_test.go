package transport_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const echoPath = "/_matrix/federation/v1/echo/{id}"

type echoed struct {
	Origin, Host, Proto, Path, Body string
	UserAgent                       string `json:"user_agent"`
}

func TestRequestsBetweenServers(t *testing.T) {
	w := newWorld(t)
	a, b := w.open(w.peer("a.org")), w.peer("b.org")
	b.echo("PUT", echoPath)
	b.echo("GET", echoPath)
	w.open(b)
	ask := func(r transport.Request) (got echoed) {
		t.Helper()
		r.Destination = "b.org"
		if err := a.client.JSON(t.Context(), r, &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	path := func(id string) string { return transport.Path("/_matrix/federation/v1/echo", id) }
	got := ask(transport.Request{Method: "PUT", Path: path("$a/b c+é?#%:x"), Query: url.Values{"v": {"1 2", "é&="}}, Content: []byte(`{"b": 1.5, "a": "é<>"}`)})
	want := echoed{"a.org", "b.org", "HTTP/2.0", "/_matrix/federation/v1/echo/$a/b c+é?#%:x", `{"b": 1.5, "a": "é<>"}`, "test"}
	if got != want {
		t.Errorf("%+v", got)
	}
	if got := ask(transport.Request{Method: "GET", Path: path("!x")}); got.Origin != "a.org" || got.Body != "null" {
		t.Errorf("%+v", got)
	}
	for range 20 {
		ask(transport.Request{Method: "PUT", Path: path("x"), Content: []byte("{}")})
	}
	if n := w.dialled(w.host("b.org").String() + ":8448"); n != 1 {
		t.Errorf("%d connections", n)
	}
	if n := w.dialled(w.host("a.org").String() + ":8448"); n != 1 {
		t.Errorf("the origin's keys were asked for over %d connections", n)
	}
	if len(b.seen) != 22 || <-b.seen != "a.org" {
		t.Errorf("seen %d times", len(b.seen))
	}
	var version map[string]map[string]string
	err := a.client.JSON(t.Context(), transport.Request{Destination: "b.org", Method: "GET", Path: "/_matrix/federation/v1/version", Unsigned: true}, &version)
	if err != nil || version["server"]["name"] != "Teahouse" {
		t.Errorf("%v %v", version, err)
	}
}

// Who is asked, by which certificate name, for each way to reach a server.
// A typed route gives its handler who asks and what; its answer is JSON.
func TestTypedRoutes(t *testing.T) {
	w := newWorld(t)
	a, b := w.open(w.peer("a.org")), w.open(w.peer("b.org"))
	type question struct {
		Name  string `path:"name"`
		Twice bool   `query:"twice"`
		Text  string `json:"text"`
	}
	b.edge.Add("federation", transport.JSON(b.auth, "POST", "/_matrix/federation/v1/typed/{name}", func(_ context.Context, origin matrix.ServerName, q *question) (*[]any, error) {
		switch q.Name {
		case "nothing":
			return nil, nil
		case "fault":
			return nil, matrix.Forbidden("no")
		}
		return &[]any{origin, q.Name, q.Twice, q.Text}, nil
	}))
	for name, want := range map[string]string{"a/b": `["a.org","a/b",true,"<x>"]`, "nothing": "{}", "fault": ""} {
		got, err := a.client.Do(t.Context(), transport.Request{
			Destination: "b.org", Method: "POST", Path: transport.Path("/_matrix/federation/v1/typed", name),
			Query: url.Values{"twice": {"true"}}, Content: []byte(`{"text":"<x>"}`),
		})
		if string(got) != want || (err != nil) != (name == "fault") {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

func TestCertificateNames(t *testing.T) {
	w := newWorld(t)
	a := w.open(w.peer("a.org"))
	echo := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_ = transport.Answer(rw, map[string]string{"host": r.Host, "proto": r.Proto})
	})
	delegates := func(to string) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			_ = transport.Answer(rw, map[string]string{"m.server": to})
		})
	}
	ip := w.host("iphost").String()
	w.serve("iphost", "8448", echo, ip)
	w.serve("port.org", "99", echo, "port.org")
	w.serve("wk.org", "443", delegates("target.net:77"), "wk.org")
	w.serve("target.net", "77", echo, "target.net")
	w.serve("wkbad.org", "443", delegates("target.net:77"), "other.org") // its certificate is not its own
	w.serve("wkbad.org", "8448", echo, "wkbad.org")
	w.srv["_matrix-fed._tcp.srv.org"] = []*net.SRV{{Target: "dead.net.", Port: 5}, {Target: "srvhost.net.", Port: 5}}
	w.host("dead.net")
	w.serve("srvhost.net", "5", echo, "srv.org")
	w.srv["_matrix-fed._tcp.srvbad.org"] = []*net.SRV{{Target: "srvhost2.net.", Port: 5}}
	w.serve("srvhost2.net", "5", echo, "srvhost2.net") // DNS alone must not be believed
	w.serve("wrong.org", "8448", echo, "evil.org")
	w.serve("plain.org", "8448", echo, "plain.org")
	for server, want := range map[matrix.ServerName]string{
		matrix.ServerName(ip): ip, "port.org:99": "port.org:99", "wk.org": "target.net:77", "wkbad.org": "wkbad.org", "srv.org": "srv.org", "plain.org": "plain.org",
		"srvbad.org": "", "wrong.org": "", "nowhere.org": "", "port.org:98": "", "127.0.0.1": "", "[::ffff:169.254.169.254]": "", "not a name": "",
	} {
		var got echoed
		err := a.client.JSON(t.Context(), transport.Request{Destination: server, Method: "GET", Path: "/x"}, &got)
		if got.Host != want || (err == nil) != (want != "") || want != "" && got.Proto != "HTTP/2.0" {
			t.Errorf("%s: %+v, %v", server, got, err)
		}
		if _, ok := errors.AsType[*transport.UnreachableError](err); err != nil && !ok {
			t.Errorf("%s: %T", server, err)
		}
	}
	careless := w.peer("careless.org", func(o *transport.Options) { o.Insecure, o.RootCAs = true, nil })
	if err := careless.client.JSON(t.Context(), transport.Request{Destination: "wrong.org", Method: "GET", Path: "/x"}, nil); err != nil {
		t.Errorf("without verification: %v", err)
	}
	strict := w.peer("strict.org", func(o *transport.Options) { o.RootCAs = nil })
	if err := strict.client.JSON(t.Context(), transport.Request{Destination: "plain.org", Method: "GET", Path: "/x"}, nil); err == nil {
		t.Error("a private authority is believed without being configured")
	}
}

func TestAuthorities(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.pem"), filepath.Join(dir, "bad.pem")
	raw := w.certificate("x.org").Certificate[0]
	if err := errors.Join(os.WriteFile(good, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o600), os.WriteFile(bad, []byte("none"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if pool, err := transport.Authorities(good); err != nil || pool == nil {
		t.Error(err)
	}
	for _, name := range []string{bad, filepath.Join(dir, "absent.pem")} {
		if _, err := transport.Authorities(name); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// header signs by hand.
func header(t *testing.T, key event.SigningKey, origin, destination, method, uri, content string) string {
	t.Helper()
	object := fmt.Sprintf(`{"method":%q,"uri":%q,"origin":%q,"destination":%q}`, method, uri, origin, destination)
	if content != "" {
		object = object[:len(object)-1] + `,"content":` + content + "}"
	}
	signed, err := event.SignJSON([]byte(object), origin, key)
	if err != nil {
		t.Fatal(err)
	}
	sig := cutSignature(string(signed), key.ID)
	return transport.Header{Origin: matrix.ServerName(origin), Destination: matrix.ServerName(destination), Key: key.ID, Signature: sig}.String()
}

func cutSignature(signed, id string) string {
	_, rest, _ := strings.Cut(signed, `"`+id+`":"`)
	sig, _, _ := strings.Cut(rest, `"`)
	return sig
}

// A request is taken only if everything in it is what was signed.
func TestForgedRequests(t *testing.T) {
	w := newWorld(t)
	a, b := w.open(w.peer("a.org")), w.peer("b.org")
	b.echo("PUT", echoPath, httpx.MaxBody(1000))
	w.open(b)
	h := b.edge.Handler("federation")
	const uri = "/_matrix/federation/v1/echo/1?x=1"
	key, other := a.file.Current, w.peer("c.org").file.Current
	otherAsA := event.SigningKey{ID: key.ID, Private: other.Private}
	good := header(t, key, "a.org", "b.org", "PUT", uri, `{"a":1}`)
	noDestination := strings.Replace(good, `destination="b.org",`, "", 1)
	for name, c := range map[string]struct {
		headers     []string
		method, uri string
		body        string
		status      int
		code        matrix.Code
	}{
		"good":                      {[]string{good}, "PUT", uri, `{"a":1}`, 200, ""},
		"other white space":         {[]string{good}, "PUT", uri, " {\n\"a\" : 1 } ", 200, ""},
		"two signatures":            {[]string{good, header(t, other, "a.org", "b.org", "PUT", uri, `{"a":1}`)}, "PUT", uri, `{"a":1}`, 200, ""},
		"beside a token":            {[]string{"Bearer x", good}, "PUT", uri, `{"a":1}`, 200, ""},
		"no header":                 {nil, "PUT", uri, `{"a":1}`, 401, matrix.CodeUnauthorized},
		"token":                     {[]string{"Bearer x"}, "PUT", uri, `{"a":1}`, 401, matrix.CodeUnauthorized},
		"no destination":            {[]string{noDestination}, "PUT", uri, `{"a":1}`, 401, matrix.CodeUnauthorized},
		"other destination":         {[]string{header(t, key, "a.org", "c.org", "PUT", uri, `{"a":1}`)}, "PUT", uri, `{"a":1}`, 401, matrix.CodeUnauthorized},
		"destination was rewritten": {[]string{strings.Replace(header(t, key, "a.org", "c.org", "PUT", uri, `{"a":1}`), "c.org", "b.org", 1)}, "PUT", uri, `{"a":1}`, 401, matrix.CodeUnauthorized},
		"origin is us":              {[]string{header(t, b.file.Current, "b.org", "b.org", "PUT", uri, `{"a":1}`)}, "PUT", uri, `{"a":1}`, 401, matrix.CodeUnauthorized},
		"other key":                 {[]string{header(t, otherAsA, "a.org", "b.org", "PUT", uri, `{"a":1}`)}, "PUT", uri, `{"a":1}`, 401, matrix.CodeUnauthorized},
		"unknown key":               {[]string{header(t, other, "a.org", "b.org", "PUT", uri, `{"a":1}`)}, "PUT", uri, `{"a":1}`, 401, matrix.CodeUnauthorized},
		"unknown origin":            {[]string{header(t, other, "nowhere.org", "b.org", "PUT", uri, `{"a":1}`)}, "PUT", uri, `{"a":1}`, 401, matrix.CodeUnauthorized},
		"body changed":              {[]string{good}, "PUT", uri, `{"a":2}`, 401, matrix.CodeUnauthorized},
		"body added":                {[]string{header(t, key, "a.org", "b.org", "PUT", uri, "")}, "PUT", uri, `{"a":1}`, 401, matrix.CodeUnauthorized},
		"body gone":                 {[]string{good}, "PUT", uri, "", 401, matrix.CodeUnauthorized},
		"query changed":             {[]string{good}, "PUT", strings.Replace(uri, "x=1", "x=2", 1), `{"a":1}`, 401, matrix.CodeUnauthorized},
		"path changed":              {[]string{good}, "PUT", strings.Replace(uri, "echo/1", "echo/2", 1), `{"a":1}`, 401, matrix.CodeUnauthorized},
		"path encoded otherwise":    {[]string{good}, "PUT", strings.Replace(uri, "echo/1", "echo/%31", 1), `{"a":1}`, 401, matrix.CodeUnauthorized},
		"method changed":            {[]string{header(t, key, "a.org", "b.org", "POST", uri, `{"a":1}`)}, "PUT", uri, `{"a":1}`, 401, matrix.CodeUnauthorized},
		"origins differ":            {[]string{good, header(t, other, "c.org", "b.org", "PUT", uri, `{"a":1}`)}, "PUT", uri, `{"a":1}`, 401, matrix.CodeUnauthorized},
		"one is malformed":          {[]string{good, "X-Matrix origin=a.org"}, "PUT", uri, `{"a":1}`, 401, matrix.CodeUnauthorized},
		"too many":                  {[]string{good, good, good, good, good, good, good, good, good}, "PUT", uri, `{"a":1}`, 401, matrix.CodeUnauthorized},
		"members slipped in":        {[]string{header(t, key, "a.org", "b.org", "PUT", uri, `{}`)}, "PUT", uri, `{},"x":{}`, 400, matrix.CodeNotJSON},
		"a list":                    {[]string{header(t, key, "a.org", "b.org", "PUT", uri, `[]`)}, "PUT", uri, `[]`, 400, matrix.CodeNotJSON},
		"not JSON":                  {[]string{good}, "PUT", uri, `{"a":`, 400, matrix.CodeNotJSON},
		"duplicate members":         {[]string{good}, "PUT", uri, `{"a":2,"a":1}`, 401, matrix.CodeUnauthorized},
		"too large":                 {[]string{good}, "PUT", uri, `{"a":"` + strings.Repeat("x", 1000) + `"}`, 413, matrix.CodeTooLarge},
	} {
		r := httptest.NewRequest(c.method, c.uri, strings.NewReader(c.body))
		for _, line := range c.headers {
			r.Header.Add("Authorization", line)
		}
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, r)
		if answer.Code != c.status || c.code != "" && !strings.Contains(answer.Body.String(), `"`+string(c.code)+`"`) {
			t.Errorf("%s: %d %s", name, answer.Code, answer.Body)
		}
	}
}

// A key that has expired, or is one of the past, signs no requests.
func TestRequestsNeedAPublishedKey(t *testing.T) {
	w := newWorld(t)
	a, b := w.peer("a.org"), w.peer("b.org")
	old := a.file.Current
	rotated, err := a.file.Rotate(strings.NewReader(strings.Repeat("seed", 20)), time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.New(keys.Options{Server: "a.org", Keys: rotated, Fetcher: a.client, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	edge := httpx.New(httpx.Options{})
	edge.Add("keys", ring.Routes()...)
	srv := w.serve("a.org", "8448", edge.Handler("keys"), "a.org")
	const uri = "/_matrix/federation/v1/echo/1"
	ask := func(key event.SigningKey) error {
		r := httptest.NewRequest("GET", uri, nil)
		r.Header.Set("Authorization", header(t, key, "a.org", "b.org", "GET", uri, ""))
		_, err := b.auth.AuthenticateOrigin(t.Context(), r, nil)
		return err
	}
	if err := ask(rotated.Current); err != nil {
		t.Fatal(err)
	}
	if err := ask(old); !errors.Is(err, keys.ErrExpired) || !matrix.HasCode(err, matrix.CodeUnauthorized) {
		t.Errorf("by an old key: %v", err)
	}
	_ = srv.Close()
	b.now = func() time.Time { return time.Now().Add(25 * time.Hour) }
	if err := ask(rotated.Current); !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("by a key that was not told again: %v", err)
	}
}

func TestPolicyBothWays(t *testing.T) {
	w := newWorld(t)
	a := w.open(w.peer("a.org"))
	for name, policy := range map[matrix.ServerName]*transport.Policy{
		"closed.org": {Closed: true}, "deny.org": {Deny: []string{"a.org"}}, "allow.org": {Allow: []string{"c.org"}},
	} {
		b := w.peer(name, func(o *transport.Options) { o.Policy = policy })
		b.echo("GET", echoPath)
		w.open(b)
		err := a.client.JSON(t.Context(), transport.Request{Destination: name, Method: "GET", Path: "/_matrix/federation/v1/echo/1"}, nil)
		if remote, ok := errors.AsType[*transport.RemoteError](err); !ok || remote.Status != 403 || remote.Code != matrix.CodeForbidden {
			t.Errorf("%s lets a.org in: %v", name, err)
		}
		err = b.client.JSON(t.Context(), transport.Request{Destination: "a.org", Method: "GET", Path: "/_matrix/federation/v1/version"}, nil)
		if !errors.Is(err, transport.ErrNotAllowed) {
			t.Errorf("%s asks a.org: %v", name, err)
		}
	}
	if err := a.client.JSON(t.Context(), transport.Request{Destination: "a.org", Method: "GET", Path: "/x"}, nil); !errors.Is(err, transport.ErrNotAllowed) {
		t.Errorf("asking ourselves: %v", err)
	}
}

// Answers that hostile and broken servers give.
func TestBadAnswers(t *testing.T) {
	w := newWorld(t)
	a := w.open(w.peer("a.org"))
	packed := func(n int, tail []byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(bytes.Repeat([]byte(" "), n))
		_, _ = z.Write(tail)
		_ = z.Close()
		return b.Bytes()
	}
	stop := make(chan struct{})
	defer close(stop)
	w.serve("bad.org", "8448", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/gzip":
			if r.Header.Get("Accept-Encoding") != "gzip" {
				t.Error("gzip is not asked for")
			}
			rw.Header().Set("Content-Encoding", "gzip")
			_, _ = rw.Write(packed(500_000, []byte(`{"ok":true}`)))
		case "/bomb":
			rw.Header().Set("Content-Encoding", "gzip")
			_, _ = rw.Write(packed(8<<20, nil))
		case "/torn":
			rw.Header().Set("Content-Encoding", "gzip")
			_, _ = rw.Write(packed(500_000, []byte("{}"))[:100])
		case "/br":
			rw.Header().Set("Content-Encoding", "br")
			_, _ = rw.Write([]byte("{}"))
		case "/large":
			_, _ = rw.Write(bytes.Repeat([]byte(" "), 2001))
		case "/endless":
			for {
				if _, err := rw.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		case "/slow":
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		case "/drip":
			for r.Context().Err() == nil {
				_, _ = rw.Write([]byte(" "))
				_ = http.NewResponseController(rw).Flush()
				time.Sleep(time.Millisecond)
			}
		case "/cut":
			_, _ = rw.Write([]byte(`{"a":`))
			_ = http.NewResponseController(rw).Flush()
			panic(http.ErrAbortHandler)
		case "/redirect":
			http.Redirect(rw, r, "/gzip", http.StatusFound)
		case "/html":
			_, _ = rw.Write([]byte("<html>"))
		case "/nginx":
			rw.WriteHeader(502)
			_, _ = rw.Write([]byte("<html>Bad Gateway"))
		case "/limited":
			rw.WriteHeader(429)
			_, _ = rw.Write([]byte(`{"errcode":"M_LIMIT_EXCEEDED","error":"slow\u0000 down\n","retry_after_ms":1500,"soft_logout":true}`))
		case "/later":
			rw.Header().Set("Retry-After", "7")
			rw.WriteHeader(503)
		case "/loggedout":
			rw.WriteHeader(401)
			_, _ = rw.Write([]byte(`{"errcode":"M_UNKNOWN_TOKEN","error":"x"}`))
		}
	}), "bad.org")
	for path, want := range map[string]struct {
		ok          bool
		unreachable bool
		status      int // of a RemoteError
	}{
		"/gzip": {ok: true}, "/bomb": {unreachable: true}, "/torn": {unreachable: true}, "/br": {unreachable: true}, "/large": {unreachable: true}, "/endless": {unreachable: true},
		"/slow": {unreachable: true}, "/drip": {unreachable: true}, "/cut": {unreachable: true}, "/html": {unreachable: true},
		"/redirect": {status: 302}, "/nginx": {status: 502}, "/limited": {status: 429}, "/later": {status: 503}, "/loggedout": {status: 401},
	} {
		limit := int64(20 << 20)
		if path == "/large" {
			limit = 2000
		}
		timeout := 20 * time.Second
		if path == "/slow" || path == "/drip" {
			timeout = 300 * time.Millisecond
		}
		start := time.Now()
		var answer struct{ OK bool }
		err := a.client.JSON(t.Context(), transport.Request{Destination: "bad.org", Method: "GET", Path: path, MaxAnswer: limit, Timeout: timeout}, &answer)
		_, unreachable := errors.AsType[*transport.UnreachableError](err)
		remote, _ := errors.AsType[*transport.RemoteError](err)
		if (err == nil) != want.ok || unreachable != want.unreachable || want.status != 0 && (remote == nil || remote.Status != want.status) || answer.OK != want.ok {
			t.Errorf("%s: %v", path, err)
		}
		if _, ours := errors.AsType[*matrix.Error](err); ours {
			t.Errorf("%s: an error of another server looks like ours: %v", path, err)
		}
		if took := time.Since(start); took > 10*time.Second && timeout < time.Second {
			t.Errorf("%s took %v", path, took)
		}
		if path == "/bomb" && !errors.Is(err, transport.ErrBomb) {
			t.Errorf("%s: %v", path, err)
		}
		if remote == nil {
			continue
		}
		m := remote.Matrix()
		switch path {
		case "/limited":
			if remote.RetryAfter != 1500*time.Millisecond || remote.Text != "slow  down " || m.Status != 429 || m.Code != matrix.CodeLimitExceeded || len(m.Extra) > 0 {
				t.Errorf("%+v %+v", remote, m)
			}
		case "/later":
			if remote.RetryAfter != 7*time.Second || m.Status != 502 {
				t.Errorf("%+v %+v", remote, m)
			}
		default:
			if m.Status != 502 || m.Code != matrix.CodeUnknown {
				t.Errorf("%s: %+v", path, m)
			}
		}
	}
}

// What hangs at one server delays no other, and takes no more than its share.
func TestDestinationsAreApart(t *testing.T) {
	w := newWorld(t)
	a := w.open(w.peer("a.org", func(o *transport.Options) { o.PerDestination = 3 }))
	var running, most atomic.Int32
	stop := make(chan struct{})
	w.serve("slow.org", "8448", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		n := running.Add(1)
		defer running.Add(-1)
		for {
			old := most.Load()
			if n <= old || most.CompareAndSwap(old, n) {
				break
			}
		}
		<-stop
	}), "slow.org")
	w.serve("quick.org", "8448", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "quick.org")
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if _, err := a.client.Do(t.Context(), transport.Request{Destination: "slow.org", Method: "GET", Path: "/"}); err != nil {
				t.Error(err)
			}
		})
	}
	for running.Load() < 3 {
		time.Sleep(time.Millisecond)
	}
	if _, err := a.client.Do(t.Context(), transport.Request{Destination: "quick.org", Method: "GET", Path: "/", Timeout: 2 * time.Second}); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := a.client.Do(ctx, transport.Request{Destination: "slow.org", Method: "GET", Path: "/"}); err == nil {
		t.Error("the fourth request ran")
	}
	close(stop)
	all.Wait()
	if most.Load() != 3 {
		t.Errorf("%d requests ran at a time", most.Load())
	}
}

func TestStreaming(t *testing.T) {
	w := newWorld(t)
	a := w.open(w.peer("a.org", func(o *transport.Options) { o.PerDestination = 1 }))
	next := make(chan string, 1)
	w.serve("b.org", "8448", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		for text := range next {
			_, _ = io.WriteString(rw, text)
			_ = http.NewResponseController(rw).Flush()
		}
	}), "b.org")
	next <- "one"
	body, err := a.client.Stream(t.Context(), transport.Request{Destination: "b.org", Method: "GET", Path: "/"})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two"} {
		got := make([]byte, 3)
		if _, err := io.ReadFull(body, got); err != nil || string(got) != text {
			t.Errorf("%s, %v", got, err)
		}
		next <- "two"
	}
	close(next)
	if err := errors.Join(body.Close(), body.Close()); err != nil {
		t.Error(err)
	}
	// The slot is free again, once.
	for range 2 {
		if _, err := a.client.Do(t.Context(), transport.Request{Destination: "b.org", Method: "GET", Path: "/", Timeout: 2 * time.Second}); err != nil {
			t.Error(err)
		}
	}
}

// A kept connection that died is noticed without the caller.
func TestDeadConnections(t *testing.T) {
	w := newWorld(t)
	a := w.open(w.peer("a.org"))
	serve := func() *http.Server {
		return w.serve("b.org", "8448", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { _, _ = rw.Write([]byte("{}")) }), "b.org")
	}
	for range 3 {
		srv := serve()
		if _, err := a.client.Do(t.Context(), transport.Request{Destination: "b.org", Method: "PUT", Path: "/", Content: []byte("{}")}); err != nil {
			t.Error(err)
		}
		_ = srv.Close()
	}
}
