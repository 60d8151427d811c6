package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/server"
)

// newLog makes the log that the configuration asks for.
func newLog(w io.Writer, c config.Log) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.SlogLevel()}
	var h slog.Handler = slog.NewTextHandler(w, o)
	if c.Format == "json" {
		h = slog.NewJSONHandler(w, o)
	}
	return slog.New(httpx.LogHandler(h))
}

// errRunning tells that a server has the data folder.
var errRunning = errors.New("a server is running on this data folder")

// lockFile is held by whoever must be the only one to change things.
const lockFile = "lock"

// lock takes the data folder for this process, until the file is closed or the
// process ends, however it ends.
func lock(dataDir string) (io.Closer, error) {
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("the data folder cannot be made: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dataDir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data folder cannot be written: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errRunning
		}
		return nil, fmt.Errorf("the data folder cannot be locked: %w", err)
	}
	return f, nil
}

// withServer runs a command on a server that serves nobody. With alone it must
// be the only process: a running server would not notice what changes.
func withServer(ctx context.Context, con *console, f *flags, alone bool, do func(*server.Server, *config.Config) error) error {
	cfg, err := f.load()
	if err != nil {
		return err
	}
	if alone {
		held, err := lock(cfg.DataDir)
		if errors.Is(err, errRunning) {
			return fmt.Errorf("%w, which would not notice the change; stop it first", err)
		}
		if err != nil {
			return err
		}
		defer held.Close()
	}
	cfg.Log.Level = "warn" // a command prints its own result
	s, err := server.New(ctx, cfg, server.Deps{Log: newLog(con.err, cfg.Log)})
	if err != nil {
		return err
	}
	return errors.Join(do(s, cfg), s.Close())
}

// shown is an error as a person at the console should read it.
func shown(err error) string {
	if e, ok := errors.AsType[*matrix.Error](err); ok && e.Status < 500 {
		return e.Text
	}
	return strings.ReplaceAll(err.Error(), "\n", "\nteahouse: ")
}

// userID makes a full id from a name or an id.
func userID(name string, cfg *config.Config) (matrix.UserID, error) {
	if !strings.HasPrefix(name, "@") {
		return matrix.NewUserID(name, cfg.ServerName), nil
	}
	id, err := matrix.ParseUserID(name)
	if err == nil && id.Server() != cfg.ServerName {
		return "", fmt.Errorf("%s is not a user of %s", id, cfg.ServerName)
	}
	return id, err
}
