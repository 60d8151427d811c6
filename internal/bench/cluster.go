package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

// cluster is a PostgreSQL server of our own. Unlike that of the tests it syncs
// every commit to disk.
type cluster struct {
	home string
	cmd  *exec.Cmd
}

func startCluster(ctx context.Context) (*cluster, error) {
	bin, as, err := dbtest.Programs()
	if err != nil {
		return nil, err
	}
	// A socket's path has at most 107 bytes, so this is not in TMPDIR.
	home, err := os.MkdirTemp("/tmp", "teahouse-bench-postgres")
	if err != nil {
		return nil, err
	}
	c := &cluster{home: home}
	if as != nil {
		err = os.Chown(home, int(as.Uid), int(as.Gid))
	}
	if err == nil {
		err = c.boot(ctx, bin, as)
	}
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

func (c *cluster) boot(ctx context.Context, bin string, as *syscall.Credential) error {
	data := filepath.Join(c.home, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust",
		"-E", "UTF8", "--locale=C", "--no-instructions")
	initdb.Dir = c.home
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	c.cmd = exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-k", c.home, "-h", "",
		"-c", "shared_buffers=256MB", "-c", "max_wal_size=1GB", "-c", "max_connections=200", "-c", "log_min_messages=fatal",
		"-c", "dynamic_shared_memory_type=mmap")
	c.cmd.Dir = c.home
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		return err
	}
	for {
		state, _ := os.ReadFile(filepath.Join(data, "postmaster.pid"))
		if bytes.Contains(state, []byte("\nready")) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL did not start: %w", ctx.Err())
		case <-time.After(25 * time.Millisecond):
		}
	}
}

func (c *cluster) url(name string) string {
	return "postgres://postgres@/" + name + "?host=" + url.QueryEscape(c.home)
}

// create makes an empty database.
func (c *cluster) create(name string) (string, error) {
	ctx := context.Background()
	admin, err := pgx.Connect(ctx, c.url("postgres"))
	if err != nil {
		return "", err
	}
	defer admin.Close(ctx)
	_, err = admin.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	return c.url(name), err
}

func (c *cluster) stop() error {
	if c.cmd != nil && c.cmd.Process != nil {
		_ = c.cmd.Process.Signal(syscall.SIGINT) // a fast shutdown
		_ = c.cmd.Wait()
	}
	return os.RemoveAll(c.home)
}
