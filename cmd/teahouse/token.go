package main

import (
	"context"
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/teahouse-chat/teahouse/accounts"
	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/server"
)

var tokenCommands = map[string]command{"add": tokenAdd, "list": tokenList, "delete": tokenDelete}

func token(ctx context.Context, con *console, args []string) error {
	return subcommand(ctx, con, "token", tokenCommands, "add, list or delete", args)
}

func tokenAdd(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "token add [--uses N] [--expires DURATION]", "Makes a token that people register with where registration.mode is token, and\nprints it. A running server may go on.", 0)
	uses := f.Int64("uses", 1, "how many accounts it may make; 0 for any number")
	expires := f.Duration("expires", 0, "how long it is good, such as 48h; 0 for ever")
	if _, err := f.parse(args); err != nil {
		return err
	}
	return withServer(ctx, con, f, false, func(s *server.Server, _ *config.Config) error {
		t := accounts.RegistrationToken{Uses: *uses}
		if t.Uses == 0 {
			t.Uses = accounts.Unlimited
		}
		if *expires > 0 {
			t.Expires = time.Now().Add(*expires)
		}
		text, err := s.Accounts.CreateRegistrationToken(ctx, t)
		if err != nil {
			return err
		}
		fmt.Fprintln(con.out, text)
		return nil
	})
}

func tokenList(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "token list", "Lists the registration tokens; a running server may go on.", 0)
	if _, err := f.parse(args); err != nil {
		return err
	}
	return withServer(ctx, con, f, false, func(s *server.Server, _ *config.Config) error {
		tokens, err := s.Accounts.RegistrationTokens(ctx)
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(con.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "TOKEN\tUSED\tOF\tUNTIL")
		for _, t := range tokens {
			of, until := "any number", "for ever"
			if t.Uses != accounts.Unlimited {
				of = strconv.FormatInt(t.Uses, 10)
			}
			if !t.Expires.IsZero() {
				until = t.Expires.UTC().Format(time.RFC3339)
			}
			fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", t.Token, t.Used, of, until)
		}
		return table.Flush()
	})
}

func tokenDelete(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "token delete TOKEN", "Deletes a registration token; accounts made with it stay. A running server may\ngo on.", 1)
	plain, err := f.parse(args)
	if err != nil {
		return err
	}
	return withServer(ctx, con, f, false, func(s *server.Server, _ *config.Config) error {
		if err := s.Accounts.DeleteRegistrationToken(ctx, plain[0]); err != nil {
			return err
		}
		fmt.Fprintln(con.out, "The token is deleted.")
		return nil
	})
}
