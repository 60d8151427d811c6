package inbound

import "github.com/prometheus/client_golang/prometheus"

// metrics tell what came in and what became of it.
type metrics struct {
	pdus   *prometheus.CounterVec
	edus   *prometheus.CounterVec
	gaps   *prometheus.CounterVec
	staged prometheus.Gauge
	lag    prometheus.Histogram
}

// newMetrics registers them, unless reg is nil.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		pdus: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "teahouse_federation_received_pdus_total", Help: "Events of other servers, by what became of them.",
		}, []string{"outcome"}),
		edus: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "teahouse_federation_received_edus_total", Help: "Ephemeral data that other servers sent, by type and by what became of it.",
		}, []string{"type", "outcome"}),
		gaps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "teahouse_federation_gaps_total", Help: "Attempts to fetch what received events refer to, by how they ended.",
		}, []string{"outcome"}),
		staged: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "teahouse_federation_staged_events", Help: "Received events that are not brought into their rooms yet.",
		}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "teahouse_federation_inbound_lag_seconds", Help: "Time from the receipt of an event until it is brought into its room.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 12),
		}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.pdus, m.edus, m.gaps, m.staged, m.lag} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
