package inbound_test

import (
	"net/http"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// An invite that is taken back ends, although the room is not known here. Whoever
// does not name the invite is not believed, and nothing else of the room is taken.
func TestInviteTakenBack(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		g := newRig(t, kind)
		r := &world{g.there.Create("12", alice), g.there}
		invite := r.set(matrix.TypeMember, string(us), testrig.JSON{"membership": "invite"})
		if _, err := g.engine.StoreOutside(t.Context(), r.Version, wire(t, invite), nil); err != nil {
			t.Fatal(err)
		}
		membership := func() string {
			t.Helper()
			m, err := g.engine.Membership(t.Context(), g.room(r.ID), us)
			if err != nil {
				t.Fatal(err)
			}
			return m.Membership
		}
		send := func(ev *event.Event) (refused bool) {
			t.Helper()
			status, answer := g.there.Send("here", g.there.nextTxn(), ev)
			results, _ := answer["pdus"].(testrig.JSON)
			got, _ := results[string(ev.ID)].(testrig.JSON)
			if status != http.StatusOK || got == nil {
				t.Fatalf("%d %v", status, answer)
			}
			g.settle()
			return got["error"] != nil
		}
		blind := r.Draft(alice, matrix.TypeMember, text(string(us)), testrig.JSON{"membership": "leave"})
		blind.AuthEvents = blind.AuthEvents[:1]
		if !send(r.Build(blind)) || membership() != matrix.MembershipInvite {
			t.Error("the invite was ended by somebody who may not know it")
		}
		if !send(r.say(1)[0]) {
			t.Error("a message of the room was taken")
		}
		join := r.Draft(alice, matrix.TypeMember, text(string(us)), testrig.JSON{"membership": "join"})
		if !send(r.Build(join)) || membership() != matrix.MembershipInvite {
			t.Error("our user was joined")
		}
		leave := r.set(matrix.TypeMember, string(us), testrig.JSON{"membership": "leave"})
		if send(leave) || membership() != matrix.MembershipLeave {
			t.Errorf("the membership is %s", membership())
		}
		if !send(leave) {
			t.Error("it ended twice")
		}
	})
}
