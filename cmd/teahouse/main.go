package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/teahouse-chat/teahouse/internal/config"
)

const usage = `Teahouse is a Matrix homeserver.

  teahouse serve [--config FILE]      run the server; without a file, a local trial
  teahouse check [--config FILE]      check the configuration and the database
  teahouse check federation           look at a running server as other servers do
  teahouse keys show|rotate           the keys that the server signs with
  teahouse user add NAME              make an account
  teahouse user password NAME         set a password
  teahouse user deactivate NAME       close an account for good
  teahouse user list                  list the accounts
  teahouse media usage|quarantine|...  files: who has how many, and what becomes of them
  teahouse token add|list|delete      tokens to register with
  teahouse appservice add|list|...    bots and bridges
  teahouse news                       the news service as a process of its own
  teahouse version                    say which version this is

"teahouse COMMAND --help" tells more.
`

// console is what a command reads and writes; a test brings its own.
type console struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	dir      string // where a local trial keeps its data
}

// errUsage is a wrong call whose explanation is printed already.
var errUsage = errors.New("usage")

type command func(ctx context.Context, con *console, args []string) error

var commands = map[string]command{
	"serve": serve, "check": check, "user": user, "token": token, "keys": signingKeys, "media": mediaFiles, "appservice": appservice, "news": newsService, "version": version,
}

func main() {
	// A second signal is not caught: it ends a shutdown that takes too long.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, &console{in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv, dir: "."}, os.Args[1:]))
}

// run does what the arguments say and returns the exit status: 1 for a failure,
// 2 for a wrong call.
func run(ctx context.Context, con *console, args []string) int {
	if len(args) == 0 {
		fmt.Fprint(con.err, usage)
		return 2
	}
	switch args[0] {
	case "help", "--help", "-help", "-h":
		fmt.Fprint(con.out, usage)
		return 0
	}
	cmd := commands[args[0]]
	if cmd == nil {
		fmt.Fprintf(con.err, "teahouse: there is no command %q\n\n%s", args[0], usage)
		return 2
	}
	switch err := cmd(ctx, con, args[1:]); {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	default:
		fmt.Fprintf(con.err, "teahouse: %s\n", shown(err))
		return 1
	}
}

// flags are the arguments of a command. Every one takes --config.
type flags struct {
	*flag.FlagSet
	con    *console
	config string
	takes  int  // arguments that are no flags
	fewer  bool // the last of them may be left out
}

// newFlags begins the flags of a command, whose usage line names its arguments.
func newFlags(con *console, line, help string, takes int) *flags {
	f := &flags{FlagSet: flag.NewFlagSet("teahouse", flag.ContinueOnError), con: con, takes: takes}
	f.SetOutput(con.err)
	f.StringVar(&f.config, "config", "", "the configuration `FILE`; without it, the local trial in ./teahouse-data")
	f.Usage = func() {
		fmt.Fprintf(con.err, "teahouse %s\n\n%s\n\n", line, help)
		f.PrintDefaults()
	}
	return f
}

// parse reads the arguments, flags before or after the others.
func (f *flags) parse(args []string) ([]string, error) {
	var plain []string
	for {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, errUsage
		}
		if f.NArg() == 0 {
			break
		}
		plain, args = append(plain, f.Arg(0)), f.Args()[1:]
	}
	if len(plain) != f.takes && !(f.fewer && len(plain) == f.takes-1) {
		fmt.Fprintf(f.con.err, "teahouse: %d arguments are needed here, not %d\n\n", f.takes, len(plain))
		f.Usage()
		return nil, errUsage
	}
	return plain, nil
}

// load reads the configuration that the flags name.
func (f *flags) load() (*config.Config, error) {
	if f.config == "" {
		return config.Trial(f.con.dir, f.con.getenv)
	}
	return config.Load(f.config, f.con.getenv)
}
