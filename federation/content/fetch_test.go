package content_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/teahouse-chat/teahouse/federation/content"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// A file comes as the second part of two, whatever is around it. What is built
// otherwise is no file.
// spec: server-server#get_matrixfederationv1mediadownloadmediaid
func TestMultipart(t *testing.T) {
	head, tail := "--xx\r\nContent-Type: application/json\r\n\r\n{}\r\n", "\r\n--xx--\r\n"
	cases := map[string]struct{ contentType, answer, want string }{
		"plain":           {mixed, parts("Content-Type: text/plain", "green tea"), "green tea"},
		"quoted":          {`multipart/mixed; boundary="a b:c"`, "--a b:c\r\n\r\n{}\r\n--a b:c\r\n\r\ntea\r\n--a b:c--", "tea"},
		"upper-case":      {"Multipart/Mixed; Boundary=xx", parts("content-type: text/plain", "tea"), "tea"},
		"around":          {mixed, "before\r\n" + parts("Content-Type: text/plain", "tea") + "after", "tea"},
		"members":         {mixed, "--xx\r\n\r\n{\"org.example\": [1]}\r\n--xx\r\n\r\ntea" + tail, "tea"},
		"empty":           {mixed, parts("Content-Type: text/plain", ""), ""},
		"lookalikes":      {mixed, parts("Content-Type: text/plain", "--xy\r\n\r\n--\r\nxx--\r\n --xx\r\n"), "--xy\r\n\r\n--\r\nxx--\r\n --xx\r\n"},
		"as-it-is":        {mixed, parts("Content-Transfer-Encoding: quoted-printable", "a=3Db"), "a=3Db"},
		"largest":         {mixed, parts("Content-Type: text/plain", strings.Repeat("x", maxFile)), strings.Repeat("x", maxFile)},
		"one-part":        {mixed, "--xx\r\nContent-Type: text/plain\r\n\r\ntea" + tail, "502 M_UNKNOWN"},
		"no-part":         {mixed, "--xx--\r\n", "502 M_UNKNOWN"},
		"nothing":         {mixed, "", "502 M_UNKNOWN"},
		"text":            {mixed, "<html>It works!</html>", "502 M_UNKNOWN"},
		"other-boundary":  {mixed, strings.ReplaceAll(parts("A: b", "tea"), "xx", "yy"), "502 M_UNKNOWN"},
		"bad-header":      {mixed, head + "--xx\r\nno header at all\r\n\r\ntea" + tail, "502 M_UNKNOWN"},
		"large-header":    {mixed, head + "--xx\r\nA: " + strings.Repeat("b", 2<<20) + "\r\n\r\ntea" + tail, "502 M_TOO_LARGE"},
		"cut-description": {mixed, "--xx\r\nContent-Type: application/json\r\n\r\n{", "502 M_UNKNOWN"},
		"cut-header":      {mixed, head + "--xx\r\nContent-Ty", "502 M_UNKNOWN"},
		"cut-file":        {mixed, head + "--xx\r\n\r\nhalf of th", "cut"},
		"cut-end":         {mixed, head + "--xx\r\n\r\ntea\r\n--x", "cut"},
		"three-parts":     {mixed, head + "--xx\r\n\r\ntea\r\n--xx\r\n\r\nmore" + tail, "cut"},
		"html":            {"text/html", "<html>It works!</html>", "502 M_UNKNOWN"},
		"bare":            {"image/png", "\x89PNG", "502 M_UNKNOWN"},
		"json":            {"application/json", "{}", "502 M_UNKNOWN"},
		"form":            {"multipart/form-data; boundary=xx", parts("A: b", "tea"), "502 M_UNKNOWN"},
		"no-boundary":     {"multipart/mixed", parts("A: b", "tea"), "502 M_UNKNOWN"},
		"no-type":         {"", parts("A: b", "tea"), "502 M_UNKNOWN"},
		"bad-type":        {"multipart/mixed; boundary=\"xx", parts("A: b", "tea"), "502 M_UNKNOWN"},
	}
	w := newWorld(t)
	w.answer(func(rw http.ResponseWriter, r *http.Request) {
		c := cases[r.PathValue("id")]
		write(rw, c.contentType, c.answer)
	})
	for id, c := range cases {
		if got, _ := w.fetch(id); got != c.want {
			t.Errorf("%s: %.100q, not %q", id, got, c.want)
		}
		if n := w.times(id); n != 1 {
			t.Errorf("%s was asked for %d times", id, n)
		}
	}
}

// The header is that of the part, not of the answer.
func TestHeaderOfThePart(t *testing.T) {
	w := newWorld(t)
	w.answer(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" || r.URL.Query().Get("timeout_ms") != "1000" {
			t.Errorf("asked with %v, %v", r.URL, r.Header)
		}
		rw.Header().Set("Content-Disposition", `inline; filename="answer"`)
		write(rw, mixed, parts("Content-Type: image/png\r\nContent-Disposition: inline; filename=\"tea.png\"", "tea"))
	})
	_, header := w.fetch("x")
	if header.Get("Content-Type") != "image/png" || header.Get("Content-Disposition") != `inline; filename="tea.png"` {
		t.Errorf("%v", header)
	}
}

// THREATS S2: what is too large is not read to its end, wherever it is too large.
func TestTooLarge(t *testing.T) {
	w := newWorld(t)
	more := func(rw http.ResponseWriter) { // far more than may come, and then a proper end
		for range 64 {
			if _, err := rw.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
		_, _ = rw.Write([]byte("\r\n--xx\r\n\r\ntea\r\n--xx--\r\n"))
	}
	w.answer(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", mixed)
		switch r.PathValue("id") {
		case "announced":
			rw.Header().Set("Content-Length", "99999999")
		case "before":
		case "description":
			_, _ = rw.Write([]byte("--xx\r\n\r\n"))
		case "file":
			_, _ = rw.Write([]byte("--xx\r\n\r\n{}\r\n--xx\r\n\r\n"))
			_, _ = rw.Write(make([]byte, 4<<20))
			_, _ = rw.Write([]byte("\r\n--xx--\r\n"))
			return
		}
		more(rw)
	})
	for id, want := range map[string]string{
		"announced": "502 M_TOO_LARGE", "before": "502 M_UNKNOWN", "description": "502 M_TOO_LARGE", "file": "cut",
	} {
		if got, _ := w.fetch(id); got != want {
			t.Errorf("%s: %s, not %s", id, got, want)
		}
	}
}

// Connections that end early, in whatever way, give no file.
func TestConnectionsThatBreak(t *testing.T) {
	w := newWorld(t)
	w.answer(func(rw http.ResponseWriter, r *http.Request) {
		whole := parts("Content-Type: text/plain", "green tea")
		switch r.PathValue("id") {
		case "at-once":
		case "in-the-file":
			write(rw, mixed, whole[:strings.Index(whole, "tea")])
			_ = http.NewResponseController(rw).Flush()
		case "before-the-end":
			write(rw, mixed, strings.TrimSuffix(whole, "--\r\n"))
			_ = http.NewResponseController(rw).Flush()
		}
		panic(http.ErrAbortHandler)
	})
	for id, want := range map[string]string{"at-once": "502 M_UNKNOWN", "in-the-file": "cut", "before-the-end": "cut"} {
		if got, _ := w.fetch(id); got != want {
			t.Errorf("%s: %q, not %s", id, got, want)
		}
	}
}

// A server that does not know the endpoint is asked at the old one, where the answer
// is the file itself, of whatever type. One that has no such file is not.
// spec: client-server#get_matrixmediav3downloadservernamemediaid
func TestDeprecatedEndpoint(t *testing.T) {
	w := newWorld(t)
	w.answer(func(rw http.ResponseWriter, r *http.Request) {
		switch r.PathValue("id") {
		case "unrecognized", "multipart":
			testrig.WriteJSON(rw, 404, testrig.JSON{"errcode": "M_UNRECOGNIZED", "error": "what?"})
		case "page":
			http.NotFound(rw, r)
		case "broken":
			rw.WriteHeader(500)
		case "missing":
			testrig.WriteJSON(rw, 404, testrig.JSON{"errcode": "M_NOT_FOUND", "error": "no"})
		case "forbidden":
			testrig.WriteJSON(rw, 403, testrig.JSON{"errcode": "M_FORBIDDEN", "error": "no"})
		case "later":
			testrig.WriteJSON(rw, 504, testrig.JSON{"errcode": "M_NOT_YET_UPLOADED", "error": "soon"})
		case "large":
			testrig.WriteJSON(rw, 502, testrig.JSON{"errcode": "M_TOO_LARGE", "error": "no"})
		case "limited":
			testrig.WriteJSON(rw, 429, testrig.JSON{"errcode": "M_LIMIT_EXCEEDED", "error": "no"})
		}
	})
	var old atomic.Int32
	w.there.Handle("GET /_matrix/media/v3/download/there/{id}", func(rw http.ResponseWriter, r *http.Request) {
		old.Add(1)
		if r.URL.Query().Get("allow_remote") != "false" || r.Header.Get("Authorization") != "" {
			t.Errorf("asked with %v, %v", r.URL, r.Header)
		}
		if r.PathValue("id") == "multipart" {
			write(rw, mixed, parts("Content-Type: text/plain", "tea"))
			return
		}
		write(rw, "text/x-tea", "old tea")
	})
	for id, want := range map[string]string{
		"unrecognized": "old tea", "page": "old tea", "multipart": parts("Content-Type: text/plain", "tea"), "broken": "502 M_UNKNOWN",
		"missing": "404 M_NOT_FOUND", "forbidden": "404 M_NOT_FOUND", "later": "504 M_NOT_YET_UPLOADED", "large": "502 M_TOO_LARGE",
		"limited": "502 M_UNKNOWN",
	} {
		if got, _ := w.fetch(id); got != want {
			t.Errorf("%s: %q, not %q", id, got, want)
		}
	}
	if n := old.Load(); n != 3 {
		t.Errorf("the deprecated endpoint was asked %d times", n)
	}
	if _, err := w.Download(t.Context(), "here", "x", 0); err == nil || !strings.Contains(err.Error(), "does not federate") {
		t.Errorf("asking oneself: %v", err)
	}
}

// THREATS S2: no server holds a fetch up for long, at whatever point it goes silent.
func TestSilence(t *testing.T) {
	for id, most := range map[string]time.Duration{
		"before the answer": 62 * time.Second, "before the description": 62 * time.Second, "before the file": 62 * time.Second, "in the file": 2 * time.Minute,
		"at the redirect": 62 * time.Second, "in the redirected file": 2 * time.Minute, "dripping before the file": 62 * time.Second,
		"dripping": time.Hour + time.Minute,
	} {
		t.Run(id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				ended, end := context.WithCancel(t.Context())
				defer end()
				say := func(rw http.ResponseWriter, text string) {
					write(rw, mixed, text)
					_ = http.NewResponseController(rw).Flush()
				}
				drip := func(rw http.ResponseWriter, r *http.Request) {
					for tick := time.NewTicker(20 * time.Second); r.Context().Err() == nil; {
						select {
						case <-tick.C:
							say(rw, ".")
						case <-r.Context().Done():
						}
					}
				}
				w.site("files.example", "files.example", func(rw http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/begins" {
						say(rw, "begin")
					}
					<-ended.Done()
				})
				whole := parts("Content-Type: text/plain", "tea")
				w.answer(func(rw http.ResponseWriter, r *http.Request) {
					switch id {
					case "before the description":
						say(rw, "--xx\r\n")
					case "before the file":
						say(rw, whole[:strings.LastIndex(whole, "Content")])
					case "in the file":
						say(rw, whole[:strings.Index(whole, "tea")+1])
					case "at the redirect":
						say(rw, parts("Location: https://files.example/silent", ""))
					case "in the redirected file":
						say(rw, parts("Location: https://files.example/begins", ""))
					case "dripping before the file":
						say(rw, "--xx\r\n\r\n")
						drip(rw, r)
					case "dripping":
						say(rw, whole[:strings.Index(whole, "tea")+1])
						drip(rw, r)
					}
					<-ended.Done()
				})
				begun := time.Now()
				got, _ := w.fetch("x")
				if took := time.Since(begun); got != "cut" && got != "502 M_UNKNOWN" || took > most {
					t.Errorf("%q after %v", got, took)
				}
			})
		})
	}
}

// THREATS S2, M3: files that a server redirects to count as its own, of which only
// some come at a time.
func TestRedirectedFilesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.site("files.example", "files.example", func(rw http.ResponseWriter, _ *http.Request) { write(rw, "text/plain", "tea") })
		w.answer(func(rw http.ResponseWriter, _ *http.Request) {
			write(rw, mixed, parts("Location: https://files.example/", ""))
		})
		const slots = 16 // of transport.Client
		var open []*content.File
		for range slots {
			file, err := w.Download(t.Context(), "there", "x", 0)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, file)
		}
		next := make(chan *content.File)
		go func() {
			file, err := w.Download(t.Context(), "there", "x", 0)
			if err != nil {
				t.Error(err)
			}
			next <- file
		}()
		synctest.Wait()
		if n := w.times("x"); n != slots {
			t.Errorf("%d files are on their way", n)
		}
		_ = open[0].Body.Close()
		for _, file := range append(open[1:], <-next) {
			_ = file.Body.Close()
		}
	})
}
