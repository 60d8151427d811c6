package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/registration"
	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/metrics"
	"github.com/teahouse-chat/teahouse/internal/server"
)

// newsID is the id of the registration of the news service as a process of its own.
const newsID = "teahouse-news"

func newsService(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "news [--registration] [--config FILE]",
		"Runs the news service as a process of its own, for the homeserver that\nservices.news.homeserver names. Of the file it reads server_name, data_dir, log and\nservices.news. The homeserver needs the registration that --registration prints.", 0)
	show := f.Bool("registration", false, "print the registration file for the homeserver, and end")
	if _, err := f.parse(args); err != nil {
		return err
	}
	cfg, err := f.load()
	if err != nil {
		return err
	}
	dir := filepath.Join(cfg.DataDir, "news")
	if *show {
		text, err := newsRegistration(cfg, dir)
		if err == nil {
			_, err = con.out.Write(text)
		}
		return err
	}
	held, err := lock(dir)
	if errors.Is(err, errRunning) {
		return fmt.Errorf("a news service is running on the data folder %s; stop it, or give this one another data_dir", cfg.DataDir)
	}
	if err != nil {
		return err
	}
	defer held.Close()
	tuneMemory()
	text, err := newsRegistration(cfg, dir)
	if err != nil {
		return err
	}
	r, err := registration.Parse(filepath.Join(dir, registrationFile), text)
	if err != nil {
		return err
	}
	return runNews(ctx, con, cfg, r)
}

func runNews(ctx context.Context, con *console, cfg *config.Config, r *registration.Registration) error {
	log, reg := newLog(con.err, cfg.Log), metrics.New(versionText())
	homeserver := cfg.Services.News.Homeserver
	if homeserver == "" {
		homeserver = cfg.ClientURL()
	}
	s, err := server.OpenNews(ctx, cfg, server.Deps{Log: log, Version: versionText()}, r, func(c *kit.Config) {
		c.Homeserver, c.Listen, c.Metrics = homeserver, cfg.Services.News.Listen, reg
	})
	if err != nil {
		return err
	}
	measured, stop := context.WithCancel(ctx)
	defer stop()
	ended, err := serveMetrics(measured, cfg.Services.News.Metrics.Address, reg, log)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	log.Info("the news service is ready", "homeserver", homeserver, "listening", cfg.Services.News.Listen, "database", cfg.Services.News.Database)
	err = s.Run(ctx)
	stop()
	return errors.Join(err, <-ended, s.Close())
}

// metricsGrace is how long a scrape may take that is under way when the service ends.
const metricsGrace = 5 * time.Second

// serveMetrics serves metrics at an address, "" for none, until ctx ends, and then says
// what went wrong.
func serveMetrics(ctx context.Context, address string, reg *prometheus.Registry, log *slog.Logger) (ended <-chan error, err error) {
	done := make(chan error, 1)
	if address == "" {
		close(done)
		return done, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for Prometheus: %w; choose another services.news.metrics.address, or stop what uses it", err)
	}
	edge := httpx.New(httpx.Options{Log: log})
	edge.Add("metrics", metrics.Route(reg))
	go func() {
		done <- edge.Serve(ctx, metricsGrace, httpx.Listener{Listener: l, Serves: []string{"metrics"}})
	}()
	return done, nil
}

const registrationFile = "registration.yaml"

// newsRegistration reads the registration that the first call has made. Its tokens stay
// what they are; all else is as the configuration says.
func newsRegistration(cfg *config.Config, dir string) ([]byte, error) {
	file := filepath.Join(dir, registrationFile)
	asToken, hsToken := registration.NewToken(), registration.NewToken()
	had, err := os.ReadFile(file)
	switch {
	case err == nil:
		r, err := registration.Parse(file, had)
		if err != nil {
			return nil, fmt.Errorf("%w; mend the file, or delete it and register the service again", err)
		}
		asToken, hsToken = r.ASToken, r.HSToken
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("the registration of the news service cannot be read: %w", err)
	}
	text := server.NewsRegistration(cfg, newsID, cfg.Services.News.Address(), asToken, hsToken)
	if string(text) == string(had) {
		return text, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the data folder cannot be made: %w", err)
	}
	return text, os.WriteFile(file, text, 0o600)
}
