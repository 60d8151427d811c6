package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/server"
	"github.com/teahouse-chat/teahouse/media"
)

var mediaCommands = map[string]command{
	"usage": mediaUsage, "quarantine": mediaQuarantine, "release": mediaRelease, "delete": mediaDelete, "purge": mediaPurge, "check": mediaCheck,
}

func mediaFiles(ctx context.Context, con *console, args []string) error {
	return subcommand(ctx, con, "media", mediaCommands, "usage, quarantine, release, delete, purge or check", args)
}

const targetHelp = "A TARGET is mxc://server/id, @user:server for all that a user has uploaded, !room for\nall that the unencrypted events of a room name, or sha256:HASH for certain bytes.\nA running server may go on."

// onTarget is a command that does something to the files of a target.
func onTarget(ctx context.Context, con *console, line, help, done string, do func(*media.Media) func(context.Context, media.Target) (int, error), args []string) error {
	f := newFlags(con, line, help+"\n\n"+targetHelp, 1)
	plain, err := f.parse(args)
	if err != nil {
		return err
	}
	t, err := media.ParseTarget(plain[0])
	if err != nil {
		return err
	}
	return withServer(ctx, con, f, false, func(s *server.Server, _ *config.Config) error {
		n, err := do(s.Media)(ctx, t)
		if err != nil {
			return err
		}
		fmt.Fprintf(con.out, "%d files %s.\n", n, done)
		return nil
	})
}

func mediaQuarantine(ctx context.Context, con *console, args []string) error {
	return onTarget(ctx, con, "media quarantine TARGET", "Keeps files from everybody, until they are released. Of a hash, later uploads are\nrefused as well.",
		"are in quarantine", func(m *media.Media) func(context.Context, media.Target) (int, error) { return m.Quarantine }, args)
}

func mediaRelease(ctx context.Context, con *console, args []string) error {
	return onTarget(ctx, con, "media release TARGET", "Ends a quarantine.", "are released",
		func(m *media.Media) func(context.Context, media.Target) (int, error) { return m.Release }, args)
}

func mediaDelete(ctx context.Context, con *console, args []string) error {
	return onTarget(ctx, con, "media delete TARGET", "Deletes files for good. Those of other servers may be fetched again; quarantine them\nif they must not be. Their bytes go as soon as the running server tidies up, or with\nthe next start.",
		"are deleted", func(m *media.Media) func(context.Context, media.Target) (int, error) { return m.Delete }, args)
}

func mediaUsage(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "media usage [--room ROOM | --servers]", "Tells how much users have uploaded; a running server may go on.", 0)
	room := f.String("room", "", "what the unencrypted events of this `ROOM` name instead")
	servers := f.Bool("servers", false, "what is kept of other servers instead, the most first")
	if _, err := f.parse(args); err != nil {
		return err
	}
	if *room != "" {
		if _, err := matrix.ParseRoomID(*room); err != nil {
			return err
		}
	}
	return withServer(ctx, con, f, false, func(s *server.Server, _ *config.Config) error {
		table := tabwriter.NewWriter(con.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "WHOSE\tFILES\tBYTES")
		err := eachUsage(ctx, s.Media, matrix.RoomID(*room), *servers, func(u media.Usage) { fmt.Fprintf(table, "%s\t%d\t%d\n", u.Name, u.Files, u.Bytes) })
		return errors.Join(err, table.Flush())
	})
}

// eachUsage calls show for the rows of a list.
func eachUsage(ctx context.Context, m *media.Media, room matrix.RoomID, servers bool, show func(media.Usage)) error {
	const page = 500
	switch {
	case room != "":
		u, err := m.RoomUsage(ctx, room)
		if err == nil {
			show(u)
		}
		return err
	case servers:
		list, err := m.Servers(ctx, page)
		for _, u := range list {
			show(u)
		}
		return err
	}
	for after := matrix.UserID(""); ; {
		list, err := m.Users(ctx, after, page)
		for _, u := range list {
			show(u)
			after = matrix.UserID(u.Name)
		}
		if err != nil || len(list) < page {
			return err
		}
	}
}

func mediaPurge(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "media purge [--server NAME] [--unused-for DURATION]", "Removes files of other servers; they are fetched again when somebody asks for them. A\nrunning server may go on.", 0)
	name := f.String("server", "", "only those of the server `NAME`")
	unused := f.Duration("unused-for", 0, "only those that nobody has asked for this long, such as 168h")
	if _, err := f.parse(args); err != nil {
		return err
	}
	if *name != "" {
		if _, err := matrix.ParseServerName(*name); err != nil {
			return err
		}
	}
	return withServer(ctx, con, f, false, func(s *server.Server, _ *config.Config) error {
		n, err := s.Media.Purge(ctx, matrix.ServerName(*name), time.Now().Add(-*unused).UnixMilli())
		if err == nil {
			fmt.Fprintf(con.out, "%d files are removed.\n", n)
		}
		return err
	})
}

func mediaCheck(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "media check [--contents] [--repair]", "Compares the files with what the database says of them. With --repair what can be\nput right is; the server must not be running then.", 0)
	contents := f.Bool("contents", false, "read every file and compare it with its hash; this may take long")
	repair := f.Bool("repair", false, "remove files that nothing needs, and forget thumbnails and other servers' files\nthat are gone, so that they are made or fetched again")
	if _, err := f.parse(args); err != nil {
		return err
	}
	return withServer(ctx, con, f, *repair, func(s *server.Server, _ *config.Config) error {
		bad := 0
		err := s.Media.Check(ctx, media.CheckOptions{Contents: *contents, Repair: *repair}, func(found media.Finding) {
			text := found.What
			if found.Repaired {
				text += " (repaired)"
			} else {
				bad++
			}
			fmt.Fprintln(con.out, strings.ToUpper(text[:1])+text[1:])
		})
		if err != nil {
			return err
		}
		if bad > 0 {
			return fmt.Errorf("%d files are not as they should be; --repair puts right what can be, a backup has the rest", bad)
		}
		fmt.Fprintln(con.out, "The files are as they should be.")
		return nil
	})
}
