package httpx

import "time"

// Metrics is told of requests. Routes are named by their patterns, never by the
// rooms or users in them, so that their number stays what it is.
type Metrics interface {
	// Route is called once for each route and returns what its requests are
	// counted with. Requests of no route count as the route "unknown".
	Route(surface, method, route string) func(status int, took time.Duration)
	InFlight(delta int) // requests that are being answered, long polls included
	Panicked()          // a request panicked
}

// noMetrics counts nothing.
type noMetrics struct{}

func (noMetrics) Route(string, string, string) func(int, time.Duration) {
	return func(int, time.Duration) {}
}
func (noMetrics) InFlight(int) {}
func (noMetrics) Panicked()    {}
