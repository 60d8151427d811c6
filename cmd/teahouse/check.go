package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/teahouse-chat/teahouse/appservices/registration"
	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/server"
)

func check(ctx context.Context, con *console, args []string) error {
	if len(args) > 0 && args[0] == "federation" {
		return checkFederation(ctx, con, args[1:])
	}
	f := newFlags(con, "check [--config FILE]",
		"Looks for mistakes: reads the configuration and opens the database, which is\nbrought to this version's schema if it is older. A database that a server is\nusing is left alone.\n\n\"teahouse check federation\" looks at a running server as other servers do.", 0)
	if _, err := f.parse(args); err != nil {
		return err
	}
	cfg, err := f.load()
	if err != nil {
		return err
	}
	fmt.Fprintf(con.out, "configuration: good (%s)\n", origin(cfg))
	for _, w := range warnings(cfg) {
		fmt.Fprintf(con.out, "configuration: note: %s\n", w)
	}
	if err := checkAppservices(con, cfg); err != nil {
		return err
	}
	result, err := checkDatabase(ctx, con, cfg)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	fmt.Fprintf(con.out, "database: %s (%s)\n", result, cfg.Database)
	return nil
}

// checkAppservices looks at the registration files of the configuration.
func checkAppservices(con *console, cfg *config.Config) error {
	var errs []error
	var good []*registration.Registration
	for _, file := range cfg.Appservices {
		text, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, config.Unreadable(file, err))
			continue
		}
		r, err := registration.Parse(file, text)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, p := range r.Unknown {
			fmt.Fprintf(con.out, "appservices: note: %s\n", p)
		}
		for _, other := range good {
			if err := registration.Clash(r, other, cfg.ServerName); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", file, err))
			}
		}
		good = append(good, r)
	}
	return errors.Join(errs...)
}

func origin(cfg *config.Config) string {
	if cfg.Trial() {
		return "no file: a local trial"
	}
	return cfg.File
}

// warnings are things that are allowed and rarely meant.
func warnings(cfg *config.Config) []string {
	var list []string
	if !cfg.Trial() && cfg.Registration.Mode == config.RegistrationOpen {
		list = append(list, "registration.mode is open: everybody who reaches the server can make accounts, spammers too; token lets in those you invite")
	}
	if !cfg.RateLimits.Enabled {
		list = append(list, "rate_limits.enabled is false: nothing slows down who guesses passwords or floods rooms")
	}
	if cfg.Federation.AllowPrivateAddresses {
		list = append(list, "federation.allow_private_addresses is true: other servers can make this one connect to your network")
	}
	if !cfg.Federation.VerifyTLS {
		list = append(list, "federation.verify_tls is false: anybody on the way can pretend to be another server")
	}
	return list
}

// checkDatabase opens the database, unless that would make a new one or disturb
// a server.
func checkDatabase(ctx context.Context, con *console, cfg *config.Config) (string, error) {
	if path, ok := strings.CutPrefix(cfg.Database.Reveal(), "sqlite://"); ok {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return "not there yet; the first start makes it", nil
		}
	}
	if _, err := os.Stat(cfg.DataDir); errors.Is(err, os.ErrNotExist) {
		return "not looked at: data_dir is not there yet; the first start makes it", nil
	}
	held, err := lock(cfg.DataDir)
	if errors.Is(err, errRunning) {
		return "in use by a running server", nil
	}
	if err != nil {
		return "", err
	}
	defer held.Close()
	cfg.Log.Level = "warn"
	s, err := server.New(ctx, cfg, server.Deps{Log: newLog(con.err, cfg.Log)})
	if err != nil {
		return "", err
	}
	return "good", s.Close()
}
