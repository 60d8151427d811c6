package syncapi

import (
	"math"
	"testing"
	"time"
)

// No client waits longer than the configuration allows.
func TestWaitFor(t *testing.T) {
	s := &Service{Deps: Deps{MaxWait: 2 * time.Minute}}
	for ms, want := range map[int64]time.Duration{
		-1: 0, 0: 0, 1: time.Millisecond, 30_000: 30 * time.Second, 120_001: 2 * time.Minute, math.MaxInt64: 2 * time.Minute,
	} {
		if got := s.waitFor(ms); got != want {
			t.Errorf("who asks for %d ms waits %v, not %v", ms, got, want)
		}
	}
}
