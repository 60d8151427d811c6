package auth_test

import (
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// heads is a room state as an engine keeps it for the hot path: what most checks
// ask for stands ready.
type heads struct {
	create, levels, rules *event.Event
	members               map[string]*event.Event
}

func (h *heads) Event(typ, stateKey string) *event.Event {
	switch typ {
	case matrix.TypeCreate:
		return h.create
	case matrix.TypePowerLevels:
		return h.levels
	case matrix.TypeJoinRules:
		return h.rules
	case matrix.TypeMember:
		return h.members[stateKey]
	}
	return nil
}

func benchRoom(b testing.TB, id string) (*heads, *event.Event) {
	v, _ := event.Lookup(id)
	r := newRoom(b, v)
	h := &heads{r.create, r.Event(matrix.TypePowerLevels, ""), r.Event(matrix.TypeJoinRules, ""), map[string]*event.Event{}}
	for key, e := range r.state {
		if key.Type == matrix.TypeMember {
			h.members[key.StateKey] = e
		}
	}
	return h, r.build("m.room.message", nil, bob, `{"body":"hello","msgtype":"m.text"}`)
}

func BenchmarkCheckMessage(b *testing.B) {
	for _, id := range []string{"1", "6", "11", "12"} {
		b.Run("v"+id, func(b *testing.B) {
			h, e := benchRoom(b, id)
			b.ReportAllocs()
			for b.Loop() {
				if err := auth.Check(e, h); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCheckJoin(b *testing.B) {
	h, e := benchRoom(b, "12")
	r := newRoom(b, e.Version)
	r.create = h.create
	join := r.build(matrix.TypeMember, func() *string { s := carol; return &s }(), carol, `{"membership":"join"}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := auth.Check(join, h); err != nil {
			b.Fatal(err)
		}
	}
}

// The hot path allocates nothing.
func TestCheckMessageAllocatesNothing(t *testing.T) {
	for _, v := range event.Versions() {
		h, e := benchRoom(t, v.ID)
		if n := testing.AllocsPerRun(100, func() { auth.Check(e, h) }); n > 0 {
			t.Errorf("version %s: %v allocations", v.ID, n)
		}
	}
}
