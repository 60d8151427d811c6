package resolve_test

import (
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/resolve"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

const (
	alice = "@alice:a.example"
	bob   = "@bob:b.example"
	carol = "@carol:c.example"
	dave  = "@dave:d.example"
	erin  = "@erin:e.example"
)

// powers is a power level content; the creator is left out where nobody may
// list one.
func powers(w *world, users map[string]int) map[string]any {
	all := map[string]any{}
	for user, power := range users {
		all[user] = power
	}
	if !w.v.CreatorPower {
		all[alice] = 100
	}
	return map[string]any{"users": all}
}

// opened is a public room of the version in which alice gave the others power.
func opened(t failer, version string, users map[string]int, more map[string]any) (*world, branch) {
	w := newWorld(t, version)
	b := w.start(alice, more)
	b = w.must(b, matrix.TypeMember, alice, alice, membership("join"), 1)
	b = w.must(b, matrix.TypePowerLevels, "", alice, powers(w, users), 2)
	return w, w.must(b, matrix.TypeJoinRules, "", alice, map[string]any{"join_rule": "public"}, 3)
}

// with is the state with the event that the other has at the key, or without
// any if other is nil.
func (w *world) with(m, other *state.Map, typ, key string) *state.Map {
	k, _ := w.Key(typ, key)
	nid, _ := other.Get(k)
	return m.Set(k, nid)
}

// agree resolves and insists that the literal resolver does the same.
func (w *world) agree(t *testing.T, sets ...*state.Map) view {
	t.Helper()
	m := w.resolve(sets)
	if diff := w.describe(w.plain(m), w.literal(sets)); diff != "" {
		t.Fatalf("version %s: fast and literal differ:%s", w.v.ID, diff)
	}
	return view{w, m}
}

// A member who joined when the room was public is in one state and not in the
// other; meanwhile the room has become invite-only in both. The old algorithm
// judges the join by the new rule and throws the member out.
func TestJoinOutlivesItsJoinRule(t *testing.T) {
	for version, want := range map[string]string{"2": "", "11": "", "12": "join"} {
		w, b := opened(t, version, nil, nil)
		b = w.must(b, matrix.TypeMember, bob, bob, membership("join"), 4)
		b = w.must(b, matrix.TypeMember, carol, carol, membership("join"), 5)
		b = w.must(b, matrix.TypeJoinRules, "", alice, map[string]any{"join_rule": "invite"}, 6)
		st := w.agree(t, b.state, w.with(b.state, nil, matrix.TypeMember, bob))
		got := ""
		if m := st.Event(matrix.TypeMember, bob); m != nil {
			got = m.Membership()
		}
		if got != want {
			t.Errorf("version %s: bob is %q, want %q", version, got, want)
		}
	}
}

// Between two power level events in conflict lies one that is not: it gave bob
// the power by which he sent the newer. Without it the newer looks forbidden and
// the room falls back to the older.
func TestPowerLevelsDoNotFallBack(t *testing.T) {
	for version, want := range map[string]int64{"2": 0, "10": 0, "12": 100} {
		w, b := opened(t, version, map[string]int{}, nil)
		b = w.must(b, matrix.TypeMember, bob, bob, membership("join"), 4)
		old := b.state
		b = w.must(b, matrix.TypePowerLevels, "", alice, powers(w, map[string]int{bob: 100}), 5)
		b = w.must(b, matrix.TypeMember, carol, carol, membership("join"), 6) // quotes the middle one
		b = w.must(b, matrix.TypePowerLevels, "", bob, powers(w, map[string]int{bob: 100, carol: 50}), 7)
		st := w.agree(t, b.state, w.with(b.state, old, matrix.TypePowerLevels, ""))
		if got := levelOf(st, bob); got != want {
			t.Errorf("version %s: bob has power %d, want %d", version, got, want)
		}
	}
}

// What is in the auth chain of an event that all states share is in no
// difference. Carol's kick and bob's ban of erin are in conflict, and carol is
// stronger, so her event comes first and the ban stands. If however carol's join
// is only known to one side, it goes through the ordering too, as the event of
// somebody without power, and holds her kick back until after the ban.
func TestSharedEventsKeepAuthEventsOutOfTheDifference(t *testing.T) {
	for _, version := range []string{"2", "6", "11"} {
		for _, shared := range []bool{true, false} {
			w, b := opened(t, version, nil, nil)
			for i, user := range []string{bob, carol, erin} {
				b = w.must(b, matrix.TypeMember, user, user, membership("join"), int64(4+i))
			}
			b = w.must(b, matrix.TypePowerLevels, "", alice, powers(w, map[string]int{bob: 50, carol: 75}), 8)
			b = w.must(b, matrix.TypeName, "", bob, map[string]any{"name": "n"}, 9)
			b = w.must(b, "org.example.erin", "", alice, map[string]any{}, 10)
			if shared {
				b = w.must(b, matrix.TypeTopic, "", carol, map[string]any{"topic": "t"}, 11)
			}
			kicked := w.must(b, matrix.TypeMember, erin, carol, membership("leave"), 12)
			banned := w.must(b, matrix.TypeMember, erin, bob, membership("ban"), 13)
			want := matrix.MembershipBan
			if !shared {
				want = matrix.MembershipLeave
			}
			st := w.agree(t, kicked.state, banned.state)
			if got := st.Event(matrix.TypeMember, erin).Membership(); got != want {
				t.Errorf("version %s, shared %v: erin is %q, want %q", version, shared, got, want)
			}
		}
	}
}

// Two moderators fight: whoever was demoted on one side cannot undo that on the
// other.
func TestDemotionWins(t *testing.T) {
	for _, v := range event.Versions()[1:] {
		w, b := opened(t, v.ID, map[string]int{bob: 50}, nil)
		b = w.must(b, matrix.TypeMember, bob, bob, membership("join"), 4)
		b = w.must(b, matrix.TypeMember, carol, carol, membership("join"), 5)
		demoted := w.must(b, matrix.TypePowerLevels, "", alice, powers(w, nil), 9)
		busy := w.must(b, matrix.TypeMember, carol, bob, membership("ban"), 6)
		busy = w.must(busy, matrix.TypeTopic, "", bob, map[string]any{"topic": "mine"}, 7)
		st := w.agree(t, demoted.state, busy.state)
		if levelOf(st, bob) != 0 || st.Event(matrix.TypeTopic, "") != nil ||
			st.Event(matrix.TypeMember, carol).Membership() != matrix.MembershipJoin {
			t.Errorf("version %s: bob got his way after his demotion", v.ID)
		}
	}
}

// A ban and a profile change at the same time: the ban stands, whichever is
// newer.
func TestBanBeatsJoin(t *testing.T) {
	for _, v := range event.Versions()[1:] {
		for _, ts := range []int64{1, 100} {
			w, b := opened(t, v.ID, nil, nil)
			b = w.must(b, matrix.TypeMember, bob, bob, membership("join"), 4)
			banned := w.must(b, matrix.TypeMember, bob, alice, membership("ban"), 50)
			renamed := w.must(b, matrix.TypeMember, bob, bob, map[string]any{"membership": "join", "displayname": "B"}, ts)
			st := w.agree(t, banned.state, renamed.state)
			if got := st.Event(matrix.TypeMember, bob).Membership(); got != matrix.MembershipBan {
				t.Errorf("version %s: bob is %q after a ban", v.ID, got)
			}
		}
	}
}

// From version 12 on a creator cannot lose power, whatever an admin on another
// branch does, and however old the auth events are that it quotes.
func TestCreatorKeepsPower(t *testing.T) {
	w, b := opened(t, "12", map[string]int{carol: 100}, map[string]any{"additional_creators": []string{bob}})
	for i, user := range []string{bob, carol, dave} {
		b = w.must(b, matrix.TypeMember, user, user, membership("join"), int64(4+i))
	}
	for _, d := range []draft{
		{typ: matrix.TypeMember, key: alice, sender: carol, content: membership("ban")},
		{typ: matrix.TypeMember, key: bob, sender: carol, content: membership("leave")},
		{typ: matrix.TypeMember, key: bob, sender: alice, content: membership("ban")},
		{typ: matrix.TypePowerLevels, sender: carol, content: map[string]any{"users": map[string]any{alice: 0, carol: 100}}},
	} {
		if _, ok := w.send(b, d); ok {
			t.Errorf("%s of %q by %s is allowed", d.typ, d.key, d.sender)
		}
	}
	taken := w.must(b, matrix.TypePowerLevels, "", carol, map[string]any{"users": map[string]any{carol: 100}, "state_default": 100, "ban": 100}, 1)
	taken = w.must(taken, matrix.TypeMember, dave, carol, membership("ban"), 2)
	given := w.must(b, matrix.TypePowerLevels, "", bob, map[string]any{"users": map[string]any{dave: 50}}, 100)
	st := w.agree(t, taken.state, given.state)
	for _, creator := range []string{alice, bob} {
		if levelOf(st, creator) != 1<<63-1 || st.Event(matrix.TypeMember, creator).Membership() != matrix.MembershipJoin {
			t.Errorf("%s lost power", creator)
		}
	}
	if levelOf(st, carol) != 0 {
		t.Error("carol kept the power that a creator took away")
	}
}

// A rejected event that got into one of the states is not put into the result,
// and authorises nothing.
func TestRejectedIsNeverResolved(t *testing.T) {
	for _, v := range event.Versions() {
		w, b := opened(t, v.ID, nil, nil)
		b = w.must(b, matrix.TypeMember, bob, bob, membership("join"), 4)
		b = w.must(b, matrix.TypeTopic, "", alice, map[string]any{"topic": "good"}, 5)
		before := b
		bad := b.state
		for _, d := range []draft{
			{typ: matrix.TypeTopic, sender: alice, content: map[string]any{"topic": "bad"}, ts: 6},
			{typ: matrix.TypeMember, key: dave, sender: dave, content: membership("join"), ts: 6},
			{typ: matrix.TypePowerLevels, sender: alice, content: powers(w, map[string]int{bob: 100}), ts: 7},
		} {
			next := w.must(b, d.typ, d.key, d.sender, d.content, d.ts)
			nid := w.nids[next.last.ID]
			w.records[nid-1].Rejected, w.room.Rejected[next.last.ID] = true, true
			bad = bad.Set(w.records[nid-1].Key, nid)
		}
		// Its auth events are fine, but they are not all that it rests on.
		good := w.must(b, matrix.TypeName, "", alice, map[string]any{"name": "n"}, 8)
		for _, sets := range [][]*state.Map{{bad, before.state}, {before.state, bad}, {bad, good.state}, {good.state, bad, before.state}} {
			st := w.agree(t, sets...)
			for _, nid := range numbers(st.m) {
				if w.records[nid-1].Rejected {
					t.Errorf("version %s: the rejected event %d (%s) is in the result", v.ID, nid, w.records[nid-1].Event.Type)
				}
			}
			if levelOf(st, bob) != 0 {
				t.Errorf("version %s: rejected power levels count", v.ID)
			}
		}
	}
}

func TestOneStateOrNone(t *testing.T) {
	w, b := opened(t, "12", nil, nil)
	if m := w.resolve(nil); m.Len() != 0 {
		t.Error("nothing resolves to something")
	}
	if w.resolve([]*state.Map{b.state}) != b.state || w.resolve([]*state.Map{b.state, b.state}) != b.state {
		t.Error("one state does not resolve to itself")
	}
	same := state.FromEntries(b.state.Entries())
	if w.resolve([]*state.Map{b.state, same}) != b.state || w.batches > 0 {
		t.Error("equal states are not seen as one")
	}
	if st := w.agree(t, b.state, nil); st.m.Len() != b.state.Len() {
		t.Error("a state against nothing lost something that it authorises itself")
	}
}

func levelOf(st view, user string) int64 {
	return auth.Levels(st).User(matrix.UserID(user))
}

var _ resolve.Source = (*world)(nil)
