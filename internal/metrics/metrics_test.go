package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

func TestScrape(t *testing.T) {
	reg := New("1.2.3")
	e := httpx.New(httpx.Options{Metrics: HTTP(reg), Log: slog.New(slog.DiscardHandler)})
	e.Add("client",
		httpx.JSON("GET", "/_matrix/client/v3/rooms/{roomId}/x", func(_ context.Context, _ *httpx.Caller, q *struct {
			Room matrix.RoomID `path:"roomId"`
		}) (*struct{}, error) {
			if q.Room == "!panic" {
				panic("on purpose")
			}
			return nil, nil
		}, httpx.NoAuth))
	e.Add("metrics", Route(reg))
	client, metrics := e.Handler("client"), e.Handler("metrics")
	ask := func(path string) {
		client.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
	}
	for i := range 50 {
		ask(fmt.Sprintf("/_matrix/client/v3/rooms/!room%d/x", i))
		ask(fmt.Sprintf("/_matrix/client/r0/rooms/!room%d/x", i))
		ask(fmt.Sprintf("/nowhere/%d", i))
	}
	ask("/_matrix/client/v3/rooms/!panic/x")

	w := httptest.NewRecorder()
	metrics.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text := w.Body.String()
	for _, want := range []string{
		`teahouse_http_requests_total{method="GET",route="/_matrix/client/v3/rooms/{roomId}/x",status="200",surface="client"} 100`,
		`teahouse_http_requests_total{method="GET",route="/_matrix/client/v3/rooms/{roomId}/x",status="500",surface="client"} 1`,
		`teahouse_http_requests_total{method="",route="unknown",status="404",surface="unknown"} 50`,
		`teahouse_http_request_seconds_count{method="GET",route="/_matrix/client/v3/rooms/{roomId}/x",surface="client"} 101`,
		`teahouse_http_requests_in_flight 1`, // this one
		`teahouse_http_panics_total 1`,
		`version="1.2.3"`, "go_goroutines ", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if n := len(regexp.MustCompile(`(?m)^teahouse_http_requests_total`).FindAllString(text, -1)); n != 3 {
		t.Errorf("%d series for 3 kinds of request", n)
	}
	w = httptest.NewRecorder()
	client.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 404 {
		t.Errorf("a client gets the metrics: %d", w.Code)
	}
}
