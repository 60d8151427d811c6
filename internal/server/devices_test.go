package server_test

import (
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// Devices are asked for, and written to, across servers.
func TestDevicesAcrossServers(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			s := testrig.StartMany(t, kind, "a", "b")
			alice, bob := s[0].Register("alice"), s[1].Register("bob")
			room := alice.CreateRoom(object{"preset": "public_chat"})
			bob.Must("POST", "/v3/join"+testrig.Path(room)+"?via=a", object{})
			since := bob.Sync("", 0)["next_batch"].(string)
			phone := s[0].Login("alice")
			answer := bob.Must("POST", "/v3/keys/query", object{"device_keys": object{string(alice.User): []string{}}})
			if failures, _ := answer["failures"].(object); len(failures) > 0 {
				t.Errorf("the other server's keys cannot be had: %v", failures)
			}
			phone.Must("PUT", "/v3/sendToDevice/m.test/1", object{"messages": object{string(bob.User): object{"*": object{"text": "psst"}}}})
			until(t, bob, since, "psst", "to_device")
		})
	}
}

// until syncs until a section of the answer mentions something, and returns the
// token behind it.
func until(t *testing.T, c *testrig.Client, since, what, section string) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		answer := c.Sync(since, 2000)
		since = answer["next_batch"].(string)
		if strings.Contains(jsonOf(answer[section]), what) {
			return since
		}
	}
	t.Fatalf("%s never mentions %s", section, what)
	return ""
}
