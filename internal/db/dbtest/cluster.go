package dbtest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// joinCluster returns the URL of a PostgreSQL cluster that all test processes of
// this user share, and starts it if there is none. It listens on a socket in its
// folder only, and lives until alive is closed in every process.
//
// Two lock files order this. Each process holds "users" shared until it ends,
// however it ends. "lock" is held by who starts or stops the server. The guard
// stops it when nobody holds "users" any more.
func joinCluster() (address string, alive *os.File, err error) {
	// A socket's path has at most 107 bytes, so this is not in TMPDIR.
	dir := fmt.Sprintf("/tmp/teahouse-test-postgres-%d", os.Getuid())
	if err := ownFolder(dir); err != nil {
		return "", nil, err
	}
	lock, err := lockFile(dir, "lock", syscall.LOCK_EX)
	if err != nil {
		return "", nil, err
	}
	defer lock.Close()
	if alive, err = lockFile(dir, "users", syscall.LOCK_SH); err != nil {
		return "", nil, err
	}
	home := filepath.Join(dir, "server")
	if !answering(home) {
		if err := startServer(dir, home); err != nil {
			alive.Close()
			return "", nil, err
		}
	}
	return "postgres://postgres@/postgres?host=" + url.QueryEscape(home), alive, nil
}

// answering tells whether the server of a folder is there: one that was killed has
// left its files behind.
func answering(home string) bool {
	if _, err := os.Stat(filepath.Join(home, "ready")); err != nil {
		return false
	}
	c, err := net.Dial("unix", filepath.Join(home, ".s.PGSQL.5432"))
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// ownFolder makes dir, or makes sure that nobody else has.
func ownFolder(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(stat.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is somebody else's: remove it", dir)
	}
	return nil
}

func lockFile(dir, name string, how int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// guard starts the server, as another user where need be, and stops it when the
// last user is gone.
const guard = `
"$@" -D "$home/data" -k "$home" -h '' -c fsync=off -c full_page_writes=off -c synchronous_commit=off \
	-c shared_buffers=64MB -c max_connections=500 -c max_wal_size=256MB -c autovacuum=off \
	-c log_min_messages=fatal -c dynamic_shared_memory_type=mmap >"$home/log" 2>&1 </dev/null &
server=$!
exec 8<"$dir/lock" 9<"$dir/users"
while sleep 1; do
	flock -x 8
	flock -n -x 9 && break
	flock -u 8
done
rm -f "$home/ready"
kill -QUIT $server
wait $server
rm -rf "$home"/* "$home"/.s.*
`

// startServer makes the cluster in the folder home and starts it; "lock" is held.
func startServer(dir, home string) error {
	bin, as, err := Programs()
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("flock"); err != nil {
		return fmt.Errorf("starting a server needs the command flock: %w", err)
	}
	if err := errors.Join(os.RemoveAll(home), os.Mkdir(home, 0o700)); err != nil {
		return err
	}
	if as != nil {
		if err := os.Chown(home, int(as.Uid), int(as.Gid)); err != nil {
			return err
		}
	}
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", filepath.Join(home, "data"), "-U", "postgres",
		"-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	initdb.Dir = home
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	shell := exec.Command("/bin/sh", "-c", guard, "guard", filepath.Join(bin, "postgres"))
	shell.Dir = home
	shell.Env = append(os.Environ(), "dir="+dir, "home="+home)
	// A group of its own: an interrupt from the terminal must not end the guard.
	shell.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true}
	if err := shell.Start(); err != nil {
		return err
	}
	for range 400 {
		state, _ := os.ReadFile(filepath.Join(home, "data", "postmaster.pid"))
		if bytes.Contains(state, []byte("\nready")) {
			return os.WriteFile(filepath.Join(home, "ready"), nil, 0o644)
		}
		time.Sleep(25 * time.Millisecond)
	}
	out, _ := os.ReadFile(filepath.Join(home, "log"))
	shell.Process.Kill()
	return fmt.Errorf("the PostgreSQL server did not start: %s", bytes.TrimSpace(out))
}

// Programs is where a PostgreSQL server's programs are and whom to run them as,
// nil for who runs this: for who needs another cluster than the tests'.
func Programs() (bin string, as *syscall.Credential, err error) {
	if bin, err = findPostgres(); err == nil {
		as, err = serverUser()
	}
	return bin, as, err
}

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

// serverUser is whom to run the server as, which refuses to be root.
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
