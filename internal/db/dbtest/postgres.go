package dbtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/teahouse-chat/teahouse/internal/db"
)

// server is where the test process makes its databases. Each is a copy of one
// that has been migrated already.
type server struct {
	url      string
	template string
	alive    *os.File // keeps our own cluster running; nil for another's

	mu    sync.Mutex // of admin; CREATE DATABASE needs its template unused, too
	admin *pgx.Conn
	count atomic.Int64
}

// errNoServer is that there is no server and that none can be started.
var errNoServer = errors.New("there is no server")

var theServer = sync.OnceValues(newServer)

func newServer() (*server, error) {
	address := os.Getenv("TEAHOUSE_TEST_POSTGRES")
	var alive *os.File
	if address == "" {
		var err error
		if address, alive, err = joinCluster(); err != nil {
			return nil, fmt.Errorf("%w: %w", errNoServer, err)
		}
	}
	ctx := context.Background()
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, err
	}
	s := &server{url: address, alive: alive, template: "teahouse_test_" + strings.ToLower(rand.Text()[:10])}
	config.RuntimeParams["application_name"] = s.template
	if s.admin, err = pgx.ConnectConfig(ctx, config); err != nil {
		return nil, err
	}
	if err := s.sweep(ctx); err != nil {
		return nil, err
	}
	if err := s.exec("CREATE DATABASE " + s.template + " ENCODING 'UTF8' TEMPLATE template0"); err != nil {
		return nil, err
	}
	d, err := db.Open(ctx, s.database(s.template), db.Options{})
	if err != nil {
		return nil, err
	}
	return s, d.Close()
}

// sweep drops the databases of test processes that have ended: those whose
// template no connection bears as its name.
func (s *server) sweep(ctx context.Context) error {
	rows, _ := s.admin.Query(ctx, `SELECT d.datname FROM pg_database d WHERE d.datname LIKE 'teahouse\_test\_%' AND NOT EXISTS (
		SELECT FROM pg_stat_activity a WHERE starts_with(a.application_name, 'teahouse_test_')
			AND starts_with(d.datname || '_', a.application_name || '_'))`)
	left, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range left {
		// Another process may be sweeping, too.
		if err := s.exec("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)"); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) exec(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.admin.Exec(context.Background(), text)
	return err
}

// database is the URL of a database on the server.
func (s *server) database(name string) string {
	u, err := url.Parse(s.url)
	if err != nil {
		panic(err)
	}
	u.Path = "/" + name
	return u.String()
}

func postgresURL(t testing.TB) string {
	t.Helper()
	s := connect(t)
	return s.create(t, s.template)
}

// BareURL names a new PostgreSQL database without any table.
func BareURL(t testing.TB) string {
	t.Helper()
	return connect(t).create(t, "template0")
}

func connect(t testing.TB) *server {
	t.Helper()
	s, err := theServer()
	if errors.Is(err, errNoServer) {
		unavailable(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// create makes a database that goes with the test.
func (s *server) create(t testing.TB, template string) string {
	t.Helper()
	name := fmt.Sprintf("%s_%d", s.template, s.count.Add(1))
	if err := s.exec("CREATE DATABASE " + name + " ENCODING 'UTF8' TEMPLATE " + template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	return s.database(name)
}
