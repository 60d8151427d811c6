package auth_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

func thirdPartyKey(seed byte) (event.SigningKey, string) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	return event.SigningKey{ID: "ed25519:0", Private: key}, base64.RawStdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
}

func signed(t *testing.T, obj string, key event.SigningKey) string {
	t.Helper()
	b, err := event.SignJSON([]byte(obj), "id.example", key)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestThirdPartyInvite(t *testing.T) {
	good, goodPublic := thirdPartyKey(1)
	bad, badPublic := thirdPartyKey(2)
	urlSafe := strings.NewReplacer("+", "-", "/", "_").Replace(goodPublic) + "="
	body := func(mxid, token string) string { return fmt.Sprintf(`{"mxid":%q,"token":%q}`, mxid, token) }
	single := fmt.Sprintf(`{"public_key":%q}`, goodPublic)
	for _, c := range []struct {
		name, keys, target, sender, invite, want string
	}{
		{"signed", single, eve, bob, `{"signed":` + signed(t, body(eve, "tok"), good) + `}`, "ok"},
		{"signed by one of several keys", fmt.Sprintf(`{"public_key":%q,"public_keys":[{"public_key":%q},{"public_key":%q}]}`, badPublic, badPublic, urlSafe),
			eve, bob, `{"signed":` + signed(t, body(eve, "tok"), good) + `}`, "ok"},
		{"over knocking and outside", single, carol, bob, `{"signed":` + signed(t, body(carol, "tok"), good) + `}`, "ok"},
		{"for the banned", single, dave, bob, `{"signed":` + signed(t, body(dave, "tok"), good) + `}`, "1.1"},
		{"not signed", single, eve, bob, `{}`, "1.2"},
		{"no object", single, eve, bob, `null`, "1.2"},
		{"signed is a text", single, eve, bob, `{"signed":"yes"}`, "1.3"},
		{"no token", single, eve, bob, `{"signed":{"mxid":"` + eve + `"}}`, "1.3"},
		{"no user", single, eve, bob, `{"signed":{"token":"tok"}}`, "1.3"},
		{"for somebody else", single, eve, bob, `{"signed":` + signed(t, body(carol, "tok"), good) + `}`, "1.4"},
		{"unknown token", single, eve, bob, `{"signed":` + signed(t, body(eve, "other"), good) + `}`, "1.5"},
		{"of another sender", single, eve, mod, `{"signed":` + signed(t, body(eve, "tok"), good) + `}`, "1.6"},
		{"signed with another key", single, eve, bob, `{"signed":` + signed(t, body(eve, "tok"), bad) + `}`, "1.8"},
		{"changed after signing", single, eve, bob, `{"signed":` + strings.Replace(signed(t, body(eve, "tok"), good), `"token"`, `"extra":1,"token"`, 1) + `}`, "1.8"},
		{"no signatures", single, eve, bob, `{"signed":` + body(eve, "tok") + `}`, "1.8"},
		{"no keys", `{}`, eve, bob, `{"signed":` + signed(t, body(eve, "tok"), good) + `}`, "1.8"},
		{"broken keys", `{"public_key":"AAAA","public_keys":[5,{"public_key":"!"}]}`, eve, bob, `{"signed":` + signed(t, body(eve, "tok"), good) + `}`, "1.8"},
	} {
		for _, v := range event.Versions() {
			invite := map[string]string{"1": "5.3.", "2": "5.3.", "3": "5.3.", "4": "5.3.", "5": "5.3.", "6": "4.3.", "7": "4.3.",
				"8": "4.4.", "9": "4.4.", "10": "4.4.", "11": "4.4.", "12": "5.4."}[v.ID]
			r := newRoom(t, v)
			r.put(matrix.TypeThirdPartyInvite, "tok", bob, c.keys)
			e := r.build(matrix.TypeMember, &c.target, c.sender, `{"membership":"invite","third_party_invite":`+c.invite+`}`)
			want := c.want
			if want != "ok" {
				want = invite + want
			}
			if got := verdict(t, v, auth.Check(e, r)); got != want {
				t.Errorf("%s: version %s: %s, want %s", c.name, v.ID, got, want)
			}
		}
	}
}

// An event full of signatures against an event full of keys is a product of two
// large numbers; it must not cost that.
func TestThirdPartyInviteIsBounded(t *testing.T) {
	v, _ := event.Lookup("12")
	r := newRoom(t, v)
	_, public := thirdPartyKey(1)
	keys := `{"public_key":"` + public + `","public_keys":[` + strings.Repeat(`{"public_key":"`+public+`"},`, 900) + `{}]}`
	r.put(matrix.TypeThirdPartyInvite, "tok", bob, keys)
	var sigs strings.Builder
	for i := range 500 {
		fmt.Fprintf(&sigs, `"ed25519:%d":"%s",`, i, strings.Repeat("A", 86))
	}
	target := eve
	e := r.build(matrix.TypeMember, &target, bob, `{"membership":"invite","third_party_invite":{"signed":{"mxid":"`+eve+
		`","token":"tok","signatures":{"id.example":{`+sigs.String()+`"ed25519:x":""}}}}}`)
	start := time.Now()
	if auth.Check(e, r) == nil {
		t.Error("allowed")
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
}
