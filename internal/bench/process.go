package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of CPU times in /proc, the same on every Linux.
const clockTick = 10 * time.Millisecond

// process is a server of our own.
type process struct {
	binary   string
	dir      string // data and configuration
	name     string // of the server
	address  string
	database string
	// listeners are further ones, as the configuration has them.
	listeners string
	cmd       *exec.Cmd
	output    bytes.Buffer
	ended     chan struct{}
}

// build compiles the server into dir.
func build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "teahouse")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/teahouse-chat/teahouse/cmd/teahouse").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the server: %w\n%s", err, out)
	}
	return path, nil
}

const configText = `server_name: %q
data_dir: %s
database: %q
public_url: http://%s
listeners: [{address: %q}%s]
registration: {mode: open}
passwords: {time: 1, memory_kib: 64, threads: 1}
rate_limits: {enabled: false}
log: {level: warn}
`

// newProcess prepares a server in the folder dir; an empty database is SQLite's.
func newProcess(binary, dir, database string) (*process, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p := &process{binary: binary, dir: dir, name: "localhost", address: address, database: database}
	return p, p.configure("federation: {enabled: false}\n")
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// configure writes the configuration, with more at its end.
func (p *process) configure(more string) error {
	if p.database == "" {
		p.database = "sqlite://" + filepath.Join(p.dir, "teahouse.db")
	}
	text := fmt.Sprintf(configText, p.name, p.dir, p.database, p.address, p.address, p.listeners) + more
	return os.WriteFile(filepath.Join(p.dir, "config.yaml"), []byte(text), 0o600)
}

func (p *process) postgres() bool { return strings.HasPrefix(p.database, "postgres") }

// start runs the server and tells how long it took to answer a request.
func (p *process) start(ctx context.Context) (time.Duration, error) {
	p.cmd = exec.Command(p.binary, "serve", "--config", filepath.Join(p.dir, "config.yaml"))
	p.output.Reset()
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		return 0, err
	}
	p.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait()
		close(ended)
	}(p.cmd, p.ended)
	for {
		c := &conn{address: p.address}
		_, err := c.do("GET", "/_matrix/client/versions", "", nil)
		c.close()
		if err == nil {
			return time.Since(began), nil
		}
		select {
		case <-p.ended:
			return 0, fmt.Errorf("the server ended:\n%s", p.output.String())
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// stop ends the server properly, and by force if it does not go.
func (p *process) stop() error {
	if p.ended == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return nil // it has ended
	}
	select {
	case <-p.ended:
		if p.output.Len() > 0 {
			fmt.Fprintf(os.Stderr, "the server said:\n%s", p.output.String())
		}
		return nil
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("the server did not stop:\n%s", p.output.String())
	}
}

// cpu is what the server has used so far, user and system time.
func (p *process) cpu() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	// The name, in parentheses, may hold spaces; utime and stime are the 14th
	// and 15th field of the line.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, _ := strconv.ParseInt(f, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * clockTick
}

// peak is the largest resident set size that the server has had, in MB.
func (p *process) peak() (float64, error) { return p.memory("status", "VmHWM:") }

// resident is the server's proportional set size in MB.
func (p *process) resident() (float64, error) { return p.memory("smaps_rollup", "Pss:") }

// memory reads a line of one of the process's files in /proc, in MB.
func (p *process) memory(file, name string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			kb, err := strconv.ParseFloat(fields[1], 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, name)
}
