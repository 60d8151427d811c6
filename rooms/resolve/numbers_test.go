package resolve_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/teahouse-chat/teahouse/rooms/event"
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
