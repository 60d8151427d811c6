package resolve_test

import (
	"math/rand"
	"slices"
	"testing"

	gml "github.com/matrix-org/gomatrixserverlib"
	gmlspec "github.com/matrix-org/gomatrixserverlib/spec"
	"pgregory.net/rapid"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/resolve"
	"github.com/teahouse-chat/teahouse/rooms/resolve/spec"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// renumbered is the same room with other numbers, in any order that has auth
// events before the events that name them.
func (w *world) renumbered(choose chooser) *world {
	other := newWorld(w.t, w.v.ID)
	other.create, other.room = w.create, w.room
	waiting := slices.Clone(w.records)
	for len(waiting) > 0 {
		i := choose(len(waiting), "next")
		for slices.ContainsFunc(waiting[i].Auth, func(a state.EventNID) bool { return slices.Contains(waiting, w.records[a-1]) }) {
			i = (i + 1) % len(waiting)
		}
		rec := waiting[i]
		waiting = slices.Delete(waiting, i, i+1)
		var refs []event.Ref
		for _, a := range rec.Auth {
			refs = append(refs, w.records[a-1].Event.Ref())
		}
		_, nid := other.add(rec.Event, refs)
		other.records[nid-1].Rejected = rec.Rejected
	}
	return other
}

// numbered is the state in the world's numbers.
func (w *world) numbered(s spec.State) *state.Map {
	var entries []state.Entry
	for key, id := range s {
		entries = append(entries, state.Entry{Key: w.keys[key], Event: w.nids[id]})
	}
	return state.FromEntries(entries)
}

func TestNumbersMeanNothing(t *testing.T) {
	for _, id := range []string{"1", "2", "10", "12"} {
		t.Run("v"+id, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				w := newWorld(rt, id)
				choose := func(n int, what string) int { return rapid.IntRange(0, n-1).Draw(rt, what) }
				var met [][]*state.Map
				history(w, choose, choose(25, "steps"), func(branches []branch) {
					var sets []*state.Map
					for _, b := range branches {
						sets = append(sets, b.state)
					}
					met = append(met, sets)
				})
				other := w.renumbered(choose)
				for _, sets := range met {
					var theirs []*state.Map
					for _, s := range sets {
						theirs = append(theirs, other.numbered(w.plain(s)))
					}
					if diff := w.describe(other.plain(other.resolve(theirs)), w.plain(w.resolve(sets))); diff != "" {
						rt.Fatalf("version %s: with other numbers:%s", id, diff)
					}
				}
			})
		})
	}
}

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
			theirs := p.resolve(w, branches)
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

// resolve asks the other implementation. It takes the state that is not in
// conflict from its caller.
func (p pdus) resolve(w *world, branches []branch) spec.State {
	var sets [][]gml.PDU
	candidates := map[auth.Key]map[matrix.EventID]bool{}
	for _, b := range branches {
		var set []gml.PDU
		for key, id := range w.plain(b.state) {
			set = append(set, p.of(w.room.Events[id]))
			if candidates[key] == nil {
				candidates[key] = map[matrix.EventID]bool{}
			}
			candidates[key][id] = true
		}
		sets = append(sets, set)
	}
	var authEvents []gml.PDU
	for _, ids := range candidates {
		for id := range ids {
			if len(ids) == 1 {
				authEvents = append(authEvents, p.of(w.room.Events[id]))
			}
		}
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
