package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// deviceProgram is the path of the client with encryption, built once. Its tag
// picks the cryptography that is written in Go; nothing else is built with it.
var deviceProgram = sync.OnceValues(func() (string, error) {
	server, err := binary()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(server), "device")
	out, err := exec.Command("go", "build", "-tags", "goolm", "-o", path, "./device").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// device is one with end-to-end encryption, a process of its own.
type device struct {
	t    *testing.T
	in   *json.Encoder
	out  *bufio.Scanner
	log  string
	ID   string
	User string
}

// told is what a device answers.
type told struct {
	Error, User, Device, Key, Emojis, Trust string
	Texts, Failed                           []string
}

// device logs a user in on a new device.
func (u *person) device(name string) *device {
	u.t.Helper()
	path := ok(deviceProgram())
	dir := u.t.TempDir()
	cmd := exec.Command(path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	in, out := ok(cmd.StdinPipe()), ok(cmd.StdoutPipe())
	must(u.t, cmd.Start())
	d := &device{t: u.t, in: json.NewEncoder(in), out: bufio.NewScanner(out), log: filepath.Join(dir, "log")}
	d.out.Buffer(nil, 64<<20)
	u.t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
		if log, err := os.ReadFile(d.log); err == nil && u.t.Failed() {
			u.t.Logf("the device of %s noted at last:\n%s", u.id, log[max(0, len(log)-20_000):])
		}
	})
	a := d.must("login", object{"server": u.p.url, "user": name, "password": "password", "dir": dir})
	d.ID, d.User = a.Device, a.User
	return d
}

type object = map[string]any

// do has the device do something. It may be used by one goroutine at a time.
func (d *device) do(what string, with object) (a told, err error) {
	if with == nil {
		with = object{}
	}
	with["do"] = what
	if err := d.in.Encode(with); err != nil {
		return a, err
	}
	if !d.out.Scan() {
		return a, fmt.Errorf("the device of %s ended: %w", d.User, d.out.Err())
	}
	if err := json.Unmarshal(d.out.Bytes(), &a); err != nil {
		return a, err
	}
	if a.Error != "" {
		return a, fmt.Errorf("%s of %s: %s", what, d.User, a.Error)
	}
	return a, nil
}

func (d *device) must(what string, with object) told {
	d.t.Helper()
	a, err := d.do(what, with)
	if err != nil {
		d.t.Fatal(err)
	}
	return a
}

func (d *device) say(room, text string) { d.must("send", object{"room": room, "text": text}) }

// hears waits for texts by /sync.
func (d *device) hears(room string, texts ...string) {
	d.t.Helper()
	a := d.must("seen", object{"room": room, "number": len(texts)})
	if !slices.Equal(a.Texts, texts) || len(a.Failed) > 0 {
		d.t.Fatalf("%s on %s hears %q, not %q; undecrypted are %q", d.User, d.ID, a.Texts, texts, a.Failed)
	}
}

// houses runs f with one server and with two, on either database. f gets two
// servers, which may be the same.
func houses(t *testing.T, f func(t *testing.T, a, b *process)) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			t.Run("one server", func(t *testing.T) {
				p := start(t, kind)
				f(t, p, p)
			})
			t.Run("two servers", func(t *testing.T) {
				s := federate(t, kind, "127.0.0.2", "127.0.0.3")
				f(t, s[0], s[1])
			})
		})
	}
}

// encrypted makes a room for two.
func encrypted(a, b *person) string {
	a.t.Helper()
	room := a.must("POST", "/v3/createRoom", object{
		"preset": "private_chat", "invite": []string{b.id},
		"initial_state": []object{{"type": "m.room.encryption", "content": object{"algorithm": "m.megolm.v1.aes-sha2"}}},
	})["room_id"].(string)
	b.must("POST", "/v3/join/"+url.PathEscape(room), object{})
	return room
}

// Two people hold an encrypted conversation, verify each other by emojis, and one
// of them signs in on a new device, which reads the history from the backup and is
// trusted by the other at once.
func TestEncryptedConversation(t *testing.T) {
	houses(t, func(t *testing.T, a, b *process) {
		alice, bob := a.person(t, "alice"), b.person(t, "bob")
		phone, laptop := alice.device("alice"), bob.device("bob")
		recovery := phone.must("identify", object{"password": "password"}).Key
		laptop.must("identify", object{"password": "password"})
		room := encrypted(alice, bob)
		for _, d := range []*device{phone, laptop} {
			d.must("wait", object{"room": room, "number": 2})
		}
		phone.say(room, "one")
		laptop.hears(room, "one")
		laptop.say(room, "two")
		phone.hears(room, "one", "two")

		seen := make(chan told, 1)
		go func() {
			a, err := laptop.do("compare", nil)
			if err != nil {
				t.Error(err)
			}
			seen <- a
		}()
		if shown, there := phone.must("verify", object{"user": bob.id}), <-seen; shown.Emojis == "" || shown.Emojis != there.Emojis {
			t.Fatalf("alice sees %s, bob sees %s", shown.Emojis, there.Emojis)
		}
		var both sync.WaitGroup
		for _, d := range []*device{phone, laptop} {
			both.Go(func() {
				if _, err := d.do("confirm", nil); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()

		phone.must("backup", nil)
		tablet := alice.device("alice")
		tablet.must("restore", object{"key": recovery})
		past := tablet.must("history", object{"room": room, "number": 2})
		if slices.Reverse(past.Texts); !slices.Equal(past.Texts, []string{"one", "two"}) || len(past.Failed) > 0 {
			t.Fatalf("the new device reads %q of the history, but not %q", past.Texts, past.Failed)
		}
		for _, d := range []*device{phone, tablet} {
			if got := laptop.must("trust", object{"user": alice.id, "device": d.ID}).Trust; got != "cross-signed-verified" && got != "verified" {
				t.Errorf("bob trusts %s of alice as %q", d.ID, got)
			}
		}
		tablet.must("wait", object{"room": room, "number": 2})
		laptop.say(room, "three")
		phone.hears(room, "one", "two", "three")
		if last := tablet.must("history", object{"room": room, "number": 3}); last.Texts[0] != "three" {
			t.Errorf("the new device reads %q", last.Texts)
		}
	})
}

// Two people talk in an encrypted room while their servers are killed again and
// again: every message can be decrypted by both, each once.
func TestEncryptedMessagesSurviveKills(t *testing.T) {
	each, kills := 40, 1
	if os.Getenv("TEAHOUSE_LONG") != "" {
		each, kills = 500, 6
	}
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			servers := federate(t, kind, "127.0.0.2", "127.0.0.3")
			alice, bob := servers[0].person(t, "alice"), servers[1].person(t, "bob")
			devices := []*device{alice.device("alice"), bob.device("bob")}
			room := encrypted(alice, bob)
			for _, d := range devices {
				d.must("wait", object{"room": room, "number": 2})
			}
			var talking sync.WaitGroup
			var want []string
			said := make(chan struct{}, 2*each)
			for i, d := range devices {
				for n := range each {
					want = append(want, fmt.Sprintf("%d-%d", i, n))
				}
				talking.Go(func() {
					for n := range each {
						if _, err := d.do("send", object{"room": room, "text": fmt.Sprintf("%d-%d", i, n)}); err != nil {
							t.Error(err)
						}
						said <- struct{}{}
					}
				})
			}
			for kill := range kills {
				for range 2 * each / (kills + 1) {
					<-said
				}
				// Both, one after the other or at the same time.
				servers[kill%2].kill()
				if kill%3 != 0 {
					servers[kill%2].run()
				}
				servers[1-kill%2].kill()
				servers[1-kill%2].run()
				if kill%3 == 0 {
					servers[kill%2].run()
				}
			}
			talking.Wait()
			slices.Sort(want)
			for i, d := range devices {
				began := time.Now()
				got := d.must("history", object{"room": room, "number": len(want)})
				if slices.Sort(got.Texts); !slices.Equal(got.Texts, want) || len(got.Failed) > 0 {
					t.Errorf("device %d decrypts %d of %d messages; not %q", i, len(got.Texts), len(want), got.Failed)
				}
				t.Logf("device %d had everything after %v", i, time.Since(began).Round(time.Millisecond))
			}
		})
	}
}
