package directory_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

// remote is all other servers; it notes what it was asked for.
type remote struct{ asked []rooms.ListingQuery }

func (r *remote) Alias(_ context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
	if alias.Localpart() != "tea" {
		return "", nil, matrix.NotFound("no such alias")
	}
	return "!tea:x.org", []matrix.ServerName{"x.org", "y.org"}, nil
}

func (r *remote) PublicRooms(_ context.Context, server matrix.ServerName, q rooms.ListingQuery) (*rooms.ListingPage, error) {
	r.asked = append(r.asked, q)
	return &rooms.ListingPage{Chunk: []rooms.Listing{{RoomID: matrix.RoomID("!r:" + server)}}, NextBatch: "theirs"}, nil
}

// TestOtherServers asks them for their aliases and rooms, and only for those.
func TestOtherServers(t *testing.T) {
	each(t, func(g *rig) {
		r := &remote{}
		g.directory.Remote = r
		got := Want[aliasAnswer](g.Rig, "", "GET", "/v3/directory/room/%23tea:x.org", "")
		if got.RoomID != "!tea:x.org" || !slices.Equal(got.Servers, []matrix.ServerName{"x.org", "y.org"}) {
			t.Errorf("%v", got)
		}
		g.Refused("", "GET", "/v3/directory/room/%23none:x.org", "", 404, matrix.CodeNotFound)
		g.Refused("", "GET", "/v3/directory/room/%23tea:test", "", 404, matrix.CodeNotFound)

		page := Want[publicAnswer](g.Rig, "", "GET", "/v3/publicRooms?server=x.org&limit=5&since=before", "")
		if len(page.Chunk) != 1 || page.Chunk[0].RoomID != "!r:x.org" || page.NextBatch != "theirs" {
			t.Errorf("%+v", page)
		}
		Want[publicAnswer](g.Rig, "bob", "POST", "/v3/publicRooms?server=x.org", `{"limit":100000,"filter":{"generic_search_term":"t"}}`)
		Want[publicAnswer](g.Rig, "bob", "POST", "/v3/publicRooms?server=x.org", `{}`)
		if len(r.asked) != 3 || *r.asked[0].Limit != 5 || r.asked[0].Since != "before" || *r.asked[1].Limit != 500 ||
			r.asked[1].Filter.Term != "t" || *r.asked[2].Limit != 100 {
			t.Errorf("asked for %+v", r.asked)
		}
		g.Refused("", "GET", "/v3/publicRooms?server=x.org&limit=-1", "", 400, matrix.CodeInvalidParam)
		Want[publicAnswer](g.Rig, "", "GET", "/v3/publicRooms?server=test", "")
		g.Refused("", "GET", "/v3/publicRooms?server=not_a_name", "", 400, matrix.CodeInvalidParam)
		if len(r.asked) != 3 {
			t.Errorf("asked %d times", len(r.asked))
		}
	})
}

// TestServersOfAlias tells by which servers a room can be joined.
func TestServersOfAlias(t *testing.T) {
	each(t, func(g *rig) {
		r := g.Room("alice")
		g.put("alice", "tea", r.ID)
		servers := func() string {
			var all []string
			for _, s := range Want[aliasAnswer](g.Rig, "", "GET", aliasPath("tea"), "").Servers {
				all = append(all, string(s))
			}
			return strings.Join(all, " ")
		}
		g.Enter(r, "@a:x.org", "@b:y.org", "@c:y.org")
		if got := servers(); got != "test x.org y.org" {
			t.Errorf("the servers are %s", got)
		}
		g.Foreign(r, "@a:x.org", Membership("@a:x.org", matrix.MembershipLeave))
		g.Member(r, "alice", "alice", matrix.MembershipLeave)
		if got := servers(); got != "y.org" {
			t.Errorf("after the leaves: %s", got)
		}
	})
}
