package metrics

import (
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/teahouse-chat/teahouse/internal/httpx"
)

// New makes a registry with the metrics of the Go runtime, of the process and
// of the build.
func New(version string) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "teahouse_build_info", Help: "Always 1; the labels tell what runs.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()},
	})
	build.Set(1)
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build)
	return reg
}

// Route serves the metrics at /metrics; it belongs to the surface of that name.
func Route(reg prometheus.Gatherer) httpx.Route {
	h := promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	return httpx.Raw(http.MethodGet, "/metrics", func(w http.ResponseWriter, r *http.Request, _ *httpx.Caller) error {
		h.ServeHTTP(w, r)
		return nil
	}, httpx.NoAuth)
}

// HTTP counts requests by surface, method, route and status.
func HTTP(reg prometheus.Registerer) httpx.Metrics {
	m := &requests{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "teahouse_http_requests_total", Help: "HTTP requests that were answered.",
		}, []string{"surface", "method", "route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "teahouse_http_request_seconds", Help: "Time from the header of a request to the end of its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"surface", "method", "route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "teahouse_http_requests_in_flight", Help: "HTTP requests that are being answered, long polls included.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "teahouse_http_panics_total", Help: "Requests that panicked; each is a bug with a line in the log.",
		}),
	}
	reg.MustRegister(m.total, m.seconds, m.inFlight, m.panics)
	return m
}

type requests struct {
	total    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight prometheus.Gauge
	panics   prometheus.Counter
}

func (m *requests) InFlight(delta int) { m.inFlight.Add(float64(delta)) }
func (m *requests) Panicked()          { m.panics.Inc() }

// Route keeps the counters of a route at hand, so that a request looks no
// labels up. They are made when they are first needed: most pairs of route and
// status never are.
func (m *requests) Route(surface, method, route string) func(int, time.Duration) {
	var byStatus [600]atomic.Pointer[prometheus.Counter]
	var seconds atomic.Pointer[prometheus.Observer]
	return func(status int, took time.Duration) {
		if status < 0 || status >= len(byStatus) {
			status = 0
		}
		c := byStatus[status].Load()
		if c == nil {
			counter := m.total.WithLabelValues(surface, method, route, strconv.Itoa(status))
			c = &counter
			byStatus[status].Store(c)
		}
		(*c).Inc()
		o := seconds.Load()
		if o == nil {
			observer := m.seconds.WithLabelValues(surface, method, route)
			o = &observer
			seconds.Store(o)
		}
		(*o).Observe(took.Seconds())
	}
}
