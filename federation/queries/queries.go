package queries

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/spaces"
)

// Asker asks other servers; it is a *transport.Client.
type Asker interface {
	JSON(ctx context.Context, r transport.Request, answer any) error
}

// Deps are what the questions are asked with.
type Deps struct {
	Client Asker
	Now    func() time.Time
}

// Queries asks other servers. It is safe for concurrent use.
type Queries struct {
	client   Asker
	aliases  *cache[aliasAnswer]
	profiles *cache[map[string]json.RawMessage]
	spaces   *cache[*spaces.Answer]
}

// New makes the questions ready to be asked.
func New(d Deps) (*Queries, error) {
	q := &Queries{client: d.Client}
	var err error
	if q.aliases, err = newCache(d.Now, aliasKept, aliasAnswer.size); err != nil {
		return nil, err
	}
	if q.profiles, err = newCache(d.Now, profileKept, profileSize); err != nil {
		return nil, err
	}
	if q.spaces, err = newCache(d.Now, hierarchyKept, answerSize); err != nil {
		return nil, err
	}
	q.spaces.noRefusals = true // who may see a room changes with every join
	return q, nil
}

// get asks for JSON and makes the failure one for a client.
func (q *Queries) get(ctx context.Context, r transport.Request, answer any) error {
	r.Method = http.MethodGet
	return forClient(r.Destination, q.client.JSON(ctx, r, answer))
}

func forClient(server matrix.ServerName, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, transport.ErrNotAllowed) {
		return matrix.Forbidden("This server does not federate with %s", server).Because(err)
	}
	// That the other server does not have an endpoint says nothing about ours.
	if refused, ok := errors.AsType[*transport.RemoteError](err); ok && refused.Code != matrix.CodeUnrecognized {
		return refused.Matrix()
	}
	return matrix.NewError(http.StatusBadGateway, matrix.CodeUnknown, "%s does not answer; try again later", server).Because(err)
}

// maxServers bounds the servers that are taken from one answer.
const maxServers = 50

// serverNames are those of a list that are such, each once.
func serverNames(list []string) []matrix.ServerName {
	var names []matrix.ServerName
	for _, text := range list {
		name, err := matrix.ParseServerName(text)
		if err == nil && !slices.Contains(names, name) {
			names = append(names, name)
		}
		if len(names) == maxServers {
			break
		}
	}
	return names
}
