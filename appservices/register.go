package appservices

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/appservices/registration"
	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// fileState is a file of the configuration as it was looked at last.
type fileState struct {
	modified time.Time
	size     int64
	problem  error
	clashed  bool  // with others, so that it may be good once these have changed
	version  int64 // of what was registered then
}

// Reload looks whether the files of the configuration or what is registered have
// changed, by this process or another one, and takes up what has.
func (s *Services) Reload(ctx context.Context) error {
	s.registering.Lock()
	defer s.registering.Unlock()
	before, err := readProgress(ctx, s.DB)
	if err != nil {
		return err
	}
	for _, name := range s.Files {
		if err := s.readFile(ctx, name, before.version); err != nil {
			return err
		}
	}
	p, err := readProgress(ctx, s.DB)
	if err != nil || p.version == s.version {
		return err
	}
	return s.load(ctx)
}

// retire notes which services had their files taken out of the configuration. What
// they claim is free for others meanwhile.
func (s *Services) retire(ctx context.Context) error {
	rows, err := db.All(ctx, s.DB, listServices, scanRecord)
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *db.Tx) error {
		for _, row := range rows {
			if row.file == "" || row.asleep || slices.Contains(s.Files, row.file) {
				continue
			}
			if err := errors.Join(tx.Exec(sleepService, row.nid), tx.Exec(bumpVersion)); err != nil {
				return err
			}
		}
		return nil
	})
}

// readFile registers what a file says, if it is another one than before, or if what it
// clashed with may be gone: what is registered has a version. While a file is wrong,
// what it said before stays in force.
func (s *Services) readFile(ctx context.Context, name string, version int64) error {
	before := s.files[name]
	info, err := os.Stat(name)
	if err == nil && info.ModTime().Equal(before.modified) && info.Size() == before.size && !(before.clashed && before.version != version) {
		return nil
	}
	var text []byte
	now := fileState{version: version}
	if err == nil {
		now.modified, now.size = info.ModTime(), info.Size()
		text, err = os.ReadFile(name)
	}
	if err != nil {
		now.problem = config.Unreadable(name, err)
	} else if r, err := registration.Parse(name, text); err != nil {
		now.problem = err
	} else if err := s.put(ctx, r, text, name); err != nil {
		refused, ok := errors.AsType[*matrix.Error](err)
		if !ok {
			return err
		}
		now.problem, now.clashed = &config.Problem{File: name, What: refused.Text}, true
	} else {
		s.tellUnknown(r)
	}
	if now.problem != nil && (before.problem == nil || before.problem.Error() != now.problem.Error()) {
		s.Log.Error("the registration file of an application service is not taken; the server runs without it, or with what it said before", "error", now.problem)
	}
	s.files[name] = now
	return nil
}

// tellUnknown logs which fields of a registration do nothing.
func (s *Services) tellUnknown(r *registration.Registration) {
	for _, p := range r.Unknown {
		s.Log.Warn("the registration of an application service has a field that is not known", "service", r.ID, "field", p)
	}
}

// put stores a registration, new or in the place of one with the same id. It fails
// with a 409 if it clashes with another one, or if it would take a service out of a
// file of the configuration.
func (s *Services) put(ctx context.Context, r *registration.Registration, text []byte, file string) error {
	return s.DB.Write(ctx, func(tx *db.Tx) error {
		rows, err := db.All(ctx, tx, listServices, scanRecord)
		if err != nil {
			return err
		}
		same := false
		for _, row := range rows {
			switch configured := row.file != "" && slices.Contains(s.Files, row.file); {
			case row.id == r.ID && configured && row.file != file:
				return conflict("the service %q is registered by the file %s", r.ID, row.file)
			case row.id == r.ID:
				same = string(row.text) == string(text) && row.file == file && !row.asleep
				continue
			case row.file != "" && row.file == file:
				if err := drop(tx, row.nid); err != nil { // its file has another id now
					return err
				}
				continue
			case row.asleep:
				continue
			}
			other, err := registration.Parse(row.id, row.text)
			if err != nil {
				continue // it was taken by an older version; load tells of it
			}
			if err := registration.Clash(r, other, s.ServerName); err != nil {
				return conflict("%s", err)
			}
		}
		if same {
			return nil
		}
		if err := tx.Exec(upsertService, s.nids.Next(), r.ID, file, text, tx.Position()); err != nil {
			return err
		}
		return tx.Exec(bumpVersion)
	})
}

func conflict(format string, args ...any) error {
	return matrix.NewError(http.StatusConflict, matrix.CodeInvalidParam, format, args...)
}

// drop deletes a service with all that belongs to it.
func drop(tx *db.Tx, nid int64) error {
	for _, stmt := range []*db.Stmt{dropEvents, dropTxns, dropDead, dropRooms, deleteService} {
		if err := tx.Exec(stmt, nid); err != nil {
			return err
		}
	}
	return tx.Exec(bumpVersion)
}

// load makes the set of the rows, and has couriers for its services.
func (s *Services) load(ctx context.Context) error {
	var p progress
	var rows []record
	err := s.DB.View(ctx, func(q db.Querier) (err error) {
		if p, err = readProgress(ctx, q); err == nil {
			rows, err = db.All(ctx, q, listServices, scanRecord)
		}
		return err
	})
	if err != nil {
		return err
	}
	var list []*Service
	for _, row := range rows {
		if row.asleep {
			continue
		}
		r, err := registration.Parse(row.id, row.text)
		if err != nil {
			s.Log.Error("an application service is left out: its registration is not valid any more", "service", row.id, "error", err)
			continue
		}
		list = append(list, &Service{Registration: r, Sender: r.Sender(s.ServerName), File: row.file, nid: row.nid, since: row.since})
	}
	s.current.Store(newSet(s.ServerName, list))
	s.version = p.version
	s.employ(rows)
	return s.provide(ctx)
}

// provide makes the accounts of the services' own users, so that people can invite
// them before the service has said anything.
func (s *Services) provide(ctx context.Context) error {
	if s.accounts == nil {
		return nil // Start does it
	}
	for _, v := range s.current.Load().services {
		if err := s.accounts.Provide(ctx, v.Sender, v.ID); err != nil {
			return err
		}
	}
	return nil
}

// Add registers a service by the text of its registration, or replaces one that was
// added before. name is for the errors.
func (s *Services) Add(ctx context.Context, name string, text []byte) (*registration.Registration, error) {
	r, err := registration.Parse(name, text)
	if err != nil {
		return nil, matrix.InvalidParam("%s", err)
	}
	if err := s.outside(r.ID); err != nil {
		return nil, err
	}
	return r, s.install(ctx, r, text)
}

// Install is Add for services within the server, too.
func (s *Services) Install(ctx context.Context, name string, text []byte) (*registration.Registration, error) {
	r, err := registration.Parse(name, text)
	if err != nil {
		return nil, matrix.InvalidParam("%s", err)
	}
	return r, s.install(ctx, r, text)
}

func (s *Services) install(ctx context.Context, r *registration.Registration, text []byte) error {
	return s.change(ctx, func() error { return s.put(ctx, r, text, "") })
}

// Remove ends a service: its tokens are worth nothing any more, and what waits for
// it is deleted. Its users stay.
func (s *Services) Remove(ctx context.Context, id string) error {
	if err := s.outside(id); err != nil {
		return err
	}
	return s.Uninstall(ctx, id)
}

// Uninstall is Remove for services within the server, too.
func (s *Services) Uninstall(ctx context.Context, id string) error {
	return s.change(ctx, func() error {
		return s.DB.Write(ctx, func(tx *db.Tx) error {
			row, err := s.row(ctx, tx, id)
			if err != nil {
				return err
			}
			return drop(tx, row.nid)
		})
	})
}

// Rotate gives a service new tokens and returns its registration with them.
func (s *Services) Rotate(ctx context.Context, id string) ([]byte, error) {
	if err := s.outside(id); err != nil {
		return nil, err
	}
	var text []byte
	err := s.change(ctx, func() error {
		return s.DB.Write(ctx, func(tx *db.Tx) error {
			row, err := s.row(ctx, tx, id)
			if err != nil {
				return err
			}
			if text, err = registration.WithTokens(row.text, registration.NewToken(), registration.NewToken()); err != nil {
				return err
			}
			if err := tx.Exec(upsertService, row.nid, row.id, row.file, text, row.since); err != nil {
				return err
			}
			return tx.Exec(bumpVersion)
		})
	})
	if err != nil { // the write may still go on
		return nil, err
	}
	return text, nil
}

// outside refuses to change services within the server, which would be deaf until it
// starts again.
func (s *Services) outside(id string) error {
	if key, ok := s.Inside[id]; ok {
		return conflict("the service %q is a part of the server, with tokens of its own at every start: switch it on or off by %s in the configuration", id, key)
	}
	return nil
}

// row finds a service that can be changed at run time.
func (s *Services) row(ctx context.Context, q db.Querier, id string) (record, error) {
	rows, err := db.All(ctx, q, listServices, scanRecord)
	if err != nil {
		return record{}, err
	}
	for _, row := range rows {
		switch {
		case row.id != id:
		case row.file != "" && slices.Contains(s.Files, row.file):
			return row, conflict("the service %q is registered by the file %s: change that, and it is noticed", id, row.file)
		default:
			return row, nil
		}
	}
	return record{}, noService(id)
}

func noService(id string) error {
	return matrix.NotFound("There is no application service with the id %q", id)
}

// change runs what changes the registrations, and takes it up.
func (s *Services) change(ctx context.Context, op func() error) error {
	s.registering.Lock()
	defer s.registering.Unlock()
	if err := op(); err != nil {
		return err
	}
	return s.load(ctx)
}
