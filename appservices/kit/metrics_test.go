package kit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"maunium.net/go/mautrix/event"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/kit/kittest"
)

// series reads what a registry shows, by name and the outcome that it is about.
func series(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				switch {
				case l.GetName() == "outcome":
					name += " " + l.GetValue()
				case l.GetName() != "service" || l.GetValue() != "bot":
					t.Errorf("%s is labelled %s=%q", name, l.GetName(), l.GetValue())
				}
			}
			all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// What operators see: what waits, for how long, and what became of it. A service that
// is started again goes on being seen.
func TestMetrics(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		reg := prometheus.NewRegistry()
		r := kittest.Start(t, kittest.Options{Database: url, Open: func(ctx context.Context, c kit.Config) (kittest.Service, error) {
			c.Metrics = reg
			s, err := kit.Open(ctx, c)
			if err != nil {
				return nil, err
			}
			s.On(event.EventMessage, func(tx *kit.Tx, ev *kit.Event) error {
				if ev.Text() == "bad" {
					return errors.New("as it must")
				}
				tx.Reply(ev, ev.Text())
				return nil
			})
			return s, nil
		}})
		alice := r.User("alice")
		room := alice.CreateRoom(r.Bot())
		r.Settle()
		r.Kill()
		r.Settle()
		check := func(want map[string]float64) {
			t.Helper()
			got := series(t, reg)
			for name, v := range want {
				if have, ok := got["teahouse_service_"+name]; !ok || have != v {
					t.Errorf("%s is %v, and not %v", name, have, v)
				}
			}
		}
		r.Break(kittest.Faults{Limit: 1})
		alice.Say(room, "good")
		r.Pass(time.Second)
		check(map[string]float64{
			"events_total handled": 1, "handler_seconds": 1, "inbox_events": 0, "inbox_oldest_seconds": 0,
			"outbox_rows": 1, "outbox_oldest_seconds": 1, "limited_total": 1, "sends_total failed": 1,
		})
		r.Heal()
		r.Settle()
		alice.Say(room, "bad")
		r.Pass(5 * time.Second)
		check(map[string]float64{"inbox_events": 1, "inbox_oldest_seconds": 5, "events_total failed": 2, "sends_total sent": 1})
		r.Settle()
		check(map[string]float64{"inbox_events": 0, "events_total set_aside": 1, "events_total failed": 3, "outbox_rows": 0, "outbox_oldest_seconds": 0})
	})
}
