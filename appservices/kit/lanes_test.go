package kit

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/clock"
)

// The work of a key is never done twice at once, that of no more keys than the width
// is, and none is forgotten, however they are woken.
func TestLanesAreBounded(t *testing.T) {
	const keys, wakes, width = 20, 200, 3
	var mu sync.Mutex
	running, most := map[string]bool{}, 0
	seen := map[string]int{}
	asked := map[string]int{}
	l := newLanes(clock.System, slog.New(slog.NewTextHandler(io.Discard, nil)), width, func(_ context.Context, key string) time.Time {
		mu.Lock()
		if running[key] {
			t.Error("the work of a key is done twice at once")
		}
		running[key] = true
		most = max(most, len(running))
		now := asked[key]
		mu.Unlock()
		time.Sleep(50 * time.Microsecond)
		mu.Lock()
		defer mu.Unlock()
		delete(running, key)
		seen[key] = now
		return time.Time{}
	})
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { l.run(ctx) })
	for i := range wakes * keys {
		key := string(rune('a' + i%keys))
		mu.Lock()
		asked[key]++
		mu.Unlock()
		l.wake(key)
	}
	for !l.idle() {
		time.Sleep(time.Millisecond)
	}
	stop()
	work.Wait()
	if most > width {
		t.Errorf("%d keys were worked for at once", most)
	}
	for key, n := range asked {
		if seen[key] != n {
			t.Errorf("what %s was woken for last was never looked at", key)
		}
	}
}

// A key rests as long as its work asks for, whoever wakes it, and one that panics rests,
// too; a pause holds for all.
func TestLanesRest(t *testing.T) {
	c := clock.NewManual(time.Unix(0, 0))
	calls := make(chan string, 10)
	l := newLanes(c, slog.New(slog.NewTextHandler(io.Discard, nil)), 2, func(_ context.Context, key string) time.Time {
		calls <- key
		switch key {
		case "rests":
			return c.Now().Add(time.Minute)
		case "panics":
			panic("so")
		}
		return time.Time{}
	})
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { l.run(ctx) })
	defer work.Wait()
	defer stop()
	settle := func() int {
		for !l.idle() || !c.Seen() {
			time.Sleep(time.Millisecond)
		}
		n := len(calls)
		for range n {
			<-calls
		}
		return n
	}
	l.wake("rests")
	l.wake("panics")
	if n := settle(); n != 2 {
		t.Errorf("there were %d calls, not 2", n)
	}
	l.wake("rests")
	l.wake("panics")
	if n := settle(); n != 0 {
		t.Errorf("there were %d calls in the rest", n)
	}
	c.Advance(time.Minute)
	if n := settle(); n != 1 {
		t.Errorf("after a minute there were %d calls, not 1", n)
	}
	l.pause(c.Now().Add(time.Hour))
	l.wake("other")
	c.Advance(10 * time.Minute)
	if n := settle(); n != 0 {
		t.Errorf("there were %d calls in the pause", n)
	}
	c.Advance(50 * time.Minute)
	if n := settle(); n != 3 {
		t.Errorf("after the pause there were %d calls, not 3", n)
	}
}

// No event makes reading it fail in a way that stops the service, or says something that
// it does not.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"type":"m.room.message","content":{"msgtype":"m.text","body":"hi","m.relates_to":{"m.in_reply_to":{"event_id":"$a"}}}}`,
		`{"type":"m.reaction","content":{"m.relates_to":{"rel_type":"m.annotation","event_id":"$a","key":"1"}}}`,
		`{"type":"m.room.member","state_key":"@a:b","content":{"membership":"join"},"unsigned":{"prev_content":{"membership":7}}}`,
		`{"type":"m.room.message","content":{"msgtype":"m.text","body":"* x","m.new_content":{},"m.relates_to":{"rel_type":"m.replace"}}}`,
		`{"type":"org.matrix.msc3381.poll.response","content":{"m.relates_to":7}}`, `{"type":"m.room.encryption","state_key":"","content":[]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		ev, err := decode(text)
		if err != nil {
			return
		}
		s := &Service{cfg: Config{User: "@bot:test", Prefix: "!bot", DisplayName: "Bot"}}
		s.addressed(ev, ev.Text())
		s.isOwnJoin(ev)
		_, _ = ev.replyTo(), ev.Thread()
		if m := ev.Message(); m != nil && m.RelatesTo.GetReplaceID() != "" && ev.Text() != "" {
			t.Error("an edit says something")
		}
	})
}
