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

// inbox asks for messages as /sync does.
func (c *client) inbox(after int64) (bodies []string, reach int64) {
	c.Helper()
	list, reach, err := c.e.ToDevice(c.Context(), c.user, c.id, after, c.DB.Position())
	if err != nil {
		c.Fatal(err)
	}
	for _, raw := range list {
		var m struct {
			Type    string        `json:"type"`
			Sender  matrix.UserID `json:"sender"`
			Content struct {
				N any `json:"n"`
			} `json:"content"`
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			c.Fatalf("%v in %s", err, raw)
		}
		bodies = append(bodies, fmt.Sprintf("%s %s %v", m.Sender.Localpart(), m.Type, m.Content.N))
	}
	return bodies, reach
}

func (c *client) tell(txn string, to string, n int) {
	c.Helper()
	want[object](c, "PUT", "/v3/sendToDevice/m.x/"+txn, fmt.Sprintf(`{"messages":{%s:{"n":%d}}}}`, to, n))
}

func TestToDevice(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		alice, b1, b2, carol := g.login("alice", "A1"), g.login("bob", "B1"), g.login("bob", "B2"), g.login("carol", "C1")
		start := g.DB.Position()
		alice.tell("1", `"@bob:test":{"B1"`, 1)
		alice.tell("1", `"@bob:test":{"B1"`, 1) // the answer was lost
		carol.tell("1", `"@bob:test":{"*"`, 2)  // the id is another device's
		want[object](alice, "PUT", "/v3/sendToDevice/m.y/1", `{"messages":{"@bob:test":{"*":{"n":3},"B2":{"n":4},"B9":{"n":5}},"@nobody:test":{"*":{}}}}`)
		wantB1 := []string{"alice m.x 1", "carol m.x 2", "alice m.y 3"}
		got, reach := b1.inbox(start)
		if !slices.Equal(got, wantB1) {
			t.Errorf("B1: %q", got)
		}
		if got, _ := b2.inbox(0); !slices.Equal(got, []string{"carol m.x 2", "alice m.y 4"}) {
			t.Errorf("B2: %q", got)
		}
		// The same token, the same messages; the next token, none, and they go.
		if again, _ := b1.inbox(start); !slices.Equal(again, wantB1) {
			t.Errorf("again: %q", again)
		}
		if n := g.rows("to_device", b1); n != 3 {
			t.Errorf("%d rows before they are acknowledged", n)
		}
		if next, _ := b1.inbox(reach); len(next) != 0 {
			t.Errorf("delivered twice: %q", next)
		}
		g.settle()
		if n := g.rows("to_device", b1); n != 0 {
			t.Errorf("%d rows after they were acknowledged", n)
		}
		if n := g.rows("to_device", b2); n != 2 {
			t.Errorf("%d rows of the other device", n)
		}
	})
}

func TestToDeviceRefused(t *testing.T) {
	g := newRig(t, urlOf(t))
	alice := g.login("alice", "A1")
	for body, code := range map[string]matrix.Code{
		`{}`:                                    matrix.CodeMissingParam,
		`{"messages":{"@alice:test":{"A1":1}}}`: matrix.CodeBadJSON,
		`{"messages":{"@alice:test":{"A1":null}}}`:   matrix.CodeBadJSON,
		`{"messages":{"alice":{"A1":{}}}}`:           matrix.CodeInvalidParam,
		`{"messages":[]}`:                            matrix.CodeBadJSON,
		`{"messages":{"@alice:test":{"\u0000":{}}}}`: matrix.CodeBadJSON,
	} {
		alice.refused("PUT", "/v3/sendToDevice/m.x/1", body, 400, code)
	}
	alice.refused("PUT", "/v3/sendToDevice/m.x/1", `{"messages":{"@alice:test":{"A1":{"x":"`+strings.Repeat("x", maxMessageBytes)+`"}}}}`, 413, matrix.CodeTooLarge)
	alice.refused("PUT", "/v3/sendToDevice/m%00x/1", `{"messages":{}}`, 400, matrix.CodeInvalidParam)
	alice.tell("1", `"@alice:test":{"A1"`, 7) // a refused request has not used its id up
	if got, _ := alice.inbox(0); !slices.Equal(got, []string{"alice m.x 7"}) {
		t.Errorf("%q", got)
	}
	want[object](alice, "PUT", "/v3/sendToDevice/m.x/nul", `{"messages":{"@alice:test":{"A1":{"n":"\u0000"}}}}`)
	if got, _ := alice.inbox(0); len(got) != 2 {
		t.Errorf("%q", got)
	}
}

// THREATS A15: a sender who floods a device waits for it; others do not wait for the sender,
// and nothing is lost or changes its order.
func TestFloods(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		mallory, alice, bob := g.login("mallory", "M1"), g.login("alice", "A1"), g.login("bob", "B1")
		const flood = 3*quota + 30 // of which the first quota do not count
		for i := range flood {
			mallory.tell(fmt.Sprint(i), `"@bob:test":{"B1"`, i)
		}
		alice.tell("1", `"@bob:test":{"B1"`, 0)
		if n := g.rows("to_device_waiting", bob); n != flood-2*quota {
			t.Errorf("%d messages wait", n)
		}
		var seen []string
		aliceAt, answers := -1, 0
		for after := int64(0); len(seen) < flood+1; answers++ {
			got, reach := bob.inbox(after)
			if len(got) > perAnswer {
				t.Fatalf("%d messages in an answer", len(got))
			}
			if slices.Contains(got, "alice m.x 0") {
				aliceAt = answers
			}
			seen = append(seen, got...)
			if answers > 50 {
				t.Fatalf("%d of %d messages after %d answers", len(seen), flood+1, answers)
			}
			after = reach
			bob.inbox(after)
			g.settle()
		}
		if aliceAt > 2 {
			t.Errorf("alice's message came with answer %d", aliceAt)
		}
		seen = slices.DeleteFunc(seen, func(s string) bool { return s == "alice m.x 0" })
		for i, s := range seen {
			if s != fmt.Sprintf("mallory m.x %d", i) {
				t.Fatalf("message %d is %q", i, s)
			}
		}
		_, reach := bob.inbox(0)
		bob.inbox(reach)
		g.settle()
		if n := g.rows("to_device", bob) + g.rows("to_device_waiting", bob); n != 0 {
			t.Errorf("%d rows are left", n)
		}
	})
}

// What is sent wakes the recipient, and what is acknowledged wakes them only if
// there is more.
func TestMessagesWake(t *testing.T) {
	g := newRig(t, urlOf(t))
	alice, bob := g.login("alice", "A1"), g.login("bob", "B1")
	var woken []matrix.UserID
	g.DB.Subscribe(func(b db.Batch) {
		for _, c := range b.Changes {
			woken = append(woken, g.e.Changed(c)...)
		}
	})
	alice.tell("1", `"@bob:test":{"B1"`, 1)
	if !slices.Equal(woken, []matrix.UserID{bob.user}) {
		t.Errorf("woken: %v", woken)
	}
	woken = nil
	bob.inbox(g.DB.Position())
	g.settle()
	if len(woken) != 0 || g.rows("to_device", bob) != 0 {
		t.Errorf("woken: %v", woken)
	}
}

// sink takes what is for other servers.
type sink struct {
	sent    []string
	keys    *Keys
	oneTime Claimed
}

func (s *sink) QueryKeys(ctx context.Context, server matrix.ServerName, _ map[matrix.UserID][]matrix.DeviceID) (*Keys, error) {
	if server == "slow" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if s.keys == nil {
		return nil, errElsewhere
	}
	return s.keys, nil
}

func (s *sink) ClaimKeys(ctx context.Context, server matrix.ServerName, c Claims) (Claimed, error) {
	return s.oneTime, nil
}

func (s *sink) UserDevices(context.Context, matrix.ServerName, matrix.UserID) (*UserDevices, error) {
	return nil, errElsewhere
}

func (s *sink) Store(_ *db.Tx, to []matrix.ServerName, eduType string, content json.RawMessage) error {
	s.sent = append(s.sent, fmt.Sprintf("%s %s %s", to, eduType, content))
	return nil
}

func TestOtherServers(t *testing.T) {
	g := newRig(t, urlOf(t))
	alice, bob := g.login("alice", "A1"), g.login("bob", "B1")
	ask := `{"timeout":50,"device_keys":{"@dora:far":[],"@eve:slow":[],"@bob:test":[]}}`
	if a := want[answered](alice, "POST", "/v3/keys/query", ask); len(a.failures) != 2 || a.Devices[bob.user] == nil {
		t.Errorf("without federation: %+v", a)
	}
	s := &sink{}
	g.e.Remote, g.e.Outbox = s, s
	far := &client{rig: g, user: "@dora:far", id: "D1", private: g.signingKey(), curve: g.key32()}
	s.keys = &Keys{Devices: map[matrix.UserID]map[matrix.DeviceID]json.RawMessage{
		far.user: {"D1": json.RawMessage(far.deviceKeys()), "D2": json.RawMessage(`{"user_id":"@dora:far","device_id":"D2"}`), "D3": json.RawMessage(`[1.5]`)},
		bob.user: {"B1": json.RawMessage(`{}`)},
	}, Master: map[matrix.UserID]json.RawMessage{far.user: json.RawMessage(`{"keys":7}`)}}
	a := want[answered](alice, "POST", "/v3/keys/query", ask)
	if len(a.failures) != 1 || a.failures["slow"] != matrix.CodeConnectionTimeout {
		t.Errorf("failures: %v", a.failures)
	}
	if len(a.Devices[far.user]) != 1 || a.Devices[far.user]["D1"] == nil || len(a.Devices[bob.user]) != 0 || a.Master[far.user] != nil {
		t.Errorf("malformed or foreign keys came through: %s", a.Devices)
	}
	good := json.RawMessage(strings.SplitN(far.oneTimeKey("A"), ":", 3)[2])
	s.oneTime = Claimed{
		far.user: {"D1": {"signed_curve25519:A": good}, "D2": {"signed_curve25519:A": json.RawMessage(`{}`)}, "D3": {"curve25519:A": good}, "D4": {"signed_curve25519:A": good}},
		bob.user: {"B1": {"signed_curve25519:A": json.RawMessage(`{}`)}},
	}
	c := want[claimAnswer](alice, "POST", "/v3/keys/claim", `{"one_time_keys":{"@dora:far":{"D1":"signed_curve25519","D2":"signed_curve25519","D3":"signed_curve25519"}}}`)
	if len(c.OneTimeKeys) != 1 || len(c.OneTimeKeys[far.user]) != 1 || len(c.OneTimeKeys[far.user]["D1"]) != 1 {
		t.Errorf("claimed: %v", c.OneTimeKeys)
	}
	want[object](alice, "PUT", "/v3/sendToDevice/m.x/1", `{"messages":{"@dora:far":{"*":{}},"@bob:test":{"*":{}}}}`)
	if len(s.sent) != 1 || !strings.HasPrefix(s.sent[0], `[far] m.direct_to_device {"sender":"@alice:test","type":"m.x","message_id":"`) ||
		!strings.HasSuffix(s.sent[0], `","messages":{"@dora:far":{"*":{}}}}`) {
		t.Errorf("sent: %v", s.sent)
	}
}

func TestDehydratedDevice(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		alice, bob := g.login("alice", "A1"), g.login("bob", "B1")
		const path = "/unstable/org.matrix.msc3814.v1/dehydrated_device"
		alice.refused("GET", path, "", 404, matrix.CodeNotFound)
		alice.refused("DELETE", path, "", 404, matrix.CodeNotFound)
		make := func(id string) *client {
			d := &client{rig: g, name: "alice", user: alice.user, id: matrix.DeviceID(id), private: g.signingKey(), curve: g.key32()}
			body := fmt.Sprintf(`{"device_id":%q,"device_data":{"algorithm":"x","id":%q},"initial_device_display_name":"Dry","device_keys":%s,"one_time_keys":{%s},"fallback_keys":{%s}}`,
				id, id, d.deviceKeys(), d.oneTime(2), d.oneTimeKey("F"))
			if a := want[dehydratedAnswer](alice, "PUT", path, body); a.DeviceID != d.id {
				t.Errorf("made %q", a.DeviceID)
			}
			return d
		}
		start := g.DB.Position()
		d1 := make("D1")
		if a := want[dehydratedAnswer](alice, "GET", path, ""); a.DeviceID != "D1" || string(a.DeviceData) != `{"algorithm":"x","id":"D1"}` {
			t.Errorf("%+v", a)
		}
		if k := bob.query(alice.user); !strings.Contains(string(k.Devices[alice.user]["D1"]), `"device_display_name":"Dry"`) {
			t.Errorf("devices: %s", k.Devices)
		}
		if changed, _ := alice.lists(start); !slices.Equal(changed, []matrix.UserID{alice.user}) {
			t.Errorf("changed: %v", changed)
		}
		if id := bob.claim(d1); id != "signed_curve25519:K000000" {
			t.Errorf("claimed %q", id)
		}
		const sent = 2*quota + perAnswer + 5 // more than count against a quota: nothing waits for this device
		for i := range sent {
			bob.tell(fmt.Sprint(i), `"@alice:test":{"*"`, i)
		}
		events := func(batch string) eventsAnswer {
			return want[eventsAnswer](alice, "POST", path+"/D1/events", fmt.Sprintf(`{"next_batch":%q}`, batch))
		}
		var pages []int
		for batch := ""; len(pages) < 10; {
			page := events(batch)
			if pages, batch = append(pages, len(page.Events)), page.NextBatch; len(page.Events) == 0 {
				break
			}
		}
		if !slices.Equal(pages, []int{perAnswer, perAnswer, perAnswer, 5, 0}) {
			t.Errorf("pages of %v events", pages)
		}
		if again := events(""); len(again.Events) != perAnswer {
			t.Errorf("the second time there are %d events", len(again.Events))
		}
		alice.refused("POST", path+"/A1/events", "{}", 404, matrix.CodeNotFound)
		bob.refused("POST", path+"/D1/events", "{}", 404, matrix.CodeNotFound)

		make("D2")
		if k := bob.query(alice.user).Devices[alice.user]; k["D1"] != nil || k["D2"] == nil || g.rows("to_device", d1) != 0 {
			t.Errorf("a second one is beside the first: %v", k)
		}
		if a := want[dehydratedAnswer](alice, "DELETE", path, ""); a.DeviceID != "D2" {
			t.Errorf("deleted %q", a.DeviceID)
		}
		if k := bob.query(alice.user).Devices[alice.user]; len(k) != 0 {
			t.Errorf("devices: %v", k)
		}
		taken := fmt.Sprintf(`{"device_id":"A1","device_data":{},"device_keys":%s}`, alice.deviceKeys())
		alice.refused("PUT", path, taken, 400, matrix.CodeInvalidParam)
	})
}
