package server

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/accounts"
	"github.com/teahouse-chat/teahouse/accounts/data"
	"github.com/teahouse-chat/teahouse/accounts/profiles"
	"github.com/teahouse-chat/teahouse/admin"
	"github.com/teahouse-chat/teahouse/directory"
	"github.com/teahouse-chat/teahouse/discovery"
	"github.com/teahouse-chat/teahouse/encryption"
	"github.com/teahouse-chat/teahouse/federation/answers"
	"github.com/teahouse-chat/teahouse/federation/policy"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/metrics"
	"github.com/teahouse-chat/teahouse/push"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/api"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/history"
	"github.com/teahouse-chat/teahouse/rooms/spaces"
	"github.com/teahouse-chat/teahouse/syncapi"
)

// assemble makes the features, each after those that it needs, and their routes.
func (s *Server) assemble(ctx context.Context, key event.SigningKey) error {
	cfg, deps := s.cfg, s.deps
	if err := s.services(ctx); err != nil {
		return err
	}
	accountData, err := data.New(data.Deps{
		DB: s.db, ServerName: cfg.ServerName, Now: deps.Now,
		Defaults: map[string]func(matrix.UserID) json.RawMessage{"m.push_rules": push.AccountData},
	})
	if err != nil {
		return err
	}
	users := &users{}
	remote, err := s.asking()
	if err != nil {
		return err
	}
	people, err := profiles.New(profiles.Deps{
		DB: s.db, ServerName: cfg.ServerName, Users: newcomers{users, s.Appservices}, Remote: remote.profiles, Log: deps.Log,
	})
	if err != nil {
		return err
	}
	if s.rooms, err = rooms.New(rooms.Deps{
		DB: s.db, ServerName: cfg.ServerName, Key: key, Now: deps.Now, Rand: deps.Rand, Log: deps.Log,
		Profiles: profileSource{people}, Policy: policy.Servers{Asker: s.outside.client}, Counts: push.Counts,
	}); err != nil {
		return err
	}
	aliases := directory.New(directory.Deps{DB: s.db, Engine: s.rooms, Profiles: profileSource{people}, Remote: remote.directory,
		Claims: s.Appservices, Bridges: s.Appservices})
	invites := welcoming{inviteRules{accountData}, newcomers{users, s.Appservices}}
	if err := s.federate(users, invites); err != nil {
		return err
	}
	roomAPI, err := api.New(api.Deps{
		Engine: s.rooms, Aliases: aliases, Remote: s.outside.remote(), Invites: invites, DefaultVersion: cfg.DefaultRoomVersion,
		Log: deps.Log,
	})
	if err != nil {
		return err
	}
	people.SetRooms(roomAPI)
	s.profiles = people
	if s.Accounts, err = accounts.New(accounts.Deps{
		DB: s.db, ServerName: cfg.ServerName, Config: accountsConfig(cfg), Now: deps.Now, Rand: deps.Rand, Log: deps.Log,
		Rooms: roomAPI, Appservices: serviceIdentities{s.Appservices}, Hooks: s.hooks(people, accountData),
	}); err != nil {
		return err
	}
	users.accounts = s.Accounts
	s.Appservices.Connect(s.rooms, s.Accounts, serviceAliases{aliases})
	keeping := encryption.Deps{
		DB: s.db, ServerName: cfg.ServerName, Rooms: s.rooms, Devices: deviceNames{}, UIA: passwordUIA{s.Accounts},
		Ended: removedDevices, Position: syncPosition, Now: deps.Now, Rand: deps.Rand, Log: deps.Log,
	}
	s.devices(&keeping)
	if s.encryption, err = encryption.New(keeping); err != nil {
		return err
	}
	s.outside.devices = s.encryption
	read := &reading{}
	if s.push, err = s.newPush(ctx, accountData, read); err != nil {
		return err
	}
	s.sync = syncapi.New(syncapi.Deps{
		DB: s.db, Rooms: s.rooms, Data: syncData{s.db, accountData}, Encryption: s.encryption, Rules: verdicts{s.push}, Sessions: users, Now: deps.Now, Log: deps.Log,
		Remote: s.ephemeral(), Services: s.Appservices, Presence: cfg.Presence.Enabled, MaxTimeline: cfg.Sync.MaxTimelineLimit, MaxWait: cfg.Sync.MaxTimeout,
	})
	read.sync = s.sync
	s.Appservices.Watch(s.sync, s.encryption)
	s.Accounts.OnLogout(s.sync.EndSession)
	reports, err := admin.New(admin.Deps{
		DB: s.db, ServerName: cfg.ServerName, Now: deps.Now, Rooms: reportable{s.rooms}, Users: users,
	})
	if err != nil {
		return err
	}
	about, err := discovery.New(discovery.Deps{
		PublicURL: cfg.ClientURL(), FederationName: cfg.Federation.Name, Support: support(cfg), DefaultRoomVersion: cfg.DefaultRoomVersion,
		PasswordChanges: true, LoginTokens: true, TURN: turn(cfg), Now: deps.Now,
	})
	if err != nil {
		return err
	}
	outside := spaces.New(spaces.Deps{DB: s.db, Engine: s.rooms, Aliases: aliases, Remote: remote.spaces})
	reading := history.New(history.Deps{
		Engine: s.rooms, Ignores: syncData{s.db, accountData}, Remote: s.outside.history(),
	})
	if err := s.openMedia(); err != nil {
		return err
	}
	s.edge = httpx.New(s.edgeOptions())
	for _, f := range []interface{ Routes() []httpx.Route }{
		s.Accounts, people, accountData, roomAPI, reading, outside, aliases, s.encryption, s.sync, reports, about, s.push, s.Appservices,
	} {
		s.edge.Add("client", f.Routes()...)
	}
	s.edge.Add("media", s.Media.Routes()...)
	s.edge.Add("admin", s.Accounts.AdminRoutes()...)
	s.edge.Add("admin", s.Appservices.AdminRoutes()...)
	s.edge.Add("wellknown", about.WellKnown()...)
	if cfg.Federation.Enabled {
		s.edge.Add("keys", s.outside.ring.Routes()...)
		s.edge.Add("federation", s.outside.routes(deps.Version)...)
		s.edge.Add("admin", s.outside.outbound.AdminRoutes()...)
		s.edge.Add("federation", s.encryption.FederationRoutes(s.outside.signed)...)
		s.edge.Add("federation", s.Media.FederationRoutes(s.outside.signedMedia)...)
		s.edge.Add("federation", answers.New(answers.Deps{
			Engine: s.rooms, Auth: s.outside.auth, Directory: aliases, Profiles: localProfiles{people}, OpenID: accountData, Spaces: outside,
			Now: deps.Now,
		}).Routes()...)
	}
	if deps.Metrics != nil {
		s.edge.Add("metrics", metrics.Route(deps.Metrics))
	}
	return s.Appservices.Start(ctx)
}

func (s *Server) edgeOptions() httpx.Options {
	o := httpx.Options{
		Auth: s.Accounts, Log: s.deps.Log, NoQueryToken: !s.cfg.Sessions.QueryToken, Now: s.deps.Now,
		Health: func(ctx context.Context) error { return checkName(ctx, s.db, s.cfg.ServerName) },
	}
	o.TrustedProxies = s.cfg.Proxies()
	if s.cfg.RateLimits.Enabled {
		o.Limits = httpx.NewLimiter(rates(s.cfg.RateLimits), s.deps.Now)
	}
	if s.deps.Metrics != nil {
		o.Metrics = metrics.HTTP(s.deps.Metrics)
	}
	return o
}

// hooks connect what happens to accounts with the features that keep more about
// people. Those of them that are made after the accounts are there before anything
// is served.
func (s *Server) hooks(people *profiles.Profiles, accountData *data.Data) accounts.Hooks {
	return accounts.Hooks{
		Registered: func(ctx context.Context, user matrix.UserID, displayName string) error {
			if displayName == "" {
				displayName = user.Localpart() // as people expect, until they choose one
			}
			quoted, err := json.Marshal(displayName)
			if err != nil {
				return err
			}
			return people.Set(ctx, user, profiles.KeyDisplayName, quoted)
		},
		Deactivated: func(ctx context.Context, user matrix.UserID, erase bool) error {
			if err := people.Erase(ctx, user); err != nil {
				return err
			}
			if err := s.encryption.Erase(ctx, user); err != nil || !erase {
				return err
			}
			if err := s.push.Erase(ctx, user); err != nil {
				return err
			}
			return accountData.Erase(ctx, user)
		},
		Renamed: func(tx *db.Tx, user matrix.UserID, device matrix.DeviceID) error {
			return s.encryption.Renamed(tx, user, device)
		},
	}
}
