package joining_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// TestJoinAtOnce has many users of one server join the same room: one asks the
// other server, the others follow.
func TestJoinAtOnce(t *testing.T) {
	s, _, p := here(t, "sqlite")
	for _, version := range []string{"6", "12"} {
		h := newHost(t, p, version)
		var users []*testrig.Client
		for i := range 6 {
			users = append(users, s.Register(fmt.Sprintf("user%d-%s", i, version)))
		}
		var joining sync.WaitGroup
		for _, u := range users {
			joining.Go(func() {
				if status, answer, err := u.Do(context.Background(), "POST", "/v3/join"+testrig.Path(h.ID)+"?via=evil", object{}); status != 200 {
					t.Errorf("version %s, %s: %d %v, %v", version, u.User, status, answer, err)
				}
			})
		}
		joining.Wait()
		for _, u := range users {
			if got := membership(users[0], h.ID, u.User); got != "join" {
				t.Errorf("version %s: the membership of %s is %s", version, u.User, got)
			}
		}
		h.mu.Lock()
		if h.made != 1 || len(h.sent) != 1 {
			t.Errorf("version %s: %d templates, %d joins", version, h.made, len(h.sent))
		}
		h.mu.Unlock()
	}
}

// TestJoinGoesOn stops the server between a join's being handed in and its being
// stored: it comes to its end after the next start.
func TestJoinGoesOn(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		s, bob, p := here(t, kind)
		h := newHost(t, p, "12")
		begun, released := make(chan struct{}), make(chan struct{})
		h.raw = func(http.ResponseWriter, []byte) {
			close(begun)
			<-released
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if status, answer, err := bob.Do(ctx, "POST", "/v3/join"+testrig.Path(h.ID)+"?via=evil", object{"reason": "at last"}); err == nil {
				t.Errorf("%s: %d %v", kind, status, answer)
			}
		}()
		<-begun
		cancel()
		<-done
		s.Stop()
		close(released)
		h.mu.Lock()
		h.raw = nil
		h.mu.Unlock()
		s = testrig.Start(t, s.Options)
		waitJoined(t, bob, h.ID)
		if got := member(bob, h.ID, bob.User)["reason"]; got != "at last" {
			t.Errorf("%s: the reason is %v", kind, got)
		}
		s.Stop()
	}
}

// waitJoined waits for a user to come to be in a room.
func waitJoined(t *testing.T, c *testrig.Client, room matrix.RoomID) {
	t.Helper()
	for since, deadline := "", time.Now().Add(2*time.Minute); membership(c, room, c.User) != "join"; {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come to be in %s", c.User, room)
		}
		since = c.Sync(since, 1000)["next_batch"].(string)
	}
}
