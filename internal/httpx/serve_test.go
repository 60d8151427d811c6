package httpx

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// start serves routes on loopback and returns the base URL, a way to stop, and
// what Serve returned.
func start(t *testing.T, grace time.Duration, routes ...Route) (url string, stop func(), result chan error) {
	t.Helper()
	nl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := New(Options{Log: quiet(), Auth: people})
	e.Add("client", routes...)
	ctx, stop := context.WithCancel(t.Context())
	result = make(chan error, 1)
	go func() { result <- e.Serve(ctx, grace, Listener{Listener: nl, Serves: []string{"client"}}) }()
	t.Cleanup(stop)
	return "http://" + nl.Addr().String(), stop, result
}

func get(url string) (string, error) {
	res, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return strings.TrimSpace(res.Status + " " + string(b)), err
}

// A shutdown ends long polls at once and finishes what was accepted.
func TestGracefulShutdown(t *testing.T) {
	entered, release := make(chan struct{}, 2), make(chan struct{})
	url, stop, result := start(t, time.Minute,
		JSON("GET", me+"/poll", func(ctx context.Context, _ *Caller, _ *struct{}) (*RawJSON, error) {
			entered <- struct{}{}
			<-Draining(ctx)
			return &RawJSON{'1'}, nil
		}, NoAuth),
		JSON("GET", me+"/work", func(context.Context, *Caller, *struct{}) (*RawJSON, error) {
			entered <- struct{}{}
			<-release
			return &RawJSON{'2'}, nil
		}, NoAuth))
	poll, work := make(chan string, 1), make(chan string, 1)
	go func() { s, _ := get(url + me + "/poll"); poll <- s }()
	go func() { s, _ := get(url + me + "/work"); work <- s }()
	<-entered
	<-entered
	stop()
	if s := <-poll; s != "200 OK 1" {
		t.Errorf("the long poll got %q", s)
	}
	select {
	case err := <-result:
		t.Fatalf("Serve returned with a request unfinished: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err == nil {
		t.Error("new connections are still taken")
	}
	close(release)
	if s := <-work; s != "200 OK 2" {
		t.Errorf("the request got %q", s)
	}
	if err := <-result; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// A request that does not end within the grace is told so and cut off.
func TestShutdownCutsOff(t *testing.T) {
	entered, cut := make(chan struct{}), make(chan error, 1)
	url, stop, result := start(t, 10*time.Millisecond,
		JSON("GET", me, func(ctx context.Context, _ *Caller, _ *struct{}) (*struct{}, error) {
			close(entered)
			<-ctx.Done()
			cut <- ctx.Err()
			return nil, ctx.Err()
		}, NoAuth))
	go func() { _, _ = get(url + me) }()
	<-entered
	stop()
	if err := <-cut; err != context.Canceled {
		t.Error(err)
	}
	if err := <-result; err == nil {
		t.Error("a cut request was not reported")
	}
}

func TestHeaderAndBodyOnTheWire(t *testing.T) {
	url, _, _ := start(t, time.Second, JSON("POST", me, func(context.Context, *Caller, *struct {
		A string `json:"a"`
	}) (*struct{}, error) {
		return nil, nil
	}, NoAuth, MaxBody(1000)))
	post := func(body io.Reader) *http.Response {
		t.Helper()
		res, err := http.Post(url+me, "application/json", body)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res
	}
	if res := post(strings.NewReader(`{"a":"b"}`)); res.StatusCode != 200 || res.ContentLength != 2 {
		t.Errorf("%+v", res)
	}
	if res := post(strings.NewReader(strings.Repeat(" ", 1<<20))); res.StatusCode != 413 || !res.Close {
		t.Errorf("%+v", res)
	}
	// Chunked, so that the length is not known in advance.
	if res := post(io.MultiReader(strings.NewReader(`{"a":"`), strings.NewReader(`b"}`))); res.StatusCode != 200 {
		t.Errorf("%+v", res)
	}
	if res := post(io.MultiReader(strings.NewReader(strings.Repeat(" ", 2000)))); res.StatusCode != 413 {
		t.Errorf("%+v", res)
	}
}

func writeCert(t *testing.T, dir string, serial int64) (cert, key string) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"here"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	pk, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pk}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		stamp := time.Unix(1_700_000_000+serial, 0)
		if err := os.Chtimes(name, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestTLSFilesRenew(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	cert, key := writeCert(t, dir, 1)
	conf, err := TLSFiles(cert, key, c.now)
	if err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		t.Helper()
		pair, err := conf.GetCertificate(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.Int64()
	}
	writeCert(t, dir, 2)
	if n := serial(); n != 1 {
		t.Errorf("certificate %d before it is time to look", n)
	}
	c.pass(2 * time.Minute)
	if n := serial(); n != 2 {
		t.Errorf("certificate %d after a renewal", n)
	}
	if err := os.WriteFile(cert, []byte("half written"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.pass(2 * time.Minute)
	if n := serial(); n != 2 {
		t.Errorf("certificate %d while the file is broken", n)
	}
	if _, err := TLSFiles(filepath.Join(dir, "none"), key, c.now); err == nil {
		t.Error("a missing file is no error")
	}
}
