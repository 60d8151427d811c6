package encryption

import (
	"fmt"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Of a deactivated account nothing is left.
func TestErase(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		alice, bob := g.login("alice", "A1"), g.login("bob", "B1")
		alice.upload(1)
		id := alice.identity()
		want[object](alice, "POST", crossPath, id.body(""))
		want[object](alice, "POST", "/v3/keys/signatures/upload", signDevice(id, alice))
		v := want[versionAnswer](alice, "POST", "/v3/room_keys/version", newBackup)
		want[object](alice, "PUT", "/v3/room_keys/keys/!r/s?version="+v.Version, backedUp(1, 0, true, "x"))
		dry := &client{rig: g, name: "alice", user: alice.user, id: "DRY", private: g.signingKey(), curve: g.key32()}
		want[dehydratedAnswer](alice, "PUT", "/unstable/org.matrix.msc3814.v1/dehydrated_device",
			fmt.Sprintf(`{"device_id":"DRY","device_data":{},"device_keys":%s,"one_time_keys":{%s}}`, dry.deviceKeys(), dry.oneTime(1)))
		alice.logout()
		for range 2 { // it may be repeated
			if err := g.e.Erase(t.Context(), alice.user); err != nil {
				t.Fatal(err)
			}
		}
		g.settle()
		for table, count := range countUserRows {
			if n, _, err := db.One(t.Context(), g.DB, count, scanInt, alice.user); err != nil || n != 0 {
				t.Errorf("%d rows of %s are left: %v", n, table, err)
			}
		}
		if k := bob.query(alice.user); len(k.Devices[alice.user])+len(k.Master)+len(k.SelfSigning) != 0 {
			t.Errorf("bob sees %v", k)
		}
		alice.login("alice", "A2").refused("GET", "/v3/room_keys/version", "", 404, matrix.CodeNotFound)
	})
}
