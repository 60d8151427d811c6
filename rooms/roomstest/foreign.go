package roomstest

import (
	"crypto/ed25519"
	"fmt"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// foreignKey signs what other servers send; the engine trusts who brings it in.
var foreignKey = event.SigningKey{ID: "ed25519:1", Private: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}

// Build makes an event of another server's user, on top of all that is in the
// room, which must allow it as it is before the change.
func (g *Rig) Build(r *rooms.Room, sender matrix.UserID, p rooms.Proto, change ...func(*event.Draft)) *event.Event {
	g.Helper()
	p.Sender = sender
	d, err := g.Engine.Template(g.Context(), r, p)
	if err != nil {
		g.Fatal(err)
	}
	for _, c := range change {
		c(&d)
	}
	ev, err := event.Build(r.Version, d, sender.Server(), foreignKey)
	if err != nil {
		g.Fatal(err)
	}
	return ev
}

// Receive brings an event of another server in.
func (g *Rig) Receive(r *rooms.Room, ev *event.Event) rooms.Outcome {
	g.Helper()
	outcomes, err := g.Engine.Receive(g.Context(), r.ID, []rooms.Incoming{{Event: ev}})
	if err != nil {
		g.Fatal(err)
	}
	return outcomes[0]
}

// Foreign brings in an event of another server's user that must be accepted.
func (g *Rig) Foreign(r *rooms.Room, sender matrix.UserID, p rooms.Proto) *rooms.Stored {
	g.Helper()
	out := g.Receive(r, g.Build(r, sender, p))
	if out.Event == nil || out.Event.Flags != 0 {
		g.Fatalf("%s by %s: %+v", p.Type, sender, out)
	}
	return out.Event
}

// Enter makes other servers' users join a room.
func (g *Rig) Enter(r *rooms.Room, users ...matrix.UserID) {
	g.Helper()
	for _, u := range users {
		g.Foreign(r, u, Membership(u, matrix.MembershipJoin))
	}
}

// Membership is a member event.
func Membership(user matrix.UserID, is string) rooms.Proto {
	return State(matrix.TypeMember, string(user), fmt.Sprintf(`{"membership":%q}`, is))
}
