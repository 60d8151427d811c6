package appservices

import (
	"crypto/sha256"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/teahouse-chat/teahouse/appservices/registration"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Service is a registered application service. It does not change: another
// registration of the same id is another Service.
type Service struct {
	*registration.Registration
	Sender matrix.UserID // the service's own user
	File   string        // that it is configured by; "" if it was added at run time
	nid    int64
	since  int64 // the position from which on it gets events
}

// knownUsers bounds for how many users it is kept which services cover them.
const knownUsers = 50_000

// set is what is registered at one time. It does not change.
type set struct {
	server    matrix.ServerName
	services  []*Service // in the order of their ids
	byID      map[string]*Service
	byToken   map[[sha256.Size]byte]*Service
	aliases   bool // some service has a namespace of aliases
	ephemeral bool // some service is sent typing, receipts and presence
	devices   bool // some service is sent messages to devices
	users     *lru.Cache[matrix.UserID, []*Service]
}

func newSet(server matrix.ServerName, services []*Service) *set {
	s := &set{server: server, services: services, byID: map[string]*Service{}, byToken: map[[sha256.Size]byte]*Service{}}
	s.users, _ = lru.New[matrix.UserID, []*Service](knownUsers) // fails for a size of 0 only
	for _, v := range services {
		s.byID[v.ID] = v
		s.byToken[sha256.Sum256([]byte(v.ASToken))] = v
		s.aliases = s.aliases || len(v.Aliases) > 0
		s.ephemeral = s.ephemeral || v.Ephemeral && v.URL != ""
		s.devices = s.devices || v.Devices && v.URL != ""
	}
	return s
}

// token finds the service that a token belongs to. Its hash is looked up, so that
// the time tells nothing of the tokens that there are.
func (s *set) token(t string) *Service {
	if len(s.byToken) == 0 {
		return nil
	}
	return s.byToken[sha256.Sum256([]byte(t))]
}

// covering lists the services that a local user belongs to. The slice is shared.
// spec: application-service#registration
func (s *set) covering(u matrix.UserID) []*Service {
	if len(s.services) == 0 || u.Server() != s.server {
		return nil
	}
	if list, ok := s.users.Get(u); ok {
		return list
	}
	var list []*Service
	for _, v := range s.services {
		if v.covers(u) {
			list = append(list, v)
		}
	}
	s.users.Add(u, list)
	return list
}

// covers tells whether a local user is the service's own or in its namespace.
func (v *Service) covers(u matrix.UserID) bool { return u == v.Sender || v.Users.Match(string(u)) }

// exclusive finds the service that claims a local user for itself alone.
func (s *set) exclusive(u matrix.UserID) *Service {
	for _, v := range s.covering(u) {
		if u == v.Sender || v.Users.MatchExclusive(string(u)) {
			return v
		}
	}
	return nil
}

// exclusiveAlias finds the service that claims an alias for itself alone.
func (s *set) exclusiveAlias(a matrix.RoomAlias) *Service {
	for _, v := range s.services {
		if v.Aliases.MatchExclusive(string(a)) {
			return v
		}
	}
	return nil
}

// speaking lists the services that know a third-party network.
func (s *set) speaking(protocol string) []*Service {
	var list []*Service
	for _, v := range s.services {
		for _, p := range v.Protocols {
			if p == protocol {
				list = append(list, v)
				break
			}
		}
	}
	return list
}
