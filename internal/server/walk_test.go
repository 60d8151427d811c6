package server_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// fatal is what *testing.T and *rapid.T have in common.
type fatal interface {
	Context() context.Context
	Fatalf(format string, args ...any)
}

// TestRandomWalk lets three users do what they like with a few rooms, at
// random, and looks at every answer that any of them gets:
//   - none is a fault of the server;
//   - none tells of an event that its history's visibility hides from the user
//     who asked, nor of what was redacted;
//   - a user who syncs on and on gets every event that they may see, in order and
//     never twice, and so knows in the end what a fresh device finds by an initial
//     sync and by paging through the room in either direction.
func TestRandomWalk(t *testing.T) {
	checks := "6"
	if os.Getenv("TEAHOUSE_LONG") != "" {
		checks = "150"
	}
	if !flagGiven("rapid.checks") {
		must(t, flag.Set("rapid.checks", checks))
	}
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		n := 0
		rapid.Check(t, func(rt *rapid.T) {
			n++
			w := &walk{T: rt, s: s, markers: map[string]marker{}, lines: map[matrix.RoomID][]happening{}}
			for i, params := range []string{
				`{"room":{"timeline":{"limit":20}}}`,
				`{"room":{"timeline":{"limit":1},"include_leave":true}}`,
				`{"room":{"timeline":{"limit":3},"state":{"lazy_load_members":true}}}`,
			} {
				w.people = append(w.people, &person{
					Client: s.Register(fmt.Sprintf("walk%d_%d", n, i)), filter: params,
					joined: map[matrix.RoomID]bool{}, seen: map[matrix.RoomID]map[matrix.EventID]bool{}, forgot: map[matrix.RoomID]bool{},
				})
			}
			for range rapid.IntRange(20, 120).Draw(rt, "steps") {
				w.step()
			}
			w.end()
			s = w.s
		})
	})
}

func flagGiven(name string) (given bool) {
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	return given
}

type walk struct {
	*rapid.T
	s       *testrig.Server
	people  []*person
	rooms   []matrix.RoomID
	lines   map[matrix.RoomID][]happening
	markers map[string]marker
	sent    []request // sends that may be repeated
	n       int
	trace   []string
}

// person is a user with a device that syncs on and on.
type person struct {
	*testrig.Client
	filter string
	since  string
	joined map[matrix.RoomID]bool // as the device believes
	seen   map[matrix.RoomID]map[matrix.EventID]bool
	forgot map[matrix.RoomID]bool // at any time
}

// marker is a text that stands in one event only.
type marker struct {
	room     matrix.RoomID
	event    matrix.EventID
	redacted bool
}

type request struct {
	by   *person
	path string
	body object
	id   matrix.EventID
}

var markerForm = regexp.MustCompile(`mark[0-9]+x`)

func (w *walk) fail(format string, args ...any) {
	w.Fatalf("%s\nafter:\n%s", fmt.Sprintf(format, args...), strings.Join(w.trace, "\n"))
}

// do sends a request and checks what the answer tells.
func (w *walk) do(p *person, method, path string, body any) (object, bool) {
	status, answer, err := p.Do(w.Context(), method, path, body)
	text, _ := json.Marshal(body)
	line := fmt.Sprintf("%s %s %s %.150s -> %d %v", p.User, method, path, text, status, answer["errcode"])
	for i, room := range w.rooms {
		line = strings.ReplaceAll(line, url.PathEscape(string(room)), fmt.Sprint("room", i))
	}
	w.trace = append(w.trace, line)
	if err != nil || status >= 500 {
		w.fail("%s %s: %d %v %v", method, path, status, answer, err)
	}
	for room := range w.lines {
		w.lines[room] = happenings(w.s, w, room, w.lines[room])
	}
	w.inspect(p, method+" "+path, answer)
	return answer, status == http.StatusOK
}

// inspect looks for texts that the answer must not hold.
func (w *walk) inspect(p *person, where string, answer object) {
	raw, _ := json.Marshal(answer)
	for _, text := range markerForm.FindAllString(string(raw), -1) {
		m, ok := w.markers[text]
		if !ok {
			continue // of an event that was refused
		}
		s := sightOf(p.User, w.lines[m.room])
		if m.redacted {
			w.fail("%s tells %s of %s, which is redacted: %s", where, p.User, m.event, raw)
		}
		if !s.visible[m.event] && !s.known[m.event] {
			w.fail("%s tells %s of %s, which is hidden: %s", where, p.User, m.event, raw)
		}
	}
}

func (w *walk) mark() string {
	w.n++
	return fmt.Sprintf("mark%dx", w.n)
}

func (w *walk) pick(label string, n int) int { return rapid.IntRange(0, n-1).Draw(w.T, label) }

func of[T any](w *walk, label string, list ...T) T { return list[w.pick(label, len(list))] }

func (w *walk) adopt(id any) {
	room := matrix.RoomID(fmt.Sprint(id))
	w.rooms = append(w.rooms, room)
	w.lines[room] = happenings(w.s, w, room, nil)
}

// someEvent picks an event of the room, rather a late one.
func (w *walk) someEvent(room matrix.RoomID) happening {
	line := w.lines[room]
	return line[max(0, len(line)-1-w.pick("event", 12))]
}

func (w *walk) step() {
	p := of(w, "who", w.people...)
	if len(w.rooms) == 0 || len(w.rooms) < 4 && w.pick("new", 12) == 0 {
		w.create(p)
		return
	}
	room := of(w, "room", w.rooms...)
	path := "/v3/rooms" + testrig.Path(room)
	other := of(w, "other", w.people...)
	switch op := w.pick("op", 30); op {
	case 0, 1:
		w.do(p, "POST", path+"/join", object{})
	case 2:
		w.do(p, "POST", path+"/leave", object{})
	case 3, 4:
		w.do(p, "POST", path+"/invite", object{"user_id": other.User})
	case 5:
		w.do(p, "POST", path+"/"+of(w, "how", "kick", "ban"), object{"user_id": other.User})
	case 6:
		w.do(p, "POST", path+"/unban", object{"user_id": other.User})
	case 7:
		if _, ok := w.do(p, "POST", path+"/forget", object{}); ok {
			p.forgot[room] = true
		}
	case 8, 9, 10, 11:
		w.send(p, room, w.content(room))
	case 12, 13:
		text := w.mark()
		a, ok := w.do(p, "PUT", path+"/state/org.example.note/"+of(w, "key", "", "a"), object{"body": text})
		w.put(room, text, a, ok)
	case 14:
		w.do(p, "PUT", path+"/state/m.room.history_visibility/", object{
			"history_visibility": of(w, "visibility", "joined", "invited", "shared", "world_readable"),
		})
	case 15:
		w.do(p, "PUT", path+"/state/m.room.join_rules/", object{"join_rule": of(w, "rule", "public", "invite", "knock")})
	case 16:
		w.empower(p, other, room)
	case 17, 18:
		w.redact(p, room)
	case 19:
		w.extras(p, room, path)
	case 20:
		if again := w.sent; len(again) > 0 {
			r := of(w, "again", again...)
			if a, ok := w.do(r.by, "PUT", r.path, r.body); ok && a["event_id"] != string(r.id) {
				w.fail("sent again, %s became %v", r.id, a)
			}
		}
	case 21:
		if a, ok := w.do(p, "POST", path+"/upgrade", object{"new_version": of(w, "version", "11", "12")}); ok && len(w.rooms) < 6 {
			w.adopt(a["replacement_room"])
		}
	case 22:
		w.do(p, "POST", "/v3/knock"+testrig.Path(room), object{})
	case 23, 24:
		w.look(p, room, path)
	case 25:
		if w.pick("restart", 10) == 0 {
			w.s = w.s.Restart()
			w.trace = append(w.trace, "restart")
		}
	default:
		w.sync(p)
	}
}

func (w *walk) create(p *person) {
	versions := event.Versions()
	a, ok := w.do(p, "POST", "/v3/createRoom", object{
		"preset":       of(w, "preset", "public_chat", "private_chat", "trusted_private_chat"),
		"room_version": versions[w.pick("version", len(versions))].ID,
		"invite":       []matrix.UserID{of(w, "other", w.people...).User},
		"name":         "a room",
		"initial_state": []object{{"type": "m.room.history_visibility", "content": object{
			"history_visibility": of(w, "visibility", "joined", "invited", "shared", "world_readable"),
		}}},
		"power_level_content_override": object{"state_default": 0, "redact": 0, "invite": 0},
	})
	if !ok {
		w.fail("no room: %v", a)
	}
	w.adopt(a["room_id"])
}

// content is a message that may relate to another event.
func (w *walk) content(room matrix.RoomID) object {
	c := object{"msgtype": "m.text", "body": w.mark()}
	relation := object{"event_id": w.someEvent(room).id}
	switch w.pick("relation", 6) {
	case 0:
		relation["rel_type"] = "m.thread"
	case 1:
		relation["rel_type"] = "m.replace"
		c["m.new_content"] = object{"msgtype": "m.text", "body": c["body"]}
	case 2:
		relation["rel_type"] = "m.reference"
	default:
		return c
	}
	c["m.relates_to"] = relation
	return c
}

func (w *walk) send(p *person, room matrix.RoomID, content object) {
	w.n++
	path := "/v3/rooms" + testrig.Path(room, "send", "m.room.message", w.n)
	a, ok := w.do(p, "PUT", path, content)
	w.put(room, content["body"].(string), a, ok)
	if ok {
		w.sent = append(w.sent, request{p, path, content, matrix.EventID(a["event_id"].(string))})
	}
}

func (w *walk) put(room matrix.RoomID, text string, answer object, ok bool) {
	if ok {
		w.markers[text] = marker{room: room, event: matrix.EventID(answer["event_id"].(string))}
	}
}

func (w *walk) redact(p *person, room matrix.RoomID) {
	target := w.someEvent(room).id
	w.n++
	if _, ok := w.do(p, "PUT", "/v3/rooms"+testrig.Path(room, "redact", target, w.n), object{"reason": "so"}); !ok {
		return
	}
	for text, m := range w.markers {
		if m.event == target {
			m.redacted = true
			w.markers[text] = m
		}
	}
}

// empower gives another user the power of a moderator, or takes it.
func (w *walk) empower(p, other *person, room matrix.RoomID) {
	path := "/v3/rooms" + testrig.Path(room, "state", "m.room.power_levels", "")
	levels, ok := w.do(p, "GET", path, nil)
	if !ok {
		return
	}
	users, _ := levels["users"].(object)
	if users == nil {
		users = object{}
	}
	users[string(other.User)] = of(w, "level", 0, 50, 100)
	levels["users"] = users
	w.do(p, "PUT", path, levels)
}

func (w *walk) extras(p *person, room matrix.RoomID, path string) {
	ev := testrig.Path(w.someEvent(room).id)
	user := "/v3/user" + testrig.Path(p.User)
	switch w.pick("extra", 8) {
	case 0:
		w.do(p, "POST", path+"/receipt/"+of(w, "receipt", "m.read", "m.read.private", "m.fully_read")+ev, object{})
	case 1:
		w.do(p, "PUT", path+"/typing"+testrig.Path(p.User), object{"typing": true, "timeout": 1000})
	case 2:
		w.do(p, "PUT", user+"/account_data/org.example", object{"n": w.n})
	case 3:
		w.do(p, "PUT", user+"/rooms"+testrig.Path(room)+"/account_data/org.example", object{"n": w.n})
	case 4:
		w.do(p, "PUT", user+"/rooms"+testrig.Path(room)+"/tags/u.x", object{"order": 0.5})
	case 5:
		w.do(p, "PUT", "/v3/presence"+testrig.Path(p.User)+"/status", object{"presence": "online", "status_msg": "hm"})
	case 6:
		w.do(p, "POST", path+"/report"+ev, object{"reason": "x"})
	case 7:
		w.do(p, "PUT", path+"/state/m.room.member"+testrig.Path(p.User), object{"membership": "join", "displayname": fmt.Sprint("n", w.n)})
	}
}

// look asks for something of a room, in one of the many ways.
func (w *walk) look(p *person, room matrix.RoomID, path string) {
	ev := testrig.Path(w.someEvent(room).id)
	v1 := "/v1/rooms" + testrig.Path(room)
	target := of(w, "look",
		path+"/context"+ev+"?limit=20", path+"/event"+ev, path+"/messages?dir=b&limit=50", path+"/messages?dir=f&limit=50",
		path+"/messages?dir=b&limit=7&filter="+url.QueryEscape(`{"lazy_load_members":true}`),
		path+"/members", path+"/joined_members", path+"/state", path+"/state/org.example.note/", path+"/state/org.example.note/a",
		v1+"/relations"+ev, v1+"/threads", v1+"/timestamp_to_event?dir=f&ts=0", v1+"/hierarchy", path+"/initialSync?limit=30",
		"/v1/room_summary"+testrig.Path(room), "/v3/initialSync?limit=30", "/v3/events?timeout=0&room_id="+url.QueryEscape(string(room))+"&from=t-1000000000_0",
		"/v3/sync?timeout=0&full_state=true&since="+p.since, "/v3/joined_rooms",
	)
	if strings.HasSuffix(target, "/state") { // answers with a list
		target += "/org.example.note"
	}
	a, ok := w.do(p, "GET", target, nil)
	if !ok {
		return
	}
	s := sightOf(p.User, w.lines[room])
	if strings.Contains(target, "/event/") && !s.visible[matrix.EventID(fmt.Sprint(a["event_id"]))] {
		w.fail("%s shows what is hidden: %v", target, a)
	}
	if chunk, ok := a["chunk"].([]any); ok && strings.HasPrefix(target, path+"/messages") {
		for _, ev := range chunk {
			w.visible(p, room, s, target, ev)
		}
	}
}

func (w *walk) visible(p *person, room matrix.RoomID, s sight, where string, ev any) matrix.EventID {
	id := matrix.EventID(fmt.Sprint(ev.(object)["event_id"]))
	if !s.visible[id] {
		w.fail("%s tells %s of %s, which is hidden: %v", where, p.User, id, ev)
	}
	return id
}

func section(a object, kind string) map[matrix.RoomID]object {
	found := map[matrix.RoomID]object{}
	all, _ := a["rooms"].(object)
	list, _ := all[kind].(object)
	for id, s := range list {
		found[matrix.RoomID(id)] = s.(object)
	}
	return found
}

func list(o object, names ...string) []any {
	for _, name := range names[:len(names)-1] {
		o, _ = o[name].(object)
	}
	l, _ := o[names[len(names)-1]].([]any)
	return l
}

// sync lets a person's device catch up.
func (w *walk) sync(p *person) {
	q := url.Values{"timeout": {"0"}, "filter": {p.filter}}
	if p.since != "" {
		q.Set("since", p.since)
	}
	a, ok := w.do(p, "GET", "/v3/sync?"+q.Encode(), nil)
	if !ok {
		w.fail("no sync: %v", a)
	}
	p.since = a["next_batch"].(string)
	for room, sec := range section(a, "join") {
		w.timeline(p, room, sec, matrix.MembershipJoin)
		p.joined[room] = true
	}
	for room, sec := range section(a, "leave") {
		w.timeline(p, room, sec, matrix.MembershipLeave, matrix.MembershipBan)
		p.joined[room] = false
	}
	for room := range section(a, "invite") {
		w.member(p, room, matrix.MembershipInvite)
		p.joined[room] = false
	}
	for room := range section(a, "knock") {
		w.member(p, room, matrix.MembershipKnock)
		p.joined[room] = false
	}
}

func (w *walk) member(p *person, room matrix.RoomID, want ...string) sight {
	if _, ok := w.lines[room]; !ok {
		w.lines[room] = happenings(w.s, w, room, nil)
	}
	s := sightOf(p.User, w.lines[room])
	if !slices.Contains(want, s.membership) {
		w.fail("%s is shown %s as %v, but is %s", p.User, room, want, s.membership)
	}
	return s
}

// timeline takes in what a sync tells of a room that the user is or was in.
func (w *walk) timeline(p *person, room matrix.RoomID, sec object, want ...string) {
	s := w.member(p, room, want...)
	seen := p.seen[room]
	if seen == nil {
		seen = map[matrix.EventID]bool{}
		p.seen[room] = seen
	}
	for _, ev := range list(sec, "state", "events") {
		if id := matrix.EventID(fmt.Sprint(ev.(object)["event_id"])); !s.visible[id] && !s.known[id] {
			w.fail("the state tells %s of %s, which is hidden: %v", p.User, id, ev)
		}
	}
	before, last := maps.Clone(seen), -1
	for _, ev := range list(sec, "timeline", "events") {
		id := matrix.EventID(fmt.Sprint(ev.(object)["event_id"]))
		if !s.visible[id] && want[0] != matrix.MembershipJoin && w.lines[room][s.index[id]].is(matrix.TypeMember, string(p.User)) {
			continue // whatever history is hidden, users are told of the end of their own invitations
		}
		w.visible(p, room, s, "sync", ev)
		if p.joined[room] && before[id] {
			w.fail("sync tells %s twice of %s", p.User, id)
		}
		if s.index[id] <= last {
			w.fail("sync tells %s of %s out of order", p.User, id)
		}
		last = s.index[id]
		seen[id] = true
	}
	line, _ := sec["timeline"].(object)
	if line["limited"] == true || !p.joined[room] {
		from, _ := line["prev_batch"].(string)
		if line["limited"] == true && from == "" {
			w.fail("a gap without prev_batch: %v", line)
		}
		if from == "" || want[0] != matrix.MembershipJoin {
			return
		}
		for _, id := range w.page(p, room, "b", from) {
			seen[id] = true
		}
	}
}

// page walks through a room's history to its end.
func (w *walk) page(p *person, room matrix.RoomID, dir, from string) []matrix.EventID {
	var ids []matrix.EventID
	s := sightOf(p.User, w.lines[room])
	limit := of(w, "page", 1, 4, 50)
	for range 10_000 {
		q := url.Values{"dir": {dir}, "limit": {fmt.Sprint(limit)}}
		if from != "" {
			q.Set("from", from)
		}
		a, ok := w.do(p, "GET", "/v3/rooms"+testrig.Path(room, "messages")+"?"+q.Encode(), nil)
		if !ok {
			w.fail("no history: %v", a)
		}
		chunk := list(a, "chunk")
		for _, ev := range chunk {
			id := w.visible(p, room, s, "messages", ev)
			if slices.Contains(ids, id) {
				w.fail("pages tell %s twice of %s", p.User, id)
			}
			ids = append(ids, id)
		}
		next, _ := a["end"].(string)
		if next == "" || next == from && len(chunk) == 0 {
			return ids
		}
		if next == from {
			w.fail("paging does not move on from %s: %v", from, a)
		}
		from = next
		if dir == "f" && len(chunk) == 0 {
			return ids
		}
	}
	w.fail("there is no end to %s", room)
	return nil
}

// end compares what everybody knows with what a fresh device finds.
func (w *walk) end() {
	for _, p := range w.people {
		w.sync(p)
		fresh := &person{Client: w.s.Login(p.User.Localpart()), filter: `{}`, joined: map[matrix.RoomID]bool{}, seen: map[matrix.RoomID]map[matrix.EventID]bool{}}
		w.sync(fresh)
		for _, room := range w.rooms {
			line := w.lines[room]
			s := sightOf(p.User, line)
			want := s.readable(line)
			joined := s.membership == matrix.MembershipJoin
			if p.joined[room] != joined || fresh.joined[room] != joined {
				w.fail("%s is joined to %s: %t, a syncing device believes %t, a fresh one %t", p.User, room, joined, p.joined[room], fresh.joined[room])
			}
			if joined {
				w.same(p, line, "syncing on", want, p.seen[room])
				w.same(p, line, "an initial sync", want, fresh.seen[room])
			}
			if joined || s.left >= 0 && !p.forgot[room] || s.world {
				back := w.page(p, room, "b", "")
				slices.Reverse(back)
				if !slices.Equal(back, want) {
					w.fail("%s pages backwards in %s to\n%v, not\n%v", p.User, room, back, want)
				}
				if on := w.page(p, room, "f", ""); !slices.Equal(on, want) {
					w.fail("%s pages forwards in %s to\n%v, not\n%v", p.User, room, on, want)
				}
			}
		}
	}
}

func (w *walk) same(p *person, line []happening, how string, want []matrix.EventID, got map[matrix.EventID]bool) {
	for _, id := range want {
		if !got[id] {
			i := slices.IndexFunc(line, func(h happening) bool { return h.id == id })
			w.fail("by %s %s does not learn of %s (%s, the %d. of %d)", how, p.User, id, line[i].typ, i, len(line))
		}
	}
	if len(got) != len(want) {
		w.fail("by %s %s learns of %d events, not %d", how, p.User, len(got), len(want))
	}
}
