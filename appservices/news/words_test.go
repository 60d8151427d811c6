package news

import (
	"strings"
	"testing"
)

// Only "off" ends a filter or a mute list: what cannot be read changes nothing and is
// named, and without words they are shown.
func TestWords(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.web.text("tea.example/", rss("Tea", old))
		p := r.follows("alice", "tea.example/")
		chinese := strings.Repeat("茶", 25) // 75 bytes
		long := strings.Repeat("x", 61)
		for _, c := range []struct{ text, want string }{
			{"mute", "No words are muted"},
			{"mute coffee", "one of these: coffee"}, {"mute", "one of these: coffee"}, {"mute ,", "one of these: coffee"},
			{"mute tea, " + long, "Too long: xxxxxxxxxxxxxxxxxxxx…. A word may have 60 characters"}, {"mute", "one of these: coffee"},
			{"mute " + strings.Repeat("a ", 51), "50 words at most"}, {"屏蔽 " + long, "太长：xxx"}, {"屏蔽", "不会发送到这里：coffee"},
			{"mute " + chinese, "不会发送到这里：" + chinese}, {"mute off", "No words are muted"}, {"mute", "No words are muted"},
			{"filter 1", "Everything of Tea comes here"}, {"filter 1 green tea, oolong", "green tea, oolong"}, {"filter 1", "green tea, oolong"},
			{"filter 1 " + long, "Too long"}, {"filter 1", "green tea, oolong"}, {"filter 1 " + chinese, chinese}, {"filter 1 off", "Everything of Tea comes here"},
			{"filter", "Please say: filter NUMBER"}, {"筛选", "请说：筛选 编号"},
		} {
			if got := p.tell(c.text); !strings.Contains(got, c.want) {
				t.Errorf("%s: %q", c.text, got)
			}
		}
	})
}

// What cannot be understood is answered with how to say it; times and zones are read as
// people write them; several addresses are several feeds.
func TestManners(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		for _, name := range []string{"tea", "milk"} {
			r.web.text(name+".example/", rss(name, old))
		}
		u, room := r.chat("alice")
		p := &person{r, u, room}
		for _, c := range []struct{ text, want string }{
			{"digest", "Please say: digest 8:00"}, {"quiet", "Please say: quiet 22:00-7:00"}, {"publish", "Please say: publish ADDRESS"},
			{"quiet 10pm - 7 am europe/berlin", "from 22:00 to 07:00 (Europe/Berlin)"}, {"digest 7.30", "at 07:30 (UTC)"}, {"digest 8 am asia/shanghai", "at 08:00 (Asia/Shanghai)"},
			{"list", "Nothing is followed here yet"}, {"list", "22:00 to 07:00 (Europe/Berlin)"}, {"list", "08:00 (Asia/Shanghai)"},
			{"follow http://tea.example/ http://milk.example/", "tea is followed here now"}, {"list", "2. milk"},
			{"follow the guardian", "no feed at the guardian (it is no address of the web)"},
			{"follow http://tea.example/ x", "http://tea.example/ x (it is no address of the web)"},
			{"follow " + strings.Repeat("a.example ", 11), "10 addresses at a time"},
		} {
			if got := p.tell(c.text); !strings.Contains(got, c.want) {
				t.Errorf("%s: %q", c.text, got)
			}
		}
	})
}
