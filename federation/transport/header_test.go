package transport

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

var goodSig = strings.Repeat("A", 86)

func TestHeaders(t *testing.T) {
	full := `X-Matrix origin="a.org",destination="b.org",key="ed25519:k1",sig="` + goodSig + `"`
	want := Header{"a.org", "b.org", "ed25519:k1", goodSig}
	if want.String() != full {
		t.Errorf("written as %s", want)
	}
	for _, text := range []string{
		full,
		strings.Replace(full, "X-Matrix", "x-matrix", 1),
		strings.Replace(full, "X-Matrix ", "X-MATRIX    ", 1),
		strings.ReplaceAll(full, ",", " \t, "),
		strings.ReplaceAll(full, ",", ",,"),
		strings.ReplaceAll(full, `a.org`, `a\.\o\r\g`),
		strings.ReplaceAll(full, "=\"", "= \""),
		full + ",",
		full + `,unknown=1,other="a,b=\"c\""`,
		`X-Matrix sig=` + goodSig + `,key=ed25519:k1,destination=b.org,origin=a.org`,
		`X-Matrix ORIGIN=a.org,Destination=b.org,kEy="ed25519:k1",Sig=` + goodSig,
	} {
		if got, err := ParseHeader(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	if got, err := ParseHeader(strings.ReplaceAll(full, "a.org", "a.org:8448")); err != nil || got.Origin != "a.org:8448" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseHeader(`X-Matrix origin=a.org:8448,destination="[::1]:99",key=ed25519:k1,sig=x`); err != nil || got.Origin != "a.org:8448" || got.Destination != "[::1]:99" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, text := range []string{
		"", "X-Matrix", "X-Matrix ", "Bearer x", "X-Matrix2 " + full[9:], full[9:], full[:len(full)-1], full + `"`, full + " x", full + ` key2="x`,
		strings.Replace(full, `destination="b.org",`, "", 1),
		strings.Replace(full, `destination="b.org"`, `destination=""`, 1),
		strings.Replace(full, `destination="b.org"`, `destination=`, 1),
		strings.Replace(full, `destination="b.org"`, `destination`, 1),
		strings.Replace(full, `origin="a.org",`, "", 1),
		strings.Replace(full, `key="ed25519:k1",`, "", 1),
		strings.Replace(full, `,sig=`, `,signature=`, 1),
		full + `,origin="a.org"`, full + `,Origin="evil.org"`, full + `,x=1,x=2`,
		strings.ReplaceAll(full, "a.org", "a org"), strings.ReplaceAll(full, "b.org", "b.org/"), strings.ReplaceAll(full, "a.org", "a\x00.org"), strings.ReplaceAll(full, "a.org", "é.org"),
		strings.ReplaceAll(full, "ed25519:k1", "rsa:k1"), strings.ReplaceAll(full, "ed25519:k1", "ed25519:"), strings.ReplaceAll(full, "ed25519:k1", "ed25519:k-1"),
		strings.ReplaceAll(full, goodSig, "a b"), strings.ReplaceAll(full, goodSig, `a\"b`), strings.ReplaceAll(full, `"a.org"`, `[::1]`), strings.ReplaceAll(full, ",", ";"),
		full + `,pad="` + strings.Repeat("x", maxHeader) + `"`, full + strings.Repeat(",a=1", maxParams), "X-Matrix " + manyParams() + full[9:],
	} {
		if got, err := ParseHeader(text); err == nil {
			t.Errorf("%s: taken as %+v", text, got)
		}
	}
}

func manyParams() string {
	var b strings.Builder
	for i := range maxParams {
		b.WriteString("p" + strings.Repeat("x", i) + "=1,")
	}
	return b.String()
}

func FuzzHeader(f *testing.F) {
	f.Add(`X-Matrix origin="a.org",destination="b.org",key="ed25519:k1",sig="abc"`)
	f.Add(`x-matrix origin=a.org:1 , , destination="\b.org" ,key=ed25519:k1,sig=abc,x="\\\""`)
	f.Fuzz(func(t *testing.T, text string) {
		h, err := ParseHeader(text)
		if err != nil {
			return
		}
		if h.Destination == "" || h.Origin == "" {
			t.Errorf("%q: %+v", text, h)
		}
		if again, err := ParseHeader(h.String()); err != nil || again != h {
			t.Errorf("%q: %+v becomes %+v, %v", text, h, again, err)
		}
	})
}

// No content can change what the object around it says.
func FuzzObject(f *testing.F) {
	f.Add(`{"a":1}`, "/x?y=é")
	f.Add(`{},"origin":"evil.org"`, "/")
	f.Add("", "/\x00\xff")
	f.Fuzz(func(t *testing.T, content, uri string) {
		l := line{Method: "PUT", URI: uri, Origin: "a.org", Destination: "b.org"}
		object, err := l.object([]byte(content))
		if err != nil {
			return
		}
		var got map[string]json.RawMessage
		if err := json.Unmarshal(object, &got); err != nil {
			t.Fatalf("%s: %v", object, err)
		}
		if string(got["origin"]) != `"a.org"` || string(got["destination"]) != `"b.org"` || string(got["method"]) != `"PUT"` || len(got) > 5 {
			t.Errorf("%s", object)
		}
	})
}

func TestPolicy(t *testing.T) {
	all := []matrix.ServerName{"a.org", "A.org:8448", "b.a.org", "c.net", "c.net:1", "[::1]:8448", "xa.org"}
	for _, c := range []struct {
		policy *Policy
		want   string
	}{
		{nil, "a.org A.org:8448 b.a.org c.net c.net:1 [::1]:8448 xa.org"},
		{&Policy{}, "a.org A.org:8448 b.a.org c.net c.net:1 [::1]:8448 xa.org"},
		{&Policy{Closed: true, Allow: []string{"a.org"}}, ""},
		{&Policy{Allow: []string{"a.org"}}, "a.org A.org:8448"},
		{&Policy{Allow: []string{"*.A.org", "c.net:1"}}, "b.a.org c.net:1"},
		{&Policy{Deny: []string{"A.ORG", "[::1]"}}, "b.a.org c.net c.net:1 xa.org"},
		{&Policy{Allow: []string{"c.net", "a.org"}, Deny: []string{"c.net:1"}}, "a.org A.org:8448 c.net"},
	} {
		var got []string
		for _, s := range all {
			if c.policy.Allows(s) {
				got = append(got, string(s))
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %q, want %q", c.policy, got, c.want)
		}
	}
	if err := (&Policy{Allow: []string{"a.org", "*.b.org"}, Deny: []string{"[::1]:5"}}).Check(); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "*", "https://a.org", "a.*", "*a.org"} {
		if (&Policy{Deny: []string{bad}}).Check() == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
