package media_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/media"
)

func target(t *testing.T, text string) media.Target {
	t.Helper()
	got, err := media.ParseTarget(text)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// THREATS M6: what is quarantined is not had at any door, in any form, also not
// after it was uploaded or fetched again; and it comes back.
func TestQuarantine(t *testing.T) {
	s, peer := pair(t, func(c *config.Media) { c.Unauthenticated = "open" })
	picture, other := photo(t, 400, 300), photo(t, 300, 400)
	peer.Handle(fedDownload, func(w http.ResponseWriter, _ *http.Request) {
		parts(w, "Content-Type: image/jpeg", string(other), whole)
	})
	alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
	ref := alice.upload(picture, "image/jpeg", "")
	same := bob.upload(picture, "image/jpeg", "")
	far := media.Ref{Server: "there", ID: "x"}
	room := alice.CreateRoom(testrig.JSON{"preset": "public_chat"})
	alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "send", "m.room.message", "1"), testrig.JSON{"msgtype": "m.image", "body": "x", "url": ref.String(), "info": testrig.JSON{"thumbnail_url": far.String()}})
	served := func(ref media.Ref) bool {
		t.Helper()
		suffix := testrig.Path(ref.Server, ref.ID)
		var all []bool
		for _, door := range []string{v1 + "download" + suffix, v1 + "thumbnail" + suffix + "?width=32&height=32", old + "download" + suffix, old + "thumbnail" + suffix + "?width=32&height=32", v1 + "download" + suffix + "/name"} {
			r := bob.ask("GET", door, nil)
			if r.StatusCode != 200 && (r.StatusCode != 404 || r.code() != "M_NOT_FOUND") {
				t.Errorf("%s: %d %s", door, r.StatusCode, r.body)
			}
			all = append(all, r.StatusCode == 200)
		}
		if ref.Server == "here" {
			for _, door := range []string{"download/" + ref.ID, "thumbnail/" + ref.ID + "?width=32&height=32"} {
				_, err := askRaw(t, peer, "/_matrix/federation/v1/media/"+door)
				all = append(all, err == nil)
			}
		}
		if slices.Contains(all, !all[0]) {
			t.Fatalf("the doors for %s differ: %v", ref, all)
		}
		return all[0]
	}
	for _, c := range []struct {
		target         string
		ref, same, far bool // whether they are still served
	}{
		{ref.String(), false, true, true},
		{"@alice:here", false, true, true},
		{string(room), false, true, false},
		{sumOf(picture), false, false, true},
		{sumOf(other), true, true, false},
		{far.String(), true, true, false},
	} {
		if _, err := s.Media.Quarantine(t.Context(), target(t, c.target)); err != nil {
			t.Fatal(err)
		}
		if r, same, far := served(ref), served(same), served(far); r != c.ref || same != c.same || far != c.far {
			t.Errorf("%s in quarantine: %v %v %v", c.target, r, same, far)
		}
		if strings.HasPrefix(c.target, "sha256") && !c.ref {
			bob.ask("POST", old+"upload", bytes.NewReader(picture)).fails(t, 403, "M_FORBIDDEN")
		}
		// The cache is emptied, and nothing changes.
		if _, err := s.Media.Purge(t.Context(), "", s.Clock.Now().UnixMilli()+1); err != nil {
			t.Fatal(err)
		}
		if served(far) != c.far {
			t.Errorf("%s in quarantine, fetched again: %v", c.target, !c.far)
		}
		if _, err := s.Media.Release(t.Context(), target(t, c.target)); err != nil {
			t.Fatal(err)
		}
		if !served(ref) || !served(same) || !served(far) {
			t.Errorf("%s is released and not there", c.target)
		}
	}
}

// Deleted files are gone with their bytes and thumbnails, unless somebody else has
// the same.
func TestDelete(t *testing.T) {
	each(t, nil, func(t *testing.T, s *testrig.Server) {
		alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
		picture := photo(t, 400, 300)
		ref, same := alice.upload(picture, "image/jpeg", ""), bob.upload(picture, "image/jpeg", "")
		alice.upload([]byte("more"), "text/plain", "")
		thumb := v1 + "thumbnail" + testrig.Path(same.Server, same.ID) + "?width=32&height=32"
		if r := bob.ask("GET", thumb, nil); r.StatusCode != 200 {
			t.Fatal(r.StatusCode)
		}
		users, err := s.Media.Users(t.Context(), "", 10)
		if err != nil || len(users) != 2 || users[0] != (media.Usage{Name: "@alice:test", Files: 2, Bytes: int64(len(picture)) + 4}) {
			t.Errorf("%v %v", users, err)
		}
		if n, err := s.Media.Delete(t.Context(), target(t, "@alice:test")); n != 2 || err != nil {
			t.Errorf("%d %v", n, err)
		}
		alice.get(ref).fails(t, 404, "M_NOT_FOUND")
		bob.get(same).is(t, picture)
		eventually(t, func() bool { return len(files(t, s)) == 2 })
		if n, err := s.Media.Delete(t.Context(), media.Target{Ref: same}); n != 1 || err != nil {
			t.Errorf("%d %v", n, err)
		}
		eventually(t, func() bool { return len(files(t, s)) == 0 })
	})
}

func tidy(t *testing.T, s *testrig.Server) {
	t.Helper()
	if err := s.Media.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// With the switch on, redacting an event deletes what its sender had uploaded for
// it, and nothing that is still in use or somebody else's.
func TestRedactedFiles(t *testing.T) {
	each(t, func(c *config.Media) { c.DeleteRedacted = true }, func(t *testing.T, s *testrig.Server) {
		alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
		room := alice.CreateRoom(testrig.JSON{"preset": "public_chat"})
		bob.Join(room)
		path := "/v3/rooms" + testrig.Path(room)
		send := func(p *person, txn string, ref media.Ref) matrix.EventID {
			t.Helper()
			answer := p.Must("PUT", path+"/send/m.room.message/"+txn, testrig.JSON{"msgtype": "m.file", "body": "x", "url": ref.String()})
			return matrix.EventID(answer["event_id"].(string))
		}
		own, twice := alice.upload([]byte("own"), "", ""), alice.upload([]byte("twice"), "", "")
		events := []matrix.EventID{send(alice, "1", own), send(alice, "2", twice)}
		kept := send(alice, "3", twice)
		stolen := send(bob, "4", twice)
		for i, id := range append(events, stolen) {
			alice.Must("PUT", path+"/redact"+testrig.Path(id, i), testrig.JSON{})
		}
		eventually(t, func() bool { return alice.get(own).StatusCode == 404 })
		alice.get(twice).is(t, []byte("twice"))
		alice.Must("PUT", path+"/redact"+testrig.Path(kept, 9), testrig.JSON{})
		eventually(t, func() bool { return alice.get(twice).StatusCode == 404 })
	})
}

// Users' files can go when nobody asks for them any more.
func TestLocalRetention(t *testing.T) {
	each(t, func(c *config.Media) { c.LocalKeep = 100 * time.Hour }, func(t *testing.T, s *testrig.Server) {
		alice := newPerson(t, s, "alice")
		ref, idle := alice.upload([]byte("used"), "", ""), alice.upload([]byte("idle"), "", "")
		s.Clock.Advance(90 * time.Hour)
		alice.get(ref).is(t, []byte("used"))
		tidy(t, s)
		s.Clock.Advance(20 * time.Hour)
		tidy(t, s)
		alice.get(ref).is(t, []byte("used"))
		alice.get(idle).fails(t, 404, "M_NOT_FOUND")
	})
}

// The check finds what is missing, changed, or too much, and repairs what can be.
func TestCheck(t *testing.T) {
	each(t, nil, func(t *testing.T, s *testrig.Server) {
		alice := newPerson(t, s, "alice")
		picture := alice.upload(photo(t, 400, 300), "image/jpeg", "")
		alice.ask("GET", v1+"thumbnail"+testrig.Path(picture.Server, picture.ID)+"?width=32&height=32", nil)
		alice.upload([]byte("whole"), "", "")
		changed := alice.upload([]byte("change me"), "", "")
		check := func(o media.CheckOptions) (found []string) {
			t.Helper()
			if err := s.Media.Check(t.Context(), o, func(f media.Finding) {
				what := f.What[65:]
				if f.Repaired {
					what += ", repaired"
				}
				found = append(found, what)
			}); err != nil {
				t.Fatal(err)
			}
			slices.Sort(found)
			return found
		}
		if found := check(media.CheckOptions{Contents: true}); found != nil {
			t.Errorf("%q", found)
		}
		dir := filepath.Join(s.Options.DataDir, "media", "files")
		for _, name := range files(t, s) {
			full := filepath.Join(dir, name)
			data, err := os.ReadFile(full)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case string(data) == "change me":
				err = os.WriteFile(full, []byte("change ME"), 0o600)
			case len(data) > 5 && len(data) < 1500: // the thumbnail
				err = os.Remove(full)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		orphan := filepath.Join(dir, "ab")
		if err := os.MkdirAll(orphan, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(orphan, strings.Repeat("0", 62)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if found := check(media.CheckOptions{}); !slices.Equal(found, []string{"is missing", "is needed by nothing"}) {
			t.Errorf("%q", found)
		}
		want := []string{"has other bytes than it should, repaired", "is missing", "is missing, repaired", "is needed by nothing, repaired"}
		if found := check(media.CheckOptions{Contents: true, Repair: true}); !slices.Equal(found, want) {
			t.Errorf("%q", found)
		}
		if found := check(media.CheckOptions{Contents: true}); !slices.Equal(found, []string{"is missing"}) {
			t.Errorf("%q", found)
		}
		alice.get(changed).fails(t, 404, "M_NOT_FOUND")
		if r := alice.ask("GET", v1+"thumbnail"+testrig.Path(picture.Server, picture.ID)+"?width=32&height=32", nil); r.StatusCode != 200 {
			t.Errorf("the thumbnail is not made again: %d", r.StatusCode)
		}
	})
}

func TestTargets(t *testing.T) {
	for _, text := range []string{"", "mxc://", "mxc://a", "mxc://a/..", "@a", "!", "sha256:00", "a/b", "mxc://a/b/c", "sha256:" + strings.Repeat("g", 64)} {
		if got, err := media.ParseTarget(text); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

// Whatever an event says: what is found in it are names of files.
func FuzzMentions(f *testing.F) {
	f.Add([]byte(`{"content":{"url":"mxc://a.example/abc_-1","info":{"thumbnail_url":"mxc://b/c\"}}}`))
	f.Add([]byte(`mxc://mxc://a/b"mxc:///"mxc://a/` + "\x00"))
	f.Fuzz(func(t *testing.T, json []byte) {
		for _, ref := range media.Mentions(json) {
			if again, err := media.ParseRef(ref.String()); err != nil || again != ref {
				t.Errorf("%q: %v", ref, err)
			}
		}
	})
}
