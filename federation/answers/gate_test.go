package answers

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// TestGates has more requests than a server may make: some wait, the others are
// sent away, and another server is not held up.
func TestGates(t *testing.T) {
	g := gates{of: map[matrix.ServerName]*gate{}}
	var leaves []func()
	for range atOnce {
		leave, err := g.enter(t.Context(), "a.org")
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leave)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.enter(gone, "a.org"); !errors.Is(err, context.Canceled) {
		t.Errorf("whoever is gone came in: %v", err)
	}
	var line sync.WaitGroup
	for range waiting {
		line.Go(func() {
			leave, err := g.enter(t.Context(), "a.org")
			if err != nil {
				t.Error(err)
				return
			}
			leave()
		})
	}
	for g.users("a.org") < atOnce+waiting {
	}
	if _, err := g.enter(t.Context(), "a.org"); !matrix.HasCode(err, matrix.CodeLimitExceeded) {
		t.Errorf("the line is endless: %v", err)
	}
	leave, err := g.enter(t.Context(), "b.org")
	if err != nil {
		t.Fatal(err)
	}
	leave()
	for _, leave := range leaves {
		leave()
	}
	line.Wait()
	if len(g.of) != 0 {
		t.Errorf("%d servers are remembered", len(g.of))
	}
}

func (g *gates) users(s matrix.ServerName) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.of[s].users
}
