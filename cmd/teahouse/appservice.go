package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/teahouse-chat/teahouse/appservices"
	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/server"
)

var appserviceCommands = map[string]command{
	"add": appserviceAdd, "list": appserviceList, "status": appserviceStatus, "remove": appserviceRemove, "rotate": appserviceRotate,
	"pause": appservicePause, "resume": appserviceResume, "retry": appserviceRetry, "dead-letters": appserviceDeadLetters, "replay": appserviceReplay,
}

func appservice(ctx context.Context, con *console, args []string) error {
	return subcommand(ctx, con, "appservice", appserviceCommands, "add, list, remove, rotate, status, pause, resume, retry, dead-letters or replay", args)
}

const noticed = "\nA running server notices within a second."

// onServices runs a command that takes a service's id, or nothing, beside a running
// server.
func onServices(ctx context.Context, con *console, f *flags, args []string, do func(s *appservices.Services, id string) error) error {
	plain, err := f.parse(args)
	if err != nil {
		return err
	}
	return withServer(ctx, con, f, false, func(s *server.Server, _ *config.Config) error {
		id := ""
		if len(plain) > 0 {
			id = plain[0]
		}
		return do(s.Appservices, id)
	})
}

func appserviceAdd(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "appservice add FILE", "Registers an application service by its registration file, or - for the standard\ninput; one with the same id is replaced. The file is not needed afterwards."+noticed, 1)
	return onServices(ctx, con, f, args, func(s *appservices.Services, file string) error {
		var text []byte
		var err error
		if file == "-" {
			text, err = io.ReadAll(con.in)
		} else {
			text, err = os.ReadFile(file)
		}
		if err != nil {
			return fmt.Errorf("the registration cannot be read: %w", err)
		}
		r, err := s.Add(ctx, file, text)
		if err != nil {
			return err
		}
		fmt.Fprintf(con.out, "%s is registered\n", r.ID)
		for _, p := range r.Unknown {
			fmt.Fprintf(con.out, "note: %s\n", p)
		}
		return nil
	})
}

func appserviceRemove(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "appservice remove ID", "Ends an application service: its tokens are worth nothing any more, and what waits\nfor it is deleted. Its users stay."+noticed, 1)
	return onServices(ctx, con, f, args, func(s *appservices.Services, id string) error { return s.Remove(ctx, id) })
}

func appserviceRotate(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "appservice rotate ID", "Gives an application service new tokens and prints its registration with them. The\nold ones are worth nothing at once: put the new ones into the service and start it\nagain."+noticed, 1)
	return onServices(ctx, con, f, args, func(s *appservices.Services, id string) error {
		text, err := s.Rotate(ctx, id)
		if err != nil {
			return err
		}
		_, err = con.out.Write(text)
		return err
	})
}

func appservicePause(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "appservice pause ID", "Sends an application service nothing until it is resumed. What comes meanwhile waits."+noticed, 1)
	return onServices(ctx, con, f, args, func(s *appservices.Services, id string) error { return s.Pause(ctx, id, true) })
}

func appserviceResume(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "appservice resume ID", "Ends a pause."+noticed, 1)
	return onServices(ctx, con, f, args, func(s *appservices.Services, id string) error { return s.Pause(ctx, id, false) })
}

func appserviceRetry(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "appservice retry ID", "Has what waits for an application service sent at once, rather than when its rest\nis over."+noticed, 1)
	return onServices(ctx, con, f, args, func(s *appservices.Services, id string) error { return s.Retry(ctx, id) })
}

const listHelp = "Tells how it stands with each application service, or with one: what waits for it,\nsince when, and what went wrong last."

func appserviceList(ctx context.Context, con *console, args []string) error {
	return showServices(ctx, con, newFlags(con, "appservice list", listHelp, 0), args)
}

func appserviceStatus(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "appservice status [ID]", listHelp, 1)
	f.fewer = true
	return showServices(ctx, con, f, args)
}

func showServices(ctx context.Context, con *console, f *flags, args []string) error {
	return onServices(ctx, con, f, args, func(s *appservices.Services, id string) error {
		list, err := s.List(ctx)
		if err != nil {
			return err
		}
		if id != "" {
			list = slices.DeleteFunc(list, func(v appservices.Status) bool { return v.ID != id })
			if len(list) == 0 {
				return fmt.Errorf("there is no application service with the id %q; \"teahouse appservice list\" names all", id)
			}
		}
		table := tabwriter.NewWriter(con.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "ID\tSTATE\tWAITING\tSINCE\tDEAD LETTERS\tLAST TAKEN\tFROM\tLAST PROBLEM")
		for _, v := range list {
			fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%d\t%s\t%s\t%s\n", v.ID, stateOf(v), v.Waiting, stamp(v.Oldest), v.DeadLetters,
				stamp(v.LastSuccess), source(v), v.Problem)
		}
		return table.Flush()
	})
}

func stateOf(v appservices.Status) string {
	switch {
	case v.Paused:
		return "paused"
	case v.URL == "":
		return "sent nothing"
	case v.Failures > 0:
		return "failing until " + stamp(v.NextTry)
	}
	return "good"
}

func source(v appservices.Status) string {
	if v.File == "" {
		return "appservice add"
	}
	return v.File
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func appserviceDeadLetters(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "appservice dead-letters ID", "Lists the events that an application service refused for ever, a line of JSON each.\n\"teahouse appservice replay\" sends them again.", 1)
	return onServices(ctx, con, f, args, func(s *appservices.Services, id string) error {
		const page = 100
		for after := int64(0); ; {
			list, err := s.DeadLetters(ctx, id, after, page)
			if err != nil {
				return err
			}
			for _, l := range list {
				fmt.Fprintf(con.out, "%d\t%s\t%s\t%s\n", l.NID, time.UnixMilli(l.At).UTC().Format(time.RFC3339), strconv.Quote(l.Problem), l.Event)
				after = l.NID
			}
			if len(list) < page {
				return nil
			}
		}
	})
}

func appserviceReplay(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "appservice replay ID [--letter N]", "Sends an application service its dead letters again, behind what it has been sent."+noticed, 1)
	letter := f.Int64("letter", 0, "only the dead letter with this `number`")
	return onServices(ctx, con, f, args, func(s *appservices.Services, id string) error {
		n, err := s.Replay(ctx, id, *letter)
		if err != nil {
			return err
		}
		fmt.Fprintf(con.out, "%d will be sent again\n", n)
		return nil
	})
}
