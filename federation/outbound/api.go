package outbound

import (
	"context"
	"net/http"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// AdminRoutes are what operators look at other servers with.
func (q *Queues) AdminRoutes() []httpx.Route {
	const list = "/_synapse/admin/v1/federation/destinations"
	return []httpx.Route{
		httpx.JSON(http.MethodGet, list, q.listDestinations, httpx.AdminOnly),
		httpx.JSON(http.MethodPost, list+"/{destination}/reset_connection", q.resetConnection, httpx.AdminOnly, httpx.EmptyBodyOK),
	}
}

const maxListed = 100

type listRequest struct {
	From  int `query:"from"`
	Limit int `query:"limit"`
}

type listAnswer struct {
	Destinations []listedDestination `json:"destinations"`
	Total        int                 `json:"total"`
	Next         int                 `json:"next_token,omitempty"`
}

// listedDestination has times in ms since 1970, 0 for none.
type listedDestination struct {
	Server      matrix.ServerName `json:"destination"`
	Failures    int               `json:"failures"`
	LastSuccess int64             `json:"last_success_ts"`
	LastFailure int64             `json:"last_failure_ts"`
	NextTry     int64             `json:"next_try_ts"`
	Error       string            `json:"error,omitempty"`
	Events      int               `json:"waiting_events"` // 1000 stands for more
	EDUs        int               `json:"waiting_edus"`
}

func (q *Queues) listDestinations(ctx context.Context, _ *httpx.Caller, r *listRequest) (*listAnswer, error) {
	if r.From < 0 || r.Limit < 0 {
		return nil, matrix.InvalidParam(`"from" and "limit" are not negative`)
	}
	all, err := q.Destinations(ctx)
	if err != nil {
		return nil, err
	}
	limit := r.Limit
	if limit == 0 || limit > maxListed {
		limit = maxListed
	}
	from := min(r.From, len(all))
	end := min(from+limit, len(all))
	a := &listAnswer{Destinations: make([]listedDestination, 0, end-from), Total: len(all)}
	if end < len(all) {
		a.Next = end
	}
	for _, d := range all[from:end] {
		a.Destinations = append(a.Destinations, listedDestination{
			d.Server, d.Failures, ms(d.LastSuccess), ms(d.LastFailure), ms(d.NextTry), d.Error, d.Events, d.EDUs,
		})
	}
	return a, nil
}

type resetRequest struct {
	Server matrix.ServerName `path:"destination"`
}

func (q *Queues) resetConnection(_ context.Context, _ *httpx.Caller, r *resetRequest) (*struct{}, error) {
	q.Retry(r.Server)
	return nil, nil
}
