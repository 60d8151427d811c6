package kit_test

import (
	"context"
	"log"
	"os"
	"os/signal"
	"strconv"

	"github.com/teahouse-chat/teahouse/appservices/kit"
)

// The bot has a table of its own beside the kit's.
var (
	schema = kit.NewSchema("tally", `CREATE TABLE cups (room TEXT PRIMARY KEY, n INTEGER NOT NULL)`)
	drink  = schema.SQL(`
		INSERT INTO cups (room, n) VALUES ($1, $2)
		ON CONFLICT (room) DO UPDATE SET n = cups.n + excluded.n RETURNING n`)
)

func open(ctx context.Context, c kit.Config) (*kit.Service, error) {
	c.Schema, c.Prefix, c.DisplayName = schema, "!tally", "Tally"
	c.Texts = kit.Catalogue{"en": {"cups": "CUPS", "help": "notes that tea was drunk", "total": "That makes %d."}}
	s, err := kit.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	s.Command(kit.Command{Name: "drink", Args: "cups", Help: "help", Run: func(tx *kit.Tx, c *kit.Call) error {
		cups, err := strconv.Atoi(c.Rest)
		if err != nil {
			cups = 1
		}
		total, _, err := kit.One(tx.Context(), tx, drink, scan, c.RoomID, cups)
		// The row, the answer and that the command is done are one transaction.
		c.Answer(tx, "total", total)
		return err
	}})
	return s, nil
}

func scan(r kit.Scanner) (n int, err error) {
	err = r.Scan(&n)
	return n, err
}

func Example() {
	c, err := kit.FromRegistration("tally.yaml", "localhost")
	if err != nil {
		log.Fatal(err)
	}
	c.Homeserver, c.Database = "http://localhost:8008", "sqlite://tally.db"
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	s, err := open(ctx, c)
	if err != nil {
		log.Fatal(err)
	}
	log.Println(s.Run(ctx), s.Close())
}
