package appservices

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// protocolTimeout is how long a service may take to describe a network, or to look
// something up there.
const protocolTimeout = 10 * time.Second

// network is how a service describes a third-party network. What is in the
// description beside the instances is passed on as it is.
type network map[string]json.RawMessage

// networks asks all services that know one of the protocols to describe it, at the
// same time. A service that does not answer is left out.
func (s *Services) networks(ctx context.Context, protocols []string) map[string]network {
	ctx, cancel := context.WithTimeout(ctx, protocolTimeout)
	defer cancel()
	set := s.current.Load()
	type described struct {
		protocol string
		network  network
	}
	var asked []chan described
	for _, p := range protocols {
		for _, v := range set.speaking(p) {
			answer := make(chan described, 1)
			asked = append(asked, answer)
			go func() { answer <- described{p, s.describe(ctx, v, p)} }()
		}
	}
	all := map[string]network{}
	for _, answer := range asked {
		d := <-answer
		switch known := all[d.protocol]; {
		case d.network == nil:
		case known == nil:
			all[d.protocol] = d.network
		default:
			known["instances"] = joinArrays(known["instances"], d.network["instances"])
		}
	}
	return all
}

// describe asks a service for a network; nil if it does not tell.
// spec: application-service#get_matrixappv1thirdpartyprotocolprotocol
func (s *Services) describe(ctx context.Context, v *Service, protocol string) network {
	if v.URL == "" {
		return nil
	}
	var n network
	err := s.ask(ctx, v, http.MethodGet, "/thirdparty/protocol/"+url.PathEscape(protocol), nil, nil, &n)
	if err != nil || n == nil {
		s.Log.Debug("an application service does not describe a third-party network", "service", v.ID, "protocol", protocol, "error", err)
		return nil
	}
	for _, key := range []string{"user_fields", "location_fields"} {
		if !isArray(n[key]) {
			n[key] = json.RawMessage("[]")
		}
	}
	var instances []map[string]any
	if json.Unmarshal(n["instances"], &instances) != nil {
		instances = nil
	}
	for _, i := range instances {
		if id, _ := i["network_id"].(string); i["instance_id"] == nil && id != "" {
			i["instance_id"] = instanceID(v, id)
		}
	}
	encoded, err := json.Marshal(append([]map[string]any{}, instances...))
	if err != nil {
		return nil
	}
	n["instances"] = encoded
	return n
}

// instanceID names a network of a service for everybody.
func instanceID(v *Service, network string) string { return v.ID + "|" + network }

func isArray(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '[' }

// joinArrays joins two JSON arrays.
func joinArrays(a, b json.RawMessage) json.RawMessage {
	a, b = bytes.TrimSpace(a), bytes.TrimSpace(b)
	switch {
	case !isArray(b) || len(bytes.TrimSpace(b[1:len(b)-1])) == 0:
		return a
	case !isArray(a) || len(bytes.TrimSpace(a[1:len(a)-1])) == 0:
		return b
	}
	return slices.Concat(a[:len(a)-1], []byte(","), b[1:])
}

type nothing struct{}

// getProtocols describes all third-party networks.
// spec: client-server#get_matrixclientv3thirdpartyprotocols
func (s *Services) getProtocols(ctx context.Context, _ *httpx.Caller, _ *nothing) (*map[string]network, error) {
	var protocols []string
	for _, v := range s.current.Load().services {
		for _, p := range v.Protocols {
			if !slices.Contains(protocols, p) {
				protocols = append(protocols, p)
			}
		}
	}
	all := s.networks(ctx, protocols)
	return &all, nil
}

type protocolRequest struct {
	Protocol string `path:"protocol"`
}

// getProtocol describes one.
// spec: client-server#get_matrixclientv3thirdpartyprotocolprotocol
func (s *Services) getProtocol(ctx context.Context, _ *httpx.Caller, q *protocolRequest) (*network, error) {
	n := s.networks(ctx, []string{q.Protocol})[q.Protocol]
	if n == nil {
		return nil, noNetwork()
	}
	return &n, nil
}

func noNetwork() error { return matrix.NotFound("This server is not connected to such a network") }

// lookUp asks services and joins the lists that they answer with.
func (s *Services) lookUp(ctx context.Context, of []*Service, path string, query url.Values) []json.RawMessage {
	ctx, cancel := context.WithTimeout(ctx, protocolTimeout)
	defer cancel()
	answers := make([][]json.RawMessage, len(of))
	var all sync.WaitGroup
	for i, v := range of {
		if v.URL == "" {
			continue
		}
		all.Go(func() {
			if err := s.ask(ctx, v, http.MethodGet, path, query, nil, &answers[i]); err != nil {
				s.Log.Debug("an application service finds nothing", "service", v.ID, "path", path, "error", err)
			}
		})
	}
	all.Wait()
	found := slices.Concat(answers...)
	return slices.DeleteFunc(found, func(raw json.RawMessage) bool { return len(raw) == 0 || raw[0] != '{' })
}

// listed writes a list of objects; 404 M_NOT_FOUND if there are none.
func listed(found []json.RawMessage) (*[]json.RawMessage, error) {
	if len(found) == 0 {
		return nil, matrix.NotFound("Nothing was found")
	}
	return &found, nil
}

// thirdPartyRoute makes a route that looks something up in a network by its fields.
// spec: client-server#get_matrixclientv3thirdpartylocationprotocol
func (s *Services) thirdPartyRoute(kind string) httpx.Route {
	return httpx.Raw(http.MethodGet, "/_matrix/client/v3/thirdparty/"+kind+"/{protocol}", func(w http.ResponseWriter, r *http.Request, _ *httpx.Caller) error {
		protocol := r.PathValue("protocol")
		of := s.current.Load().speaking(protocol)
		if len(of) == 0 {
			return noNetwork()
		}
		query := r.URL.Query()
		query.Del("access_token")
		found, err := listed(s.lookUp(r.Context(), of, "/thirdparty/"+kind+"/"+url.PathEscape(protocol), query))
		if err != nil {
			return err
		}
		return httpx.Write(w, found)
	})
}

type aliasRequest struct {
	Alias matrix.RoomAlias `query:"alias"`
}

// getLocation finds what a room alias leads to in third-party networks.
// spec: client-server#get_matrixclientv3thirdpartylocation
func (s *Services) getLocation(ctx context.Context, _ *httpx.Caller, q *aliasRequest) (*[]json.RawMessage, error) {
	return listed(s.lookUp(ctx, s.connected(), "/thirdparty/location", url.Values{"alias": {string(q.Alias)}}))
}

type userRequest struct {
	User matrix.UserID `query:"userid"`
}

// getUser finds whom a user stands for in third-party networks.
// spec: client-server#get_matrixclientv3thirdpartyuser
func (s *Services) getUser(ctx context.Context, _ *httpx.Caller, q *userRequest) (*[]json.RawMessage, error) {
	return listed(s.lookUp(ctx, s.connected(), "/thirdparty/user", url.Values{"userid": {string(q.User)}}))
}

// connected lists the services that know any third-party network.
func (s *Services) connected() []*Service {
	return slices.DeleteFunc(slices.Clone(s.current.Load().services), func(v *Service) bool { return len(v.Protocols) == 0 })
}
