package clock

import (
	"testing"
	"time"
)

func TestManual(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := NewManual(start)
	late, _ := m.Timer(time.Minute)
	early, _ := m.Timer(time.Second)
	_, stop := m.Timer(time.Millisecond)
	past, _ := m.Timer(-time.Second)
	if at := <-past; !at.Equal(start) {
		t.Error("a timer in the past:", at)
	}
	stop()
	if d, ok := m.Next(); !ok || d != time.Second {
		t.Errorf("the next timer is in %v, %v", d, ok)
	}
	m.Advance(time.Second)
	if m.Seen() {
		t.Error("a timer that ended counts as seen")
	}
	if at := <-early; !at.Equal(start.Add(time.Second)) || !m.Now().Equal(at) {
		t.Error("the timer of a second:", at)
	}
	if !m.Seen() {
		t.Error("a timer that was received from does not count as seen")
	}
	select {
	case <-late:
		t.Error("the timer of a minute ended after a second")
	default:
	}
	m.Advance(time.Hour)
	<-late
	if _, ok := m.Next(); ok {
		t.Error("a timer is left")
	}
}

func TestSystem(t *testing.T) {
	began := System.Now()
	c, stop := System.Timer(time.Millisecond)
	defer stop()
	if at := <-c; at.Before(began) {
		t.Error("the timer ended before it began")
	}
}
