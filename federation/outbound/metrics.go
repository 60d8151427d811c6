package outbound

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/teahouse-chat/teahouse/federation/transport"
)

// metrics are what can be measured of sending. None names a server.
type metrics struct {
	pdus, edus prometheus.Counter
	aside      prometheus.Counter
	outcomes   *prometheus.CounterVec
	seconds    prometheus.Histogram
}

// newMetrics registers them, unless reg is nil.
func newMetrics(reg prometheus.Registerer, q *Queues) (*metrics, error) {
	m := &metrics{
		pdus: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "teahouse_federation_sent_events_total", Help: "Events that other servers took."}),
		edus: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "teahouse_federation_sent_edus_total", Help: "EDUs that other servers took, before similar ones were merged."}),
		aside: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "teahouse_federation_set_aside_total", Help: "Events and EDUs that another server refuses for ever; the log tells which."}),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "teahouse_federation_transactions_total", Help: "Transactions by what became of them."}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "teahouse_federation_transaction_seconds", Help: "Time of a transaction that another server took.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 16)}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.pdus, m.edus, m.aside, m.outcomes, m.seconds,
		q.gauge("pending", "Servers that there is something to send to.", func(d *destination) bool { return d.lasting() || len(d.offers) > 0 }),
		q.gauge("failing", "Servers that did not take what was last sent.", func(d *destination) bool { return d.failures > 0 }),
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// gauge counts destinations.
func (q *Queues) gauge(name, help string, is func(*destination) bool) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "teahouse_federation_destinations_" + name, Help: help}, func() float64 {
		q.mu.Lock()
		defer q.mu.Unlock()
		n := 0
		for _, d := range q.all {
			if is(d) {
				n++
			}
		}
		return float64(n)
	})
}

// sent counts a transaction.
func (m *metrics) sent(t *transaction, err error, took time.Duration) {
	remote, answered := errors.AsType[*transport.RemoteError](err)
	outcome := "unreachable"
	switch {
	case err == nil:
		outcome = "taken"
		m.pdus.Add(float64(len(t.events)))
		m.edus.Add(float64(len(t.edus) + len(t.offers)))
		m.seconds.Observe(took.Seconds())
	case notAllowed(err):
		outcome = "not allowed"
	case poisonous(err):
		outcome = "refused"
	case answered && remote.Status < 500:
		outcome = "forbidden"
	case answered:
		outcome = "broken"
	}
	m.outcomes.WithLabelValues(outcome).Inc()
}
