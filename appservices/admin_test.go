package appservices_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// managed is a server whose admin routes and metrics are open to the test, and an
// administrator of it.
func managed(t *testing.T, kind string) (*testrig.Server, *testrig.Client, *prometheus.Registry) {
	t.Helper()
	measured := prometheus.NewRegistry()
	s := testrig.Start(t, testrig.Options{Database: dbtest.URL(t, kind), Metrics: measured, Change: func(c *config.Config) {
		c.Listeners[0].Serves = append(c.Listeners[0].Serves, "admin")
	}})
	admin := s.Register("admin")
	if err := s.Accounts.SetAdmin(t.Context(), admin.User, true); err != nil {
		t.Fatal(err)
	}
	return s, admin, measured
}

// refusing refuses what has a word in it.
func refusing(word string) func(*http.Request, string) (int, string) {
	return func(_ *http.Request, body string) (int, string) {
		if strings.Contains(body, word) {
			return 500, "cannot"
		}
		return 200, "{}"
	}
}

// TestAdminRoutes goes the life of a service through by HTTP: it is added, looked at,
// paused, retried and rotated, refuses an event, gets it again, and is removed. Others
// than administrators may do none of it.
func TestAdminRoutes(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			s, admin, measured := managed(t, kind)
			irc, alice := newBridge(t, s.Network, "irc"), s.Register("alice")
			const all, one = "/_teahouse/admin/v1/appservices", "/_teahouse/admin/v1/appservices/irc"
			for _, r := range [][2]string{
				{"GET", all}, {"POST", all}, {"DELETE", one}, {"POST", one + "/rotate"}, {"POST", one + "/pause"}, {"POST", one + "/resume"},
				{"POST", one + "/retry"}, {"GET", one + "/dead_letters"}, {"POST", one + "/replay"},
			} {
				alice.Fails(403, matrix.CodeForbidden, r[0], r[1], testrig.JSON{"registration": "x"})
				s.Anonymous().Fails(401, matrix.CodeMissingToken, r[0], r[1], testrig.JSON{"registration": "x"})
				if r[1] != all {
					admin.Fails(404, matrix.CodeNotFound, r[0], r[1], testrig.JSON{})
				}
			}
			admin.Fails(400, matrix.CodeInvalidParam, "POST", all, testrig.JSON{"registration": "id: irc"})
			text := irc.registration(`{rooms: [{regex: '.*', exclusive: false}]}`)
			if got := admin.Must("POST", all, testrig.JSON{"registration": text}); got["id"] != "irc" {
				t.Errorf("added is %v", got)
			}
			status := func() testrig.JSON {
				t.Helper()
				list := admin.Must("GET", all, nil)["appservices"].([]any)
				if len(list) != 1 {
					t.Fatal(list)
				}
				return list[0].(testrig.JSON)
			}
			admin.Must("POST", one+"/pause", nil)
			room := alice.CreateRoom(testrig.JSON{})
			alice.Say(room, "1", "poison")
			eventually(t, "events wait", func() bool { return status()["waiting_events"].(float64) > 3 })
			if got := status(); got["paused"] != true || got["sender"] != "@_irc:test" || got["url"] != "http://irc:80" || got["oldest_waiting_ts"] == float64(0) {
				t.Errorf("it stands at %v", got)
			}
			irc.answers(refusing("poison"))
			admin.Must("POST", one+"/resume", nil)
			eventually(t, "an event is put aside", func() bool {
				admin.Must("POST", one+"/retry", nil)
				return status()["dead_letters"] == float64(1)
			})
			last := alice.Say(room, "2", "harmless")
			irc.until("what is behind it arrives", func() bool { return irc.seen[string(last)] })
			letters := admin.Must("GET", one+"/dead_letters", nil)["dead_letters"].([]any)
			if !strings.Contains(fmt.Sprint(letters), "poison") {
				t.Errorf("the dead letters are %v", letters)
			}
			delivered(t, measured)
			irc.answers(nil)
			if got := admin.Must("POST", one+"/replay", nil); got["replayed"] != float64(1) {
				t.Errorf("replayed are %v", got)
			}
			irc.until("the event arrives", func() bool { return strings.Contains(fmt.Sprint(irc.events), "poison") })
			rotated := admin.Must("POST", one+"/rotate", nil)["registration"].(string)
			if strings.Contains(rotated, "as-irc") || !strings.Contains(rotated, "id: irc\n") {
				t.Errorf("rotated is %s", rotated)
			}
			irc.client(s).Fails(401, matrix.CodeUnknownToken, "GET", "/v3/account/whoami", nil)
			admin.Must("DELETE", one, nil)
			if got := admin.Must("GET", all, nil); len(got["appservices"].([]any)) != 0 {
				t.Errorf("after the removal there are %v", got)
			}
		})
	}
}

// delivered looks at the metrics of a service that took events after it had refused
// one for ever.
func delivered(t *testing.T, from prometheus.Gatherer) {
	t.Helper()
	values := map[string]float64{}
	read := func() bool {
		families, err := from.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := strings.TrimPrefix(f.GetName(), "teahouse_appservice_")
				for _, l := range m.GetLabel() {
					if l.GetName() == "outcome" {
						name += " " + l.GetValue()
					} else if l.GetName() == "service" && l.GetValue() != "irc" {
						t.Errorf("%s is of %s", name, l.GetValue())
					}
				}
				values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
		return values["waiting_events"] == 0
	}
	eventually(t, "nothing waits", read)
	for name, ok := range map[string]bool{
		"transactions_total taken": values["transactions_total taken"] >= 2, "transactions_total failed": values["transactions_total failed"] >= 5,
		"events_total": values["events_total"] >= 4, "dead_letters_total": values["dead_letters_total"] == 1,
		"transaction_seconds": values["transaction_seconds"] == values["transactions_total taken"],
		"lag_seconds":         values["lag_seconds"] == 0, "failures": values["failures"] == 0,
	} {
		if _, there := values[name]; !there || !ok {
			t.Errorf("%s is %v", name, values[name])
		}
	}
}
