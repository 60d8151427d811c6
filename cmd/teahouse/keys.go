package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/internal/server"
)

var keyCommands = map[string]command{"show": keysShow, "rotate": keysRotate}

func signingKeys(ctx context.Context, con *console, args []string) error {
	return subcommand(ctx, con, "keys", keyCommands, "show or rotate", args)
}

func keysShow(_ context.Context, con *console, args []string) error {
	f := newFlags(con, "keys show", "Shows the public halves of the keys that the server signs with, or has signed\nwith. The first call makes a key if there is none.", 0)
	if _, err := f.parse(args); err != nil {
		return err
	}
	cfg, err := f.load()
	if err != nil {
		return err
	}
	file, err := server.Keys(cfg, rand.Reader)
	if err != nil {
		return err
	}
	return printKeys(con, file)
}

func keysRotate(_ context.Context, con *console, args []string) error {
	f := newFlags(con, "keys rotate", "Makes a new key to sign with. The private half of the old one is deleted; what was\nsigned with it stays valid. The server must be stopped.", 0)
	if _, err := f.parse(args); err != nil {
		return err
	}
	cfg, err := f.load()
	if err != nil {
		return err
	}
	held, err := lock(cfg.DataDir)
	if errors.Is(err, errRunning) {
		return fmt.Errorf("%w, which would go on signing with the old key; stop it first", err)
	}
	if err != nil {
		return err
	}
	defer held.Close()
	file, err := server.RotateKey(cfg, rand.Reader, time.Now())
	if err != nil {
		return err
	}
	return printKeys(con, file)
}

func printKeys(con *console, file keys.File) error {
	table := tabwriter.NewWriter(con.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KEY\tPUBLIC\tEXPIRED")
	encode := base64.RawStdEncoding.EncodeToString
	fmt.Fprintf(table, "%s\t%s\t\n", file.Current.ID, encode(file.Current.Private.Public().(ed25519.PublicKey)))
	for _, k := range file.Old {
		fmt.Fprintf(table, "%s\t%s\t%s\n", k.ID, encode(k.Public), time.UnixMilli(k.Expired).UTC().Format(time.RFC3339))
	}
	return table.Flush()
}
