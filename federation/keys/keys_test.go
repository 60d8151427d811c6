package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/rooms/event"
)

var day = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func newFile(t testing.TB) File {
	t.Helper()
	key, err := Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return File{Current: key}
}

func TestFileIsRotated(t *testing.T) {
	first := newFile(t)
	second, err := first.Rotate(rand.Reader, day)
	if err != nil {
		t.Fatal(err)
	}
	third, err := second.Rotate(rand.Reader, day.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	text := third.Format()
	read, err := ParseFile(append([]byte("# made by hand\n\n"), text...))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read.Format(), text) || read.Current.ID != third.Current.ID || len(read.Old) != 2 {
		t.Fatalf("%s became %s", text, read.Format())
	}
	old := read.Old[0]
	if old.ID != first.Current.ID || !old.Public.Equal(first.Current.Private.Public()) || old.Expired != day.UnixMilli() {
		t.Fatalf("the first key became %+v", old)
	}
	if bytes.Contains(text, []byte(base64.RawStdEncoding.EncodeToString(first.Current.Private.Seed()))) {
		t.Error("the seed of an old key is kept")
	}
}

func TestBadFiles(t *testing.T) {
	good := strings.TrimSpace(string(newFile(t).Format()))
	seed := strings.Fields(good)[2]
	if f, err := ParseFile([]byte(good)); err != nil || len(f.Old) != 0 {
		t.Fatalf("a file of one line: %v", err)
	}
	for _, text := range []string{
		"", "\n# nothing\n", "ed25519 a", "ed25519 a short", "rsa a " + seed, "ed25519 a " + seed[:40], "ed25519 a:b " + seed, "ed25519 a-b " + seed,
		good + "\n" + good, good + "\ned25519 other " + seed, good + "\nold ed25519 a_1 " + seed, good + "\nold ed25519 a_1 " + seed + " yesterday",
		good + "\nold ed25519 a_1 " + seed + " 0", good + "\nold ed25519 a_1 " + seed + " 5\nold ed25519 a_1 " + seed + " 6", "old ed25519 a_1 " + seed + " 5",
		"ed25519 a YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1",
	} {
		if _, err := ParseFile([]byte(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// The specimens are what they are said to be.
func TestPublicSecrets(t *testing.T) {
	for _, public := range []string{
		"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", // RFC 8032, test 1
		"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", // test 2
		"fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", // test 3
		"278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e", // test 1024
		"ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf", // test SHA(abc)
	} {
		b, _ := hex.DecodeString(public)
		if err := refuse(b); !errors.Is(err, ErrPublicSecret) {
			t.Errorf("%s: %v", public, err)
		}
	}
	if err := refuse(newFile(t).Current.Private.Public().(ed25519.PublicKey)); err != nil {
		t.Error(err)
	}
	if refuse(nil) == nil {
		t.Error("no key passes")
	}
}

// For points of small order anybody finds signatures: that is why they are
// refused, and how the list is shown to be right.
func TestSmallOrderKeysVerifyForgeries(t *testing.T) {
	for _, text := range smallOrder {
		public, _ := hex.DecodeString(text)
		if !errors.Is(refuse(public), ErrPublicSecret) {
			t.Errorf("%s passes", text)
		}
		forged := false
		for i := 0; i < 4096 && !forged; i++ {
			message := sha512.Sum512([]byte{byte(i), byte(i >> 8)})
			for _, r := range smallOrder {
				signature := make([]byte, ed25519.SignatureSize)
				_, _ = hex.Decode(signature, []byte(r))
				forged = forged || ed25519.Verify(public, message[:], signature)
			}
		}
		if !forged {
			t.Errorf("no forgery for %s: it is no point of small order", text)
		}
	}
}

func signed(t testing.TB, server, body string, keys ...event.SigningKey) []byte {
	t.Helper()
	out := []byte(body)
	for _, k := range keys {
		var err error
		if out, err = event.SignJSON(out, server, k); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func b64(k event.SigningKey) string {
	return base64.RawStdEncoding.EncodeToString(k.Private.Public().(ed25519.PublicKey))
}

func TestAnswers(t *testing.T) {
	a, b := newFile(t).Current, newFile(t).Current
	a.ID, b.ID = "ed25519:a", "ed25519:b"
	both := `{"server_name":"x.org","valid_until_ts":1777723200000,"verify_keys":{"ed25519:a":{"key":"` + b64(a) + `"},"ed25519:b":{"key":"` + b64(b) + `"}}`
	one := `{"server_name":"x.org","valid_until_ts":1777723200000,"verify_keys":{"ed25519:a":{"key":"` + b64(a) + `"}}`
	weak := base64.RawStdEncoding.EncodeToString(make([]byte, 32))
	forged := strings.Replace(string(signed(t, "x.org", both+"}", a, b)), `"valid_until_ts":17`, `"valid_until_ts":18`, 1)
	half := strings.Replace(string(signed(t, "x.org", both+"}", a)), `"ed25519:a":"`, `"ed25519:b":"`+strings.Repeat("A", 86)+`","ed25519:a":"`, 1)
	for name, c := range map[string]struct {
		text string
		keys string // ids and, for old ones, x
	}{
		"one key":           {string(signed(t, "x.org", one+"}", a)), "a"},
		"two keys":          {string(signed(t, "x.org", both+"}", a, b)), "a b"},
		"one signs for two": {string(signed(t, "x.org", both+"}", b)), "a b"},
		"old key":           {string(signed(t, "x.org", one+`,"old_verify_keys":{"ed25519:b":{"key":"`+b64(b)+`","expired_ts":5}}}`, a)), "a bx"},
		"old without time":  {string(signed(t, "x.org", one+`,"old_verify_keys":{"ed25519:b":{"key":"`+b64(b)+`"}}}`, a)), "a"},
		"in both lists":     {string(signed(t, "x.org", one+`,"old_verify_keys":{"ed25519:a":{"key":"`+b64(b)+`","expired_ts":5}}}`, a)), "a"},
		"weak old key":      {string(signed(t, "x.org", one+`,"old_verify_keys":{"ed25519:w":{"key":"`+weak+`","expired_ts":5}}}`, a)), "a"},
		"other algorithm":   {string(signed(t, "x.org", one[:len(one)-1]+`,"rsa:1":{"key":"abc"},"ed25519:no-":{"key":"`+b64(b)+`"}}}`, a)), "a"},
		"also by a notary":  {string(signed(t, "notary.org", string(signed(t, "x.org", one+"}", a)), b)), "a"},
		"by an old key too": {string(signed(t, "x.org", one+`,"old_verify_keys":{"ed25519:b":{"key":"`+b64(b)+`","expired_ts":5}}}`, a, b)), "a bx"},
		"not signed":        {one + "}", ""},
		"by another":        {string(signed(t, "y.org", one+"}", a)), ""},
		"by an old key":     {string(signed(t, "x.org", one+`,"old_verify_keys":{"ed25519:b":{"key":"`+b64(b)+`","expired_ts":5}}}`, b)), ""},
		"for another":       {string(signed(t, "x.org", strings.Replace(one, "x.org", "y.org", 1)+"}", a)), ""},
		"changed":           {forged, ""},
		"one is wrong":      {half, ""},
		"not JSON":          {"<html>", ""},
		"a list":            {"[]", ""},
		"duplicate names":   {strings.Replace(string(signed(t, "x.org", one+"}", a)), `{`, `{"server_name":"y.org",`, 1), ""},
		"too large":         {string(signed(t, "x.org", one+`,"pad":"`+strings.Repeat("x", MaxAnswer)+`"}`, a)), ""},
	} {
		got, err := parseAnswer("x.org", []byte(c.text), day)
		if (err == nil) != (c.keys != "") {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err != nil {
			continue
		}
		found := map[string]bool{}
		for _, k := range got.keys {
			id := strings.TrimPrefix(k.ID, algorithm)
			if k.Expired != 0 {
				id += "x"
			}
			found[id] = true
		}
		for _, id := range strings.Fields(c.keys) {
			if !found[id] {
				t.Errorf("%s: no key %s", name, id)
			}
			delete(found, id)
		}
		if len(found) > 0 {
			t.Errorf("%s: also %v", name, found)
		}
	}
}

// Nobody's key counts for longer than a week without being asked for again.
func TestValidityIsCapped(t *testing.T) {
	key := newFile(t).Current
	for told, want := range map[string]int64{
		"9007199254740991": day.Add(maxValidity).UnixMilli(), "1777640000000": 1777640000000, "0": 0, "-5": -5,
	} {
		text := signed(t, "x.org", `{"server_name":"x.org","valid_until_ts":`+told+`,"verify_keys":{"`+key.ID+`":{"key":"`+b64(key)+`"}}}`, key)
		a, err := parseAnswer("x.org", text, day)
		if err != nil || a.validUntil != want || a.keys[0].ValidUntil != want {
			t.Errorf("%s: %+v, %v", told, a, err)
		}
	}
}

func TestKeyValidity(t *testing.T) {
	published, old := Key{ValidUntil: 100}, Key{ValidUntil: 100, Expired: 50}
	for _, c := range []struct {
		key  *Key
		at   int64
		good bool
	}{{&published, 0, true}, {&published, 100, true}, {&published, 101, false}, {&old, 0, true}, {&old, 49, true}, {&old, 50, false}, {&old, 99, false}} {
		if c.key.validAt(c.at) != c.good {
			t.Errorf("%+v at %d", *c.key, c.at)
		}
	}
}

func FuzzParseAnswer(f *testing.F) {
	file := newFile(f)
	text, err := publish("x.org", file, day.Add(validity))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"server_keys":[` + string(text) + `]}`))
	f.Add([]byte(`{"server_name":"x.org","verify_keys":{"ed25519:":{}},"signatures":{"x.org":[]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := parseAnswer("x.org", raw, day)
		if err == nil {
			if a.server != "x.org" || len(a.keys) == 0 || a.validUntil > day.Add(maxValidity).UnixMilli() {
				t.Errorf("%+v", a)
			}
			var rec record
			rec.merge(a, day, true)
			if len(rec.keys) != len(a.keys) {
				t.Errorf("of %d keys %d are kept", len(a.keys), len(rec.keys))
			}
		}
		_, _ = parseNotary(raw)
	})
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte("ed25519 a_1 m5Xg2pNRa3IdE8nSpBdkjsFcsGJsBP0EqDbS4hCjPsk\nold ed25519 a_0 m5Xg2pNRa3IdE8nSpBdkjsFcsGJsBP0EqDbS4hCjPsk 12\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := ParseFile(text)
		if err != nil {
			return
		}
		again, err := ParseFile(file.Format())
		if err != nil || !bytes.Equal(again.Format(), file.Format()) {
			t.Errorf("%q: %v", file.Format(), err)
		}
	})
}
