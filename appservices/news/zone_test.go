package news

import (
	"strings"
	"testing"
	"time"
)

// Times without a zone are in that of the profile of who says them.
// spec: client-server#profiles
func TestZoneOfTheProfile(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		alice, room := r.chat("alice")
		p := &person{r, alice, room}
		for zone, want := range map[any]string{"Asia/Shanghai": "08:00 (Asia/Shanghai)", "Mars/Base": "08:00 (UTC)", 7: "08:00 (UTC)"} {
			alice.SetProfile("m.tz", zone)
			if got := p.tell("digest 8:00"); !strings.Contains(got, want) {
				t.Errorf("%v: %q", zone, got)
			}
		}
		if bob, room := r.chat("bob"); !strings.Contains(r.tell(bob, room, "digest 8:00"), "(UTC)") {
			t.Error("who has no profile has no zone")
		}
	})
}

// The digest and the quiet hours have a zone each, which the other one leaves alone.
func TestZonesApart(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.web.text("tea.example/", rss("Tea", old))
		p := r.follows("alice", "tea.example/")
		p.tell("digest 8:00 Asia/Shanghai")
		p.tell("quiet 22:00-7:00 Europe/Berlin")
		got := p.tell("list")
		if !strings.Contains(got, "08:00 (Asia/Shanghai)") || !strings.Contains(got, "22:00 to 07:00 (Europe/Berlin)") {
			t.Errorf("%q", got)
		}
		p.tell("digest off")
		if got := p.tell("list"); strings.Contains(got, "Shanghai") || !strings.Contains(got, "22:00 to 07:00 (Europe/Berlin)") {
			t.Errorf("%q", got)
		}
		r.until(20, 30) // 21:30 in Berlin
		r.web.text("tea.example/", rss("Tea", old, item{id: "1", title: "One"}))
		r.skip(2 * time.Hour)
		p.tell("digest 8:00 Asia/Shanghai") // at midnight UTC
		p.tell("quiet off")
		if got := p.tell("list"); !strings.Contains(got, "08:00 (Asia/Shanghai)") || strings.Contains(got, "Berlin") {
			t.Errorf("%q", got)
		}
	})
}
