package appservices_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/appservices/registration"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// TestDeliveryProperty: whatever the service, the network, the server and operators do, in the
// end the service has each event that it had to get, once for each transaction id,
// in the order in which they happened, and so each message to its user's device; and
// no receipt twice.
func TestDeliveryProperty(t *testing.T) {
	seeds := 4
	if os.Getenv("TEAHOUSE_LONG") != "" {
		seeds = 40
	}
	for seed := range seeds {
		for _, kind := range []string{"sqlite", "postgres"} {
			t.Run(fmt.Sprintf("%s/seed=%d", kind, seed), func(t *testing.T) {
				w := newWorld(t, kind, uint64(seed))
				for range 60 {
					w.step()
				}
				w.settle()
			})
		}
	}
}

// world is a server with a service, and what the service has to get.
type world struct {
	t      *testing.T
	rand   *rand.Rand
	server *testrig.Server
	db     *db.DB // a look at the server's
	irc    *bridge
	alice  string // her token
	as     string // the service's token
	rooms  []matrix.RoomID
	joined map[matrix.RoomID]bool // the service's user is there
	claims bool                   // the service claims the last room
	hs     string                 // the token that it is sent
	want   []matrix.EventID
	said   int
	posted []string // to the device
}

const ghost = "@_irc_ghost:test"

func newWorld(t *testing.T, kind string, seed uint64) *world {
	url := dbtest.URL(t, kind)
	s := testrig.Start(t, testrig.Options{Database: url})
	w := &world{t: t, db: dbtest.OpenURL(t, url), rand: rand.New(rand.NewPCG(seed, 1)), server: s, irc: newBridge(t, s.Network, "irc"), as: "as-irc", hs: "hs-irc", joined: map[matrix.RoomID]bool{}}
	register(t, s, w.irc.registration(w.irc.mine(), ephemeral, encrypted))
	bot := w.irc.client(s)
	bot.Must("POST", "/v3/register", testrig.JSON{"type": "m.login.application_service", "username": "_irc_ghost", "inhibit_login": true})
	makeDevice(t, bot, "D?user_id="+ghost)
	alice := s.Register("alice")
	w.alice = alice.Token
	for range 3 {
		w.rooms = append(w.rooms, alice.CreateRoom(testrig.JSON{"preset": "public_chat"}))
	}
	return w
}

func (w *world) client(token string) *testrig.Client {
	c := w.server.Anonymous()
	c.Token = token
	return c
}

// step does one thing at random.
func (w *world) step() {
	room := w.rooms[w.rand.IntN(len(w.rooms))]
	switch n := w.rand.IntN(100); {
	case n < 40:
		w.say(room, n < 15)
	case n < 50:
		w.posted = append(w.posted, fmt.Sprint(len(w.posted)))
		post(w.client(w.alice), ghost, w.posted[len(w.posted)-1], w.posted[len(w.posted)-1])
	case n < 60:
		w.move(room)
	case n < 85:
		w.irc.answers([]func(*http.Request, string) (int, string){
			nil, status(answerLost), status(nothingSaid), status(503), status(500), w.sometimes(),
		}[w.rand.IntN(6)])
	case n < 90:
		w.server = w.server.Restart()
	case n < 92:
		w.rotate()
	case n < 94:
		w.claim()
	case n < 95:
		w.replace()
	case n < 97:
		w.must(w.server.Appservices.Pause(w.t.Context(), "irc", w.rand.IntN(2) == 0))
	default:
		w.must(w.server.Appservices.Retry(w.t.Context(), "irc"))
	}
}

// rotate gives the service new tokens. What is on its way has the old one.
func (w *world) rotate() {
	w.irc.mu.Lock()
	w.irc.rotating = true
	w.irc.mu.Unlock()
	text, err := w.server.Appservices.Rotate(w.t.Context(), "irc")
	w.must(err)
	r, err := registration.Parse("rotated", text)
	w.must(err)
	w.irc.mu.Lock()
	w.irc.tokens, w.irc.rotating = append(w.irc.tokens, "Bearer "+r.HSToken), false
	w.irc.mu.Unlock()
	w.as, w.hs = r.ASToken, r.HSToken
}

// claim has the service claim the last room, or no longer. What happened before is for
// whom it was then.
func (w *world) claim() {
	w.noted()
	w.claims = !w.claims
	w.register()
}

// replace takes the service away, once it has got everything, and registers it anew.
// What happens meanwhile is not for it.
func (w *world) replace() {
	w.heal()
	w.irc.gets(w.want...)
	w.irc.until("the messages to the device arrive", func() bool { return len(w.irc.messages("to_device", ghost, "D")) >= len(w.posted) })
	w.must(w.server.Appservices.Remove(w.t.Context(), "irc"))
	for _, room := range w.rooms {
		w.client(w.alice).Say(room, fmt.Sprint("meanwhile", w.said), "not for the service")
	}
	w.said++
	w.register()
}

func (w *world) register() {
	w.t.Helper()
	spaces := w.irc.mine()
	if w.claims {
		spaces = strings.TrimSuffix(spaces, "}") + fmt.Sprintf(", rooms: [{regex: '%s', exclusive: false}]}", regexp.QuoteMeta(string(w.rooms[2])))
	}
	text := w.irc.registration(spaces, ephemeral, encrypted)
	text = strings.NewReplacer("as_token: as-irc", "as_token: "+w.as, "hs_token: hs-irc", "hs_token: "+w.hs).Replace(text)
	register(w.t, w.server, text)
}

// noted waits until it is known of all that happened for whom it is.
func (w *world) noted() {
	if !w.joined[w.rooms[0]] {
		w.move(w.rooms[0])
	}
	last := w.say(w.rooms[0], false)
	w.irc.until("all is noted", func() bool {
		n, _, err := db.One(w.t.Context(), w.db, notedUpTo, func(s db.Scanner) (n int, err error) {
			err = s.Scan(&n)
			return n, err
		}, last)
		return err == nil && n == 1
	})
}

var notedUpTo = db.SQL(`SELECT COUNT(*) FROM appservice_progress p JOIN events e ON e.position <= p.position WHERE e.event_id = $1`)

// say has alice say something, and perhaps read it.
func (w *world) say(room matrix.RoomID, reads bool) matrix.EventID {
	w.said++
	alice := w.client(w.alice)
	id := alice.Say(room, fmt.Sprint(w.said), "message")
	if w.joined[room] || w.claims && room == w.rooms[2] {
		w.want = append(w.want, id)
	}
	if reads {
		alice.Must("POST", "/v3/rooms"+testrig.Path(room, "receipt", "m.read", id), testrig.JSON{})
	}
	return id
}

// move has the service's user come or go, and notes what the service has to get of
// it.
func (w *world) move(room matrix.RoomID) {
	c, what := w.client(w.as), "join"
	if w.joined[room] {
		what = "leave"
	}
	c.Must("POST", "/v3/rooms"+testrig.Path(room, what)+"?user_id="+ghost, testrig.JSON{})
	w.joined[room] = !w.joined[room]
	for _, ev := range w.client(w.alice).Must("GET", "/v3/rooms"+testrig.Path(room, "messages")+"?dir=b&limit=1", nil)["chunk"].([]any) {
		w.want = append(w.want, matrix.EventID(ev.(testrig.JSON)["event_id"].(string)))
	}
}

// sometimes is a service that fails at every third request.
func (w *world) sometimes() func(*http.Request, string) (int, string) {
	n := 0
	return func(r *http.Request, _ string) (int, string) {
		if n++; n%3 == 0 && strings.Contains(r.URL.Path, "transactions") {
			return answerLost, ""
		}
		return 200, "{}"
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) heal() {
	w.irc.answers(nil)
	w.must(w.server.Appservices.Pause(w.t.Context(), "irc", false))
	w.must(w.server.Appservices.Retry(w.t.Context(), "irc"))
}

// settle heals everything and looks at what the service has.
func (w *world) settle() {
	w.heal()
	// A last event that is surely behind all others.
	if !w.joined[w.rooms[0]] {
		w.move(w.rooms[0])
	}
	last := w.say(w.rooms[0], true)
	w.server.Clock.Advance(10 * time.Minute)
	w.irc.gets(w.want...)
	w.irc.until("the messages to the device arrive", func() bool { return len(w.irc.messages("to_device", ghost, "D")) >= len(w.posted) })
	w.irc.until("the last receipt arrives", func() bool { return w.irc.has("ephemeral", read("m.read", last, "@alice:test")) })
	w.irc.mu.Lock()
	defer w.irc.mu.Unlock()
	if got := w.irc.messages("to_device", ghost, "D"); !slices.Equal(got, w.posted) {
		w.t.Errorf("the device gets %v and not %v", got, w.posted)
	}
	receipts := map[string]bool{}
	for _, ev := range w.irc.beside("ephemeral") {
		for id := range ev["content"].(testrig.JSON) {
			if ev["type"] == "m.receipt" && receipts[id] {
				w.t.Errorf("the receipt of %s is told twice", id)
			}
			receipts[id] = true
		}
	}
}
