package appservices_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/appservices"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// pause stops sending to a service, or goes on.
func pause(t testing.TB, s *testrig.Server, id string, paused bool) {
	t.Helper()
	if err := s.Appservices.Pause(t.Context(), id, paused); err != nil {
		t.Fatal(err)
	}
}

// TestTransactionsAreBounded: what has piled up comes in transactions of at most 100
// events and 512 KB, which are made full use of.
func TestTransactionsAreBounded(t *testing.T) {
	const maxEvents, maxBody, envelope = 100, 512 << 10, 200
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		irc, alice, room := curious(t, s)
		for text, n := range map[string]int{"short": 250, strings.Repeat("long", 12<<10): 25} {
			pause(t, s, "irc", true)
			irc.mu.Lock()
			before, events := len(irc.order), len(irc.ids)
			irc.mu.Unlock()
			for i := range n {
				alice.Say(room, fmt.Sprint(len(text), "-", i), text)
			}
			pause(t, s, "irc", false)
			irc.until("all arrive", func() bool { return len(irc.ids) == events+n })
			irc.mu.Lock()
			most, longest := 0, 0
			for _, txn := range irc.order[before:] {
				raw, err := json.Marshal(txn)
				if err != nil {
					t.Fatal(err)
				}
				most, longest = max(most, len(txn["events"].([]any))), max(longest, len(raw))
			}
			irc.mu.Unlock()
			if most > maxEvents || longest > maxBody+envelope {
				t.Errorf("a transaction has %d events, one %d bytes", most, longest)
			}
			if n > maxEvents && most < maxEvents || len(text) > 1000 && longest < maxBody-2*len(text) {
				t.Errorf("%d events of %d bytes come in transactions of at most %d events and %d bytes", n, len(text), most, longest)
			}
		}
	})
}

// TestBackoff: the rests of a service that is down double from a second on up to five
// minutes, are not cut short by new events, outlast a restart, and end by a ping.
func TestBackoff(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		irc, alice, room := curious(t, s)
		irc.answers(func(r *http.Request, body string) (int, string) {
			if strings.Contains(r.URL.Path, "/transactions/") {
				return 503, "{}"
			}
			return 200, "{}"
		})
		status := func() appservices.Status {
			list, err := s.Appservices.List(t.Context())
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			return list[0]
		}
		tries := func() int {
			irc.mu.Lock()
			defer irc.mu.Unlock()
			return strings.Count(strings.Join(irc.asked, "\n"), "/transactions/")
		}
		tried := tries()
		resting := appservices.Status{}
		for txn := 0; resting.Failures < 12; txn++ {
			had, before := resting.Failures, s.Clock.Now()
			if ahead := resting.NextTry.Sub(before); ahead > 0 {
				s.Clock.Advance(ahead)
				before = before.Add(ahead)
			}
			alice.Say(room, fmt.Sprint(txn), "is anybody there?") // which wakes whoever has rested long enough
			eventually(t, "another failure", func() bool { resting = status(); return resting.Failures > had })
			after, want := s.Clock.Now(), min(time.Second<<(resting.Failures-1), 5*time.Minute)
			if next := resting.NextTry; next.Sub(before) < want-time.Millisecond || next.Sub(after) > want {
				t.Fatalf("after failure %d the rest is from %s to %s, not %s", resting.Failures, next.Sub(after), next.Sub(before), want)
			}
		}
		if got := tries() - tried; got != resting.Failures {
			t.Fatalf("after %d failures the service was asked %d times", resting.Failures, got)
		}
		token := alice.Token
		s = s.Restart() // with a clock that was not moved: it is long before the end of the rest
		if now := status(); now.Failures != resting.Failures || !now.NextTry.Equal(resting.NextTry) {
			t.Errorf("after a restart it stands at %+v, and stood at %+v", now, resting)
		}
		alice = s.Anonymous()
		alice.Token = token
		last := alice.Say(room, "last", "hello?")
		if got := tries() - tried; got != resting.Failures {
			t.Errorf("after a restart the service was asked %d times in all", got)
		}
		irc.answers(nil)
		irc.client(s).Must("POST", "/v1/appservice/irc/ping", testrig.JSON{})
		irc.until("everything arrives", func() bool { return irc.seen[string(last)] })
		eventually(t, "all is well", func() bool { now := status(); return now.Failures == 0 && now.NextTry.IsZero() && now.Oldest.IsZero() })
	})
}
