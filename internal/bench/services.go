package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// services measures how fast one application service is told of all that happens,
// and what a hundred that have nothing to do with a message cost it.
func services(ctx context.Context, b *bench) (err error) {
	target, err := newReceiver()
	if err != nil {
		return err
	}
	defer target.close()
	told, err := b.withServices(ctx, func(dir string) ([]string, error) {
		one, err := target.register(dir, "told", `{rooms: [{regex: '.*', exclusive: false}]}`)
		return []string{one}, err
	})
	if err != nil {
		return err
	}
	err = b.delivery(ctx, told, target)
	if err := errors.Join(err, told.end()); err != nil {
		return err
	}
	hundred, err := b.withServices(ctx, func(dir string) (files []string, err error) {
		for i := range servicesBeside {
			name := fmt.Sprint("s", i)
			file, err := target.register(dir, name, fmt.Sprintf(`{users: [{regex: '@_%s_.*:localhost', exclusive: true}], aliases: [{regex: '#_%s_.*:localhost', exclusive: true}]}`, name, name))
			if err != nil {
				return nil, err
			}
			files = append(files, file)
		}
		return files, nil
	})
	if err != nil {
		return err
	}
	return errors.Join(b.beside(ctx, hundred), hundred.end())
}

// servicesBeside are those that have nothing to do with the messages, and usersBeside
// how many users each of them has.
const servicesBeside, usersBeside = 100, 100

// withServices starts a server with the registration files that write makes.
func (b *bench) withServices(ctx context.Context, write func(dir string) ([]string, error)) (*bench, error) {
	p, err := b.another("")
	if err != nil {
		return nil, err
	}
	files, err := write(p.dir)
	if err != nil {
		return nil, err
	}
	if err := p.configure(fmt.Sprintf("federation: {enabled: false}\nappservices: [%s]\n", strings.Join(files, ", "))); err != nil {
		return nil, err
	}
	if _, err := p.start(ctx); err != nil {
		return nil, err
	}
	other := &bench{opts: b.opts, server: p, scenario: b.scenario, dir: b.dir}
	for range b.connections() {
		other.conns = append(other.conns, &conn{address: p.address})
	}
	return other, nil
}

// end stops the server of a bench beside the first one.
func (b *bench) end() error {
	for _, c := range b.conns {
		c.close()
	}
	return b.server.stop()
}

// delivery sends as fast as can be, and then 2,000 messages a second, until the
// service has all of them.
func (b *bench) delivery(ctx context.Context, s *bench, to *receiver) error {
	message, err := s.talk(ctx)
	if err != nil {
		return err
	}
	count := b.n(20000, 1000)
	// The rooms have arrived, too, before it begins.
	if err := to.settle(ctx, 0); err != nil {
		return err
	}
	to.begin()
	cpu := s.server.cpu()
	burst, err := s.all(ctx, count, message)
	if err != nil {
		return err
	}
	if err := to.settle(ctx, count); err != nil {
		return err
	}
	rate := float64(count) / to.took().Seconds()
	cost := ms(s.server.cpu()-cpu) / float64(count)
	alone, err := b.plain(ctx)
	if err != nil {
		return err
	}
	b.rate("events sent and delivered to a service, as fast as can be", rate, "/s", 2000)
	b.note("… sent alone meanwhile", burst.rate(), "/s")
	b.note("… server CPU an event, sent and delivered", cost, "ms")
	b.note("… sent to nobody", alone, "ms")

	to.begin()
	began := time.Now()
	paced, err := s.all(ctx, count, func(c *conn, i int) error {
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / 2000)))
		return message(c, i)
	})
	if err != nil {
		return err
	}
	if err := to.settle(ctx, count); err != nil {
		return err
	}
	b.note("paced events sent", paced.rate(), "/s")
	b.note("… from sending to having them, median", to.lag(50), "ms")
	b.cost("… and the largest", to.lag(100), "ms", 1000)
	b.busy = elsewhere{b.busy.wall + s.busy.wall, b.busy.cpu + s.busy.cpu}
	return nil
}

// talk makes ten rooms of ten, and what sends a message into one of them.
func (b *bench) talk(ctx context.Context) (func(c *conn, i int) error, error) {
	users, err := b.people(ctx, 10)
	if err != nil {
		return nil, err
	}
	list, err := b.places(ctx, 10, users)
	return func(c *conn, i int) error {
		return b.say(c, list[i%len(list)], users[(i/len(list))%len(users)], "services")
	}, err
}

// plain is what a message costs on the server without services.
func (b *bench) plain(ctx context.Context) (float64, error) {
	message, err := b.talk(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := b.all(ctx, b.n(2000, 200), message); err != nil {
		return 0, err
	}
	r, err := b.all(ctx, b.n(10000, 500), message)
	return r.cpuMS(), err
}

// beside compares sending with and without services that have nothing to do with it,
// in turns.
func (b *bench) beside(ctx context.Context, with *bench) error {
	count := b.n(usersBeside, 5)
	if _, err := with.all(ctx, servicesBeside*count, func(c *conn, i int) error {
		body := fmt.Appendf(nil, `{"type":"m.login.application_service","username":"_s%d_user%d","inhibit_login":true}`, i%servicesBeside, i)
		_, err := c.do("POST", "/_matrix/client/v3/register", fmt.Sprintf("as-s%d", i%servicesBeside), body)
		return err
	}); err != nil {
		return err
	}
	var messages [2]func(c *conn, i int) error
	var cpu, seconds [2]float64
	for i, one := range []*bench{b, with} {
		var err error
		if messages[i], err = one.talk(ctx); err != nil {
			return err
		}
	}
	for round := range b.n(6, 2) { // the first to warm up
		for i, one := range []*bench{b, with} {
			r, err := one.all(ctx, b.n(5000, 300), messages[i])
			if err != nil {
				return err
			}
			if round > 0 {
				cpu[i] += r.cpuMS()
				seconds[i] += r.elapsed.Seconds()
			}
		}
	}
	b.busy = elsewhere{b.busy.wall + with.busy.wall, b.busy.cpu + with.busy.cpu}
	b.cost(fmt.Sprintf("CPU of a message beside %d services with %d users, to one without", servicesBeside, servicesBeside*count), cpu[1]/cpu[0], "", 1.05)
	b.rate("… rate of sending, to that without", seconds[0]/seconds[1], "", 0.95)
	return nil
}

// receiver is an application service that counts what it is sent.
type receiver struct {
	listener net.Listener
	server   *http.Server

	mu    sync.Mutex
	began time.Time
	last  time.Time
	count int             // of messages
	lags  []time.Duration // from the time in the event to its arrival
}

func newReceiver() (*receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{listener: l}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: answerTimeout}
	go func() { _ = r.server.Serve(l) }()
	return r, nil
}

func (r *receiver) close() { _ = r.server.Close() }

// register writes a registration file whose service this is.
func (r *receiver) register(dir, id, namespaces string) (string, error) {
	file := filepath.Join(dir, id+".yaml")
	text := fmt.Sprintf("id: %s\nurl: http://%s\nas_token: as-%s\nhs_token: hs-%s\nsender_localpart: _%s\nrate_limited: false\nreceive_ephemeral: true\nnamespaces: %s\n",
		id, r.listener.Addr(), id, id, id, namespaces)
	return file, os.WriteFile(file, []byte(text), 0o600)
}

// ServeHTTP takes a transaction. It looks for its messages without parsing it.
func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	now := time.Now()
	r.mu.Lock()
	for _, part := range bytes.Split(body, []byte(`"origin_server_ts":`))[1:] {
		digits := part[:max(bytes.IndexAny(part, ",}"), 0)]
		sent, err := strconv.ParseInt(string(digits), 10, 64)
		if err != nil {
			continue
		}
		r.count++
		r.lags = append(r.lags, now.Sub(time.UnixMilli(sent)))
	}
	r.last = now
	r.mu.Unlock()
	_, _ = io.WriteString(w, "{}")
}

// begin counts anew.
func (r *receiver) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.began, r.count, r.lags = time.Now(), 0, nil
}

// settle waits until so many events have come, and then until no more come.
func (r *receiver) settle(ctx context.Context, count int) error {
	for seen := -1; ; {
		r.mu.Lock()
		now := r.count
		r.mu.Unlock()
		if now >= count && now == seen {
			return nil
		}
		seen = now
		select {
		case <-ctx.Done():
			return fmt.Errorf("the service has %d of %d events: %w", now, count, ctx.Err())
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// took is how long it was from the beginning to the last arrival.
func (r *receiver) took() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last.Sub(r.began)
}

// lag is a percentile in ms.
func (r *receiver) lag(percent int) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lags) == 0 {
		return 0
	}
	slices.Sort(r.lags)
	return ms(r.lags[min(len(r.lags)-1, len(r.lags)*percent/100)])
}
