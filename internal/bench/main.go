package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// scenario is what -run names. It measures one thing and adds its figures.
type scenario struct {
	name  string
	about string
	long  bool // runs only with -long, or by its name
	run   func(ctx context.Context, b *bench) error
}

var scenarios = []scenario{
	{name: "start", about: "start-up time and memory of an empty server", run: start},
	{name: "send", about: "messages into 10 rooms, and what they take on disk", run: send},
	{name: "hot", about: "messages into one room with 200 members", run: hot},
	{name: "create", about: "creating rooms", run: create},
	{name: "join", about: "joining one room as it grows", run: join},
	{name: "fanout", about: "delivery to 100 members that wait", run: fanout},
	{name: "idle", about: "/sync with nothing new", run: idle},
	{name: "initial", about: "initial /sync of 20 rooms and of 1,000", run: initial},
	{name: "messages", about: "/messages through 10,000 events", run: messages},
	{name: "members", about: "/members of a room with 5,000", run: members},
	{name: "state", about: "state storage of joins into a large room", run: stateStorage},
	{name: "rules", about: "what push rules cost a message in a room of 1,000", run: rules},
	{name: "large", about: "a message in a room of 10,000, of whom 100 are connected", run: large},
	{name: "memory", about: "memory with 500 idle long polls in 200 rooms", run: memory},
	{name: "keys", about: "publishing, claiming and asking for the keys of devices", run: keys},
	{name: "todevice", about: "messages to 20 devices that wait", run: toDevice},
	{name: "fedjoin", about: "joining rooms of 100 and of 10,000 members over federation; of 50,000 with -long", run: fedJoin},
	{name: "fedsend", about: "messages to another server, one by one and in a burst", run: fedSend},
	{name: "fedcatchup", about: "10,000 events after another server was down", run: fedCatchUp},
	{name: "services", about: "events to an application service, and what a hundred others cost", run: services},
	{name: "files", about: "a large file up and down, thumbnails made and served", run: files},
	{name: "news", about: "10,000 feeds that are followed 50,000 times", long: true, run: newsFeeds},
	{name: "million", about: "start-up on a million events", long: true, run: million},
}

type options struct {
	run      string
	binary   string
	database string
	postgres bool
	short    bool
	long     bool
	json     bool
	profile  string
	limit    time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.run, "run", "", "comma-separated scenarios; all if empty")
	flag.StringVar(&o.binary, "binary", "", "the server's program; built from this checkout if empty")
	flag.StringVar(&o.database, "database", "", "URL of an empty database; a new SQLite file if empty")
	flag.BoolVar(&o.postgres, "postgres", false, "start a private PostgreSQL cluster, with fsync, and use it")
	flag.BoolVar(&o.short, "short", false, "small numbers, to check that everything runs; the figures mean little")
	flag.BoolVar(&o.long, "long", false, "larger numbers, and scenarios that take minutes")
	flag.BoolVar(&o.json, "json", false, "print the figures as JSON, one a line")
	flag.StringVar(&o.profile, "perf", "", "folder for one perf record of the server per scenario")
	flag.DurationVar(&o.limit, "limit", 0, "end after this time; 5m if 0, 1h with -long")
	flag.Usage = usage
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := measure(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintf(os.Stderr, "usage: go run ./internal/bench [flags]\n\n")
	flag.PrintDefaults()
	fmt.Fprintf(os.Stderr, "\nscenarios:\n")
	for _, s := range scenarios {
		fmt.Fprintf(os.Stderr, "  %-10s %s\n", s.name, s.about)
	}
}

// chosen are the scenarios to run, in the order of the list.
func chosen(o options) ([]scenario, error) {
	if o.run == "" {
		return slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool { return s.long && !o.long }), nil
	}
	names := strings.Split(o.run, ",")
	for _, name := range names {
		if !slices.ContainsFunc(scenarios, func(s scenario) bool { return s.name == name }) {
			return nil, fmt.Errorf("there is no scenario %q; -h lists them", name)
		}
	}
	return slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool { return !slices.Contains(names, s.name) }), nil
}

// measure runs the chosen scenarios and prints what they found.
func measure(ctx context.Context, o options) (err error) {
	list, err := chosen(o)
	if err != nil {
		return err
	}
	if o.limit == 0 {
		o.limit = 5 * time.Minute
		if o.long {
			o.limit = time.Hour
		}
	}
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, s := range list {
		began := time.Now()
		b.scenario, b.busy = s.name, elsewhere{}
		stop := b.perf(s.name)
		runErr := s.run(ctx, b)
		stop()
		if b.busy.wall > 0 {
			b.note("cores busy elsewhere", b.busy.cores(), "")
		}
		if runErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", s.name, runErr))
		}
		fmt.Fprintf(os.Stderr, "%-10s %6.1f s\n", s.name, time.Since(began).Seconds())
		if ctx.Err() != nil {
			break
		}
	}
	if o.json {
		return errors.Join(err, b.printJSON(os.Stdout))
	}
	return errors.Join(err, b.printTable(os.Stdout))
}
