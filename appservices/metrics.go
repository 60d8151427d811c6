package appservices

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// measures are what operators see of the delivery, by service.
type measures struct {
	transactions *prometheus.CounterVec
	events       *prometheus.CounterVec
	seconds      *prometheus.HistogramVec
	dead         *prometheus.CounterVec
}

func newMeasures(s *Services) *measures {
	service := []string{"service"}
	m := &measures{
		transactions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "teahouse_appservice_transactions_total", Help: "Transactions by what became of them: taken or failed."}, []string{"service", "outcome"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "teahouse_appservice_events_total", Help: "Events that application services took."}, service),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "teahouse_appservice_transaction_seconds", Help: "Time of a transaction that an application service took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}, service),
		dead: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "teahouse_appservice_dead_letters_total", Help: "Events that an application service refused for ever."}, service),
	}
	if s.Metrics != nil {
		s.Metrics.MustRegister(m.transactions, m.events, m.seconds, m.dead, backlog{s})
	}
	return m
}

func (m *measures) took(service string, events int, d time.Duration) {
	m.transactions.WithLabelValues(service, "taken").Inc()
	m.events.WithLabelValues(service).Add(float64(events))
	m.seconds.WithLabelValues(service).Observe(d.Seconds())
}

func (m *measures) failed(service string) { m.transactions.WithLabelValues(service, "failed").Inc() }

func (m *measures) buried(service string) { m.dead.WithLabelValues(service).Inc() }

// backlog tells what waits, read when it is asked for.
type backlog struct{ s *Services }

var (
	waitingEvents = prometheus.NewDesc("teahouse_appservice_waiting_events", "Events that wait for an application service.", []string{"service"}, nil)
	lagSeconds    = prometheus.NewDesc("teahouse_appservice_lag_seconds", "How long the first event has been waiting that the service has not taken yet.", []string{"service"}, nil)
	failures      = prometheus.NewDesc("teahouse_appservice_failures", "Failures since an application service last took a transaction.", []string{"service"}, nil)
)

func (b backlog) Describe(to chan<- *prometheus.Desc) {
	to <- waitingEvents
	to <- lagSeconds
	to <- failures
}

// scrapeTimeout bounds the reads of a scrape.
const scrapeTimeout = 5 * time.Second

func (b backlog) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	list, err := b.s.List(ctx)
	if err != nil {
		b.s.Log.Warn("what waits for application services could not be counted", "error", err)
		return
	}
	now := b.s.Now()
	for _, v := range list {
		var lag time.Duration
		if !v.Oldest.IsZero() {
			lag = max(now.Sub(v.Oldest), 0)
		}
		to <- prometheus.MustNewConstMetric(waitingEvents, prometheus.GaugeValue, float64(v.Waiting), v.ID)
		to <- prometheus.MustNewConstMetric(lagSeconds, prometheus.GaugeValue, lag.Seconds(), v.ID)
		to <- prometheus.MustNewConstMetric(failures, prometheus.GaugeValue, float64(v.Failures), v.ID)
	}
}
