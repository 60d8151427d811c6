package media_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/media"
)

// pair is a server that federates, and a peer that the test plays.
func pair(t *testing.T, change func(*config.Media)) (*testrig.Server, *testrig.Peer) {
	t.Helper()
	n := testrig.NewNetwork()
	s := testrig.Start(t, testrig.Options{Name: "here", Network: n, Federate: true, Change: func(c *config.Config) {
		if change != nil {
			change(&c.Media)
		}
	}})
	return s, testrig.NewPeer(t, n, "there")
}

const fedDownload = "GET /_matrix/federation/v1/media/download/{mediaId}"

// parts writes a file as servers give it to each other.
func parts(w http.ResponseWriter, header, data, end string) {
	w.Header().Set("Content-Type", "multipart/mixed; boundary=xx")
	_, _ = fmt.Fprintf(w, "--xx\r\nContent-Type: application/json\r\n\r\n{}\r\n--xx\r\n%s\r\n\r\n%s%s", header, data, end)
}

const whole = "\r\n--xx--\r\n"

// Files, thumbnails and names go from server to server.
func TestFilesAcrossServers(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			servers := testrig.StartMany(t, kind, "one", "two")
			alice, bob := newPerson(t, servers[0], "alice"), newPerson(t, servers[1], "bob")
			data := bytes.Repeat([]byte("far "), 300_000)
			ref := alice.upload(data, "text/plain", "tea \U0001F375.txt")
			for range 2 { // while it comes, and from the cache
				r := bob.get(ref)
				r.is(t, data)
				if r.Header.Get("Content-Type") != "text/plain" || !strings.Contains(r.Header.Get("Content-Disposition"), "filename*=utf-8''tea%20") ||
					r.Header.Get("X-Content-Type-Options") != "nosniff" {
					t.Errorf("%v", r.Header)
				}
			}
			if r := bob.get(ref, "Range", "bytes=0-2"); r.StatusCode != 206 || string(r.body) != "far" {
				t.Errorf("%d %q", r.StatusCode, r.body)
			}
			nobody(t, servers[1]).ask("GET", old+"download"+testrig.Path(ref.Server, ref.ID), nil).fails(t, 404, "M_NOT_FOUND")
			picture := alice.upload(photo(t, 800, 600), "image/jpeg", "")
			r := bob.ask("GET", v1+"thumbnail"+testrig.Path(picture.Server, picture.ID)+"?width=320&height=240&method=scale", nil)
			if r.StatusCode != 200 || r.Header.Get("Content-Type") != "image/jpeg" || len(r.body) == 0 {
				t.Errorf("%d %s", r.StatusCode, r.body)
			}
			bob.get(media.Ref{Server: "one", ID: "missing"}).fails(t, 404, "M_NOT_FOUND")
		})
	}
}

// However many ask at the same time, the other server is asked once; the first
// bytes are passed on before the last have come.
func TestFetchedOnceAndPassedOn(t *testing.T) {
	s, peer := pair(t, nil)
	var asked atomic.Int32
	go1 := make(chan struct{})
	peer.Handle(fedDownload, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		parts(w, "Content-Type: text/plain", "begin,", "")
		_ = http.NewResponseController(w).Flush()
		<-go1
		_, _ = w.Write([]byte("end" + whole))
	})
	alice := newPerson(t, s, "alice")
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://here"+v1+"download/there/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+alice.Token)
	first, err := s.Network.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Body.Close()
	head := make([]byte, 6)
	if n, err := first.Body.Read(head); err != nil || string(head[:n]) != "begin," {
		t.Fatalf("%q %v", head, err)
	}
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			var pairs []string
			if i%2 == 0 {
				pairs = []string{"Range", "bytes=6-8"}
			}
			r, err := alice.try(t.Context(), "GET", v1+"download/there/x", nil, pairs...)
			if err != nil || !strings.HasSuffix(string(r.body), "end") {
				t.Errorf("%v %q", err, r.body)
			}
		})
	}
	close(go1)
	group.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	nothingIsLeft(t, s)
}

// THREATS S2, M3: what other servers send is bounded, whole, and asked for by users
// only; failures are remembered for a moment.
func TestHostileServers(t *testing.T) {
	s, peer := pair(t, func(c *config.Media) { c.MaxRemote = 1000; c.BlockedServers = []string{"*.blocked"} })
	alice := newPerson(t, s, "alice")
	asked := map[string]int{}
	var mu sync.Mutex
	peer.Handle(fedDownload, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.PathValue("mediaId")]++
		mu.Unlock()
		switch r.PathValue("mediaId") {
		case "large":
			parts(w, "Content-Type: text/plain", strings.Repeat("x", 1001), whole)
		case "endless":
			parts(w, "Content-Type: text/plain", "", "")
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		case "cut":
			parts(w, "Content-Type: text/plain", "half", "")
		case "nopart":
			parts(w, "Content-Type: text/plain", "", "")
		case "garbage":
			w.Header().Set("Content-Type", "multipart/mixed; boundary=xx")
			_, _ = w.Write([]byte("nothing of the kind"))
		case "redirect":
			parts(w, "Location: http://127.0.0.1/latest/meta-data", "", whole)
		case "inside":
			parts(w, "Location: https://169.254.169.254/latest/meta-data", "", whole)
		case "header":
			parts(w, "Content-Type: text/html\r\nContent-Disposition: attachment; filename=\"../../x\u202e.html\"\r\nSet-Cookie: a=b\r\nX-Evil: 1", "<script>", whole)
		case "denied":
			testrig.WriteJSON(w, 403, testrig.JSON{"errcode": "M_FORBIDDEN", "error": "no"})
		case "later":
			testrig.WriteJSON(w, 504, testrig.JSON{"errcode": "M_NOT_YET_UPLOADED", "error": "later"})
		default:
			testrig.WriteJSON(w, 404, testrig.JSON{"errcode": "M_NOT_FOUND", "error": "no"})
		}
	})
	for id, want := range map[string]string{
		"large": "502 M_TOO_LARGE", "cut": "502 M_UNKNOWN", "nopart": "502 M_UNKNOWN", "garbage": "502 M_UNKNOWN", "redirect": "502 M_UNKNOWN",
		"inside": "502 M_UNKNOWN", "denied": "404 M_NOT_FOUND", "later": "504 M_NOT_YET_UPLOADED", "none": "404 M_NOT_FOUND", "endless": "502 M_TOO_LARGE",
	} {
		for range 2 {
			// A range is served once all is here, so that the status tells.
			r := alice.get(media.Ref{Server: "there", ID: id}, "Range", "bytes=0-")
			if got := fmt.Sprint(r.StatusCode, " ", r.code()); got != want {
				t.Errorf("%s: %s %s", id, got, r.body)
			}
		}
		mu.Lock()
		times := asked[id]
		mu.Unlock()
		if most := 1; id != "later" && times != most || times > 2 {
			t.Errorf("%s was asked for %d times", id, times)
		}
	}
	if r, err := alice.try(t.Context(), "GET", v1+"download/there/cut2", nil); err == nil && r.StatusCode == 200 {
		t.Error("a file that is not there")
	}
	r := alice.get(media.Ref{Server: "there", ID: "header"})
	if r.StatusCode != 200 || !strings.HasPrefix(r.Header.Get("Content-Disposition"), "attachment; filename=.._.._x.html") || r.Header.Get("Set-Cookie") != "" || r.Header.Get("X-Evil") != "" {
		t.Errorf("%d %v", r.StatusCode, r.Header)
	}
	alice.get(media.Ref{Server: "a.blocked", ID: "x"}).fails(t, 404, "M_NOT_FOUND")
	nobody(t, s).ask("GET", old+"download/there/unasked", nil).fails(t, 404, "M_NOT_FOUND")
	alice.ask("GET", old+"download/there/unasked?allow_remote=false", nil).fails(t, 404, "M_NOT_FOUND")
	if asked["unasked"] != 0 {
		t.Error("somebody without a token made the server ask")
	}
	s.Clock.Advance(2 * time.Minute)
	alice.get(media.Ref{Server: "there", ID: "none"})
	if asked["none"] != 2 {
		t.Errorf("asked %d times after the failure is forgotten", asked["none"])
	}
	eventually(t, func() bool { return len(files(t, s)) == 1 }) // the one that came whole
	nothingIsLeft(t, s)
}

// A server that only knows the deprecated endpoint is asked there.
func TestOldServers(t *testing.T) {
	s, peer := pair(t, nil)
	peer.Handle("GET /_matrix/media/v3/download/there/{mediaId}", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("allow_remote") != "false" || r.Header.Get("Authorization") != "" {
			t.Errorf("%v %v", r.URL, r.Header)
		}
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("Content-Disposition", `inline; filename="old.png"`)
		_, _ = w.Write([]byte("old"))
	})
	r := newPerson(t, s, "alice").get(media.Ref{Server: "there", ID: "x"})
	r.is(t, []byte("old"))
	if r.Header.Get("Content-Disposition") != "inline; filename=old.png" {
		t.Errorf("%v", r.Header)
	}
}

// What other servers get of ours, in the form that they expect.
// spec: server-server#get_matrixfederationv1mediadownloadmediaid
func TestAnswersToServers(t *testing.T) {
	s, peer := pair(t, nil)
	alice := newPerson(t, s, "alice")
	ref := alice.upload(photo(t, 200, 100), "image/jpeg", "cat.jpg")
	for path, want := range map[string]int{
		"download/" + ref.ID: 200, "thumbnail/" + ref.ID + "?width=32&height=32&method=crop": 200, "thumbnail/" + ref.ID: 400,
		"download/unknown": 404, "thumbnail/unknown?width=1&height=1": 404, "download/..%2f..%2fx": 400, "thumbnail/" + ref.ID + "?width=-1&height=5": 400,
	} {
		body, err := askRaw(t, peer, "/_matrix/federation/v1/media/"+path)
		if err != nil {
			if !strings.Contains(err.Error(), fmt.Sprint(want)) {
				t.Errorf("%s: %v", path, err)
			}
			continue
		}
		if want != 200 || !bytes.Contains(body, []byte("Content-Type: application/json\r\n\r\n{}\r\n")) || !bytes.Contains(body, []byte("Content-Type: image/jpeg\r\n\r\n\xff\xd8")) {
			t.Errorf("%s: %.300q", path, body)
		}
	}
	unsigned := nobody(t, s).ask("GET", "/_matrix/federation/v1/media/download/"+ref.ID, nil)
	if unsigned.StatusCode != 401 || !json.Valid(unsigned.body) {
		t.Errorf("%d %s", unsigned.StatusCode, unsigned.body)
	}
}

// Files of other servers go when they are too many, the least recently used first,
// and when nobody asked for them for long.
func TestCacheIsBounded(t *testing.T) {
	s, peer := pair(t, func(c *config.Media) { c.RemoteCache = 2500; c.RemoteKeep = 48 * time.Hour })
	peer.Handle(fedDownload, func(w http.ResponseWriter, r *http.Request) {
		parts(w, "Content-Type: text/plain", strings.Repeat(r.PathValue("mediaId"), 1000), whole)
	})
	alice := newPerson(t, s, "alice")
	for _, id := range []string{"a", "b"} {
		alice.get(media.Ref{Server: "there", ID: id}).is(t, bytes.Repeat([]byte(id), 1000))
		s.Clock.Advance(2 * time.Hour)
	}
	alice.get(media.Ref{Server: "there", ID: "a"}) // used again, so b goes first
	if err := s.Media.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	alice.get(media.Ref{Server: "there", ID: "c"}).is(t, bytes.Repeat([]byte("c"), 1000))
	eventually(t, func() bool { return len(files(t, s)) == 2 })
	usage, err := s.Media.Servers(t.Context(), 10)
	if err != nil || len(usage) != 1 || usage[0].Name != "there" || usage[0].Bytes != 2000 {
		t.Errorf("%v %v", usage, err)
	}
	s.Clock.Advance(49 * time.Hour)
	if err := s.Media.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(files(t, s)) == 0 })
}
