package news

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func at(t testing.TB, zone, text string) (time.Time, *time.Location) {
	t.Helper()
	l, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	v, err := time.ParseInLocation("2006-01-02 15:04", text, l)
	if err != nil {
		t.Fatal(err)
	}
	return v, l
}

// Times of the day are the room's, over midnight and over changes of the clocks.
func TestWindow(t *testing.T) {
	for _, c := range []struct {
		zone, now         string
		digest, from, to  int
		until, due        string
		list, allowsAtAll bool
	}{
		{"Europe/Berlin", "2026-11-30 12:00", none, none, none, "2026-11-30 12:00", "", false, true},
		{"Europe/Berlin", "2026-11-30 12:00", 8 * 60, none, none, "2026-11-30 08:00", "2026-12-01 08:00", true, true},
		{"Europe/Berlin", "2026-11-30 07:59", 8 * 60, none, none, "2026-11-29 08:00", "2026-11-30 08:00", true, true},
		{"Europe/Berlin", "2026-11-30 08:00", 8 * 60, none, none, "2026-11-30 08:00", "2026-12-01 08:00", true, true},
		{"Asia/Shanghai", "2026-11-30 23:30", none, 22 * 60, 7 * 60, "", "2026-12-01 07:00", false, false},
		{"Asia/Shanghai", "2026-11-30 06:59", none, 22 * 60, 7 * 60, "", "2026-11-30 07:00", false, false},
		{"Asia/Shanghai", "2026-11-30 07:00", none, 22 * 60, 7 * 60, "2026-11-30 07:00", "", false, true},
		{"Asia/Shanghai", "2026-11-30 13:00", none, 12 * 60, 14 * 60, "", "2026-11-30 14:00", false, false},
		{"Asia/Shanghai", "2026-11-30 23:30", 23 * 60, 22 * 60, 7 * 60, "2026-11-30 23:00", "2026-12-01 23:00", true, true},
		{"Europe/Berlin", "2026-03-28 12:00", 2*60 + 30, none, none, "2026-03-28 02:30", "2026-03-29 03:30", true, true}, // 02:30 does not exist
		{"Europe/Berlin", "2026-10-25 12:00", 8 * 60, none, none, "2026-10-25 08:00", "2026-10-26 08:00", true, true},
	} {
		now, zone := at(t, c.zone, c.now)
		r := room{zone: zone, quietZone: zone, digest: c.digest, quietFrom: c.from, quietTo: c.to}
		until, list, due := r.window(now)
		text := func(v time.Time) string {
			if v.IsZero() {
				return ""
			}
			return v.In(zone).Format("2006-01-02 15:04")
		}
		if text(until) != c.until || text(due) != c.due || list != c.list || until.IsZero() == c.allowsAtAll {
			t.Errorf("%+v: until %s, due %s, list %v", c, text(until), text(due), list)
		}
	}
}

// Whatever the settings and the time: what is not sent now is sent at a later time,
// within a bit more than a day, and nothing of the future is sent.
func TestWindowProperty(t *testing.T) {
	zones := []string{"UTC", "Europe/Berlin", "Asia/Shanghai", "America/St_Johns", "Pacific/Apia", "Australia/Lord_Howe", "America/Sao_Paulo"}
	rapid.Check(t, func(t *rapid.T) {
		zone, err := time.LoadLocation(rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		minute := rapid.IntRange(none, 24*60-1)
		r := room{zone: zone, quietZone: zone, digest: minute.Draw(t, "digest"), quietFrom: minute.Draw(t, "from"), quietTo: minute.Draw(t, "to")}
		if r.quietTo == none {
			r.quietFrom = none
		}
		now := time.Unix(rapid.Int64Range(1_500_000_000, 2_000_000_000).Draw(t, "now"), 0)
		until, _, due := r.window(now)
		if until.After(now) || until.IsZero() && due.IsZero() {
			t.Fatalf("until %v, due %v", until, due)
		}
		if !due.IsZero() && (!due.After(now) || due.Sub(now) > 50*time.Hour) {
			t.Fatalf("due %v at %v", due, now)
		}
		if !due.IsZero() {
			if then, _, _ := r.window(due); then.Before(now) {
				t.Fatalf("at %v only what was found until %v is sent, not what was found at %v", due, then, now)
			}
		}
	})
}

func TestParseMinute(t *testing.T) {
	for text, want := range map[string]int{"7": 420, "8am": 480, "12AM": 0, "12:30pm": 750, "7.30": 450, "13pm": none, "8:00am": 480, "07:30": 450, "0:00": 0, "23:59": 1439, "8：15": 495, "24:00": none, "7:60": none, "": none, "noon": none, "-1": none} {
		got, err := parseMinute(text)
		if err != nil {
			got = none
		}
		if got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}

func TestWanted(t *testing.T) {
	for _, c := range []struct {
		text, keywords, muted string
		want                  bool
	}{
		{"Tea is here", "", "", true}, {"Tea is here", "tea", "", true}, {"The team is here", "tea", "", false}, {"Tea!", "TEA", "", true},
		{"Coffee", "tea", "", false}, {"Tea and coffee", "tea", "coffee", false}, {"Green tea party", "green tea, party", "", true}, {"Green party", "green tea", "", true},
		{"green-tea", "green tea,", "", false}, {"今天的茶馆新闻", "茶馆", "", true}, {"今天的茶馆新闻", "", "新闻", false}, {"café", "caf", "", false}, {"team tea", "tea", "", true},
		{"x", " , ,", "", true},
	} {
		if got := wanted(c.text, parseWords(c.keywords).words, parseWords(c.muted).words); got != c.want {
			t.Errorf("%+v", c)
		}
	}
}

func TestCutTime(t *testing.T) {
	for text, want := range map[string][2]string{
		"8:00": {"8:00", ""}, " 8 am  Europe/Berlin": {"8am", "Europe/Berlin"}, "22:00 - 7:00 america/port-au-prince": {"22:00-7:00", "america/port-au-prince"},
		"10 pm–7 am UTC": {"10pm-7am", "UTC"}, "": {"", ""}, "8:00 Etc/GMT-5": {"8:00", "Etc/GMT-5"},
	} {
		if clock, zone := cutTime(text); clock != want[0] || zone != want[1] {
			t.Errorf("%q: %q %q", text, clock, zone)
		}
	}
}

func TestZoneNamed(t *testing.T) {
	for name, want := range map[string]string{
		"europe/berlin": "Europe/Berlin", "EUROPE/BERLIN": "Europe/Berlin", "utc": "UTC", "america/port_of_spain": "America/Port_of_Spain", "america/port-au-prince": "America/Port-au-Prince",
		"Asia/Shanghai": "Asia/Shanghai", "Local": "", "local": "", "": "", "../etc/passwd": "", "mars/base": "",
	} {
		if got, ok := zoneNamed(name); got != want || ok != (want != "") {
			t.Errorf("%q: %q", name, got)
		}
	}
}
