package accounts

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/teahouse-chat/teahouse/internal/httpx"
)

func TestHasher(t *testing.T) {
	h, err := newHasher(cheap, secrets{rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := h.hash(t.Context(), "tea 🍵")
	if err != nil || !strings.HasPrefix(encoded, "$argon2id$v=19$m=8,t=1,p=1$") {
		t.Fatal(encoded, err)
	}
	if again, _ := h.hash(t.Context(), "tea 🍵"); again == encoded {
		t.Fatal("no salt")
	}
	old, err := bcrypt.GenerateFromPassword([]byte("tea"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	// "other costs" is a published test vector: salt "somesalt", 24 bytes.
	for _, c := range []struct {
		name, encoded, password string
		ok, stale, fails        bool
	}{
		{"right", encoded, "tea 🍵", true, false, false},
		{"wrong", encoded, "tea", false, false, false},
		{"empty", encoded, "", false, false, false},
		{"no password set", "", "", false, false, false},
		{"too long", encoded, strings.Repeat("x", maxPasswordBytes+1), false, false, false},
		{"bcrypt, right", string(old), "tea", true, true, false},
		{"bcrypt, wrong", string(old), "coffee", false, false, false},
		{"other costs", "$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ$Bo1ismRVk2qm6+YAYLCmWHDb+j3fjUH3", "password", true, true, false},
		{"unknown kind", "plain:tea", "tea", false, true, true},
		{"broken", "$argon2id$v=19$m=8,t=0,p=0$$", "tea", false, true, true},
		{"broken bcrypt", "$2y$", "tea", false, true, true},
	} {
		ok, stale, err := h.verify(t.Context(), c.encoded, c.password)
		if ok != c.ok || (err != nil) != c.fails || (err == nil && stale != c.stale && c.ok) {
			t.Errorf("%s: ok=%v stale=%v err=%v", c.name, ok, stale, err)
		}
	}
	for _, bad := range []PasswordParams{{Time: 0, MemoryKiB: 8, Threads: 1}, {Time: 1, MemoryKiB: 8, Threads: 2}, {Time: 1, MemoryKiB: 1, Threads: 1}} {
		if _, err := newHasher(bad, secrets{rand.Reader}); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// A14: who does not exist takes as long as who does.
func TestUnknownUsersTakeAsLong(t *testing.T) {
	h, err := newHasher(PasswordParams{Time: 3, MemoryKiB: 16 << 10, Threads: 1}, secrets{rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := h.hash(t.Context(), "tea")
	if err != nil {
		t.Fatal(err)
	}
	once := func(encoded, password string) time.Duration {
		start := time.Now()
		if ok, _, err := h.verify(context.Background(), encoded, password); ok || err != nil {
			t.Fatal(ok, err)
		}
		return time.Since(start)
	}
	// On a busy machine it takes some rounds until each has run undisturbed once.
	const most = time.Hour
	known, nobody, tooLong := most, most, most
	alike := func(d time.Duration) bool { return d >= known/2 && d <= known*2 }
	for round := 0; round < 5 || round < 50 && !(alike(nobody) && alike(tooLong)); round++ {
		known = min(known, once(encoded, "wrong"))
		nobody = min(nobody, once("", "wrong"))
		tooLong = min(tooLong, once(encoded, strings.Repeat("x", 2000)))
	}
	if !alike(nobody) || !alike(tooLong) {
		t.Errorf("nobody takes %v and too long %v, a wrong password %v", nobody, tooLong, known)
	}
}

// No more hashes run at once than there are cores; who waits can give up.
func TestHashingIsBounded(t *testing.T) {
	h, err := newHasher(cheap, secrets{rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	for range cap(h.slots) {
		h.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.hash(ctx, "tea"); err == nil {
		t.Fatal("a hash got by")
	}
	if _, _, err := h.verify(ctx, "", "tea"); err == nil {
		t.Fatal("a check got by")
	}
}

func TestFailureLimitIsBounded(t *testing.T) {
	f := newFailureLimit(httpx.Rate{PerSecond: 1, Burst: 5})
	now := time.Unix(0, 0)
	for i := range maxFailing + 10 {
		if err := f.attempt(time.Unix(int64(i), 0).String(), now); err != nil {
			t.Fatal(err)
		}
	}
	if len(f.debt) > maxFailing {
		t.Fatalf("%d names", len(f.debt))
	}
}

func FuzzStoredHash(f *testing.F) {
	h, err := newHasher(cheap, secrets{rand.Reader})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(h.encode("tea"), "tea")
	f.Add("$argon2id$v=19$m=8,t=0,p=0$$", "x")
	f.Fuzz(func(t *testing.T, encoded, password string) {
		if strings.Contains(encoded, "m=") && !strings.Contains(encoded, "m=8,") || strings.HasPrefix(encoded, "$2") {
			return // the costs are the operator's to choose
		}
		_, _, _ = h.verify(t.Context(), encoded, password)
	})
}

func TestSecrets(t *testing.T) {
	s := secrets{rand.Reader}
	seen := map[string]bool{}
	for range 1000 {
		tok, dev := s.token(accessPrefix), s.letters(deviceIDLength, deviceIDLetters)
		if seen[tok] || seen[dev] || len(dev) != deviceIDLength || strings.Trim(dev, deviceIDLetters) != "" {
			t.Fatal(tok, dev)
		}
		seen[tok], seen[dev] = true, true
	}
	if n := (secrets{zeros{}}).number(); n != "0" {
		t.Fatal(n)
	}
}
