package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

// binary is the path of the server, built once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "teahouse-e2e")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "teahouse")
	out, err := exec.Command("go", "build", "-o", path, "../../cmd/teahouse").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// process is a server that can be killed and started again on its data.
type process struct {
	t      testing.TB
	name   string
	config string
	url    string
	cmd    *exec.Cmd
	output *bytes.Buffer
	ended  chan struct{}
}

// start runs a server on a free port with a new database.
func start(t testing.TB, kind string) *process {
	t.Helper()
	return startAs(t, kind, t.TempDir(), "localhost", "", "federation: {enabled: false}\n")
}

// startAs runs a server of a name, with more listeners and more configuration.
func startAs(t testing.TB, kind, dir, name, listeners, more string) *process {
	t.Helper()
	address := freeAddress(t, "127.0.0.1")
	p := &process{t: t, name: name, config: filepath.Join(dir, "config.yaml"), url: "http://" + address}
	text := fmt.Sprintf(`server_name: %q
data_dir: %s
database: %q
public_url: %s
listeners: [{address: %q}%s]
registration: {mode: open, guests: true}
passwords: {time: 1, memory_kib: 64, threads: 1}
rate_limits: {enabled: false}
`, name, dir, dbtest.URL(t, kind), p.url, address, listeners) + more
	if err := os.WriteFile(p.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.run()
	t.Cleanup(p.stop)
	return p
}

func freeAddress(t testing.TB, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// run starts the process and waits until it answers.
func (p *process) run() {
	p.t.Helper()
	path, err := binary()
	if err != nil {
		p.t.Fatal(err)
	}
	p.output, p.ended = &bytes.Buffer{}, make(chan struct{})
	p.cmd = exec.Command(path, "serve", "--config", p.config)
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait()
		close(ended)
	}(p.cmd, p.ended)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if res, err := http.Get(p.url + "/_matrix/client/versions"); err == nil {
			res.Body.Close()
			return
		}
		select {
		case <-p.ended:
			p.t.Fatalf("the server ended:\n%s", p.output)
		case <-time.After(20 * time.Millisecond):
		}
	}
	p.t.Fatal("the server does not answer")
}

// kill ends the process as a power failure would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// stop ends the process properly, and fails the test if it does not go.
func (p *process) stop() {
	select {
	case <-p.ended:
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		p.t.Error("the server does not stop")
		p.kill()
	}
	if p.t.Failed() {
		p.t.Logf("the server said:\n%s", p.output)
	}
}

func each(t *testing.T, f func(t *testing.T, p *process)) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { f(t, start(t, kind)) })
	}
}
