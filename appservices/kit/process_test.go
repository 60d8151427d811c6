package kit_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/kit/kittest"
	"github.com/teahouse-chat/teahouse/internal/db"
)

// child is the environment variable by which this program is a service.
const child = "TEAHOUSE_KIT_CHILD"

func TestMain(m *testing.M) {
	if told := os.Getenv(child); told != "" {
		if err := beService(told); err != nil {
			log.Fatal(err)
		}
		return
	}
	os.Exit(m.Run())
}

// hurried is a clock for which a second takes some milliseconds.
type hurried struct{ began time.Time }

const hurry = 200

func (h hurried) Now() time.Time { return h.began.Add(time.Since(h.began) * hurry) }

func (h hurried) Timer(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d / hurry)
	return t.C, func() { t.Stop() }
}

// state is what the child tells of itself.
type state struct {
	Idle          bool
	Events, Sends int
}

// beService runs the ledger until it is killed, and says where it listens.
func beService(told string) error {
	ctx := context.Background()
	c := kit.Config{Clock: hurried{time.Now()}}
	if err := json.Unmarshal([]byte(told), &c); err != nil {
		return err
	}
	service, err := openLedger(ctx, c)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", service.Handler())
	mux.HandleFunc("/state", func(w http.ResponseWriter, r *http.Request) {
		v := state{Idle: service.Idle()}
		if v.Events, v.Sends, err = service.Waiting(r.Context()); err != nil {
			log.Print(err)
		}
		_ = json.NewEncoder(w).Encode(v)
	})
	fmt.Println(l.Addr())
	go func() { _ = http.Serve(l, mux) }()
	return service.Run(ctx)
}

// remote is a service in a process of its own.
type remote struct {
	command *exec.Cmd
	proxy   *httputil.ReverseProxy
	base    string
	home    *httptest.Server
}

func openRemote(_ context.Context, c kit.Config) (kittest.Service, error) {
	wire := c.Transport
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := wire.RoundTrip(r)
		if err != nil {
			panic(http.ErrAbortHandler) // which cuts the connection
		}
		for name := range answer.Header {
			w.Header().Set(name, answer.Header.Get(name))
		}
		w.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(w, answer.Body)
	}))
	told, err := json.Marshal(map[string]any{
		"ID": c.ID, "User": c.User, "ASToken": c.ASToken, "HSToken": c.HSToken, "Homeserver": home.URL, "Database": c.Database,
	})
	if err != nil {
		return nil, err
	}
	r := &remote{command: exec.Command(os.Args[0]), home: home}
	r.command.Env = append(os.Environ(), child+"="+string(told))
	out, err := r.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.command.Start(); err != nil {
		return nil, err
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the service did not start: %w", err)
	}
	r.base = "http://" + address[:len(address)-1]
	base, err := url.Parse(r.base)
	r.proxy = httputil.NewSingleHostReverseProxy(base)
	r.proxy.ErrorLog = log.New(io.Discard, "", 0)
	return r, err
}

func (r *remote) Handler() http.Handler { return r.proxy }

// Run is the process's life.
func (r *remote) Run(ctx context.Context) error {
	<-ctx.Done()
	err := r.command.Process.Kill()
	_ = r.command.Wait()
	r.home.Close()
	return err
}

func (r *remote) Close() error { return nil }

func (r *remote) state(ctx context.Context) (v state) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+"/state", nil)
	if err != nil {
		return v
	}
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		return state{Idle: true, Events: 1} // it was killed, and something is left to do
	}
	defer answer.Body.Close()
	_ = json.NewDecoder(answer.Body).Decode(&v)
	return v
}

func (r *remote) Idle() bool { return r.state(context.Background()).Idle }

func (r *remote) Waiting(ctx context.Context) (events, sends int, err error) {
	v := r.state(ctx)
	return v.Events, v.Sends, nil
}

// TestKillProcess is TestFaults with a process that is killed by the system: nothing is
// flushed, closed or waited for.
func TestKillProcess(t *testing.T) {
	steps := 60
	if os.Getenv("TEAHOUSE_LONG") != "" {
		steps = 1000
	}
	each(t, func(t *testing.T, database string) {
		d := rand.New(rand.NewPCG(5, 5))
		faults := kittest.Everything(0.04)
		faults.Lose = 0 // an hour passes before it is noticed, which this clock does not have
		r := kittest.Start(t, kittest.Options{Database: database, Seed: 5, Faults: faults, Open: openRemote})
		alice := r.User("alice")
		rooms := []id.RoomID{alice.CreateRoom(r.Bot()), alice.CreateRoom(r.Bot())}
		r.Settle()
		said := map[id.RoomID][]string{}
		for i := range steps {
			room, text := rooms[d.IntN(len(rooms))], fmt.Sprint("text ", i)
			alice.Say(room, text)
			said[room] = append(said[room], text)
			if d.IntN(4) == 0 {
				r.Pass(time.Minute)
			}
			if d.IntN(20) == 0 {
				time.AfterFunc(time.Duration(d.IntN(20000))*time.Microsecond, r.Kill)
			}
		}
		r.Heal()
		r.Settle()
		t.Logf("%d texts in %d lives of the service", steps, r.Lives())
		q, err := db.Open(t.Context(), database, db.Options{Set: ledger})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		for _, room := range rooms {
			exactlyOnce(t, r, q, room, said[room])
		}
	})
}
