package rooms_test

import (
	"math/rand"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// TestOutliers stores an auth chain in any order: bad events in it are rejected
// with all that rests on them, and none of it shows.
func TestOutliers(t *testing.T) {
	for _, v := range event.Versions() {
		t.Run("v"+v.ID, func(t *testing.T) {
			a, b := two(t, v)
			evil := a.outsider(t)
			st := current(a.events())
			join := func(s *server, u matrix.UserID, from current) *event.Event {
				return s.forge(draft{sender: u, typ: matrix.TypeMember, key: (*string)(&u), content: `{"membership":"join"}`, prev: a.extremities(), from: from, depth: 20})
			}
			good := join(evil, "@good:evil", st)
			bad := evil.forge(draft{sender: "@bad:evil", typ: matrix.TypeMember, key: key("@worse:evil"), content: `{"membership":"join"}`,
				prev: a.extremities(), from: st, depth: 20})
			asGood := append(slices.Clone(st), &rooms.Stored{Event: good})
			asBad := append(slices.Clone(st), &rooms.Stored{Event: bad})
			topic := func(u matrix.UserID, from current) *event.Event {
				return evil.forge(draft{sender: u, typ: matrix.TypeTopic, key: key(""), content: `{"topic":"x"}`, prev: a.extremities(), from: from, depth: 21})
			}
			events := []*event.Event{good, bad, topic("@good:evil", asGood), topic("@worse:evil", asBad), join(evil, "@later:evil", st)}
			want := []rooms.Flags{rooms.Outlier, rooms.Outlier | rooms.Rejected, rooms.Outlier, rooms.Outlier | rooms.Rejected, rooms.Outlier}
			before := b.state()
			order := rand.Perm(len(events))
			mixed := make([]*event.Event, len(events))
			for i, n := range order {
				mixed[i] = events[n]
			}
			out, err := b.StoreOutliers(t.Context(), b.room, mixed)
			if err != nil {
				t.Fatal(err)
			}
			for i, n := range order {
				if out[i].Event == nil || out[i].Event.Flags != want[n] {
					t.Errorf("event %d became %+v", n, out[i])
				}
			}
			b.restart()
			if diff := describe(b.state(), before); diff != "" {
				t.Errorf("the state has changed:%s", diff)
			}
			// An outlier gets its place when it comes with its previous events.
			out = b.give(good, bad)
			if out[0].Known || out[0].Event.Flags != 0 || out[1].Event.Flags != rooms.Rejected {
				t.Errorf("outliers that get a place: %+v", out)
			}
			if !slices.ContainsFunc(b.events(), func(st *rooms.Stored) bool { return st.ID == good.ID }) {
				t.Error("an outlier that got its place is not in the state")
			}
			b.unseen(bad, rooms.Rejected)
			orphan := evil.forge(draft{sender: "@x:evil", typ: matrix.TypeTopic, key: key(""), content: `{}`, auth: []*event.Event{topic("@x:evil", st)}})
			if out, err = b.StoreOutliers(t.Context(), b.room, []*event.Event{orphan}); err != nil || out[0].Event != nil || len(out[0].Missing) != 1 {
				t.Errorf("an outlier whose auth event is missing: %+v, %v", out, err)
			}
			if err := b.CheckConsistency(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
