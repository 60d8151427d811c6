package dbtest

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// startCluster makes a PostgreSQL cluster in a temporary folder and returns its
// URL. It listens on a socket in that folder only.
func startCluster() (string, error) {
	bin, err := findPostgres()
	if err != nil {
		return "", err
	}
	as, err := serverUser()
	if err != nil {
		return "", err
	}
	// A socket's path has at most 107 bytes, so this is not in TMPDIR.
	dir, err := os.MkdirTemp("/tmp", "teahouse-pg-")
	if err != nil {
		return "", err
	}
	if as != nil {
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			return "", err
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust",
		"-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	initdb.Dir = dir
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	if out, err := initdb.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	return runServer(bin, dir, data, as)
}

// guard runs the server below a shell that reads from a pipe which this process
// holds open. When the process ends, however it ends, the pipe closes and the
// shell stops the server and removes the folder.
const guard = `
"$1" -D "$2" -k "$3" -h '' -c fsync=off -c full_page_writes=off -c synchronous_commit=off \
	-c shared_buffers=32MB -c max_connections=400 -c max_wal_size=256MB -c autovacuum=off \
	-c log_min_messages=fatal >"$3/log" 2>&1 </dev/null &
server=$!
cat >/dev/null
kill -QUIT $server
wait $server
rm -rf "$3"
`

func runServer(bin, dir, data string, as *syscall.Credential) (string, error) {
	shell := exec.Command("/bin/sh", "-c", guard, "guard", filepath.Join(bin, "postgres"), data, dir)
	shell.Dir = dir
	// A group of its own: an interrupt from the terminal must not end the guard
	// before the server.
	shell.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true}
	if _, err := shell.StdinPipe(); err != nil { // kept open by shell, which is kept by aGuard
		return "", err
	}
	if err := shell.Start(); err != nil {
		return "", err
	}
	aGuard = shell
	socket := filepath.Join(dir, ".s.PGSQL.5432")
	for range 200 {
		if _, err := os.Stat(socket); err == nil {
			return "postgres://postgres@/postgres?host=" + url.QueryEscape(dir), nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	out, _ := os.ReadFile(filepath.Join(dir, "log"))
	return "", fmt.Errorf("the PostgreSQL server did not start: %s", bytes.TrimSpace(out))
}

// aGuard keeps the guard's pipe from being collected, and closed.
var aGuard *exec.Cmd

// findPostgres is the folder of the server's programs.
func findPostgres() (string, error) {
	folders, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			folders = append(folders, filepath.Dir(path))
		}
	}
	for i := len(folders) - 1; i >= 0; i-- {
		if _, err := os.Stat(filepath.Join(folders[i], "postgres")); err == nil {
			return folders[i], nil
		}
	}
	return "", errors.New("there is no initdb in PATH or /usr/lib/postgresql: install PostgreSQL or set TEAHOUSE_TEST_POSTGRES")
}

// serverUser is whom to run the server as: it refuses to be root.
func serverUser() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("this is root, which PostgreSQL refuses to run as, and there is no user postgres or nobody")
}
