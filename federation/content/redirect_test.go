package content_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// A redirect is followed over HTTPS to where the public internet is, a few steps,
// without telling who asks.
// spec: server-server#get_matrixfederationv1mediadownloadmediaid
func TestRedirects(t *testing.T) {
	w := newWorld(t)
	w.answer(func(rw http.ResponseWriter, r *http.Request) {
		place := map[string]string{
			"relative": "/file", "http": "http://files.example/file", "other": "ftp://files.example/file", "unknown": "https://nowhere.example/",
			"badly-certified": "https://imposter.example/", "loopback": "https://127.0.0.1/file", "metadata": "https://169.254.169.254/latest/meta-data",
			"private": "https://10.0.0.1/file", "mapped": "https://[::ffff:127.0.0.1]/file", "unspecified": "https://0.0.0.0/file", "nonsense": "https://%zz/",
		}[r.PathValue("id")]
		if place == "" {
			place = "https://files.example/" + r.PathValue("id")
		}
		write(rw, mixed, parts("Content-Type: text/html\r\nLocation: "+place, "not this"))
	})
	w.site("imposter.example", "files.example", func(rw http.ResponseWriter, _ *http.Request) { write(rw, "text/plain", "tea") })
	plain, err := w.network.Listen("tcp", "files.example:80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plain.Close() })
	go func() {
		_ = http.Serve(plain, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { write(rw, "text/plain", "green tea") }))
	}()
	w.site("files.example", "files.example", func(rw http.ResponseWriter, r *http.Request) {
		for _, secret := range []string{"Authorization", "Cookie"} {
			if v := r.Header.Get(secret); v != "" {
				t.Errorf("%s is told %s: %s", r.URL, secret, v)
			}
		}
		var steps int
		switch path := strings.TrimPrefix(r.URL.Path, "/"); path {
		case "missing":
			rw.WriteHeader(404)
		case "part":
			rw.WriteHeader(206)
		case "large":
			write(rw, "text/plain", strings.Repeat("x", maxFile+1))
		case "endless":
			_, _ = rw.Write(make([]byte, 1<<20)) // without telling how much there is
		case "cut":
			rw.Header().Set("Content-Length", "10")
			write(rw, "text/plain", "half")
		case "down":
			http.Redirect(rw, r, "http://files.example/file", http.StatusFound)
		case "inside":
			http.Redirect(rw, r, "https://192.168.0.1/file", http.StatusFound)
		default:
			if _, err := fmt.Sscanf(path, "steps-%d", &steps); err == nil && steps > 0 {
				http.Redirect(rw, r, fmt.Sprint("steps-", steps-1), http.StatusFound)
				return
			}
			rw.Header().Set("Content-Disposition", "inline; filename=tea.txt")
			write(rw, "text/plain", "green tea")
		}
	})
	for _, inside := range []string{"127.0.0.1", "169.254.169.254", "10.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0", "192.168.0.1"} {
		l, err := w.network.Listen("tcp", inside+":443")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			if c, err := l.Accept(); err == nil {
				_ = c.Close()
				t.Errorf("%s was called", inside)
			}
		}()
	}
	for id, want := range map[string]string{
		"file": "green tea", "steps-1": "green tea", "steps-3": "green tea", "steps-4": "502 M_UNKNOWN", "relative": "502 M_UNKNOWN",
		"http": "502 M_UNKNOWN", "other": "502 M_UNKNOWN", "unknown": "502 M_UNKNOWN", "badly-certified": "502 M_UNKNOWN", "nonsense": "502 M_UNKNOWN",
		"loopback": "502 M_UNKNOWN", "metadata": "502 M_UNKNOWN", "private": "502 M_UNKNOWN", "mapped": "502 M_UNKNOWN", "unspecified": "502 M_UNKNOWN",
		"missing": "502 M_UNKNOWN", "part": "502 M_UNKNOWN", "down": "502 M_UNKNOWN", "inside": "502 M_UNKNOWN", "endless": "cut", "cut": "cut",
	} {
		got, header := w.fetch(id)
		if got != want {
			t.Errorf("%s: %.100q, not %q", id, got, want)
		}
		if got == "green tea" && (header.Get("Content-Type") != "text/plain" || header.Get("Content-Disposition") != "inline; filename=tea.txt") {
			t.Errorf("%s: %v", id, header)
		}
	}
	if file, err := w.Download(t.Context(), "there", "large", 0); err == nil {
		defer file.Body.Close()
		if n, err := io.Copy(io.Discard, file.Body); n > maxFile+1 || err == nil && n <= maxFile {
			t.Errorf("too large: %d bytes, %v", n, err)
		}
	}
}
