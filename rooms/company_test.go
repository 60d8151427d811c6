package rooms_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// Who is in company with whom, as server a sees it while b and c come and go.
func TestCompany(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			v, _ := event.Lookup("11")
			a, b, c := newServer(t, "a", kind), newServer(t, "b", "sqlite"), newServer(t, "c", "sqlite")
			a.found(v)
			var moves []string
			a.DB.Subscribe(func(batch db.Batch) {
				for _, change := range batch.Changes {
					if done, ok := change.(*rooms.Committed); ok {
						for _, m := range done.Moves {
							moves = append(moves, fmt.Sprint(m.User, " ", m.In))
						}
					}
				}
			})
			check := func(what string, since int64, company []matrix.UserID, told []string) {
				t.Helper()
				all := []matrix.UserID{a.user, b.user, c.user, "@nobody:d"}
				got, err := a.InCompany(t.Context(), a.DB, all, since)
				slices.Sort(got)
				if err != nil || !slices.Equal(got, company) {
					t.Errorf("%s: in company are %v, %v, want %v", what, got, err, company)
				}
				if !slices.Equal(moves, told) {
					t.Errorf("%s: moved %v, want %v", what, moves, told)
				}
				moves = nil
				if since != math.MaxInt64 {
					return
				}
				shared, err := a.SharedRooms(t.Context(), all)
				if err != nil || len(shared) != len(company) {
					t.Errorf("%s: shared are %v, %v", what, shared, err)
				}
				for _, u := range all {
					local, err := a.LocalCompany(t.Context(), u)
					want := slices.Contains(company, u)
					if err != nil || want != slices.Equal(local, []matrix.UserID{a.user}) || !want && len(local) > 0 {
						t.Errorf("%s: with %s are %v, %v", what, u, local, err)
					}
				}
			}
			only := func(u ...matrix.UserID) []matrix.UserID { return u }
			const now = math.MaxInt64
			check("alone", now, only(a.user), nil)
			b.joinVia(a)
			b.accept(c.joinVia(a))
			check("all came", now, only(a.user, b.user, c.user), []string{"@user:b true", "@user:c true"})
			a.accept(b.send(stateProto(matrix.TypeMember, string(b.user), `{"membership":"join","displayname":"B"}`)))
			check("b has a name", now, only(a.user, b.user, c.user), nil)

			at := a.DB.Position()
			a.accept(b.send(member(b.user, matrix.MembershipLeave)))
			check("b went", now, only(a.user, c.user), []string{"@user:b false"})
			b.joinVia(a)
			check("b is back", now, only(a.user, b.user, c.user), []string{"@user:b true"})
			check("b was away", at, only(a.user, c.user), nil)

			a.send(member(a.user, matrix.MembershipLeave))
			check("a went", now, nil, []string{"@user:a false"})
		})
	}
}
