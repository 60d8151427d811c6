package resolve_test

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/resolve"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

var people = []string{"@alice:a.example", "@bob:b.example", "@carol:c.example", "@dave:d.example", "@erin:e.example"}

// chooser makes the choices of a random history: an index below n.
type chooser func(n int, what string) int

// history plays a random room: forks, merges, fights for power, bans, changing
// join rules, knocks, restricted joins, clocks that are wrong, and events that
// quote old auth events. Branches that meet are given to met before they merge.
func history(w *world, choose chooser, steps int, met func(branches []branch)) {
	more := map[string]any{}
	if w.v.CreatorPower && choose(2, "second creator") == 1 {
		more["additional_creators"] = []string{people[1]}
	}
	first := w.start(people[0], more)
	first = w.must(first, matrix.TypeMember, people[0], people[0], membership("join"), 2)
	first = w.must(first, matrix.TypePowerLevels, "", people[0], firstLevels(w, choose), 3)
	first = w.must(first, matrix.TypeJoinRules, "", people[0], joinRules(choose), 4)
	past := []branch{first}
	heads := []branch{first}
	for range steps {
		switch what := choose(12, "step"); {
		case what == 0 && len(heads) < 4:
			heads = append(heads, past[choose(len(past), "fork at")])
		case what == 1 && len(heads) > 1:
			n := 2 + choose(len(heads)-1, "merge")
			met(heads[:n])
			heads = append([]branch{w.merge(heads[:n]...)}, heads[n:]...)
			past = append(past, heads[0])
		default:
			i := choose(len(heads), "head")
			d := randomDraft(w, heads[i], choose)
			if choose(8, "old auth") == 0 {
				d.authFrom = past[choose(len(past), "auth from")].state
			}
			if next, ok := w.send(heads[i], d); ok {
				heads[i] = next
				past = append(past, next)
			}
		}
	}
	met(heads)
	// States that never met in the graph make conflicts that forks seldom do.
	for range 4 {
		var some []branch
		for range 2 + choose(2, "states") {
			some = append(some, past[choose(len(past), "state of")])
		}
		met(some)
	}
}

func membership(m string) map[string]any { return map[string]any{"membership": m} }

func firstLevels(w *world, choose chooser) map[string]any {
	users := map[string]any{}
	if !w.v.CreatorPower {
		users[people[0]] = 100
	}
	for _, user := range people[2:] {
		if n := choose(4, "power"); n > 0 {
			users[user] = n * 25
		}
	}
	return map[string]any{"users": users, "state_default": 25 * choose(3, "state_default"), "ban": 50, "kick": 50, "invite": 25 * choose(2, "invite"),
		"events_default": 0, "users_default": 0, "redact": 50}
}

func joinRules(choose chooser) map[string]any {
	rules := []string{"public", "public", "invite", "knock", "restricted", "knock_restricted"}
	return map[string]any{"join_rule": rules[choose(len(rules), "join rule")]}
}

// randomDraft is something that somebody might want to do.
func randomDraft(w *world, b branch, choose chooser) draft {
	d := draft{sender: people[choose(len(people), "sender")], ts: int64(5 + choose(25, "ts"))}
	target := people[choose(len(people), "target")]
	d.typ, d.key = matrix.TypeMember, target
	switch choose(12, "what") {
	case 0, 1, 2:
		d.key = d.sender
		d.content = map[string]any{"membership": "join", "n": choose(3, "n")}
	case 3:
		d.key = d.sender
		d.content = map[string]any{"membership": "join", "join_authorised_via_users_server": target}
	case 4:
		d.content = membership("invite")
	case 5:
		// The first creator never leaves, so that it can be watched.
		if d.content = membership("leave"); target == people[0] && d.sender == people[0] {
			d.content = membership("ban")
		}
	case 6:
		d.content = membership("ban")
	case 7:
		d.key = d.sender
		d.content = membership("knock")
	case 8:
		d.typ, d.key, d.content = matrix.TypeJoinRules, "", joinRules(choose)
	case 9, 10:
		d.typ, d.key, d.content = matrix.TypePowerLevels, "", changedLevels(w, b, choose, target)
	default:
		d.typ, d.key = matrix.TypeTopic, ""
		d.content = map[string]any{"topic": fmt.Sprint(choose(100, "topic"))}
	}
	return d
}

// changedLevels is the branch's power levels with one thing changed.
func changedLevels(w *world, b branch, choose chooser, target string) map[string]any {
	var content map[string]any
	if err := json.Unmarshal(view{w, b.state}.Event(matrix.TypePowerLevels, "").Content, &content); err != nil {
		w.t.Fatal(err)
	}
	level := 25 * choose(5, "level")
	if name := []string{"", "", "", "", "state_default", "ban", "kick", "invite"}[choose(8, "name")]; name != "" {
		content[name] = level
	} else if users := content["users"].(map[string]any); level == 0 {
		delete(users, target)
	} else if !w.v.CreatorPower || target != people[0] {
		users[target] = level
	}
	return content
}

// checkMeeting holds the resolver against the literal one, and against what must
// be true of any resolution.
func checkMeeting(w *world, choose chooser, branches []branch) {
	w.t.Helper()
	sets := make([]*state.Map, len(branches))
	for i, b := range branches {
		sets[i] = b.state
	}
	resolved := w.resolve(sets)
	got, want := w.plain(resolved), w.literal(sets)
	if diff := w.describe(got, want); diff != "" {
		w.t.Fatalf("version %s, %d branches:%s", w.v.ID, len(branches), diff)
	}
	withEdges, err := resolve.Resolve(w.v, sets, edges{w})
	if err != nil || len(state.Diff(resolved, withEdges)) > 0 {
		w.t.Fatalf("version %s: with the auth graph at hand the result is another (%v)", w.v.ID, err)
	}

	// The order of the inputs and repetitions among them mean nothing.
	shuffled := append(slices.Clone(sets), sets[choose(len(sets), "again")])
	for i := range shuffled {
		j := i + choose(len(shuffled)-i, "shuffle")
		shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
	}
	if diff := w.describe(w.plain(w.resolve(shuffled)), got); diff != "" {
		w.t.Fatalf("version %s: the order of the inputs matters:%s", w.v.ID, diff)
	}
	if w.resolve([]*state.Map{resolved, resolved}) != resolved {
		w.t.Fatalf("version %s: a state resolved with itself is another", w.v.ID)
	}
	for key, id := range got {
		if w.room.Rejected[id] {
			w.t.Fatalf("version %s: the rejected event %d is in the state at %v", w.v.ID, w.nids[id], key)
		}
	}
	checkResult(w, view{w, resolved})
}

// checkResult holds a resolved state against the rules: it still has its create
// event, its power levels are well formed and sent by somebody who may send them
// by their own auth events, and a creator that stands above all still does.
func checkResult(w *world, st view) {
	w.t.Helper()
	if st.Event(matrix.TypeCreate, "") != w.create {
		w.t.Fatalf("version %s: the create event is gone", w.v.ID)
	}
	for nid := range slices.Values(numbers(st.m)) {
		rec := w.records[nid-1]
		var list []*event.Event
		for _, a := range rec.Auth {
			list = append(list, w.records[a-1].Event)
		}
		if err := auth.Check(rec.Event, w.authState(list)); err != nil {
			w.t.Fatalf("version %s: event %d in the state is not allowed by its auth events: %v", w.v.ID, nid, err)
		}
	}
	if !w.v.CreatorPower {
		return
	}
	if auth.Levels(st).User(w.create.Sender) != 1<<63-1 {
		w.t.Fatalf("the creator lost power")
	}
	if m := st.Event(matrix.TypeMember, string(w.create.Sender)); m == nil || m.Membership() != matrix.MembershipJoin {
		w.t.Fatalf("the creator was thrown out")
	}
}

func numbers(m *state.Map) []state.EventNID {
	var all []state.EventNID
	for _, nid := range m.All() {
		all = append(all, nid)
	}
	return all
}

func TestFastIsLiteral(t *testing.T) {
	for _, v := range event.Versions() {
		t.Run("v"+v.ID, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				w := newWorld(rt, v.ID)
				choose := func(n int, what string) int { return rapid.IntRange(0, n-1).Draw(rt, what) }
				history(w, choose, choose(40, "steps"), func(b []branch) { checkMeeting(w, choose, b) })
			})
		})
	}
}

// Long histories from seeds find what short ones cannot hold.
func TestFastIsLiteralInLongHistories(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	for _, v := range event.Versions() {
		for seed := range int64(4) {
			random := rand.New(rand.NewSource(seed))
			choose := func(n int, _ string) int { return random.Intn(n) }
			w := newWorld(t, v.ID)
			conflicts := 0
			history(w, choose, 250, func(b []branch) {
				conflicts++
				checkMeeting(w, choose, b)
			})
			if conflicts < 5 {
				t.Errorf("version %s, seed %d: only %d meetings", v.ID, seed, conflicts)
			}
		}
	}
}
