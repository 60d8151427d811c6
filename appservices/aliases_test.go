package appservices_test

import (
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// THREATS A13: a service makes and deletes the aliases that it claims, also those that
// its ghosts made and for rooms that it is not in, and no others. What it keeps for
// itself nobody else makes or deletes, but a server administrator may delete it.
func TestAliasesOfServices(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		irc, other := newBridge(t, s.Network, "irc"), newBridge(t, s.Network, "other")
		register(t, s, irc.registration(irc.mine()))
		register(t, s, other.registration(`{aliases: [{regex: '#shared_.*', exclusive: false}]}`))
		alice, admin := s.Register("alice"), s.Register("admin")
		if err := s.Accounts.SetAdmin(t.Context(), "@admin:test", true); err != nil {
			t.Fatal(err)
		}
		bot, stranger := irc.client(s), other.client(s)
		const as = "?user_id=@_irc_bob:test"
		bot.Must("POST", "/v3/register", testrig.JSON{"type": "m.login.application_service", "username": "_irc_bob", "inhibit_login": true})
		room := testrig.JSON{"room_id": alice.CreateRoom(testrig.JSON{"preset": "public_chat"})}
		path := func(alias string) string { return "/v3/directory/room" + testrig.Path("#"+alias+":test") }

		for _, who := range []string{"", as} {
			bot.Fails(400, matrix.CodeExclusive, "PUT", path("elsewhere")+who, room)
			bot.Fails(400, matrix.CodeExclusive, "PUT", path("shared_x")+who, room)
			bot.Fails(400, matrix.CodeExclusive, "POST", "/v3/createRoom"+who, testrig.JSON{"room_alias_name": "elsewhere"})
		}
		bot.Fails(404, matrix.CodeNotFound, "PUT", path("_irc_room"), testrig.JSON{"room_id": "!nowhere:test"})
		stranger.Fails(400, matrix.CodeExclusive, "PUT", path("_irc_room"), room)
		alice.Fails(400, matrix.CodeExclusive, "PUT", path("_irc_room"), room)
		for _, ways := range [][2]string{{"", ""}, {"", as}, {as, ""}} { // who makes it, who deletes it
			bot.Must("PUT", path("_irc_room")+ways[0], room)
			for _, c := range []*testrig.Client{alice, stranger} {
				c.Fails(400, matrix.CodeExclusive, "DELETE", path("_irc_room"), nil)
			}
			bot.Must("DELETE", path("_irc_room")+ways[1], nil)
		}
		bot.Must("PUT", path("_irc_room"), room)
		admin.Must("DELETE", path("_irc_room"), nil)

		// What is claimed, but not alone, is whose who made it.
		alice.Must("PUT", path("shared_a"), room)
		stranger.Fails(403, matrix.CodeForbidden, "DELETE", path("shared_a"), nil)
		bot.Fails(400, matrix.CodeExclusive, "DELETE", path("shared_a"), nil)
		stranger.Must("PUT", path("shared_b"), room)
		stranger.Must("DELETE", path("shared_b"), nil)
		alice.Must("DELETE", path("shared_a"), nil)
	})
}
