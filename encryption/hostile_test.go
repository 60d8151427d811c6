package encryption

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// company makes bob of b share a room with alice of a, with b keeping her list
// and its place in the stream.
func company(t *testing.T, w *world) (alice, bob *client, stream int64) {
	t.Helper()
	a, b := w.sites["a"], w.sites["b"]
	alice, bob = a.login("alice", "A1"), b.login("bob", "B1")
	h := a.found("alice")
	w.join(h, bob.user, "a")
	alice.upload(0)
	id := alice.identity()
	want[object](alice, "POST", crossPath, id.body(""))
	w.sees(bob, alice.user)
	w.keeps(b, alice.user)
	alice.rename("Alice's")
	w.keeps(b, alice.user)
	b.eventually("the place in the stream is known", func() bool {
		u, _, err := db.One(t.Context(), b.DB, selectRemoteUsers, scanRemoteUser, []matrix.UserID{alice.user})
		stream = u.stream
		return err == nil && stream > 0
	})
	b.rest() // the list is there a moment before bob is told
	return alice, bob, stream
}

// THREATS F11, F16: what servers may not say, and what cannot be read, changes nothing, fails
// nothing, and does not stand in the way of what comes after it.
func TestHostileUpdates(t *testing.T) {
	worlds(t, []matrix.ServerName{"a", "b", "c"}, func(t *testing.T, w *world) {
		alice, bob, stream := company(t, w)
		a, b, c := w.sites["a"], w.sites["b"], w.sites["c"]
		before := w.truth(alice.user)
		at := b.DB.Position()
		mallory := &client{rig: a.rig, user: alice.user, id: "A9", private: a.signingKey(), curve: a.key32()}
		forged := mallory.deviceKeys()
		update := func(user matrix.UserID, more string) string {
			return fmt.Sprintf(`{"user_id":%q,"stream_id":%d,"prev_id":[%d]%s}`, user, stream+1, stream, more)
		}
		master := alice.identity()
		for _, e := range []struct {
			origin  matrix.ServerName
			typ     string
			content string
		}{
			{"c", EDUDeviceList, update(alice.user, `,"device_id":"A9","keys":`+forged)},
			{"c", EDUDeviceList, update(alice.user, `,"device_id":"A1","deleted":true`)},
			{"c", EDUSigningKeys, update(alice.user, `,"master_key":`+master.bare(usageMaster, master.master))},
			{"a", EDUDeviceList, update(bob.user, `,"device_id":"B1","deleted":true`)},
			{"b", EDUDeviceList, update(bob.user, `,"device_id":"B1","deleted":true`)},
			{"a", EDUDeviceList, update("@stranger:a", `,"device_id":"A1"`)},
			{"a", EDUDeviceList, update("@nul\u0000:a", `,"device_id":"A1"`)},
			{"a", EDUDeviceList, `[]`},
			{"a", EDUDeviceList, `{}`},
			{"a", EDUDeviceList, `{"user_id":7}`},
			{"a", EDUSigningKeys, `"x"`},
			{"a", EDUSigningKeys, `{"user_id":"@stranger:a"}`},
		} {
			if err := b.handle(e.origin, e.typ, []byte(e.content)); err != nil {
				t.Errorf("%s from %s: %v", e.content, e.origin, err)
			}
		}
		text, known, stale := b.remote(alice.user)
		if changed, _ := bob.lists(at); text != before || !known || stale || len(changed) != 0 {
			t.Errorf("b keeps %s (%t, %t) and bob is told of %v", text, known, stale, changed)
		}
		if text, known, _ := b.remote("@stranger:a"); known {
			t.Errorf("the list of a stranger is kept: %s", text)
		}
		_ = c

		// The user's own server may say all that; what is malformed is set aside.
		big := strings.Repeat("x", maxKeysBytes)
		w.cut("a", "b", true)
		for i, more := range []string{
			`,"device_id":"A9","keys":` + strings.Replace(forged, "ed25519:A9", "ed25519:A8", 1),
			`,"device_id":"A9","keys":` + strings.Replace(forged, mallory.curve, a.key32(), 1),
			`,"device_id":"A9","keys":` + forged[:len(forged)-1] + `,"x":"` + big + `"}`,
			`,"device_id":"A9","keys":` + forged[:len(forged)-1] + `,"x":1.5}`,
			`,"device_id":"A9","keys":` + bob.deviceKeys(),
			`,"device_id":"A9","keys":{"device_keys":{}}`,
			`,"device_id":"A9","keys":[1]`,
			`,"device_id":"A9","keys":null,"device_display_name":{}`,
			`,"device_id":"A\u0000","keys":` + forged,
			`,"device_id":"` + strings.Repeat("x", 300) + `"`,
			`,"device_id":""`,
		} {
			content := fmt.Sprintf(`{"user_id":%q,"stream_id":%d,"prev_id":[%d]%s}`, alice.user, stream+1, stream, more)
			if err := b.handle("a", EDUDeviceList, []byte(content)); err != nil {
				t.Errorf("%s: %v", content, err)
			}
			stream++
			if text, _, stale := b.remote(alice.user); text != before || stale {
				t.Errorf("update %d: b keeps %s, stale: %t", i, text, stale)
			}
		}
		// One that is in order is taken after all that, with a name that can be shown.
		name := strings.Repeat("ä", maxRemoteName) + "\x00"
		quoted, _ := json.Marshal(name)
		good := fmt.Sprintf(`{"user_id":%q,"stream_id":%d,"prev_id":[%d],"device_id":"A9","device_display_name":%s,"keys":%s}`,
			alice.user, stream+1, stream, quoted, forged)
		if err := b.handle("a", EDUDeviceList, []byte(good)); err != nil {
			t.Fatal(err)
		}
		text, _, _ = b.remote(alice.user)
		if !strings.Contains(text, "ed25519:A9") || strings.Contains(text, `\u0000`) || strings.Count(text, "ä") != maxRemoteName/2 {
			t.Errorf("b keeps %s", text)
		}
		if got := bob.seen(alice.user); got != text {
			t.Errorf("bob sees %s", got)
		}

		// What does not fit makes b ask, which tells the truth.
		w.cut("a", "b", false)
		for name, e := range map[string][2]string{
			"a lost update":        {EDUDeviceList, fmt.Sprintf(`{"user_id":%q,"stream_id":9999999,"prev_id":[9999998],"device_id":"A9"}`, alice.user)},
			"no previous one":      {EDUDeviceList, fmt.Sprintf(`{"user_id":%q,"stream_id":9999999,"device_id":"A9"}`, alice.user)},
			"numbers as texts":     {EDUDeviceList, fmt.Sprintf(`{"user_id":%q,"stream_id":"1","device_id":"A9"}`, alice.user)},
			"a forged signature":   {EDUSigningKeys, fmt.Sprintf(`{"user_id":%q,"self_signing_key":%s}`, alice.user, master.byMaster(usageSelfSigning, master.self))},
			"no keys":              {EDUSigningKeys, fmt.Sprintf(`{"user_id":%q}`, alice.user)},
			"a malformed key":      {EDUSigningKeys, fmt.Sprintf(`{"user_id":%q,"master_key":{"user_id":%q}}`, alice.user, alice.user)},
			"keys of another kind": {EDUSigningKeys, fmt.Sprintf(`{"user_id":%q,"master_key":%s}`, alice.user, master.bare(usageSelfSigning, master.self))},
		} {
			asked := b.requests("user/devices/{userId}")
			if err := b.handle("a", e[0], []byte(e[1])); err != nil {
				t.Fatal(err)
			}
			w.keeps(b, alice.user)
			if b.requests("user/devices/{userId}") == asked {
				t.Errorf("%s: b did not ask", name)
			}
		}

		// Keys of another implementation, whose update has no numbers.
		foreign := fmt.Sprintf(`{"user_id":%q,"master_key":%s,"self_signing_key":%s}`, alice.user,
			master.bare(usageMaster, master.master), master.byMaster(usageSelfSigning, master.self))
		if err := b.handle("a", EDUSigningKeys, []byte(foreign)); err != nil {
			t.Fatal(err)
		}
		if text, _, stale := b.remote(alice.user); stale || !strings.Contains(text, public(master.self)) {
			t.Errorf("b keeps %s, stale: %t", text, stale)
		}
		alone := alice.identity()
		foreign = fmt.Sprintf(`{"user_id":%q,"master_key":%s}`, alice.user, alone.bare(usageMaster, alone.master))
		if err := b.handle("a", EDUSigningKeys, []byte(foreign)); err != nil {
			t.Fatal(err)
		}
		if text, _, stale := b.remote(alice.user); stale || strings.Contains(text, "self-signing") || !strings.Contains(text, public(alone.master)) {
			t.Errorf("after a new master key b keeps %s, stale: %t", text, stale)
		}
	})
}

// THREATS F11: an answer of another server is no better than its updates.
func TestHostileAnswers(t *testing.T) {
	w := newWorld(t, "sqlite", "a", "b")
	alice, _, _ := company(t, w)
	d := device{alice.user, "A9"}
	c := &client{rig: alice.rig, user: d.user, id: d.id, private: alice.signingKey(), curve: alice.key32()}
	other := alice.identity()
	l := listOfDevices(&UserDevices{UserID: d.user, Devices: []json.RawMessage{
		json.RawMessage(`7`), json.RawMessage(`{"device_id":"A1"}`), json.RawMessage(`{"device_id":"A9","keys":` + alice.deviceKeys() + `}`),
		json.RawMessage(`{"device_id":"A9","device_display_name":7,"keys":` + c.deviceKeys() + `}`),
	}, SelfSigning: json.RawMessage(other.byMaster(usageSelfSigning, other.self))}, d.user)
	if len(l.devices) != 0 || len(l.cross) != 0 {
		t.Errorf("taken over: %v", l)
	}
	var many []json.RawMessage
	for i := range maxRemoteDevices + 5 {
		c.id = matrix.DeviceID(fmt.Sprint("D", i))
		many = append(many, json.RawMessage(fmt.Sprintf(`{"device_id":%q,"keys":%s}`, c.id, c.deviceKeys())))
	}
	if l := listOfDevices(&UserDevices{Devices: many}, d.user); len(l.devices) != maxRemoteDevices {
		t.Errorf("%d devices are taken over", len(l.devices))
	}
	// What has not even the form of an answer spoils nothing of what is beside it.
	var keys Keys
	good := `"@alice:a":{"A9":` + alice.deviceKeys() + `}`
	err := json.Unmarshal([]byte(`{"device_keys":{`+good+`,"@x:a":7,"@y:a":{"Y":[]}},"master_keys":[],"self_signing_keys":{"@x:a":7}}`), &keys)
	if err != nil || len(keys.Devices) != 2 || keys.Devices[alice.user]["A9"] == nil || len(keys.Master) != 0 {
		t.Errorf("%v, %v", keys, err)
	}
	var claimed Claimed
	if err := json.Unmarshal([]byte(`{"@x:a":7,"@alice:a":{"A1":[],"A2":{"x:y":1}}}`), &claimed); err != nil || len(claimed[alice.user]["A2"]) != 1 {
		t.Errorf("%v, %v", claimed, err)
	}

	// A signature of somebody else does not come along.
	both := sign(t, c.deviceKeys(), "@x:y", "X", c.private)
	text, ok := remoteDevice(device{c.user, c.id}, json.RawMessage(both), "")
	if !ok || strings.Contains(text, "@x:y") || !strings.Contains(text, `"signatures":{"@alice:a"`) {
		t.Errorf("%t: %s", ok, text)
	}
}

// A server that will not speak of one user holds up no other of its users, and one
// that cannot be reached is tried again once it shows up.
func TestRefusals(t *testing.T) {
	w := newWorld(t, "sqlite", "a", "b")
	alice, bob, _ := company(t, w)
	a, b := w.sites["a"], w.sites["b"]
	anna := a.login("aaron", "A1") // comes first
	h := a.found("aaron")
	w.join(h, bob.user, "a")
	anna.upload(0)
	w.sees(bob, anna.user)
	w.keeps(b, anna.user)
	devices := a.handlers["user/devices/{userId}"]
	refuse := true
	w.mu.Lock()
	a.handlers["user/devices/{userId}"] = func(ctx context.Context, r *FederationRequest) (any, error) {
		if refuse && r.Value("userId") == string(anna.user) {
			return nil, matrix.NotFound("I do not like you")
		}
		return devices(ctx, r)
	}
	w.mu.Unlock()
	for _, u := range []matrix.UserID{anna.user, alice.user} {
		gap := fmt.Sprintf(`{"user_id":%q,"stream_id":1,"device_id":"A9"}`, u)
		if err := b.handle("a", EDUDeviceList, []byte(gap)); err != nil {
			t.Fatal(err)
		}
	}
	w.keeps(b, alice.user)
	if _, _, stale := b.remote(anna.user); !stale {
		t.Error("a refusal makes a list fresh")
	}
	w.cut("a", "b", true)
	if err := b.handle("a", EDUDeviceList, fmt.Appendf(nil, `{"user_id":%q,"stream_id":1,"device_id":"A9"}`, alice.user)); err != nil {
		t.Fatal(err)
	}
	b.eventually("b gives up", func() bool {
		b.e.resync.mu.Lock()
		defer b.e.resync.mu.Unlock()
		return b.e.resync.servers["a"].failures > 0
	})
	w.cut("a", "b", false)
	b.e.Reachable("a")
	w.keeps(b, alice.user)
}

func TestDirectMessages(t *testing.T) {
	worlds(t, []matrix.ServerName{"a", "b"}, func(t *testing.T, w *world) {
		a, b := w.sites["a"], w.sites["b"]
		alice := a.login("alice", "A1")
		b1, b2, carl := b.login("bob", "B1"), b.login("bob", "B2"), b.login("carl", "C1")
		want[object](alice, "PUT", "/v3/sendToDevice/m.x/1", `{"messages":{"@bob:b":{"*":{"n":1},"B2":{"n":2}},"@carl:b":{"C1":{"n":3},"C9":{}},"@nobody:b":{"*":{}},"@alice:a":{"A1":{"n":4}}}}`)
		want[object](alice, "PUT", "/v3/sendToDevice/m.x/1", `{"messages":{"@bob:b":{"*":{"n":1}}}}`) // once more
		list := a.mail("b", 10)
		if len(list) != 1 {
			t.Fatalf("%d EDUs", len(list))
		}
		for range 3 {
			a.deliver("b", list)
		}
		b.restart()
		a.deliver("b", list)
		a.discard("b", list)
		for c, n := range map[*client]int{b1: 1, b2: 2, carl: 3, alice: 4} {
			if got := c.arrived(); !slices.Equal(got, []string{fmt.Sprintf(`{"type":"m.x","sender":"@alice:a","content":{"n":%d}}`, n)}) {
				t.Errorf("%s %s has %v", c.user, c.id, got)
			}
		}

		// What does not fit into one EDU goes into several.
		large := fmt.Sprintf(`{"x":%q}`, strings.Repeat("x", 20<<10))
		want[object](alice, "PUT", "/v3/sendToDevice/m.y/2", fmt.Sprintf(`{"messages":{"@bob:b":{"B1":%s,"B2":%s},"@carl:b":{"C1":%s,"C2":%s}}}`, large, large, large, large))
		if list := a.mail("b", 10); len(list) != 2 || len(list[0].content) > maxEDUBytes+1000 {
			t.Errorf("%d EDUs", len(list))
		}
		w.carry()
		for _, c := range []*client{b1, b2, carl} {
			if got := c.arrived(); len(got) != 2 {
				t.Errorf("%s %s has %d messages", c.user, c.id, len(got))
			}
		}
	})
}

func (c *client) arrived() []string {
	c.Helper()
	events, _, err := c.e.ToDevice(c.Context(), c.user, c.id, 0, c.DB.Position())
	if err != nil {
		c.Fatal(err)
	}
	list := make([]string, len(events))
	for i, ev := range events {
		list[i] = string(ev)
	}
	return list
}

// THREATS F11, F16: servers speak for their own users only, strangers fill no inbox, and nothing
// malformed comes through or fails what is beside it.
func TestHostileMessages(t *testing.T) {
	worlds(t, []matrix.ServerName{"a", "b"}, func(t *testing.T, w *world) {
		alice, bob, _ := company(t, w)
		b := w.sites["b"]
		post := func(origin matrix.ServerName, content string) {
			t.Helper()
			if err := b.handle(origin, EDUToDevice, []byte(content)); err != nil {
				t.Errorf("%.200s: %v", content, err)
			}
		}
		next := 0
		body := func(sender matrix.UserID, typ, messages string) string {
			next++
			return fmt.Sprintf(`{"sender":%q,"type":%s,"message_id":"m%d","messages":%s}`, sender, typ, next, messages)
		}
		const one = `{"@bob:b":{"B1":{"n":1}}}`
		post("c", body(alice.user, `"m.x"`, one))
		post("a", body(bob.user, `"m.x"`, one))
		post("b", body(bob.user, `"m.x"`, one))
		post("a", body("@\u0000:a", `"m.x"`, one))
		post("a", body(alice.user, `""`, one))
		post("a", body(alice.user, `"\u0000"`, one))
		post("a", body(alice.user, `"`+strings.Repeat("x", 300)+`"`, one))
		post("a", body(alice.user, `7`, one))
		post("a", body(alice.user, `"m.x"`, `[]`))
		post("a", body(alice.user, `"m.x"`, `{"@bob:b":{"B1":7},"@alice:a":{"A1":{}},"bob":{"B1":{}}}`))
		post("a", body(alice.user, `"m.x"`, `{"@bob:b":{"B1":{"x":"\ud800"}}}`))
		post("a", body(alice.user, `"m.x"`, "{\"@bob:b\":{\"B1\":{\"x\":\"\xff\"}}}"))
		post("a", body(alice.user, `"m.x"`, `{"@bob:b":{"B1":{"x":"`+strings.Repeat("x", maxMessageBytes)+`"}}}`))
		post("a", fmt.Sprintf(`{"sender":%q,"type":"m.x","messages":%s}`, alice.user, one))
		post("a", fmt.Sprintf(`{"sender":%q,"type":"m.x","message_id":"\u0000","messages":%s}`, alice.user, one))
		post("a", `null`)
		if got := bob.arrived(); len(got) != 0 {
			t.Errorf("bob has %v", got)
		}
		post("a", body(alice.user, `"m.x"`, `{"@bob:b":{"B1":{"x":"\u0000","y":1.5},"B2":7}}`))
		if got := bob.arrived(); !slices.Equal(got, []string{`{"type":"m.x","sender":"@alice:a","content":{"x":"\u0000","y":1.5}}`}) {
			t.Errorf("bob has %v", got)
		}

		// However many strangers a server has, they share one quota.
		for i := range 2 * quota {
			post("a", body(matrix.UserID(fmt.Sprintf("@s%d:a", i)), `"m.x"`, one))
		}
		if n := b.rows("to_device", bob); n != quota+1 {
			t.Errorf("%d messages of strangers are in the inbox", n)
		}
		post("a", body(alice.user, `"m.x"`, one))
		if n := b.rows("to_device", bob); n != quota+2 {
			t.Error("they hold up who is no stranger")
		}
	})
}
