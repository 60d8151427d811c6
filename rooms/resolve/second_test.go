package resolve_test

import (
	"math/rand"
	"testing"

	gml "github.com/matrix-org/gomatrixserverlib"
	gmlspec "github.com/matrix-org/gomatrixserverlib/spec"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/resolve"
	"github.com/teahouse-chat/teahouse/rooms/resolve/spec"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// pdus are events as the other implementation has them.
type pdus struct {
	t    *testing.T
	impl gml.IRoomVersion
	seen map[matrix.EventID]gml.PDU
}

func (p pdus) of(e *event.Event) gml.PDU {
	pdu, ok := p.seen[e.ID]
	if !ok {
		var err error
		if pdu, err = p.impl.NewEventFromTrustedJSON(e.JSON, false); err != nil {
			p.t.Fatal(err)
		}
		p.seen[e.ID] = pdu
	}
	return pdu
}

func sender(_ gmlspec.RoomID, id gmlspec.SenderID) (*gmlspec.UserID, error) {
	return gmlspec.NewUserID(string(id), true)
}

// Random events in random rooms, judged by both. Left out is what the other
// implementation is known to judge otherwise (see the second opinion in auth),
// and removing levels, where it compares with defaults.
func TestSecondOpinionOnRandomRooms(t *testing.T) {
	for _, v := range event.Versions()[1:11] {
		p := pdus{t, gml.MustGetRoomVersion(gml.RoomVersion(v.ID)), map[matrix.EventID]gml.PDU{}}
		judged := 0
		for seed := range int64(3) {
			random := rand.New(rand.NewSource(seed))
			w := newWorld(t, v.ID)
			history(w, func(n int, _ string) int { return random.Intn(n) }, 150, func(branches []branch) {
				for _, rec := range w.records {
					for _, b := range branches {
						if compareVerdicts(t, p, view{w, b.state}, rec) {
							judged++
						}
					}
				}
			})
		}
		if judged < 1000 {
			t.Errorf("version %s: only %d verdicts", v.ID, judged)
		}
	}
}

func compareVerdicts(t *testing.T, p pdus, st view, rec *resolve.Record) bool {
	e := rec.Event
	if e.Type == matrix.TypeCreate || knownOtherwise(st, e) {
		return false
	}
	var list []gml.PDU
	for _, key := range auth.NeededBy(e) {
		if s := st.Event(key.Type, key.StateKey); s != nil {
			list = append(list, p.of(s))
		}
	}
	provider, err := gml.NewAuthEvents(list)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := auth.Check(e, st), gml.Allowed(p.of(e), provider, sender)
	if (ours == nil) != (theirs == nil) {
		t.Fatalf("version %s: we say %v, they say %v\n%s", e.Version.ID, ours, theirs, e.JSON)
	}
	return true
}

func knownOtherwise(st view, e *event.Event) bool {
	rule := ""
	if r := st.Event(matrix.TypeJoinRules, ""); r != nil {
		rule = string(r.Content)
	}
	switch e.Membership() {
	case matrix.MembershipLeave:
		target := st.Event(matrix.TypeMember, e.StateKey())
		return target == nil || target.Membership() != matrix.MembershipJoin
	case matrix.MembershipJoin, matrix.MembershipKnock:
		return !e.Version.KnockRestricted && rule == `{"join_rule":"knock_restricted"}` || !e.Version.Knocking && rule == `{"join_rule":"knock"}`
	}
	return false
}

// The resolution of version 1 by both.
func TestSecondOpinionOnVersion1(t *testing.T) {
	p := pdus{t, gml.MustGetRoomVersion("1"), map[matrix.EventID]gml.PDU{}}
	for seed := range int64(10) {
		random := rand.New(rand.NewSource(seed))
		w := newWorld(t, "1")
		history(w, func(n int, _ string) int { return random.Intn(n) }, 100, func(branches []branch) {
			theirs := p.resolve(w, branches, p.agreed(w, branches))
			var sets []*state.Map
			for _, b := range branches {
				sets = append(sets, b.state)
			}
			if diff := w.describe(w.plain(w.resolve(sets)), theirs); diff != "" {
				t.Errorf("seed %d: they have another result:%s", seed, diff)
			}
		})
	}
}

// Forks in which nobody's membership changes and each side changes power levels
// or join rules at most once, resolved by both. Beyond that the other
// implementation is known to differ: it takes an event for its own auth event
// where the state has none, and orders power events from the last to the first,
// which is another order once they form chains.
func TestSecondOpinionOnVersion2(t *testing.T) {
	for _, v := range event.Versions()[1:11] {
		p := pdus{t, gml.MustGetRoomVersion(gml.RoomVersion(v.ID)), map[matrix.EventID]gml.PDU{}}
		compared := 0
		for seed := range int64(100) {
			random := rand.New(rand.NewSource(seed))
			choose := func(n int, _ string) int { return random.Intn(n) }
			w := newWorld(t, v.ID)
			heads := quietFork(w, choose)
			sets := []*state.Map{heads[0].state, heads[1].state}
			if len(state.Diff(sets[0], sets[1])) == 0 {
				continue
			}
			compared++
			if diff := w.describe(w.plain(w.resolve(sets)), p.resolve(w, heads, p.chains(w, heads))); diff != "" {
				t.Errorf("version %s, seed %d: they have another result:%s", v.ID, seed, diff)
			}
		}
		if compared < 50 {
			t.Errorf("version %s: only %d forks", v.ID, compared)
		}
	}
}

func quietFork(w *world, choose chooser) []branch {
	b := w.start(people[0], nil)
	b = w.must(b, matrix.TypeMember, people[0], people[0], membership("join"), 2)
	b = w.must(b, matrix.TypePowerLevels, "", people[0], firstLevels(w, choose), 3)
	b = w.must(b, matrix.TypeJoinRules, "", people[0], map[string]any{"join_rule": "public"}, 4)
	for _, user := range people[1:] {
		b = w.must(b, matrix.TypeMember, user, user, membership("join"), 4)
	}
	heads := []branch{b, b}
	changed := [2]bool{}
	for range 14 {
		i := choose(2, "side")
		d := randomDraft(w, heads[i], choose)
		power := d.typ == matrix.TypePowerLevels || d.typ == matrix.TypeJoinRules
		if d.typ == matrix.TypeMember || power && changed[i] {
			continue
		}
		next, ok := w.send(heads[i], d)
		heads[i] = next
		changed[i] = changed[i] || ok && power
	}
	return heads
}

// resolve asks the other implementation.
func (p pdus) resolve(w *world, branches []branch, authEvents []gml.PDU) spec.State {
	var sets [][]gml.PDU
	for _, b := range branches {
		var set []gml.PDU
		for _, nid := range b.state.All() {
			set = append(set, p.of(w.records[nid-1].Event))
		}
		sets = append(sets, set)
	}
	rejected := func(id string) bool { return w.room.Rejected[matrix.EventID(id)] }
	result, err := gml.ResolveConflictsNew(gml.RoomVersion(w.v.ID), sets, authEvents, sender, rejected)
	if err != nil {
		p.t.Fatal(err)
	}
	s := spec.State{}
	for _, pdu := range result {
		s[auth.Key{Type: pdu.Type(), StateKey: *pdu.StateKey()}] = matrix.EventID(pdu.EventID())
	}
	return s
}

// agreed is the state that is not in conflict in the sense of version 1, which
// the other implementation takes from its caller.
func (p pdus) agreed(w *world, branches []branch) []gml.PDU {
	candidates := map[auth.Key]spec.Set{}
	for _, b := range branches {
		for key, id := range w.plain(b.state) {
			if candidates[key] == nil {
				candidates[key] = spec.Set{}
			}
			candidates[key][id] = true
		}
	}
	var list []gml.PDU
	for _, ids := range candidates {
		for id := range ids {
			if len(ids) == 1 {
				list = append(list, p.of(w.room.Events[id]))
			}
		}
	}
	return list
}

// chains are the states with their auth chains.
func (p pdus) chains(w *world, branches []branch) []gml.PDU {
	known := map[state.EventNID]bool{}
	for _, b := range branches {
		for _, nid := range b.state.All() {
			known[nid] = true
		}
	}
	var list []gml.PDU
	for nid := state.EventNID(len(w.records)); nid > 0; nid-- {
		if known[nid] {
			list = append(list, p.of(w.records[nid-1].Event))
			for _, a := range w.records[nid-1].Auth {
				known[a] = true
			}
		}
	}
	return list
}
