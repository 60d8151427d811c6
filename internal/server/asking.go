package server

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/accounts/profiles"
	"github.com/teahouse-chat/teahouse/directory"
	"github.com/teahouse-chat/teahouse/federation/queries"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/spaces"
)

// asking is how features ask other servers on behalf of clients; all nil where
// there is no federation.
type asking struct {
	profiles  profiles.Remote
	directory directory.Remote
	spaces    spaces.Remote
}

func (s *Server) asking() (asking, error) {
	if !s.cfg.Federation.Enabled {
		return asking{}, nil
	}
	q, err := queries.New(queries.Deps{Client: s.outside.client, Now: s.deps.Now})
	return asking{remoteProfiles{q}, q, q}, err
}

// remoteProfiles gives profiles of other servers' users, always in full: that is
// what is remembered.
type remoteProfiles struct{ queries *queries.Queries }

func (r remoteProfiles) Profile(ctx context.Context, user matrix.UserID, _ string) (profiles.Fields, error) {
	return r.queries.Profile(ctx, user)
}

// localProfiles gives other servers the profiles of ours.
type localProfiles struct{ people *profiles.Profiles }

func (l localProfiles) Profile(ctx context.Context, user matrix.UserID, key string) (map[string]json.RawMessage, error) {
	return l.people.Lookup(ctx, user, key)
}
