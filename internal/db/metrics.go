package db

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the writer's.
type metrics struct {
	batch   prometheus.Histogram
	commit  prometheus.Histogram
	latency prometheus.Histogram
	queued  prometheus.Gauge
	failed  prometheus.Counter
}

// newMetrics registers them, unless reg is nil.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	seconds := prometheus.ExponentialBuckets(0.0001, 2, 16)
	m := &metrics{
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "teahouse_db_batch_operations", Help: "Operations committed in one transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10)}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "teahouse_db_batch_seconds", Help: "Time of one transaction, its commit included.",
			Buckets: seconds}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "teahouse_db_write_seconds", Help: "Time from the queue to the commit, of the oldest operation of each transaction.",
			Buckets: seconds}),
		queued: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "teahouse_db_queued_operations", Help: "Operations that wait for the next transaction."}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "teahouse_db_failed_operations_total", Help: "Operations that ended with an error, refusals included."}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.batch, m.commit, m.latency, m.queued, m.failed} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) committed(ops int, took, oldest time.Duration) {
	m.batch.Observe(float64(ops))
	m.commit.Observe(took.Seconds())
	m.latency.Observe(oldest.Seconds())
}
