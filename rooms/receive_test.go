package rooms_test

import (
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

func lookup(t testing.TB, id string) *event.Version {
	t.Helper()
	v, ok := event.Lookup(id)
	if !ok {
		t.Fatal("no such room version")
	}
	return v
}

// TestStatements prepares every statement on both databases.
func TestStatements(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			if err := db.PrepareAll(t.Context(), dbtest.Open(t, kind)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestThreeServersTalk passes messages among three servers, on both databases
// and in every version: all end with one extremity and one state.
func TestThreeServersTalk(t *testing.T) {
	for _, kind := range kinds {
		for _, v := range event.Versions() {
			a, b, c := three(t, v, kind)
			m1 := a.say("hello from a")
			b.accept(m1)
			m2, m3 := b.say("hello from b"), c.say("c has not heard a")
			c.accept(m1, m2)
			a.accept(m3, m2)
			b.accept(m3)
			a.restart()
			m4 := a.say("all together")
			b.accept(m4)
			c.accept(m4)
			for _, s := range []*server{a, b, c} {
				if x := s.extremities(); len(x) != 1 || x[0].ID != m4.ID {
					t.Errorf("version %s: %s has the extremities %v, not %s", v.ID, s.name, x, m4.ID)
				}
				if diff := describe(s.state(), a.state()); diff != "" {
					t.Errorf("version %s: the state of %s differs:%s", v.ID, s.name, diff)
				}
				if n := s.theRoom().View().Joined; n != 3 {
					t.Errorf("version %s: %s counts %d members", v.ID, s.name, n)
				}
				if s.theRoom().LocalMemberCount() != 1 || !s.theRoom().IsLocalMember(s.user) {
					t.Errorf("version %s: %s has local members %v", v.ID, s.name, s.theRoom().LocalMembers())
				}
			}
		}
	}
}

var kinds = []string{"sqlite", "postgres"}

func key(s string) *string { return &s }
