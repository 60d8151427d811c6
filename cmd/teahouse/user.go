package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/teahouse-chat/teahouse/accounts"
	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/server"
)

var userCommands = map[string]command{"add": userAdd, "password": userPassword, "deactivate": userDeactivate, "list": userList}

func user(ctx context.Context, con *console, args []string) error {
	return subcommand(ctx, con, "user", userCommands, "add, password, deactivate or list", args)
}

// subcommand calls the command that the first argument names.
func subcommand(ctx context.Context, con *console, name string, all map[string]command, names string, args []string) error {
	if len(args) > 0 {
		if cmd := all[args[0]]; cmd != nil {
			return cmd(ctx, con, args[1:])
		}
	}
	fmt.Fprintf(con.err, "teahouse: %q needs one of %s after it\n", "teahouse "+name, names)
	return errUsage
}

const passwordHelp = "The password is drawn and printed, or with --password-stdin read from the first\nline of the standard input. It is never given as an argument, where other users\nof the machine would see it."

func userAdd(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "user add NAME [--admin] [--display-name TEXT] [--password-stdin]", "Makes an account, whatever registration.mode is; a running server may go on.\n"+passwordHelp, 1)
	admin := f.Bool("admin", false, "the user may use the admin API")
	display := f.String("display-name", "", "the name that others see")
	stdin := f.Bool("password-stdin", false, "read the password from the standard input")
	plain, err := f.parse(args)
	if err != nil {
		return err
	}
	password, drawn, err := newPassword(con, *stdin)
	if err != nil {
		return err
	}
	return withServer(ctx, con, f, false, func(s *server.Server, cfg *config.Config) error {
		id, err := userID(plain[0], cfg)
		if err != nil {
			return err
		}
		id, err = s.Accounts.AddUser(ctx, accounts.NewAccount{Name: id.Localpart(), Password: password, DisplayName: *display, Admin: *admin})
		if err != nil {
			return err
		}
		fmt.Fprintf(con.out, "%s has an account now.%s\n", id, drawn)
		return nil
	})
}

func userPassword(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "user password NAME [--keep-sessions] [--password-stdin]", "Sets a password and logs the user out everywhere. The server must not be running.\n"+passwordHelp, 1)
	keep := f.Bool("keep-sessions", false, "leave the user logged in")
	stdin := f.Bool("password-stdin", false, "read the password from the standard input")
	plain, err := f.parse(args)
	if err != nil {
		return err
	}
	password, drawn, err := newPassword(con, *stdin)
	if err != nil {
		return err
	}
	return withServer(ctx, con, f, true, func(s *server.Server, cfg *config.Config) error {
		id, err := userID(plain[0], cfg)
		if err != nil {
			return err
		}
		if err := s.Accounts.SetPassword(ctx, id, password, !*keep); err != nil {
			return err
		}
		fmt.Fprintf(con.out, "%s has a new password.%s\n", id, drawn)
		return nil
	})
}

func userDeactivate(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "user deactivate NAME [--erase]", "Closes an account for good: the user is logged out, leaves all rooms, and the name\nis not given away again. The server must not be running.", 1)
	erase := f.Bool("erase", false, "also hide what the user wrote from those who join later, and remove the user's data")
	plain, err := f.parse(args)
	if err != nil {
		return err
	}
	return withServer(ctx, con, f, true, func(s *server.Server, cfg *config.Config) error {
		id, err := userID(plain[0], cfg)
		if err != nil {
			return err
		}
		if err := s.Accounts.Deactivate(ctx, id, *erase); err != nil {
			return err
		}
		fmt.Fprintf(con.out, "%s is deactivated.\n", id)
		return nil
	})
}

func userList(ctx context.Context, con *console, args []string) error {
	f := newFlags(con, "user list", "Lists the accounts; a running server may go on.", 0)
	if _, err := f.parse(args); err != nil {
		return err
	}
	return withServer(ctx, con, f, false, func(s *server.Server, _ *config.Config) error {
		table := tabwriter.NewWriter(con.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "USER\tSINCE\tNOTES")
		const page = 500
		after := matrix.UserID("")
		for {
			users, err := s.Accounts.Users(ctx, after, page)
			if err != nil {
				return err
			}
			for _, u := range users {
				fmt.Fprintf(table, "%s\t%s\t%s\n", u.ID, time.UnixMilli(u.CreatedTS).UTC().Format(time.DateOnly), notes(u))
				after = u.ID
			}
			if len(users) < page {
				return table.Flush()
			}
		}
	})
}

func notes(u accounts.User) string {
	var list []string
	for _, n := range []struct {
		is   bool
		text string
	}{{u.Admin, "admin"}, {u.Guest, "guest"}, {u.Locked, "locked"}, {u.Deactivated, "deactivated"}, {u.Erased, "erased"}} {
		if n.is {
			list = append(list, n.text)
		}
	}
	if u.Appservice != "" {
		list = append(list, "of "+u.Appservice)
	}
	return strings.Join(list, ", ")
}

// newPassword reads a password, or draws one with a text that tells it.
func newPassword(con *console, stdin bool) (password, drawn string, err error) {
	if !stdin {
		password = rand.Text()
		return password, " Password: " + password, nil
	}
	line, err := bufio.NewReader(io.LimitReader(con.in, 64<<10)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", "", fmt.Errorf("the password cannot be read: %w", err)
	}
	if password = strings.TrimRight(line, "\r\n"); password == "" {
		return "", "", errors.New("the standard input holds no password")
	}
	return password, "", nil
}
