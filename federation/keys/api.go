package keys

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const (
	validity   = 24 * time.Hour // of our answer
	republish  = time.Hour      // how long an answer is given again
	maxQueried = 1000           // servers in one query to us
	maxWanted  = 100            // of these that we ask
	queryTime  = 15 * time.Second
)

// Routes lists the key exchange API, which belongs to the surface "keys".
func (r *Ring) Routes() []httpx.Route {
	return []httpx.Route{
		httpx.JSON(http.MethodGet, "/_matrix/key/v2/server", r.getServer, httpx.NoAuth, httpx.TrailingSlash),
		httpx.JSON(http.MethodGet, "/_matrix/key/v2/server/{keyId}", r.getServerKey, httpx.NoAuth),
		httpx.JSON(http.MethodGet, "/_matrix/key/v2/query/{serverName}", r.getQuery, httpx.NoAuth),
		httpx.JSON(http.MethodPost, "/_matrix/key/v2/query", r.postQuery, httpx.NoAuth),
	}
}

// Published gives the signed answer about our own keys. It is good for 23 hours
// at least.
// spec: server-server#get_matrixkeyv2server
func (r *Ring) Published() ([]byte, error) {
	p := &r.published
	p.Lock()
	defer p.Unlock()
	now := r.o.Now()
	if age := now.Sub(p.made); p.answer != nil && age >= 0 && age < republish {
		return p.answer, nil
	}
	answer, err := publish(r.o.Server, r.o.Keys, now.Add(validity))
	if err != nil {
		return nil, err
	}
	p.answer, p.made = answer, now
	return answer, nil
}

func (r *Ring) getServer(context.Context, *httpx.Caller, *struct{}) (*httpx.RawJSON, error) {
	answer, err := r.Published()
	return (*httpx.RawJSON)(&answer), err
}

// getServerKey is the deprecated form: whichever key is named, all are told.
func (r *Ring) getServerKey(ctx context.Context, c *httpx.Caller, _ *struct {
	Key string `path:"keyId"`
}) (*httpx.RawJSON, error) {
	return r.getServer(ctx, c, nil)
}

type queryAnswer struct {
	Servers []json.RawMessage `json:"server_keys"`
}

// spec: server-server#get_matrixkeyv2queryservername
func (r *Ring) getQuery(ctx context.Context, _ *httpx.Caller, q *struct {
	Server  string `path:"serverName"`
	Minimum *int64 `query:"minimum_valid_until_ts"`
}) (*queryAnswer, error) {
	server, err := matrix.ParseServerName(q.Server)
	if err != nil {
		return nil, err
	}
	return r.answer(ctx, []want{r.wanted(server, nil, q.Minimum)})
}

// spec: server-server#post_matrixkeyv2query
func (r *Ring) postQuery(ctx context.Context, _ *httpx.Caller, q *struct {
	Servers map[matrix.ServerName]map[string]struct {
		Minimum *int64 `json:"minimum_valid_until_ts"`
	} `json:"server_keys"`
}) (*queryAnswer, error) {
	if q.Servers == nil {
		return nil, matrix.MissingParam(`"server_keys" is missing`)
	}
	if len(q.Servers) > maxQueried {
		return nil, matrix.TooLarge("A query may name %d servers", maxQueried)
	}
	var wants []want
	for server, ids := range q.Servers {
		if _, err := matrix.ParseServerName(string(server)); err != nil {
			continue // nobody has such a name, and the others are still of use
		}
		if len(ids) == 0 {
			wants = append(wants, r.wanted(server, nil, nil))
		}
		for id, c := range ids {
			if len(wants) < 2*maxQueried {
				wants = append(wants, r.wanted(server, []string{id}, c.Minimum))
			}
		}
	}
	return r.answer(ctx, wants)
}

func (r *Ring) wanted(server matrix.ServerName, ids []string, minimum *int64) want {
	w := want{server: server, ids: ids, at: r.o.Now().UnixMilli(), fresh: true}
	if minimum != nil {
		w.at = max(*minimum, 0)
	}
	return w
}

// answer signs what the servers tell. It asks some of those whose answers are
// missing or stale, but no other notary, and keeps nothing in the database that
// was not there: anybody may ask for any name.
func (r *Ring) answer(ctx context.Context, wants []want) (*queryAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	slices.SortStableFunc(wants, func(a, b want) int {
		switch {
		case a.server < b.server:
			return -1
		case a.server > b.server:
			return 1
		}
		return 0
	})
	records, err := r.ensure(ctx, wants[:min(maxWanted, len(wants))], false)
	if err != nil {
		return nil, err
	}
	var servers []matrix.ServerName
	for _, w := range wants {
		if len(servers) == 0 || servers[len(servers)-1] != w.server {
			servers = append(servers, w.server)
		}
	}
	rest, err := r.load(ctx, servers)
	if err != nil {
		return nil, err
	}
	a := &queryAnswer{Servers: []json.RawMessage{}}
	for _, s := range servers {
		rec := records[s]
		if rec == nil {
			rec = rest[s]
		}
		signed, err := r.countersigned(s, rec)
		if err != nil {
			return nil, err
		}
		if signed != nil {
			a.Servers = append(a.Servers, signed)
		}
	}
	return a, nil
}

func (r *Ring) countersigned(server matrix.ServerName, rec *record) ([]byte, error) {
	if server == r.o.Server {
		return r.Published()
	}
	if rec == nil || rec.answer == nil {
		return nil, nil
	}
	return event.SignJSON(rec.answer, string(r.o.Server), r.o.Keys.Current)
}
