package encryption

import (
	"fmt"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const newBackup = `{"algorithm":"m.megolm_backup.v1.curve25519-aes-sha2","auth_data":{"public_key":"abc"}}`

func backedUp(first, forwarded int, verified bool, text string) string {
	return fmt.Sprintf(`{"first_message_index":%d,"forwarded_count":%d,"is_verified":%t,"session_data":{"ciphertext":%q}}`, first, forwarded, verified, text)
}

func TestBackup(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		alice, bob := g.login("alice", "A1"), g.login("bob", "B1")
		alice.refused("GET", "/v3/room_keys/version", "", 404, matrix.CodeNotFound)
		alice.refused("PUT", "/v3/room_keys/keys?version=1", `{"rooms":{}}`, 404, matrix.CodeNotFound)
		if v := want[versionAnswer](alice, "POST", "/v3/room_keys/version", newBackup); v.Version != "1" {
			t.Errorf("version %q", v.Version)
		}
		info := func() backupAnswer { return want[backupAnswer](alice, "GET", "/v3/room_keys/version", "") }
		last := info()
		if last.Count != 0 || string(last.AuthData) != `{"public_key":"abc"}` {
			t.Errorf("a new backup: %+v", last)
		}
		moved := func(u backupUpdate, count int64) {
			t.Helper()
			now := info()
			if u.Count != count || now.Count != count || now.ETag != u.ETag || now.ETag == last.ETag {
				t.Errorf("%+v, then %+v; before %+v; want %d keys and another etag", u, now, last, count)
			}
			last = now
		}
		const keys = "/v3/room_keys/keys"
		moved(want[backupUpdate](alice, "PUT", keys+"/!a:test/s1?version=1", backedUp(5, 1, false, "one")), 1)
		moved(want[backupUpdate](alice, "PUT", keys+"/!a:test?version=1", `{"sessions":{"s2":`+backedUp(0, 0, true, "two")+`}}`), 2)
		moved(want[backupUpdate](alice, "PUT", keys+"?version=1", `{"rooms":{"!b:test":{"sessions":{"s1":`+backedUp(0, 0, false, "three")+`}},"!a:test":{"sessions":{"s1":`+backedUp(4, 9, false, "four")+`}}}}`), 3)
		all := want[map[string]map[string]map[string]map[string]object](alice, "GET", keys+"?version=1", "")
		if len(all["rooms"]) != 2 || fmt.Sprint(all["rooms"]["!a:test"]["sessions"]["s1"]["session_data"]) != "map[ciphertext:four]" {
			t.Errorf("all: %v", all)
		}
		room := want[map[string]map[string]object](alice, "GET", keys+"/!a:test?version=1", "")
		if len(room["sessions"]) != 2 {
			t.Errorf("a room: %v", room)
		}
		if none := want[map[string]map[string]object](alice, "GET", keys+"/!c:test?version=1", ""); none["sessions"] == nil || len(none["sessions"]) != 0 {
			t.Errorf("a room without keys: %v", none)
		}
		if one := want[object](alice, "GET", keys+"/!a:test/s2?version=1", ""); one["is_verified"] != true || one["first_message_index"] != 0.0 {
			t.Errorf("a key: %v", one)
		}
		alice.refused("GET", keys+"/!a:test/s9?version=1", "", 404, matrix.CodeNotFound)
		alice.refused("GET", keys+"?version=9", "", 404, matrix.CodeNotFound)
		bob.refused("GET", keys+"?version=1", "", 404, matrix.CodeNotFound)
		moved(want[backupUpdate](alice, "DELETE", keys+"/!a:test/s2?version=1", ""), 2)
		moved(want[backupUpdate](alice, "DELETE", keys+"/!a:test?version=1", ""), 1)
		moved(want[backupUpdate](alice, "DELETE", keys+"?version=1", ""), 0)

		// Only auth_data changes.
		want[object](alice, "PUT", "/v3/room_keys/version/1", strings.Replace(newBackup, "abc", "def", 1))
		if got := info(); string(got.AuthData) != `{"public_key":"def"}` {
			t.Errorf("auth_data %s", got.AuthData)
		}
		alice.refused("PUT", "/v3/room_keys/version/1", strings.Replace(newBackup, "v1", "v2", 1), 400, matrix.CodeInvalidParam)
		alice.refused("PUT", "/v3/room_keys/version/1", `{"version":"2",`+newBackup[1:], 400, matrix.CodeInvalidParam)
		alice.refused("PUT", "/v3/room_keys/version/7", newBackup, 404, matrix.CodeNotFound)

		// A second version is the current one; a deleted number does not come back.
		want[object](alice, "POST", "/v3/room_keys/version", newBackup)
		code, text := alice.do("PUT", keys+"/!a:test/s1?version=1", backedUp(0, 0, false, "x"))
		if code != 403 || !strings.Contains(text, `"current_version":"2"`) || !strings.Contains(text, "M_WRONG_ROOM_KEYS_VERSION") {
			t.Errorf("an old version: %d %s", code, text)
		}
		want[backupUpdate](alice, "PUT", keys+"/!a:test/s1?version=2", backedUp(0, 0, false, "x"))
		want[object](alice, "DELETE", "/v3/room_keys/version/2", "")
		want[object](alice, "DELETE", "/v3/room_keys/version/2", "")
		alice.refused("DELETE", "/v3/room_keys/version/9", "", 404, matrix.CodeNotFound)
		alice.refused("GET", keys+"?version=2", "", 404, matrix.CodeNotFound)
		if got := info(); got.Version != "1" {
			t.Errorf("the current version is %s", got.Version)
		}
		if v := want[versionAnswer](alice, "POST", "/v3/room_keys/version", newBackup); v.Version != "3" {
			t.Errorf("version %s, want 3", v.Version)
		}
	})
}

func TestBetterKey(t *testing.T) {
	g := newRig(t, urlOf(t))
	alice := g.login("alice", "A1")
	want[object](alice, "POST", "/v3/room_keys/version", newBackup)
	const path = "/v3/room_keys/keys/!a:test/s?version=1"
	for _, c := range []struct {
		key  string
		kept string
	}{
		{backedUp(5, 5, false, "first"), "first"},
		{backedUp(5, 5, false, "equal"), "first"},
		{backedUp(6, 0, false, "later"), "first"},
		{backedUp(5, 4, false, "forwarded less"), "forwarded less"},
		{backedUp(4, 9, false, "earlier"), "earlier"},
		{backedUp(9, 9, true, "verified"), "verified"},
		{backedUp(0, 0, false, "unverified"), "verified"},
		{backedUp(8, 9, true, "earlier and verified"), "earlier and verified"},
	} {
		want[object](alice, "PUT", path, c.key)
		if got := want[object](alice, "GET", path, ""); fmt.Sprint(got["session_data"]) != "map[ciphertext:"+c.kept+"]" {
			t.Errorf("after %s: %v, want %s", c.key, got, c.kept)
		}
	}
	for _, bad := range []string{
		`{}`, backedUp(-1, 0, true, "x"), `{"first_message_index":1.5,"forwarded_count":0,"is_verified":true,"session_data":{}}`,
		`{"first_message_index":1,"forwarded_count":0,"is_verified":true,"session_data":"x"}`,
	} {
		if code, text := alice.do("PUT", path, bad); code != 400 {
			t.Errorf("%s: %d %s", bad, code, text)
		}
	}
}

// More keys than one page, with ids that need care.
func TestLargeBackup(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		alice := g.login("alice", "A1")
		want[object](alice, "POST", "/v3/room_keys/version", newBackup)
		var list []string
		for i := range 2*backupPageKeys + 7 {
			list = append(list, fmt.Sprintf(`"s\"%d":%s`, i, backedUp(i, 0, true, "x")))
		}
		sessions := `{"sessions":{` + strings.Join(list, ",") + `}}`
		want[object](alice, "PUT", "/v3/room_keys/keys?version=1", `{"rooms":{"!a:test":`+sessions+`,"!b:test":`+sessions+`}}`)
		all := want[map[string]map[string]map[string]map[string]object](alice, "GET", "/v3/room_keys/keys?version=1", "")["rooms"]
		one := want[map[string]map[string]object](alice, "GET", "/v3/room_keys/keys/!b:test?version=1", "")["sessions"]
		if n := len(list); len(all["!a:test"]["sessions"]) != n || len(all["!b:test"]["sessions"]) != n || len(one) != n {
			t.Errorf("%d, %d and %d keys, want %d", len(all["!a:test"]["sessions"]), len(all["!b:test"]["sessions"]), len(one), n)
		}
	})
}
