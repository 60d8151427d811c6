package encryption

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

// Whatever devices do in whatever order, at the same time or one after the other:
// no key is claimed twice, none is invented, and the counts are right.
func TestOneTimeKeysProperty(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			g := newRig(t, dbtest.URL(t, kind))
			run := 0
			rapid.Check(t, func(rt *rapid.T) {
				run++
				m := &keyModel{rig: g, claimer: g.login("zoe", "Z1"), run: run, claimed: map[string]bool{}}
				for i := range 3 {
					m.devices = append(m.devices, &keyDevice{client: g.login(fmt.Sprintf("u%d-%d", run, i), "D"), left: map[string]string{}, all: map[string]string{}})
				}
				rt.Repeat(map[string]func(*rapid.T){
					"upload": m.upload, "again": m.again, "claim": m.claim, "together": m.claimTogether, "logout": m.logout, "": m.check,
				})
			})
		})
	}
}

type keyModel struct {
	*rig
	claimer *client
	devices []*keyDevice
	run     int
	claimed map[string]bool
}

// keyDevice is a device with the keys that it uploaded, and those that are left.
type keyDevice struct {
	*client
	left, all map[string]string
	gone      bool
}

func (m *keyModel) pick(t *rapid.T) *keyDevice { return rapid.SampledFrom(m.devices).Draw(t, "device") }

func (d *keyDevice) put(t *rapid.T, keys []string) {
	code, text := d.do("POST", "/v3/keys/upload", `{"one_time_keys":{`+strings.Join(keys, ",")+`}}`)
	if want := map[bool]int{false: 200, true: 401}[d.gone]; code != want && len(keys) > 0 {
		t.Fatalf("upload: %d %s, want %d", code, text, want)
	}
}

func (m *keyModel) upload(t *rapid.T) {
	d := m.pick(t)
	var keys []string
	for range rapid.IntRange(1, 4).Draw(t, "n") {
		id := fmt.Sprintf("R%dK%d", m.run, d.next)
		d.next++
		k := d.oneTimeKey(id)
		keys = append(keys, k)
		if !d.gone {
			d.left["signed_curve25519:"+id], d.all["signed_curve25519:"+id] = k, k
		}
	}
	d.put(t, keys)
}

// again uploads what was uploaded before, as a client does that missed the answer.
func (m *keyModel) again(t *rapid.T) {
	d := m.pick(t)
	var keys []string
	for _, k := range d.all {
		keys = append(keys, k)
	}
	d.put(t, keys)
}

func (m *keyModel) take(t *rapid.T, d *keyDevice, id string) {
	if id == "" {
		if len(d.left) > 0 {
			t.Fatalf("nothing was claimed, but %d keys are left", len(d.left))
		}
		return
	}
	name := d.name + id
	if _, there := d.left[id]; !there || m.claimed[name] {
		t.Fatalf("%s was claimed, which is not there or was claimed before", name)
	}
	delete(d.left, id)
	m.claimed[name] = true
}

func (m *keyModel) claim(t *rapid.T) {
	d := m.pick(t)
	m.take(t, d, m.claimer.claim(d.client))
}

// claimTogether claims keys of one device by several requests at once.
func (m *keyModel) claimTogether(t *rapid.T) {
	d := m.pick(t)
	ids := make([]string, rapid.IntRange(2, 5).Draw(t, "n"))
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() { ids[i] = m.claimer.claim(d.client) })
	}
	wg.Wait()
	for _, id := range ids {
		if id != "" {
			m.take(t, d, id)
		}
	}
	for _, id := range ids {
		if id == "" {
			m.take(t, d, id)
		}
	}
}

func (m *keyModel) logout(t *rapid.T) {
	d := m.pick(t)
	if rapid.IntRange(0, 3).Draw(t, "stay") > 0 || d.gone {
		return
	}
	d.client.logout()
	d.gone, d.left, d.all = true, map[string]string{}, map[string]string{}
}

func (m *keyModel) check(t *rapid.T) {
	for _, d := range m.devices {
		if d.gone {
			continue
		}
		n, _, err := m.e.Keys(m.Context(), d.user, d.id)
		if err != nil || n[signedCurve25519] != len(d.left) {
			t.Fatalf("%d keys of %s are counted (%v), want %d", n[signedCurve25519], d.name, err, len(d.left))
		}
	}
}
