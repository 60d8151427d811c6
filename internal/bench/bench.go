package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// bench is one run: a server, what was made on it and what was found out.
type bench struct {
	opts     options
	dir      string // temporary
	cluster  *cluster
	server   *process
	conns    []*conn
	users    int   // made so far
	crowded  *room // grows from scenario to scenario
	scenario string
	figures  []figure
	busy     elsewhere // during the scenario
	txn      atomic.Int64
}

// newBench builds the server and starts it on an empty database.
func newBench(ctx context.Context, o options) (b *bench, err error) {
	b = &bench{opts: o}
	if b.dir, err = os.MkdirTemp("", "teahouse-bench"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.opts.binary == "" {
		if b.opts.binary, err = build(ctx, b.dir); err != nil {
			return b, err
		}
	}
	if o.postgres {
		if b.cluster, err = startCluster(ctx); err != nil {
			return b, err
		}
	}
	if b.server, err = b.another(o.database); err != nil {
		return b, err
	}
	if _, err = b.server.start(ctx); err != nil {
		return b, err
	}
	for range b.connections() {
		b.conns = append(b.conns, &conn{address: b.server.address})
	}
	return b, nil
}

// another prepares a further server, with an empty database of its own.
func (b *bench) another(database string) (*process, error) {
	dir, database, err := b.home(database)
	if err != nil {
		return nil, err
	}
	return newProcess(b.opts.binary, dir, database)
}

// home makes a folder for a further server, and a database where it is not to
// be SQLite's.
func (b *bench) home(database string) (dir, url string, err error) {
	if dir, err = os.MkdirTemp(b.dir, "server"); err != nil {
		return "", "", err
	}
	if database == "" && b.cluster != nil {
		database, err = b.cluster.create(filepath.Base(dir))
	}
	return dir, database, err
}

func (b *bench) close() error {
	for _, c := range b.conns {
		c.close()
	}
	var err error
	if b.server != nil {
		err = b.server.stop()
	}
	if b.cluster != nil {
		err = errors.Join(err, b.cluster.stop())
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

// connections is how many requests are under way at once.
func (b *bench) connections() int {
	if b.opts.postgres || b.opts.database != "" {
		return 64
	}
	return 16
}

// n chooses between a number for a proper run and one for -short.
func (b *bench) n(full, short int) int {
	if b.opts.short {
		return short
	}
	return full
}

// perf records where the server spends its time until the function it returns
// is called.
func (b *bench) perf(name string) (stop func()) {
	if b.opts.profile == "" {
		return func() {}
	}
	out := filepath.Join(b.opts.profile, name+".perf")
	cmd := exec.Command("perf", "record", "-q", "-g", "-F", "499", "-o", out, "-p", fmt.Sprint(b.server.cmd.Process.Pid))
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: no profile:", err)
		return func() {}
	}
	return func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
	}
}

// run is what a number of equal operations took.
type run struct {
	count     int
	elapsed   time.Duration
	cpu       time.Duration // of the server
	latencies []time.Duration
}

func (r run) rate() float64 { return float64(r.count) / r.elapsed.Seconds() }

// cpuMS is the server's CPU time of one operation.
func (r run) cpuMS() float64 { return ms(r.cpu) / float64(r.count) }

// p is a percentile of the latencies in ms.
func (r run) p(percent int) float64 {
	if len(r.latencies) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(r.latencies))
	return ms(sorted[min(len(sorted)-1, len(sorted)*percent/100)])
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// spread does op for 0 to count-1 on up to so many connections, each taking the
// next number when it is done with one.
func (b *bench) spread(ctx context.Context, conns, count int, op func(c *conn, i int) error) (run, error) {
	r := run{count: count, latencies: make([]time.Duration, count)}
	var next atomic.Int64
	var group sync.WaitGroup
	var failed error
	var once sync.Once
	cpu, others, began := b.server.cpu(), b.othersCPU(), time.Now()
	for _, c := range b.conns[:min(conns, len(b.conns))] {
		group.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= count {
					return
				}
				t := time.Now()
				if err := op(c, i); err != nil {
					once.Do(func() { failed = err })
					next.Store(int64(count))
					return
				}
				r.latencies[i] = time.Since(t)
			}
		})
	}
	group.Wait()
	r.elapsed, r.cpu = time.Since(began), b.server.cpu()-cpu
	b.busy.wall, b.busy.cpu = b.busy.wall+r.elapsed, b.busy.cpu+b.othersCPU()-others
	return r, errors.Join(failed, ctx.Err())
}

// all is spread on all connections.
func (b *bench) all(ctx context.Context, count int, op func(c *conn, i int) error) (run, error) {
	return b.spread(ctx, len(b.conns), count, op)
}

// one is spread on one connection, for figures that are latencies.
func (b *bench) one(ctx context.Context, count int, op func(c *conn, i int) error) (run, error) {
	return b.spread(ctx, 1, count, op)
}
