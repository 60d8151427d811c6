package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/metrics"
	"github.com/teahouse-chat/teahouse/internal/server"
)

func serve(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "serve [--config FILE]",
		"Runs the server until it gets SIGINT or SIGTERM; then it finishes the requests it\nhas accepted. Without a file it is a local trial: on this machine only, open to\neverybody here, with its data in ./teahouse-data.", 0)
	if _, err := f.parse(args); err != nil {
		return err
	}
	cfg, err := f.load()
	if err != nil {
		return err
	}
	held, err := lock(cfg.DataDir)
	if errors.Is(err, errRunning) {
		return fmt.Errorf("%w, %s; stop it, or give this one another data_dir", err, cfg.DataDir)
	}
	if err != nil {
		return err
	}
	defer held.Close()
	tuneMemory()
	log := newLog(con.err, cfg.Log)
	began := time.Now()
	s, err := server.New(ctx, cfg, server.Deps{Log: log, Metrics: metrics.New(versionText()), Version: versionText()})
	if err != nil {
		return err
	}
	err = s.Serve(ctx, func(addrs []net.Addr) {
		log.Info("Teahouse is ready", "server_name", cfg.ServerName, "version", versionText(), "listening", listening(addrs),
			"database", cfg.Database, "started_in", time.Since(began).Round(time.Millisecond))
		if cfg.Trial() {
			fmt.Fprint(con.out, trialText(cfg))
		}
	})
	if ctx.Err() != nil {
		log.Info("Teahouse has stopped taking requests")
	}
	return errors.Join(err, s.Close())
}

func listening(addrs []net.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}

// trialText says what a local trial is, how to use it, and how to outgrow it.
func trialText(cfg *config.Config) string {
	return fmt.Sprintf(`
  This is a local trial of Teahouse. Only programs on this machine can reach it,
  every one of them can make an account, and users are called @name:%[1]s.
  Its data is in %[2]s; delete that folder to start afresh.

  To chat:   give a Matrix client the homeserver URL %[3]s
             and register there. Element Web, for one: run it, choose "Create
             account", then "Edit" beside the homeserver.
  For news:  start a chat with @%[4]s:%[1]s and say: follow https://go.dev/blog
  To stop:   press Ctrl-C.

  A real server needs a name of its own, which cannot be changed later. Write a
  file with

             server_name: example.org
             public_url: https://matrix.example.org

  and what else config.yaml explains, look it over with "teahouse check --config
  FILE", start it with "teahouse serve --config FILE", and make the first account
  with "teahouse user add NAME --admin --config FILE".

`, cfg.ServerName, cfg.DataDir, cfg.ClientURL(), cfg.Services.News.User)
}
