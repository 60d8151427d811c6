//go:build botsdk

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// bot is the process of testdata/botsdk, which needs node and npm. Without the build
// tag it is not run.
type bot struct {
	t testing.TB

	mu   sync.Mutex
	said []utterance
}

type utterance struct {
	What  string
	Value any
}

// runBot installs the bot's packages and starts it.
func runBot(t *testing.T, env ...string) *bot {
	t.Helper()
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS("testdata/botsdk")))
	install := exec.Command("npm", "ci", "--ignore-scripts", "--install-links", "--no-audit", "--no-fund")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	cmd := exec.Command("node", "bot.js")
	cmd.Dir, cmd.Env, cmd.Stderr = dir, append(os.Environ(), env...), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	b := &bot{t: t}
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var u utterance
			if json.Unmarshal(lines.Bytes(), &u) != nil {
				u = utterance{"", lines.Text()}
			}
			b.mu.Lock()
			b.said = append(b.said, u)
			b.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
	})
	return b
}

// says waits until the bot prints something.
func (b *bot) says(what string, ok func(value map[string]any) bool) {
	b.t.Helper()
	for range 3000 {
		b.mu.Lock()
		there := slices.ContainsFunc(b.said, func(u utterance) bool {
			value, _ := u.Value.(map[string]any)
			return u.What == what && ok(value)
		})
		b.mu.Unlock()
		if there {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.t.Fatalf("the bot never says %s as it should; it said %v", what, b.said)
}

// TestBridgeByBotSDK: a service that is written with matrix-bot-sdk, as it is,
// registers, pings, is invited, receives, answers as a user of its namespace, and is
// told who types, who has read, who is there, and messages to a device.
func TestBridgeByBotSDK(t *testing.T) {
	dir := t.TempDir()
	address := netip.MustParseAddrPort(freeAddress(t, "127.0.0.1"))
	file := filepath.Join(dir, "sdk.yaml")
	must(t, os.WriteFile(file, fmt.Appendf(nil, `id: sdk
url: http://%s
as_token: as-secret
hs_token: hs-secret
sender_localpart: sdkbot
rate_limited: false
de.sorunome.msc2409.push_ephemeral: true
org.matrix.msc3202: true
namespaces: {users: [{regex: '@sdk_.*:localhost', exclusive: true}]}
`, address), 0o600))
	p := startAs(t, "sqlite", dir, "localhost", "", fmt.Sprintf("federation: {enabled: false}\nappservices: [%q]\n", file))
	b := runBot(t, "HOMESERVER="+p.url, fmt.Sprintf("PORT=%d", address.Port()), "AS_TOKEN=as-secret", "HS_TOKEN=hs-secret")
	b.says("ready", func(v map[string]any) bool { return v["duration_ms"] != nil })

	ctx := t.Context()
	alice := register(t, p, "alice")
	const ann = id.UserID("@sdk_ann:localhost")
	room := ok(alice.CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "private_chat", Invite: []id.UserID{ann}})).RoomID
	var joined bool
	for range 3000 {
		if members, err := alice.JoinedMembers(ctx, room); err == nil && has(members.Joined, ann) {
			joined = true
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !joined {
		t.Fatalf("the bot does not join; it said %v", b.said)
	}
	said := ok(alice.SendText(ctx, room, "ping")).EventID
	b.says("message", func(v map[string]any) bool { return v["event_id"] == string(said) })
	var answered bool
	for range 3000 {
		if all := history(t, alice, room); all[0].Sender == ann && all[0].Content.AsMessage().Body == "pong" {
			answered = true
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !answered {
		t.Fatalf("the bot does not answer; it said %v", b.said)
	}
	ok(alice.UserTyping(ctx, room, true, time.Minute))
	must(t, alice.MarkRead(ctx, room, said))
	must(t, alice.SetPresence(ctx, mautrix.ReqPresence{Presence: event.PresenceUnavailable, StatusMsg: "at tea"}))
	for _, typ := range []string{"m.typing", "m.receipt", "m.presence"} {
		b.says("ephemeral", func(v map[string]any) bool {
			return v["type"] == typ && (v["room_id"] == string(room) || typ == "m.presence")
		})
	}
	ghost, err := mautrix.NewClient(p.url, ann, "as-secret")
	must(t, err)
	ghost.SetAppServiceUserID = true
	must(t, ghost.CreateDeviceMSC4190(ctx, "SDK", "the bot"))
	ok(alice.SendToDevice(ctx, event.NewEventType("org.example.secret"), &mautrix.ReqSendToDevice{
		Messages: map[id.UserID]map[id.DeviceID]*event.Content{ann: {"SDK": {Raw: map[string]any{"tea": "green"}}}},
	}))
	b.says("ephemeral", func(v map[string]any) bool {
		return v["type"] == "org.example.secret" && v["to_user_id"] == string(ann) && v["to_device_id"] == "SDK"
	})
}
