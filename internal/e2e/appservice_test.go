package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/appservice"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// service is an application service that is written with mautrix-go.
type service struct {
	*appservice.AppService
	t testing.TB

	mu     sync.Mutex
	events []*event.Event // of all kinds, as they came
}

// serve runs a homeserver that is configured with the service's registration, and the
// service.
func serve(t *testing.T, kind string) (*process, *service) {
	t.Helper()
	dir := t.TempDir()
	address := netip.MustParseAddrPort(freeAddress(t, "127.0.0.1"))
	reg := appservice.CreateRegistration()
	reg.ID, reg.URL, reg.SenderLocalpart = "bridge", "http://"+address.String(), "bridgebot"
	reg.EphemeralEvents, reg.SoruEphemeralEvents, reg.MSC3202, reg.MSC4190 = true, true, true, true
	reg.RateLimited = new(bool)
	reg.Namespaces.UserIDs = appservice.NamespaceList{{Regex: `^@bridge_.*:localhost$`, Exclusive: true}}
	file := filepath.Join(dir, "bridge.yaml")
	must(t, reg.Save(file))
	p := startAs(t, kind, dir, "localhost", "", fmt.Sprintf("federation: {enabled: false}\nappservices: [%q]\n", file))
	as, err := appservice.CreateFull(appservice.CreateOpts{
		Registration: reg, HomeserverDomain: "localhost", HomeserverURL: p.url,
		HostConfig: appservice.HostConfig{Hostname: address.Addr().String(), Port: address.Port()},
	})
	must(t, err)
	s := &service{AppService: as, t: t}
	go as.Start()
	t.Cleanup(as.Stop)
	go s.collect()
	return p, s
}

func (s *service) collect() {
	for {
		var ev *event.Event
		select {
		case ev = <-s.Events:
		case ev = <-s.ToDeviceEvents:
		case <-s.t.Context().Done():
			return
		}
		s.mu.Lock()
		s.events = append(s.events, ev)
		s.mu.Unlock()
	}
}

// gets waits for an event and returns how many came before it.
func (s *service) gets(what string, ok func(*event.Event) bool) int {
	s.t.Helper()
	for range 3000 {
		s.mu.Lock()
		i := slices.IndexFunc(s.events, ok)
		s.mu.Unlock()
		if i >= 0 {
			return i
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, ev := range s.events {
		all = append(all, fmt.Sprintf("%s %s %s", ev.Type.Type, ev.Sender, ev.Content.VeryRaw))
	}
	s.t.Fatalf("%s never comes; the service has\n%s", what, strings.Join(all, "\n"))
	return 0
}

// soon takes what a channel is sent before long.
func soon[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing is told")
		panic("unreachable")
	}
}

// TestBridgeByMautrix: a service that is written with mautrix-go, as it is, pings,
// makes users, acts as them, and is told what concerns them: events in their order,
// who types, who has read, who is there, and messages to a device.
func TestBridgeByMautrix(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			p, bridge := serve(t, kind)
			ctx := t.Context()
			bot, ghost := bridge.BotIntent(), bridge.Intent("@bridge_bob:localhost")
			ok(bot.Client.AppservicePing(ctx, "bridge", "ping"))
			must(t, ghost.EnsureRegistered(ctx))
			must(t, ghost.SetDisplayName(ctx, "Bob (bridged)"))
			alice := register(t, p, "alice")
			room := ok(alice.CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "public_chat", Invite: []id.UserID{ghost.UserID}})).RoomID
			bridge.gets("the invitation", func(ev *event.Event) bool {
				return ev.Type == event.StateMember && ev.GetStateKey() == string(ghost.UserID) && ev.RoomID == room
			})
			must(t, ghost.EnsureJoined(ctx, room))
			first := ok(alice.SendText(ctx, room, "hello bob")).EventID
			second := ok(ghost.SendText(ctx, room, "hello alice")).EventID
			third := ok(alice.SendText(ctx, room, "how are you?")).EventID
			var order []int
			for _, want := range []id.EventID{first, second, third} {
				order = append(order, bridge.gets("a message", func(ev *event.Event) bool { return ev.ID == want && ev.Content.AsMessage().Body != "" }))
			}
			if !slices.IsSorted(order) {
				t.Errorf("the messages come in the order %v", order)
			}
			if all := history(t, alice, room); all[1].ID != second || all[1].Sender != ghost.UserID {
				t.Errorf("alice sees %v", all[1])
			}

			ok(alice.UserTyping(ctx, room, true, time.Minute))
			must(t, alice.MarkRead(ctx, room, third))
			must(t, alice.SetPresence(ctx, mautrix.ReqPresence{Presence: event.PresenceUnavailable, StatusMsg: "at tea"}))
			bridge.gets("that alice types", func(ev *event.Event) bool {
				return ev.Type == event.EphemeralEventTyping && ev.RoomID == room && slices.Contains(ev.Content.AsTyping().UserIDs, alice.UserID)
			})
			bridge.gets("what alice has read", func(ev *event.Event) bool {
				if ev.Type != event.EphemeralEventReceipt || ev.RoomID != room {
					return false
				}
				_, there := (*ev.Content.AsReceipt())[third][event.ReceiptTypeRead][alice.UserID]
				return there
			})
			bridge.gets("alice's presence", func(ev *event.Event) bool {
				return ev.Type == event.EphemeralEventPresence && ev.Sender == alice.UserID && ev.Content.AsPresence().StatusMessage == "at tea"
			})

			must(t, ghost.CreateDeviceMSC4190(ctx, "BRIDGE", "the bridge"))
			ok(alice.SendToDevice(ctx, event.NewEventType("org.example.secret"), &mautrix.ReqSendToDevice{
				Messages: map[id.UserID]map[id.DeviceID]*event.Content{ghost.UserID: {"BRIDGE": {Raw: map[string]any{"tea": "green"}}}},
			}))
			bridge.gets("the message to the device", func(ev *event.Event) bool {
				return ev.Type.Class == event.ToDeviceEventType && ev.Type.Type == "org.example.secret" && ev.Sender == alice.UserID &&
					ev.ToUserID == ghost.UserID && ev.ToDeviceID == "BRIDGE" && ev.Content.Raw["tea"] == "green"
			})

			key := func(n byte, size int) string {
				return base64.RawStdEncoding.EncodeToString(bytes.Repeat([]byte{n}, size))
			}
			signed := signatures.NewSingleSignature(ghost.UserID, id.KeyAlgorithmEd25519, "BRIDGE", key(4, 64))
			ok(ghost.UploadKeys(ctx, &mautrix.ReqUploadKeys{
				DeviceKeys: &mautrix.DeviceKeys{
					UserID: ghost.UserID, DeviceID: "BRIDGE", Algorithms: []id.Algorithm{id.AlgorithmOlmV1},
					Keys:       mautrix.KeyMap{"ed25519:BRIDGE": key(1, 32), "curve25519:BRIDGE": key(2, 32)},
					Signatures: signatures.Signatures{},
				},
				OneTimeKeys: map[id.KeyID]mautrix.OneTimeKey{"signed_curve25519:A": {Key: id.Curve25519(key(3, 32)), IsSigned: true, Signatures: signed}},
			}))
			if n := soon(t, bridge.OTKCounts); n.UserID != ghost.UserID || n.DeviceID != "BRIDGE" || n.SignedCurve25519 != 1 {
				t.Errorf("the keys are counted as %+v", n)
			}
			if lists := soon(t, bridge.DeviceLists); !slices.Contains(lists.Changed, ghost.UserID) {
				t.Errorf("devices changed of %v", lists.Changed)
			}
		})
	}
}

// TestServiceOfServerThatIsKilled: while the server is killed again and again, which
// loses whatever is not committed, a service gets each message once for each
// transaction id, in the order in which they were sent.
func TestServiceOfServerThatIsKilled(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			const messages, kills = 60, 3
			p, bridge := serve(t, kind)
			ghost := bridge.Intent("@bridge_bob:localhost")
			must(t, ghost.EnsureRegistered(t.Context()))
			alice := register(t, p, "alice")
			room := ok(alice.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "public_chat"})).RoomID
			must(t, ghost.EnsureJoined(t.Context(), room))
			var want []id.EventID
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for i := range messages {
					want = append(want, sendUntilAnswered(t, alice, room, fmt.Sprint(i)))
				}
			}()
			for i := range kills {
				// Not before something was delivered since the last start.
				bridge.gets("a message", func(ev *event.Event) bool {
					return ev.Type == event.EventMessage && ev.Content.AsMessage().Body == fmt.Sprint(i*messages/kills)
				})
				p.kill()
				p.run()
			}
			<-sent
			last := want[messages-1]
			bridge.gets("the last message", func(ev *event.Event) bool { return ev.ID == last })
			bridge.mu.Lock()
			defer bridge.mu.Unlock()
			var got []id.EventID
			for _, ev := range bridge.events {
				if ev.Type == event.EventMessage {
					got = append(got, ev.ID)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("the service has %d messages, %v, and not %v", len(got), got, want)
			}
		})
	}
}
