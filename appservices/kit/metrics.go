package kit

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/teahouse-chat/teahouse/internal/db"
)

// measures are what operators see of a service. All have the label service, the id of
// its registration.
type measures struct {
	events  *prometheus.CounterVec
	handler prometheus.Histogram
	sends   *prometheus.CounterVec
	limited prometheus.Counter

	registerer prometheus.Registerer // nil: nobody looks
	registered []prometheus.Collector
}

func newMeasures() *measures {
	return &measures{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "teahouse_service_events_total", Help: "Attempts to handle an event by what became of it: handled, failed or set_aside."}, []string{"outcome"}),
		handler: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "teahouse_service_handler_seconds", Help: "Time that the handlers of an event took which was handled.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16)}),
		sends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "teahouse_service_sends_total", Help: "Attempts to send something by what became of it: sent, failed or given_up."}, []string{"outcome"}),
		limited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "teahouse_service_limited_total", Help: "Attempts to send something that the homeserver refused for now (429)."}),
	}
}

// register has a registry show the measures of a service.
func (m *measures) register(s *Service) error {
	if s.cfg.Metrics == nil {
		return nil
	}
	m.registerer = prometheus.WrapRegistererWith(prometheus.Labels{"service": s.cfg.ID}, s.cfg.Metrics)
	for _, c := range []prometheus.Collector{m.events, m.handler, m.sends, m.limited, queues{s}} {
		if err := m.registerer.Register(c); err != nil {
			m.unregister()
			return fmt.Errorf("kit: the metrics of %s: %w", s.cfg.ID, err)
		}
		m.registered = append(m.registered, c)
	}
	return nil
}

func (m *measures) unregister() {
	for _, c := range m.registered {
		m.registerer.Unregister(c)
	}
	m.registered = nil
}

// queues tells what waits, read when it is asked for.
type queues struct{ s *Service }

var (
	inboxEvents  = prometheus.NewDesc("teahouse_service_inbox_events", "Events that wait to be handled.", nil, nil)
	inboxOldest  = prometheus.NewDesc("teahouse_service_inbox_oldest_seconds", "How long the oldest of these has been waiting.", nil, nil)
	outboxRows   = prometheus.NewDesc("teahouse_service_outbox_rows", "What waits to be sent.", nil, nil)
	outboxOldest = prometheus.NewDesc("teahouse_service_outbox_oldest_seconds", "How long the oldest of it has been waiting.", nil, nil)
)

func (q queues) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{inboxEvents, inboxOldest, outboxRows, outboxOldest} {
		to <- d
	}
}

var selectQueues = basis.SQL(`
	SELECT i.n, i.oldest, o.n, o.oldest
	FROM (SELECT count(*) AS n, min(received) AS oldest FROM kit_inbox WHERE state = 0) AS i,
		(SELECT count(*) AS n, min(created) AS oldest FROM kit_outbox WHERE state = 0) AS o`)

// collectTimeout bounds the reads of a scrape.
const collectTimeout = 5 * time.Second

func (q queues) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	var events, rows int64
	var received, created *int64
	_, _, err := db.One(ctx, q.s.db, selectQueues, func(r db.Scanner) (struct{}, error) {
		return struct{}{}, r.Scan(&events, &received, &rows, &created)
	})
	if err != nil {
		q.s.log.Warn("what waits could not be counted", "error", err)
		return
	}
	for d, v := range map[*prometheus.Desc]float64{
		inboxEvents: float64(events), inboxOldest: q.age(received), outboxRows: float64(rows), outboxOldest: q.age(created),
	} {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
}

// age is how many seconds ago a time was; 0 if there is none.
func (q queues) age(at *int64) float64 {
	if at == nil {
		return 0
	}
	return max(q.s.clock.Now().Sub(time.UnixMilli(*at)), 0).Seconds()
}
