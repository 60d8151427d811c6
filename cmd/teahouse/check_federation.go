package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/teahouse-chat/teahouse/federation/checkup"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/server"
)

// checkFederation tells what other servers would stumble over.
func checkFederation(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "check federation [--server NAME] [--config FILE]",
		"Looks at the running server as other servers do: how its name leads to it, its\ncertificate, its keys and its clock. Run it where the public DNS is seen, best on\nanother machine with the same configuration and signing key.", 0)
	name := f.String("server", "", "look at this server instead: whether it can be reached from here")
	if _, err := f.parse(args); err != nil {
		return err
	}
	cfg, err := f.load()
	if err != nil {
		return err
	}
	if !cfg.Federation.Enabled {
		return errors.New("federation.enabled is false: this server keeps to itself")
	}
	if *name != "" {
		if _, err := matrix.ParseServerName(*name); err != nil {
			return err
		}
	}
	cfg.Log.Level = "warn"
	report, err := server.Checkup(ctx, cfg, server.Deps{Log: newLog(con.err, cfg.Log)}, matrix.ServerName(*name))
	if err != nil {
		return err
	}
	for _, finding := range report {
		fmt.Fprintf(con.out, "%s: %s\n", levels[finding.Level], finding.What)
		if finding.Remedy != "" {
			fmt.Fprintf(con.out, "      %s\n", finding.Remedy)
		}
	}
	if !report.OK() {
		return errors.New("other servers do not get through; mend what is marked BAD, the first of it first")
	}
	fmt.Fprintln(con.out, "Other servers get through.")
	return nil
}

var levels = map[checkup.Level]string{checkup.Good: "good", checkup.Note: "note", checkup.Bad: "BAD "}
