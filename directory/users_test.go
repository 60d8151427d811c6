package directory_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

type usersAnswer struct {
	Results []struct {
		UserID      matrix.UserID `json:"user_id"`
		DisplayName string        `json:"display_name"`
	} `json:"results"`
	Limited bool `json:"limited"`
}

func (a usersAnswer) who() string {
	var who []string
	for _, r := range a.Results {
		who = append(who, r.UserID.Localpart())
	}
	return strings.Join(who, " ")
}

// TestUsers finds people whom the searcher can meet, by name and id.
func TestUsers(t *testing.T) {
	each(t, func(g *rig) {
		for user, name := range map[string]string{"bob": "Robert Tea", "carol": "Caroline", "dave": "Tea", "erin": "Iced Tea_%", "frank": "tea for two"} {
			g.names[user] = name
		}
		shared := g.Room("alice")
		g.Join(shared, "bob", "carol", "nameless")
		secret := g.Room("dave")
		g.Join(secret, "hidden")
		publish(g, "open", 1)
		open := publish(g, "open, too", 1)
		g.Join(open, "dave", "erin")
		left := g.Room("frank")
		g.Join(left, "alice")
		g.Member(left, "alice", "alice", "leave")
		for term, want := range map[string]string{
			"tea": "dave bob erin", "TEA": "dave bob erin", "  tea ": "dave bob erin", "robert": "bob", "bob": "bob", "@bob:test": "bob",
			"rob": "bob", "_%": "erin", "%": "erin", "caro": "carol", "hidden": "", "frank": "", "alice": "", "": "", "nameless": "nameless",
			"test": "bob carol dave erin nameless", "@": "bob carol dave erin nameless",
		} {
			got := Want[usersAnswer](g.Rig, "alice", "POST", "/v3/user_directory/search", fmt.Sprintf(`{"search_term":%q}`, term))
			if who := strings.ReplaceAll(got.who(), " member1", ""); who != want || got.Limited {
				t.Errorf("%q finds %q, not %q", term, who, want)
			}
		}
		got := Want[usersAnswer](g.Rig, "alice", "POST", "/v3/user_directory/search", `{"search_term":"tea","limit":2}`)
		if got.who() != "dave bob" || !got.Limited || got.Results[0].DisplayName != "Tea" {
			t.Errorf("two of three: %+v", got)
		}
		g.Refused("alice", "POST", "/v3/user_directory/search", `{}`, 400, matrix.CodeMissingParam)
		g.Refused("alice", "POST", "/v3/user_directory/search", `{"search_term":"a","limit":-1}`, 400, matrix.CodeInvalidParam)
		g.Refused("alice", "POST", "/v3/user_directory/search", `{"search_term":"`+strings.Repeat("a", 256)+`"}`, 400, matrix.CodeInvalidParam)
	})
}

// TestForeignUsers finds people of other servers by what rooms show of them.
func TestForeignUsers(t *testing.T) {
	each(t, func(g *rig) {
		shared, secret, open := g.Room("alice"), g.Room("dave"), publish(g, "open", 1)
		in := func(u matrix.UserID, content string) {
			g.Foreign(shared, u, State(matrix.TypeMember, string(u), content))
		}
		in("@one:tea.org", `{"membership":"join","displayname":"First","avatar_url":5}`)
		in("@two:x.org", `{"membership":"join","displayname":"Green Tea"}`)
		in("@three:x.org", `{"membership":"join","displayname":["tea"]}`)
		in("@gone:tea.org", `{"membership":"join"}`)
		in("@gone:tea.org", `{"membership":"leave"}`)
		g.Enter(secret, "@hidden:tea.org", "@one:tea.org")
		g.Enter(open, "@open:tea.org")
		for term, want := range map[string]string{
			"tea": "two one open", "first": "one", "hidden": "", "tea.org": "one open", "@two:x.org": "two", "x.org": "two three",
		} {
			got := Want[usersAnswer](g.Rig, "alice", "POST", "/v3/user_directory/search", fmt.Sprintf(`{"search_term":%q}`, term))
			if got.who() != want {
				t.Errorf("%q finds %q, not %q", term, got.who(), want)
			}
		}
	})
}
