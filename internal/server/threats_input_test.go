package server_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// badContents are objects that no event may have, with what they are refused by.
var badContents = map[string]struct {
	json  string
	codes string
}{
	"duplicate keys":        {`{"body":"a","body":"b"}`, "400 M_BAD_JSON"},
	"duplicate deep":        {`{"a":[{"b":{"c":1,"c":1}}]}`, "400 M_BAD_JSON"},
	"duplicate by escape":   {`{"a":1,"\u0061":2}`, "400 M_BAD_JSON"},
	"float":                 {`{"a":1.5}`, "400 M_BAD_JSON"},
	"float that is whole":   {`{"a":1.0}`, "400 M_BAD_JSON"},
	"exponent":              {`{"a":1e3}`, "400 M_BAD_JSON"},
	"minus zero":            {`{"a":-0}`, "400 M_BAD_JSON"},
	"2^53":                  {`{"a":9007199254740992}`, "400 M_BAD_JSON"},
	"-2^53":                 {`{"a":[-9007199254740992]}`, "400 M_BAD_JSON"},
	"huge number":           {`{"a":` + strings.Repeat("9", 400) + `}`, "400 M_BAD_JSON"},
	"lone surrogate":        {`{"a":"\ud800"}`, "400 M_BAD_JSON"},
	"lone low surrogate":    {`{"a":"\udc00x"}`, "400 M_BAD_JSON"},
	"lone surrogate key":    {`{"\ud800":1}`, "400 M_BAD_JSON"},
	"swapped surrogates":    {`{"a":"\udc00\ud800"}`, "400 M_BAD_JSON"},
	"invalid UTF-8":         {"{\"a\":\"\xff\"}", "400 M_NOT_JSON"},
	"overlong UTF-8":        {"{\"a\":\"\xc0\x80\"}", "400 M_NOT_JSON"},
	"surrogate in UTF-8":    {"{\"a\":\"\xed\xa0\x80\"}", "400 M_NOT_JSON"},
	"deep":                  {`{"a":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`, "400 M_BAD_JSON"},
	"very deep":             {`{"a":` + strings.Repeat(`{"a":`, 50000) + "1" + strings.Repeat("}", 50000) + `}`, "400 M_NOT_JSON"},
	"65 KiB":                {`{"a":"` + strings.Repeat("x", 65<<10) + `"}`, "413 M_TOO_LARGE"},
	"65 KiB once canonical": {`{"a":"` + strings.Repeat("\u007f", 65<<10) + `"}`, "413 M_TOO_LARGE"},
	"more than any body":    {`{"a":"` + strings.Repeat("x", 1<<20) + `"}`, "413 M_TOO_LARGE"},
	"a list":                {`[]`, "400 M_BAD_JSON"},
	"a text":                {`"x"`, "400 M_BAD_JSON"},
	"null":                  {`null`, "400 M_BAD_JSON"},
	"nothing":               {``, "400 M_NOT_JSON"},
	"half":                  {`{"a":`, "400 M_NOT_JSON"},
	"two":                   {`{}{}`, "400 M_NOT_JSON"},
	"trailing comma":        {`{"a":1,}`, "400 M_NOT_JSON"},
	"a comment":             {`{"a":1/**/}`, "400 M_NOT_JSON"},
	"a byte order mark":     {"\ufeff{}", "400 M_NOT_JSON"},
	"a control character":   {"{\"a\":\"\x01\"}", "400 M_NOT_JSON"},
	"NaN":                   {`{"a":NaN}`, "400 M_NOT_JSON"},
	"a number with a zero":  {`{"a":01}`, "400 M_NOT_JSON"},
	"UTF-16":                {"{\x00}\x00", "400 M_NOT_JSON"},
}

// THREATS F12: what canonical JSON cannot express, or is too large, is refused at
// every door through which a client's JSON gets into events, and leaves nothing.
func TestBadContentIsRefused(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice := s.Register("alice")
		for _, version := range []string{"1", "5", "6", "12"} {
			room := alice.CreateRoom(object{"preset": "public_chat", "room_version": version})
			path := "/v3/rooms" + testrig.Path(room)
			before := s.DB().Position()
			n := 0
			for name, bad := range badContents {
				n++
				send := fmt.Sprint(path, "/send/m.room.message/", n)
				whole := map[string]string{"PUT " + send: bad.json, "PUT " + path + "/state/m.x/": bad.json, "PUT " + path + "/state/m.room.topic/k": bad.json}
				for door, body := range whole {
					method, target, _ := strings.Cut(door, " ")
					refused(t, s, alice, name+", version "+version, method, target, body, bad.codes)
				}
				if strings.HasPrefix(bad.json, `{"`) && bad.codes == "400 M_BAD_JSON" && version == "12" {
					refused(t, s, alice, name, "POST", "/v3/createRoom", `{"creation_content":`+bad.json+`}`, bad.codes)
					refused(t, s, alice, name, "POST", "/v3/createRoom", `{"initial_state":[{"type":"m.x","content":`+bad.json+`}]}`, bad.codes)
					refused(t, s, alice, name, "POST", "/v3/createRoom", `{"power_level_content_override":{"x":`+bad.json+`}}`, bad.codes)
				}
				// The transaction id was not used up.
				alice.Must("PUT", send, object{"body": "good"})
				before++
			}
			if now := s.DB().Position(); now != before {
				t.Errorf("version %s: position %d, not %d: something was stored", version, now, before)
			}
		}
	})
}

// refused checks that a request fails so.
func refused(t *testing.T, s *testrig.Server, c *testrig.Client, name, method, path, send, want string) {
	t.Helper()
	status, text := body(t, s, c, method, path, send)
	var answer struct {
		Code matrix.Code `json:"errcode"`
		Text string      `json:"error"`
	}
	_ = json.Unmarshal([]byte(text), &answer)
	if got := fmt.Sprint(status, " ", answer.Code); got != want || answer.Text == "" {
		t.Errorf("%s: %s %.60s %.60s: %s, not %s", name, method, path, send, text, want)
	}
}

// THREATS F12: identifiers are measured in bytes.
func TestLongNamesAreRefused(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice := s.Register("alice")
		room := alice.CreateRoom(object{"preset": "public_chat"})
		path := "/v3/rooms" + testrig.Path(room)
		fits, long := strings.Repeat("é", 127)+"x", strings.Repeat("é", 128)
		alice.Must("PUT", path+"/send"+testrig.Path(fits, "t"), object{})
		alice.Must("PUT", path+"/state"+testrig.Path(fits, fits), object{})
		before := s.DB().Position()
		for _, c := range []struct{ method, path, body string }{
			{"PUT", path + "/send" + testrig.Path(long, "t"), `{}`},
			{"PUT", path + "/state" + testrig.Path(long), `{}`},
			{"PUT", path + "/state" + testrig.Path("m.x", long), `{}`},
			{"POST", "/v3/createRoom", `{"initial_state":[{"type":"` + long + `","content":{}}]}`},
			{"POST", "/v3/createRoom", `{"initial_state":[{"type":"m.x","state_key":"` + long + `","content":{}}]}`},
		} {
			refused(t, s, alice, "too long", c.method, c.path, c.body, "413 M_TOO_LARGE")
		}
		for _, c := range []struct{ method, path, body string }{
			{"POST", path + "/invite", `{"user_id":"@` + strings.Repeat("x", 251) + `:test"}`},
			{"POST", path + "/kick", `{"user_id":"@` + strings.Repeat("x", 251) + `:test"}`},
			{"PUT", path + "/send" + testrig.Path("m.x", strings.Repeat("t", 300)), `{}`},
			{"PUT", path + "/redact" + testrig.Path("$"+strings.Repeat("x", 300), "t"), `{}`},
			{"POST", "/v3/join" + testrig.Path("#"+strings.Repeat("x", 300)+":test"), `{}`},
			{"POST", "/v3/createRoom", `{"room_alias_name":"` + strings.Repeat("x", 300) + `"}`},
			{"POST", "/v3/register", `{"username":"` + strings.Repeat("x", 300) + `","password":"p","auth":{"type":"m.login.dummy"}}`},
			{"PUT", "/v3/user" + testrig.Path(alice.User, "account_data", strings.Repeat("t", 300)), `{}`},
			{"PUT", "/v3/user" + testrig.Path(alice.User, "rooms", room, "tags", strings.Repeat("t", 300)), `{}`},
		} {
			if status, text := body(t, s, alice, c.method, c.path, c.body); status < 400 || status >= 500 || !strings.Contains(text, "errcode") {
				t.Errorf("%s %.80s: %d %s", c.method, c.path, status, text)
			}
		}
		if now := s.DB().Position(); now != before {
			t.Errorf("position %d, not %d: something was stored", now, before)
		}
	})
}

// THREATS F13: U+0000 in texts is refused, or kept as it is, on both databases.
func TestNULInTexts(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice := s.Register("alice")
		room := alice.CreateRoom(object{"preset": "public_chat"})
		path := "/v3/rooms" + testrig.Path(room)
		event := testrig.Path(alice.Say(room, "1", "x"))
		user := "/v3/user" + testrig.Path(alice.User)
		const nul = `"a\u0000b"`
		// Within contents it is text like any other.
		for _, target := range []string{path + "/send/m.room.message/nul", path + "/state/m.room.topic/", user + "/account_data/m.nul"} {
			alice.Must("PUT", target, `{"topic":`+nul+`,"a\u0000b":[`+nul+`]}`)
		}
		for _, target := range []string{path + "/state/m.room.topic/", user + "/account_data/m.nul"} {
			if a := alice.Must("GET", target, nil); a["topic"] != "a\x00b" || a["a\x00b"] == nil {
				t.Errorf("%s: %v", target, a)
			}
		}
		if raw, _ := json.Marshal(alice.Sync("", 0)); strings.Count(string(raw), `a\u0000b`) < 6 {
			t.Errorf("sync lost some: %s", raw)
		}
		// Elsewhere there is an answer that is no fault of the server.
		for _, c := range []struct{ method, path, body string }{
			{"POST", "/v3/createRoom", `{"name":` + nul + `,"topic":` + nul + `}`},
			{"POST", "/v3/createRoom", `{"room_alias_name":` + nul + `}`},
			{"POST", "/v3/createRoom", `{"initial_state":[{"type":` + nul + `,"state_key":` + nul + `,"content":{}}]}`},
			{"POST", "/v3/createRoom", `{"creation_content":{"type":` + nul + `},"power_level_content_override":{"events":{` + nul + `:1}}}`},
			{"POST", "/v3/createRoom", `{"room_version":` + nul + `}`},
			{"POST", "/v3/createRoom", `{"invite":["@a\u0000:test"]}`},
			{"POST", path + "/invite", `{"user_id":"@a\u0000:test"}`},
			{"POST", path + "/invite", `{"user_id":"@a:test","reason":` + nul + `}`},
			{"POST", path + "/ban", `{"user_id":"@b:test","reason":` + nul + `}`},
			{"POST", path + "/join", `{"reason":` + nul + `,"x":` + nul + `}`},
			{"PUT", path + "/redact" + event + "/n", `{"reason":` + nul + `}`},
			{"PUT", path + "/send/m.reaction/n", `{"m.relates_to":{"rel_type":"m.annotation","event_id":"$x\u0000","key":` + nul + `}}`},
			{"PUT", path + "/send/m.room.message/n1", `{"m.relates_to":{"rel_type":"m.thread","event_id":"$x\u0000"}}`},
			{"PUT", path + "/send/m.room.message/n2", `{"m.relates_to":{"rel_type":` + nul + `,"event_id":"$x"}}`},
			{"PUT", path + "/send/m.room.redaction/n3", `{"redacts":"$x\u0000"}`},
			{"PUT", path + "/state/m.room.canonical_alias/", `{"alias":"#a\u0000:test"}`},
			{"POST", path + "/report" + event, `{"reason":` + nul + `}`},
			{"POST", path + "/receipt/m.read" + event, `{"thread_id":` + nul + `}`},
			{"POST", path + "/read_markers", `{"m.fully_read":"$x\u0000"}`},
			{"POST", path + "/upgrade", `{"new_version":` + nul + `}`},
			{"PUT", "/v3/profile" + testrig.Path(alice.User, "displayname"), `{"displayname":` + nul + `}`},
			{"PUT", "/v3/profile" + testrig.Path(alice.User, "m.tz"), `{"m.tz":` + nul + `}`},
			{"PUT", "/v3/presence" + testrig.Path(alice.User, "status"), `{"presence":"online","status_msg":` + nul + `}`},
			{"PUT", "/v3/devices" + testrig.Path(alice.Device), `{"display_name":` + nul + `}`},
			{"POST", "/v3/delete_devices", `{"devices":[` + nul + `],"auth":{"type":"m.login.password","password":"password","user":"alice"}}`},
			{"PUT", user + "/rooms" + testrig.Path(room) + "/tags/u.x", `{"order":0.5,"x":` + nul + `}`},
			{"POST", user + "/filter", `{"room":{"rooms":[` + nul + `],"timeline":{"types":[` + nul + `],"senders":[` + nul + `]}},"event_fields":[` + nul + `]}`},
			{"POST", "/v3/user_directory/search", `{"search_term":` + nul + `}`},
			{"POST", "/v3/publicRooms", `{"filter":{"generic_search_term":` + nul + `},"since":` + nul + `}`},
			{"POST", "/v3/publicRooms", `{"since":` + nul + `}`},
			{"PUT", "/v3/directory/room/" + url.PathEscape("#x:test"), `{"room_id":` + nul + `}`},
			{"POST", "/v3/register", `{"username":` + nul + `,"password":"x","auth":{"type":"m.login.dummy"}}`},
			{"POST", "/v3/register", `{"username":"n1","password":` + nul + `,"device_id":` + nul + `,"initial_device_display_name":` + nul + `,"auth":{"type":"m.login.dummy"}}`},
			{"POST", "/v3/register", `{"username":"n2","auth":{"type":` + nul + `,"session":` + nul + `}}`},
			{"POST", "/v3/login", `{"type":"m.login.password","password":` + nul + `,"identifier":{"type":"m.id.user","user":` + nul + `}}`},
			{"POST", "/v3/login", `{"type":"m.login.password","password":"password","device_id":` + nul + `,"identifier":{"type":"m.id.user","user":"alice"}}`},
			{"POST", "/v3/login", `{"type":"m.login.password","password":"password","initial_device_display_name":` + nul + `,"identifier":{"type":"m.id.user","user":"alice"}}`},
			{"POST", "/v3/login", `{"type":"m.login.token","token":` + nul + `}`},
			{"POST", "/v3/refresh", `{"refresh_token":` + nul + `}`},
			{"POST", "/v3/pushers/set", `{"kind":null,"app_id":` + nul + `,"pushkey":` + nul + `}`},
			{"POST", "/v3/keys/upload", `{"one_time_keys":{"curve25519:a\u0000b":` + nul + `},"fallback_keys":{` + nul + `:{}},"device_keys":{"user_id":` + nul + `}}`},
			{"POST", "/v3/keys/query", `{"device_keys":{"@alice:test":[` + nul + `],"@a\u0000:elsewhere":[]}}`},
			{"POST", "/v3/keys/query", `{"device_keys":{"@alice:test":[` + nul + `]}}`},
			{"POST", "/v3/keys/claim", `{"one_time_keys":{"@alice:test":{` + nul + `:` + nul + `}}}`},
			{"POST", "/v3/keys/device_signing/upload", `{"master_key":{"user_id":"@alice:test","usage":["master"],"keys":{` + nul + `:` + nul + `}}}`},
			{"POST", "/v3/keys/signatures/upload", `{"@alice:test":{` + nul + `:{"user_id":"@alice:test","device_id":` + nul + `}}}`},
			{"PUT", "/v3/sendToDevice/m.x/nul", `{"messages":{"@alice:test":{"*":{"x":` + nul + `},` + nul + `:{}}}}`},
			{"POST", "/v3/room_keys/version", `{"algorithm":` + nul + `,"auth_data":{"x":` + nul + `}}`},
			{"POST", "/v3/room_keys/version", `{"algorithm":"m.x","auth_data":{"x":` + nul + `}}`},
			{"PUT", "/v3/room_keys/keys?version=1", `{"rooms":{` + nul + `:{"sessions":{` + nul + `:{"first_message_index":1,"forwarded_count":0,"is_verified":true,"session_data":{"x":` + nul + `}}}}}}`},
			{"PUT", "/unstable/org.matrix.msc3814.v1/dehydrated_device", `{"device_id":` + nul + `,"device_data":{"x":` + nul + `},"initial_device_display_name":` + nul + `}`},
			{"POST", "/_synapse/admin/v1/register", `{"nonce":` + nul + `,"username":` + nul + `,"password":"x","mac":"x"}`},
		} {
			status, text := body(t, s, alice, c.method, c.path, c.body)
			if status >= 500 || status >= 400 && !strings.Contains(text, `"errcode"`) {
				t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, status, text)
			}
		}
		alice.Sync("", 0)
	})
}

// hostileValues are what every member of every request is set to in turn.
var hostileValues = []string{
	`"a\u0000b"`, `"\ud800"`, `null`, `1.5`, `-9223372036854775809`, `1e400`, `true`, `""`, `[]`, `{}`, `["a\u0000b",{},null]`,
	`{"a\u0000b":{"":[]}}`, `"@a:test"`, `"!a:test"`, `"` + strings.Repeat("x", 70000) + `"`, strings.Repeat("[", 2000) + strings.Repeat("]", 2000),
	`"%00"`, `"'; DROP TABLE users; --"`, `"` + strings.Repeat("*", 300) + `"`,
}

// members are names that requests of the client API read.
var members = []string{
	"user_id", "reason", "room_id", "name", "topic", "invite", "invite_3pid", "preset", "visibility", "room_version", "room_alias_name",
	"creation_content", "initial_state", "power_level_content_override", "is_direct", "filter", "since", "limit", "search_term", "new_version",
	"additional_creators", "displayname", "avatar_url", "display_name", "devices", "auth", "username", "password", "identifier", "user", "type",
	"token", "device_id", "initial_device_display_name", "refresh_token", "inhibit_login", "new_password", "logout_devices", "erase", "id_server",
	"typing", "timeout", "presence", "status_msg", "m.fully_read", "m.read", "m.read.private", "thread_id", "order", "score", "msgtype", "body",
	"m.relates_to", "m.new_content", "redacts", "alias", "alt_aliases", "membership", "users", "events", "join_rule", "history_visibility",
	"third_party_signed", "third_party_instance_id", "include_all_networks", "room", "account_data", "event_fields", "event_format", "kind", "app_id",
	"pushkey", "lang", "device_keys", "one_time_keys", "fallback_keys", "messages", "master_key", "self_signing_key", "user_signing_key", "algorithm",
	"auth_data", "version", "rooms", "sessions", "session_data", "first_message_index", "forwarded_count", "is_verified", "device_data", "data", "client_secret", "email", "send_attempt", "medium", "address", "sid", "session", "nonce", "mac", "admin",
}

// queries are names that requests read from the query.
var queries = []string{
	"since", "from", "to", "dir", "limit", "filter", "timeout", "set_presence", "full_state", "use_state_after", "at", "membership", "not_membership",
	"format", "ts", "kind", "username", "token", "via", "server_name", "server", "recurse", "include", "max_depth", "suggested_only", "user_id",
	"room_id", "session", "user", "event_id", "batch", "q", "version",
}

// THREATS F12, F13, A16: no value of any member, query or path makes any route
// fail, on either database; whatever is refused is refused by an error.
func TestHostileValuesEverywhere(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		n := 0
		var c *testrig.Client
		var room matrix.RoomID
		values, group := hostileValues, 1 // members of one request
		if os.Getenv("TEAHOUSE_LONG") == "" {
			values, group = values[:8], 30
		}
		renew := func() {
			n++
			c = s.Register(fmt.Sprint("user", n))
			room = c.CreateRoom(object{"preset": "public_chat"})
		}
		renew()
		check := func(method, path, send string) {
			t.Helper()
			status, text := body(t, s, c, method, path, send)
			if status >= 500 || status >= 400 && !strings.Contains(text, `"errcode"`) && !strings.Contains(text, `"flows"`) && !strings.Contains(path, "/fallback/") {
				t.Errorf("%s %.200s %.200s: %d %s", method, path, send, status, text)
			}
			if status == 401 && !strings.Contains(text, `"flows"`) || strings.HasSuffix(path, "/logout") || strings.Contains(path, "/leave") {
				renew()
			}
		}
		for _, rt := range s.Edge().Routes() {
			if !slices.Contains([]string{"client", "admin"}, rt.Surface) {
				continue
			}
			for _, value := range values {
				path := concrete(rt.Path, c.User, room)
				if rt.Method == "GET" {
					text := strings.Trim(value, `"`)
					if len(text) > 1000 {
						text = text[:1000]
					}
					var q []string
					for _, name := range queries {
						if name != "timeout" && group == 1 {
							check(rt.Method, path+"?timeout=0&"+name+"="+url.QueryEscape(strings.ReplaceAll(text, `\u0000`, "\x00")), "")
						}
						q = append(q, name+"="+url.QueryEscape(text))
					}
					check(rt.Method, path+"?"+strings.Join(q, "&"), "")
				} else {
					var all []string
					for _, name := range members {
						all = append(all, fmt.Sprintf("%q:%s", name, value))
					}
					check(rt.Method, path, "{"+strings.Join(all, ",")+"}")
					for some := range slices.Chunk(all, group) {
						check(rt.Method, concrete(rt.Path, c.User, room), "{"+strings.Join(some, ",")+"}")
					}
				}
			}
			for _, seg := range []string{"%00", "%FF", "%ED%A0%80", "%2F", "..%2F..", "%25", strings.Repeat("x", 3000), "%F0%9F%8D%B5", "'", "*"} {
				for _, name := range wildcards(rt.Path) {
					path := concrete(strings.Replace(rt.Path, name, seg, 1), c.User, room)
					check(rt.Method, path, "{}")
					if seg == "%00" || seg == "%FF" {
						if status, text := body(t, s, c, rt.Method, path, "{}"); status != 400 || !strings.Contains(text, "M_INVALID_PARAM") {
							t.Errorf("%s %s: %d %s", rt.Method, path, status, text)
						}
					}
				}
			}
			if rt.Access == httpx.AccessToken && rt.Method != "GET" {
				if status, _ := body(t, s, c, rt.Method, concrete(rt.Path, c.User, room), "\xff"); status >= 500 {
					t.Errorf("%s %s fails on a body that is no text", rt.Method, rt.Path)
				}
			}
		}
	})
}

func wildcards(path string) (names []string) {
	for _, seg := range strings.Split(path, "/") {
		if strings.HasPrefix(seg, "{") && seg != "{$}" {
			names = append(names, seg)
		}
	}
	return names
}
