package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/registration"
	"github.com/teahouse-chat/teahouse/internal/config"
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
	log := newLog(con.err, cfg.Log)
	homeserver := cfg.Services.News.Homeserver
	if homeserver == "" {
		homeserver = cfg.ClientURL()
	}
	s, err := server.OpenNews(ctx, cfg, server.Deps{Log: log, Version: versionText()}, r, func(c *kit.Config) {
		c.Homeserver, c.Listen = homeserver, cfg.Services.News.Listen
	})
	if err != nil {
		return err
	}
	log.Info("the news service is ready", "homeserver", homeserver, "listening", cfg.Services.News.Listen, "database", cfg.Services.News.Database)
	return errors.Join(s.Run(ctx), s.Close())
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
