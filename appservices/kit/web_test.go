package kit_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/kit/kittest"
	"github.com/teahouse-chat/teahouse/internal/dialer"
)

// openDoors opens a service with a link, a webhook, and an ear for who is typing.
func openDoors(hook string, d *dialer.Dialer) func(ctx context.Context, c kit.Config) (kittest.Service, error) {
	return func(ctx context.Context, c kit.Config) (kittest.Service, error) {
		c.Dialer = d
		s, err := kit.Open(ctx, c)
		if err != nil {
			return nil, err
		}
		s.Command(kit.Command{Name: "pay", Run: func(tx *kit.Tx, c *kit.Call) error {
			tx.Say(c.RoomID, tx.Link(c.Sender, c.RoomID, kit.Action{Name: "pay", Text: "Pay <b>" + c.Rest + "</b>?", Data: c.Rest}))
			return nil
		}})
		s.Answer("pay", func(tx *kit.Tx, a *kit.Answer) error {
			var amount string
			if err := a.Data(&amount); err != nil {
				return err
			}
			tx.Reply(a.Event, fmt.Sprintf("%s paid %s", a.Sender, amount))
			return nil
		})
		s.Command(kit.Command{Name: "call", Run: func(tx *kit.Tx, c *kit.Call) error {
			tx.Webhook(kit.Webhook{URL: hook + c.Rest, Secret: "shh", Body: map[string]string{"say": c.Rest}})
			return nil
		}})
		s.OnEphemeral(event.EphemeralEventTyping, func(tx *kit.Tx, ev *kit.Event) error {
			tx.Say(ev.RoomID, fmt.Sprint(ev.Content.AsTyping().UserIDs, " typing"))
			return nil
		})
		return s, nil
	}
}

func ask(r *kittest.Rig, method, path string, header ...string) *httptest.ResponseRecorder {
	q := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		q.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.Service().Handler().ServeHTTP(w, q)
	return w
}

func TestLinks(t *testing.T) {
	each(t, func(t *testing.T, database string) {
		r := kittest.Start(t, kittest.Options{Database: database, Open: openDoors("", nil)})
		alice := r.User("alice")
		chat := alice.Direct(r.Bot())
		r.Settle()
		link := func(amount string) string {
			t.Helper()
			alice.Say(chat, "pay "+amount)
			u, err := url.Parse(last(r, chat))
			if err != nil || u.Host != "bot.test" || len(u.Path) != len("/link/")+43 {
				t.Fatalf("the link is %v, %v", u, err)
			}
			return u.Path
		}
		first := link("5")
		if again := link("6"); again == first {
			t.Error("two links are the same")
		}
		for range 3 { // looking does nothing
			w := ask(r, "GET", first)
			if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "Pay &lt;b&gt;5&lt;/b&gt;?") {
				t.Errorf("the page is %d %s", w.Code, w.Body)
			}
			if h := w.Header(); !strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") || h.Get("Referrer-Policy") != "no-referrer" || h.Get("Cache-Control") != "no-store" {
				t.Errorf("the header is %v", h)
			}
		}
		var wait sync.WaitGroup
		var mu sync.Mutex
		codes := map[int]int{}
		for range 8 {
			wait.Go(func() {
				w := ask(r, "POST", first)
				mu.Lock()
				defer mu.Unlock()
				codes[w.Code]++
			})
		}
		wait.Wait()
		if codes[http.StatusOK] != 1 || codes[http.StatusGone] != 7 {
			t.Errorf("eight clicks were answered with %v", codes)
		}
		if got := last(r, chat); got != "@alice:test paid 5" {
			t.Errorf("the service said %q", got)
		}
		late := link("7")
		r.Pass(5 * time.Minute)
		for _, path := range []string{first, late, "/link/nothing"} {
			if w := ask(r, "POST", path); w.Code != http.StatusGone {
				t.Errorf("a click on an old link is answered with %d", w.Code)
			}
		}
		if got := r.Said(chat); slices.Contains(got, "@alice:test paid 7") {
			t.Errorf("the service said %q", got)
		}
	})
}

func TestOpenID(t *testing.T) {
	each(t, func(t *testing.T, database string) {
		r := kittest.Start(t, kittest.Options{Database: database, Open: openDoors("", nil)})
		s := r.Service().(*kit.Service)
		if user, err := s.OpenID(t.Context(), r.User("alice").OpenID()); user != "@alice:test" || err != nil {
			t.Errorf("the token is of %q, %v", user, err)
		}
		if _, err := s.OpenID(t.Context(), "guessed"); err == nil || strings.Contains(err.Error(), "guessed") {
			t.Errorf("a guess gives %v", err)
		}
	})
}

func TestWebhooks(t *testing.T) {
	each(t, func(t *testing.T, database string) {
		var mu sync.Mutex
		var got []string
		status := []int{500, 429, 200, 410, 200}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			body, _ := io.ReadAll(q.Body)
			mac := hmac.New(sha256.New, []byte("shh"))
			fmt.Fprintf(mac, "%s.%s.%s", q.Header.Get("webhook-id"), q.Header.Get("webhook-timestamp"), body)
			mu.Lock()
			defer mu.Unlock()
			if q.Header.Get("webhook-signature") != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
				t.Error("the signature is wrong")
			}
			got = append(got, q.Header.Get("webhook-id")+" "+string(body))
			w.WriteHeader(status[len(got)-1])
		}))
		t.Cleanup(server.Close)
		open := openDoors(server.URL+"/", dialer.New(dialer.Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}))
		r := kittest.Start(t, kittest.Options{Database: database, Open: open})
		alice := r.User("alice")
		chat := alice.Direct(r.Bot())
		r.Settle()
		for range 3 {
			alice.Say(chat, "call x")
			r.Settle()
		}
		if len(got) != 5 || got[0] != got[1] || got[1] != got[2] || got[3] == got[2] || got[4] == got[3] || !strings.HasSuffix(got[0], ` {"say":"x"}`) {
			t.Errorf("the calls were %q", got)
		}
	})
}

// A webhook to an address that is not public is never made.
func TestWebhooksStayOutside(t *testing.T) {
	each(t, func(t *testing.T, database string) {
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was called") }))
		t.Cleanup(server.Close)
		r := kittest.Start(t, kittest.Options{Database: database, Open: openDoors(server.URL+"/", nil)})
		alice := r.User("alice")
		chat := alice.Direct(r.Bot())
		r.Settle()
		alice.Say(chat, "call x")
		r.Settle()
	})
}

func TestEphemeralEvents(t *testing.T) {
	each(t, func(t *testing.T, database string) {
		r := kittest.Start(t, kittest.Options{Database: database, Open: openDoors("", nil)})
		alice := r.User("alice")
		chat := alice.Direct(r.Bot())
		r.Settle()
		for i, name := range []string{"ephemeral", "de.sorunome.msc2409.ephemeral"} {
			body := fmt.Sprintf(`{"events":[],"%s":[{"type":"m.typing","room_id":"%s","content":{"user_ids":["@u%d:test"]}},{"type":"m.receipt"},7,{}]}`, name, chat, i)
			if code := r.Put(fmt.Sprint("e", i), body); code != http.StatusOK {
				t.Errorf("%s is answered with %d", name, code)
			}
			if got, want := last(r, chat), fmt.Sprintf("[@u%d:test] typing", i); got != want {
				t.Errorf("the service said %q, not %q", got, want)
			}
		}
	})
}

// Only the homeserver is heard, and what it says badly harms nothing else.
func TestReceiver(t *testing.T) {
	each(t, func(t *testing.T, database string) {
		r := kittest.Start(t, kittest.Options{Database: database, Open: echo})
		alice := r.User("alice")
		chat := alice.Direct(r.Bot())
		r.Settle()
		for _, c := range []struct {
			method, path string
			token        string
			status       int
		}{
			{"PUT", "/_matrix/app/v1/transactions/1", "", 401},
			{"PUT", "/_matrix/app/v1/transactions/1", "Bearer wrong", 403},
			{"PUT", "/_matrix/app/v1/transactions/1", "Bearer hs-bot2", 403},
			{"PUT", "/_matrix/app/v1/transactions/1?access_token=as-bot", "", 403},
			{"PUT", "/_matrix/app/v1/transactions/1", "Bearer hs-bot", 400}, // no body
			{"POST", "/_matrix/app/v1/ping", "Bearer hs-bot", 200},
			{"POST", "/_matrix/app/v1/ping", "Bearer no", 403},
			{"GET", "/_matrix/app/v1/users/@bot:test", "Bearer hs-bot", 200},
			{"GET", "/users/@bot:test?access_token=hs-bot", "", 200},
			{"GET", "/_matrix/app/v1/users/@other:test", "Bearer hs-bot", 404},
			{"GET", "/_matrix/app/v1/rooms/%23a:test", "Bearer hs-bot", 404},
			{"GET", "/_matrix/app/v1/thirdparty/protocol/x", "Bearer hs-bot", 404},
			{"GET", "/", "", 401},
		} {
			if w := ask(r, c.method, c.path, "Authorization", c.token); w.Code != c.status {
				t.Errorf("%s %s with %q is answered with %d %s", c.method, c.path, c.token, w.Code, w.Body)
			}
		}
		good := fmt.Sprintf(`{"type":"m.room.message","event_id":"$good","room_id":"%s","sender":"@alice:test","origin_server_ts":1772352000000,"content":{"msgtype":"m.text","body":"nul \u0000 here"}}`, chat)
		bad := []string{
			`7`, `null`, `{}`, `[]`, `{"event_id":"$x"}`, `{"event_id":7,"room_id":"!a:test"}`, `{"event_id":"$nul\u0000","room_id":"!a:test"}`,
			`{"event_id":"` + "$" + strings.Repeat("x", 300) + `","room_id":"!a:test"}`, `{"event_id":"$y","room_id":"@a:test"}`,
			`{"type":7,"event_id":"$type","room_id":"!a:test","content":"none","sender":[]}`,
			`{"type":"m.room.message","event_id":"$deep","room_id":"!a:test","content":{"m.relates_to":7,"body":[{}]}}`,
			`{"type":"m.room.member","event_id":"$member","room_id":"!a:test","state_key":"@bot:test","content":{"membership":7}}`,
		}
		if code := r.Put("bad", `{"events":[`+strings.Join(bad, ",")+","+good+`]}`); code != http.StatusOK {
			t.Errorf("a transaction with bad events is answered with %d", code)
		}
		for _, body := range []string{"", "{", "[]", `{"events":7}`} {
			if code := r.Put("worse", body); code != http.StatusBadRequest {
				t.Errorf("%q is answered with %d", body, code)
			}
		}
		if got := last(r, chat); got != "nul \x00 here" {
			t.Errorf("the answer is %q", got)
		}
	})
}
