package data

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestTags(t *testing.T) {
	each(t, func(g *rig) {
		const tags = alice + "/rooms/!r:x/tags"
		g.want("alice", "GET", tags, "", 200, `{"tags":{}}`)
		g.want("alice", "PUT", tags+"/m.favourite", `{"order":0.25}`, 200, `{}`)
		g.want("alice", "PUT", tags+"/u.W%C3%B6rk%2F1", `{"color":"red"}`, 200, `{}`)
		g.want("alice", "GET", tags, "", 200, `{"tags":{"m.favourite":{"order":0.25},"u.Wörk/1":{"color":"red"}}}`)
		g.want("alice", "GET", alice+"/rooms/!r:x/account_data/m.tag", "", 200, `{"tags":{"m.favourite":{"order":0.25},"u.Wörk/1":{"color":"red"}}}`)
		g.want("alice", "GET", alice+"/rooms/!other:x/tags", "", 200, `{"tags":{}}`)
		g.want("alice", "PUT", tags+"/m.favourite", `{"order":1}`, 200, `{}`)
		g.want("alice", "DELETE", tags+"/u.W%C3%B6rk%2F1", "", 200, `{}`)
		g.want("alice", "DELETE", tags+"/never", "", 200, `{}`)
		g.want("alice", "GET", tags, "", 200, `{"tags":{"m.favourite":{"order":1}}}`)
		// Clients hear of each change, also of the last tag's end.
		g.want("alice", "DELETE", tags+"/m.favourite", "", 200, `{}`)
		if last := g.changes[len(g.changes)-1]; last.Type != TypeTag || last.Room != "!r:x" || string(last.Content) != `{"tags":{}}` {
			t.Errorf("published %+v", last)
		}
		// Some clients write m.tag themselves, and some of them badly.
		for _, odd := range []string{`{"tags":5}`, `{"tags":null}`, `{}`, `{"tags":{"a":5,"b":null}}`} {
			g.want("alice", "PUT", alice+"/rooms/!r:x/account_data/m.tag", odd, 200, `{}`)
			g.want("alice", "GET", tags, "", 200, `{"tags":{}}`)
			g.want("alice", "PUT", tags+"/u.x", `{}`, 200, `{}`)
			g.want("alice", "GET", tags, "", 200, `{"tags":{"u.x":{}}}`)
		}
	})
}

func TestTagRefusals(t *testing.T) {
	each(t, func(g *rig) {
		const tags = alice + "/rooms/!r:x/tags"
		for _, c := range []struct {
			token, method, path, body string
			code                      int
			want                      string
		}{
			{"bob", "GET", tags, "", 403, "M_FORBIDDEN"},
			{"bob", "PUT", tags + "/a", `{}`, 403, "M_FORBIDDEN"},
			{"bob", "DELETE", tags + "/a", ``, 403, "M_FORBIDDEN"},
			{"alice", "PUT", tags + "/a", `{"order":"0.5"}`, 400, "M_BAD_JSON"},
			{"alice", "PUT", tags + "/a", `{"order":null}`, 400, "M_BAD_JSON"},
			{"alice", "PUT", tags + "/a", `{"order":1.01}`, 400, "M_INVALID_PARAM"},
			{"alice", "PUT", tags + "/a", `{"order":-0.1}`, 400, "M_INVALID_PARAM"},
			{"alice", "PUT", tags + "/a", `[]`, 400, "M_BAD_JSON"},
			{"alice", "PUT", tags + "/a", ``, 400, "M_NOT_JSON"},
			{"alice", "PUT", tags + "/" + strings.Repeat("t", MaxTagBytes+1), `{}`, 400, "M_INVALID_PARAM"},
			{"alice", "PUT", tags + "/" + strings.Repeat("t", MaxTagBytes), `{}`, 200, `{}`},
			{"alice", "PUT", tags + "/a%00", `{}`, 400, "M_INVALID_PARAM"},
			{"alice", "GET", alice + "/rooms/r/tags", ``, 400, "M_INVALID_PARAM"},
			{"alice", "PUT", tags + "/big", `{"x":"` + strings.Repeat("x", MaxContentBytes) + `"}`, 413, "M_TOO_LARGE"},
		} {
			g.want(c.token, c.method, c.path, c.body, c.code, c.want)
		}
	})
}

func (g *rig) create(token, filter string) string {
	g.Helper()
	code, body := g.ask(token, "POST", "/v3/user/@"+token+":x/filter", filter)
	var a filterCreated
	if err := json.Unmarshal([]byte(body), &a); code != 200 || err != nil || a.ID == "" || a.ID[0] == '{' {
		g.Fatalf("%d %s", code, body)
	}
	return a.ID
}

func TestFilters(t *testing.T) {
	each(t, func(g *rig) {
		const full = `{"event_fields":["type","content.body"],"event_format":"client","presence":{"not_senders":["@a:x"]},` +
			`"account_data":{"types":["m.*"],"limit":0},"org.example":{"kept":true},` +
			`"room":{"rooms":["!r:x"],"not_rooms":[],"include_leave":true,"state":{"lazy_load_members":true},` +
			`"timeline":{"limit":10,"not_types":["m.x"],"contains_url":false,"rooms":["!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM"]}}}`
		id := g.create("alice", full)
		g.want("alice", "GET", alice+"/filter/"+id, "", 200, full)
		if again := g.create("alice", " "+strings.ReplaceAll(full, ",", " , ")); again != id {
			t.Errorf("the same filter has the ids %s and %s", id, again)
		}
		other := g.create("alice", `{"room":{"timeline":{"limit":11}}}`)
		if other == id {
			t.Error("two filters have one id")
		}
		g.want("alice", "GET", alice+"/filter/"+other, "", 200, `{"room":{"timeline":{"limit":11}}}`)
		g.create("guest", `{}`)
		g.want("bob", "GET", "/v3/user/@bob:x/filter/"+id, "", 404, "M_NOT_FOUND")
	})
}

func TestFilterRefusals(t *testing.T) {
	each(t, func(g *rig) {
		const filter = alice + "/filter"
		g.want("bob", "POST", filter, `{}`, 403, "M_FORBIDDEN")
		g.want("bob", "GET", filter+"/1", ``, 403, "M_FORBIDDEN")
		g.want("alice", "GET", filter+"/1", ``, 404, "M_NOT_FOUND")
		g.want("alice", "POST", filter, `{"x":"`+strings.Repeat("x", MaxFilterBytes)+`"}`, 413, "M_TOO_LARGE")
		for _, bad := range []string{
			`[]`, `"x"`,
			`{"presence":"x"}`, `{"room":5}`, `{"account_data":[]}`,
			`{"event_fields":"x"}`, `{"event_fields":[1]}`, `{"event_format":"xml"}`, `{"event_format":1}`,
			`{"room":{"timeline":"x"}}`, `{"room":{"state":"x"}}`, `{"room":{"ephemeral":"x"}}`, `{"room":{"account_data":"x"}}`,
			`{"room":{"timeline":{"rooms":"x"}}}`, `{"room":{"timeline":{"not_rooms":"x"}}}`, `{"room":{"timeline":{"senders":"x"}}}`,
			`{"room":{"timeline":{"not_senders":"x"}}}`, `{"room":{"timeline":{"types":"x"}}}`, `{"room":{"timeline":{"not_types":"x"}}}`,
			`{"room":{"timeline":{"types":[1]}}}`, `{"room":{"timeline":{"rooms":["room"]}}}`, `{"room":{"timeline":{"senders":["sender"]}}}`,
			`{"room":{"rooms":["@a:x"]}}`, `{"room":{"not_rooms":[""]}}`, `{"presence":{"not_senders":["!r:x"]}}`,
			`{"room":{"timeline":{"limit":-1}}}`, `{"room":{"timeline":{"limit":1.5}}}`, `{"room":{"timeline":{"limit":"1"}}}`,
			`{"room":{"include_leave":"yes"}}`, `{"room":{"timeline":{"related_by_senders":5}}}`, `{"room":{"timeline":{"related_by_rel_types":[5]}}}`, `{"room":{"state":{"lazy_load_members":1}}}`,
		} {
			g.want("alice", "POST", filter, bad, 400, "M_BAD_JSON")
		}
	})
}

func FuzzFilter(f *testing.F) {
	f.Add([]byte(`{"room":{"timeline":{"limit":10,"types":["m.*"]}}}`))
	f.Add([]byte(`{"presence":{"senders":["@a:x",""]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if checkFilter(raw) == nil && !json.Valid(raw) {
			t.Errorf("%q was taken", raw)
		}
	})
}

func TestOpenID(t *testing.T) {
	each(t, func(g *rig) {
		g.want("bob", "POST", alice+"/openid/request_token", `{}`, 403, "M_FORBIDDEN")
		code, body := g.ask("alice", "POST", alice+"/openid/request_token", `{}`)
		var a openIDToken
		if err := json.Unmarshal([]byte(body), &a); err != nil || code != 200 {
			g.Fatalf("%d %s", code, body)
		}
		if a.TokenType != "Bearer" || a.ServerName != "x" || a.ExpiresIn != 3600 || len(a.AccessToken) < 20 {
			t.Errorf("%s", body)
		}
		redeem := func(token string, want bool) {
			g.Helper()
			user, ok, err := g.RedeemOpenID(g.Context(), token)
			if err != nil || ok != want || ok && user != "@alice:x" {
				g.Errorf("%q %v %v", user, ok, err)
			}
		}
		redeem(a.AccessToken, true)
		redeem(a.AccessToken, true)
		redeem(a.AccessToken+"x", false)
		redeem(hashToken(a.AccessToken), false) // what the database holds is no token
		g.clock = g.clock.Add(openIDLifetime - time.Millisecond)
		redeem(a.AccessToken, true)
		g.clock = g.clock.Add(time.Millisecond)
		redeem(a.AccessToken, false)
	})
}
