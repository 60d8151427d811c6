package db

import (
	"context"
	"errors"
	"log/slog"
)

// Options are what Open needs beside the URL; the zero value works.
type Options struct {
	Log       *slog.Logger // nil: slog.Default()
	Metrics   any          // a prometheus.Registerer, or nil
	ReadConns int          // connections of the read pool; 0: a default for the engine
}

// DB is one open database.
type DB struct{}

var errNotBuilt = errors.New("db: not built")

// Open connects to "sqlite:///path" or "postgres://..." and migrates it.
func Open(ctx context.Context, url string, o Options) (*DB, error) { return nil, errNotBuilt }

// Close finishes the writes that were accepted and closes all connections.
func (d *DB) Close() error { return nil }

// IsUnique tells whether err is the violation of a unique constraint.
func IsUnique(err error) bool { return false }

// PrepareAll prepares every registered statement; for a test of the package
// that links all features.
func PrepareAll(ctx context.Context, d *DB) error { return errNotBuilt }
