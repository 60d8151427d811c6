package simulation_test

import (
	"fmt"
	"net/url"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// act lets somebody whose server runs do something. What it is is decided here;
// the answer is not waited for.
func (w *world) act() {
	p := w.people[w.chance.IntN(len(w.people))]
	if w.chance.IntN(4) == 0 {
		p = w.founder() // may do everything, so that more comes of it
	}
	if p.site.down {
		return
	}
	other := w.people[1+w.chance.IntN(len(w.people)-1)]
	what, n := w.chance.IntN(26), w.chance.IntN(1000)
	if w.membership(p, p) != matrix.MembershipJoin && w.chance.IntN(4) > 0 {
		via := w.sites[w.chance.IntN(len(w.sites))].name
		w.doing.Go(func() { w.join(p, via) })
		return
	}
	w.doing.Go(w.choose(p, other, what, n))
}

// choose decides what a person does.
func (w *world) choose(p, other *person, what, n int) func() {
	member := func(action string, body testrig.JSON) func() {
		return func() { w.ask(p, "POST", "/v3/rooms"+testrig.Path(w.room, action), body) }
	}
	state := func(typ string, content testrig.JSON) func() {
		return func() { w.ask(p, "PUT", "/v3/rooms"+testrig.Path(w.room, "state", typ)+"/", content) }
	}
	about := testrig.JSON{"user_id": other.User, "reason": fmt.Sprint(n)}
	switch what {
	case 0, 1, 2, 3, 4, 5, 6:
		return func() { w.say(p, n) }
	case 7, 8, 9, 10:
		return state(matrix.TypeTopic, testrig.JSON{"topic": fmt.Sprint(n)})
	case 11, 12:
		return state(matrix.TypeName, testrig.JSON{"name": fmt.Sprint(n)})
	case 13, 14:
		if p == w.founder() {
			return func() { w.say(p, n) }
		}
		return member("leave", testrig.JSON{})
	case 15, 16:
		return member("invite", about)
	case 17:
		return member("kick", about)
	case 18:
		return member("ban", about)
	case 19:
		return member("unban", about)
	case 20, 21:
		return func() { w.promote(p, other, []int{0, 50, 100}[n%3], n%2 == 0) }
	case 22:
		return state(matrix.TypeJoinRules, testrig.JSON{"join_rule": []string{"public", "public", "invite", "knock"}[n%4]})
	case 23, 24:
		return func() { w.redact(p, n) }
	default:
		return func() {
			w.ask(p, "PUT", "/v3/profile"+testrig.Path(p.User, "displayname"), testrig.JSON{"displayname": fmt.Sprint(n)})
		}
	}
}

func (w *world) join(p *person, via ...matrix.ServerName) {
	q := url.Values{}
	for _, s := range append(via, w.sites[0].name) {
		q.Add("via", string(s))
	}
	w.ask(p, "POST", "/v3/join"+testrig.Path(w.room)+"?"+q.Encode(), testrig.JSON{})
}

func (w *world) say(p *person, n int) {
	path := "/v3/rooms" + testrig.Path(w.room, "send", matrix.TypeMessage, time.Now().UnixNano())
	answer, ok := w.ask(p, "PUT", path, testrig.JSON{"msgtype": "m.text", "body": fmt.Sprint(n)})
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, matrix.EventID(answer["event_id"].(string)))
}

// redact redacts a message that was sent, which the person's server may not know.
func (w *world) redact(p *person, n int) {
	w.mu.Lock()
	if len(w.said) == 0 {
		w.mu.Unlock()
		return
	}
	id := w.said[n%len(w.said)]
	w.mu.Unlock()
	w.ask(p, "PUT", "/v3/rooms"+testrig.Path(w.room, "redact", id, time.Now().UnixNano()), testrig.JSON{})
}

// promote changes the power of another, or who may change the topic.
func (w *world) promote(p, other *person, level int, topic bool) {
	path := "/v3/rooms" + testrig.Path(w.room, "state", matrix.TypePowerLevels) + "/"
	levels, ok := w.ask(p, "GET", path, nil)
	if !ok {
		return
	}
	field, key := "users", string(other.User)
	if topic {
		field, key = "events", matrix.TypeTopic
	}
	list, _ := levels[field].(testrig.JSON)
	if list == nil {
		list = testrig.JSON{}
		levels[field] = list
	}
	list[key] = level
	w.ask(p, "PUT", path, levels)
}
