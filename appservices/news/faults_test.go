package news

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit/kittest"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

// often is how often everything fails.
const often = 0.05

// TestFaults: over 30 days in which everything fails now and then, and the service is
// killed at random, no entry is lost, none is posted twice, and the service comes
// wherever it is invited. (Three days, where tests are to be quick.)
func TestFaults(t *testing.T) {
	seeds, days := 1, 3
	if os.Getenv("TEAHOUSE_LONG") != "" {
		seeds, days = 2, 30
	}
	for _, kind := range []string{"sqlite", "postgres"} {
		for seed := range seeds {
			t.Run(fmt.Sprintf("%s/seed=%d", kind, seed), func(t *testing.T) { suffer(t, dbtest.EmptyURL(t, kind), uint64(seed), days) })
		}
	}
}

// press is a feed that publishes at random and whose server fails now and then.
type press struct {
	name string

	mu    sync.Mutex
	dice  *rand.Rand
	fails float64
	kill  func() // the service
	items []item
	count int

	killers sync.WaitGroup
}

// strike kills the service a moment after it has fetched, which is when it stores and
// delivers. The caller holds the lock.
func (p *press) strike() {
	if p.dice.Float64() >= 4*p.fails {
		return
	}
	after := time.Duration(p.dice.IntN(5000)) * time.Microsecond
	p.killers.Go(func() {
		time.Sleep(after)
		p.kill()
	})
}

// heal ends all failures.
func (p *press) heal() {
	p.mu.Lock()
	p.fails = 0
	p.mu.Unlock()
	p.killers.Wait()
}

func (p *press) publish(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	p.items = append(p.items, item{id: fmt.Sprint(p.count), title: fmt.Sprintf("%s-%d.", p.name, p.count), text: "first", at: now})
	p.items = p.items[max(0, len(p.items)-80):]
}

// change edits an entry.
func (p *press) change() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.items) > 0 {
		p.items[p.dice.IntN(len(p.items))].text = fmt.Sprint("changed ", p.dice.IntN(100))
	}
}

func (p *press) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	text := rss(p.name, p.items...)
	p.strike()
	failing, how, cut := p.dice.Float64() < p.fails, p.dice.IntN(5), p.dice.IntN(len(text))
	p.mu.Unlock()
	if failing {
		switch how {
		case 0:
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case 1:
			text = text[:cut]
		case 2:
			text = "<html>captive portal"
		case 3:
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
			text = text[:cut]
		case 4:
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.Close()
			}
			return
		}
	}
	_, _ = w.Write([]byte(text))
}

func suffer(t *testing.T, url string, seed uint64, days int) {
	d := rand.New(rand.NewPCG(seed, 5))
	r := start(t, url, seed, kittest.Faults{})
	var feeds []*press
	for i := range 3 {
		p := &press{name: fmt.Sprintf("feed%d", i), dice: rand.New(rand.NewPCG(seed, uint64(10+i))), kill: r.Kill}
		feeds = append(feeds, p)
		r.web.serve(p.name+".example/", p.ServeHTTP)
	}
	alice := r.User("alice")
	rooms := map[id.RoomID][]*press{}
	for i, setting := range []string{"", "", "digest 8:00 Asia/Shanghai", "quiet 22:00-7:00 Europe/Berlin"} {
		room := alice.Direct(r.Bot())
		r.Settle()
		for _, p := range feeds[:1+i%3] {
			if got := r.tell(alice, room, "follow http://"+p.name+".example/"); !strings.Contains(got, "is followed here now") {
				t.Fatalf("%q", got)
			}
			rooms[room] = append(rooms[room], p)
		}
		if setting != "" {
			r.tell(alice, room, setting)
		}
	}
	r.Break(kittest.Everything(often))
	for _, p := range feeds {
		p.mu.Lock()
		p.fails = often
		p.mu.Unlock()
	}
	var late []id.RoomID // which it is invited to in the midst of it
	end := r.Clock.Now().Add(time.Duration(days) * 24 * time.Hour)
	for r.Clock.Now().Before(end) {
		for range d.IntN(3) {
			feeds[d.IntN(len(feeds))].publish(r.Clock.Now())
		}
		if d.Float64() < 0.2 {
			feeds[d.IntN(len(feeds))].change()
		}
		if d.Float64() < often {
			r.Kill()
		}
		if len(late) < 6 && d.Float64() < 0.1 {
			late = append(late, alice.Direct(r.Bot()))
		}
		r.Pass(time.Duration(1+d.IntN(5*3600)) * time.Second)
	}
	r.Heal()
	for _, p := range feeds {
		p.heal()
	}
	r.Pass(50 * time.Hour)
	for _, room := range late {
		if !slices.Contains(r.Members(room), r.Bot()) {
			t.Errorf("the invitation to %s was lost", room)
		}
	}
	published := 0
	for room, of := range rooms {
		for _, p := range of {
			published += p.count
			once(t, r, room, p)
		}
	}
	t.Logf("%d entries for rooms, in %d lives of the service", published, r.Lives())
}

// once checks that a room has each entry of a feed exactly once, in its order.
func once(t *testing.T, r *rig, room id.RoomID, p *press) {
	t.Helper()
	var got []string
	for _, text := range r.Said(room) {
		got = append(got, regexp.MustCompile(p.name+`-\d+\.`).FindAllString(text, -1)...)
	}
	var want []string
	for i := range p.count {
		want = append(want, fmt.Sprintf("%s-%d.", p.name, i+1))
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s has of %s\n%v\nand not\n%v", room, p.name, got, want)
	}
}
