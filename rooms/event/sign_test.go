package event

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// spec: appendices#json-signing
func TestJSONSigningVectors(t *testing.T) {
	key := testKey(t)
	for in, want := range map[string]string{
		`{}`:                     `{"signatures":{"domain":{"ed25519:1":"K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"}}}`,
		`{"two":"Two", "one":1}`: `{"one":1,"signatures":{"domain":{"ed25519:1":"KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"}},"two":"Two"}`,
	} {
		got, err := SignJSON([]byte(in), "domain", key)
		if err != nil || string(got) != want {
			t.Errorf("%s signs as %s (%v)", in, got, err)
		}
		if err := VerifyJSON(got, "domain", "ed25519:1", key.public()); err != nil {
			t.Errorf("%s: %v", got, err)
		}
	}
}

// spec: appendices#event-signing
func TestEventSigningVectors(t *testing.T) {
	key := testKey(t)
	for _, c := range []struct{ in, hash, signature string }{
		{
			`{"room_id":"!x:domain","sender":"@a:domain","origin":"domain","origin_server_ts":1000000,"signatures":{},"hashes":{},"type":"X","content":{},"prev_events":[],"auth_events":[],"depth":3,"unsigned":{"age_ts":1000000}}`,
			"5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
			"KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
		},
		{
			`{"content":{"body":"Here is the message content"},"event_id":"$0:domain","origin":"domain","origin_server_ts":1000000,"type":"m.room.message","room_id":"!r:domain","sender":"@u:domain","signatures":{},"unsigned":{"age_ts":1000000}}`,
			"onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
			"Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
		},
	} {
		json, err := Canonical([]byte(c.in))
		if err != nil {
			t.Fatal(err)
		}
		hash := contentHash(json)
		if got := base64.RawStdEncoding.EncodeToString(hash[:]); got != c.hash {
			t.Errorf("content hash %s, want %s", got, c.hash)
		}
		json = setMember(nil, json, "hashes", []byte(`{"sha256":"`+c.hash+`"}`))
		typ, _ := textOf(find(json, "type"))
		json, err = addSignature(json, "domain", key, appendRedacted(nil, version(t, "1"), cut(nil, json, dropUnsigned), typ, false))
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := textOf(find(find(find(json, "signatures"), "domain"), "ed25519:1")); got != c.signature {
			t.Errorf("signature %s, want %s", got, c.signature)
		}
	}
}

// The minimal event of the vectors, signed, through the front door.
func TestParseVectorEvent(t *testing.T) {
	raw := `{"auth_events":[],"content":{},"depth":3,"hashes":{"sha256":"5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"},"origin":"domain","origin_server_ts":1000000,"prev_events":[],"room_id":"!x:domain","sender":"@a:domain","signatures":{"domain":{"ed25519:1":"KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg"}},"type":"X","unsigned":{"age_ts":1000000}}`
	for _, id := range []string{"3", "4", "10"} {
		e, err := Parse(version(t, id), []byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		if !e.ContentHashOK() {
			t.Error("content hash")
		}
		if err := e.Verify("domain", "ed25519:1", testKey(t).public()); err != nil {
			t.Error(err)
		}
	}
	// origin is no longer covered from version 11 on, so the same signature fails.
	e, err := Parse(version(t, "11"), []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Verify("domain", "ed25519:1", testKey(t).public()); !errors.Is(err, ErrBadSignature) {
		t.Errorf("version 11 verified: %v", err)
	}
}

func TestSignAndVerify(t *testing.T) {
	key := testKey(t)
	for _, v := range Versions() {
		e := build(t, v, draft(v, matrix.TypeMessage, `{"body":"x"}`))
		second := SigningKey{ID: "ed25519:zz", Private: key.Private}
		s, err := e.Sign("a.example", second)
		if err != nil {
			t.Fatal(err)
		}
		if s, err = s.Sign("example.org", second); err != nil {
			t.Fatal(err)
		}
		if s.ID != e.ID || s.RoomID != e.RoomID || !s.ContentHashOK() {
			t.Errorf("version %s: a signature changed the event", v.ID)
		}
		if got := s.KeyIDs("example.org"); !slices.Equal(got, []string{"ed25519:1", "ed25519:zz"}) {
			t.Errorf("keys %v", got)
		}
		if got := s.KeyIDs("other.example"); got != nil {
			t.Errorf("keys of a stranger: %v", got)
		}
		for server, ids := range map[matrix.ServerName][]string{"a.example": {"ed25519:zz"}, "example.org": {"ed25519:1", "ed25519:zz"}} {
			for _, id := range ids {
				if err := s.Verify(server, id, key.public()); err != nil {
					t.Errorf("version %s: %s %s: %v", v.ID, server, id, err)
				}
				if err := s.Redact().Verify(server, id, key.public()); err != nil {
					t.Errorf("version %s: redacted: %s %s: %v", v.ID, server, id, err)
				}
			}
		}
		if err := s.Verify("example.org", "ed25519:2", key.public()); !errors.Is(err, ErrNotSigned) {
			t.Errorf("unknown key: %v", err)
		}
		if err := s.Verify("example.org", "ed25519:1", nil); !errors.Is(err, ErrBadSignature) {
			t.Errorf("no public key: %v", err)
		}
		if p, err := Parse(v, s.JSON); err != nil || p.ID != e.ID {
			t.Errorf("version %s: signed event does not parse: %v", v.ID, err)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	v := version(t, "12")
	e := build(t, v, draft(v, matrix.TypeMessage, `{"a":`+quoted(MaxEventBytes-700)+`}`))
	if _, err := e.Sign("example.org", SigningKey{ID: "ed25519:2"}); err == nil {
		t.Error("signed without a key")
	}
	full := e
	for n := range 20 {
		next, err := full.Sign(matrix.ServerName(strings.Repeat("x", n+1)+".example"), testKey(t))
		var format *FormatError
		if errors.As(err, &format) && format.TooLarge {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		full = next
	}
	t.Errorf("signatures made an event of %d bytes", len(full.JSON))
}

// Hashes and signatures in padded base64 count as well.
// spec: appendices#unpadded-base64
func TestPaddedBase64(t *testing.T) {
	v := version(t, "12")
	e := build(t, v, draft(v, matrix.TypeMessage, `{}`))
	signature, _ := textOf(find(find(e.at.signatures.of(e.JSON), "example.org"), "ed25519:1"))
	padded, err := Parse(v, []byte(strings.Replace(string(e.JSON), signature, signature+"==", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if err := padded.Verify("example.org", "ed25519:1", testKey(t).public()); err != nil {
		t.Error(err)
	}
	hash, _ := textOf(find(e.at.hashes.of(e.JSON), "sha256"))
	for text, want := range map[string]bool{hash + "=": true, hash: true, hash[:42]: false, hash + "A": false, strings.Repeat("!", 43): false, "": false} {
		p, err := Parse(v, []byte(strings.Replace(string(e.JSON), `"sha256":"`+hash+`"`, `"sha256":"`+text+`"`, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if p.ContentHashOK() != want {
			t.Errorf("hash %q: %v", text, !want)
		}
	}
}

// Whatever redaction keeps is covered by the signature; the rest by the hash.
func TestTamperingIsNoticed(t *testing.T) {
	for _, v := range Versions() {
		d := draft(v, matrix.TypeMember, `{"membership":"join","displayname":"Alice"}`)
		d.StateKey = ptr("@alice:example.org")
		e := build(t, v, d)
		for old, tampered := range map[string]string{
			`"membership":"join"`: `"membership":"ban"`, `"depth":7`: `"depth":8`, `"origin_server_ts":17`: `"origin_server_ts":16`,
			`"state_key":"@alice`: `"state_key":"@malice`, `"sha256":"`: `"sha1":"`, `"$prev`: `"$drev`,
		} {
			p, err := Parse(v, []byte(strings.Replace(string(e.JSON), old, tampered, 1)))
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Verify("example.org", "ed25519:1", testKey(t).public()); !errors.Is(err, ErrBadSignature) {
				t.Errorf("version %s: %s passed: %v", v.ID, tampered, err)
			}
			if v.EventIDs != IDText && p.ID == e.ID {
				t.Errorf("version %s: %s has the same id", v.ID, tampered)
			}
		}
		p, err := Parse(v, []byte(strings.Replace(string(e.JSON), "Alice", "Malice", 1)))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Verify("example.org", "ed25519:1", testKey(t).public()); err != nil || p.ContentHashOK() || p.ID != e.ID {
			t.Errorf("version %s: altered display name: %v, hash ok %v", v.ID, err, p.ContentHashOK())
		}
		if r := p.Redact(); string(r.JSON) != string(e.Redact().JSON) {
			t.Errorf("version %s: redacting does not undo the alteration", v.ID)
		}
	}
}

func TestSigners(t *testing.T) {
	const via = `"join_authorised_via_users_server":"@helper:via.example"`
	for _, c := range []struct {
		name, versions, content string
		want                    []matrix.ServerName
	}{
		{"plain", "1 2 3 7 12", `{"membership":"join"}`, []matrix.ServerName{"sender.example"}},
		{"third-party invite", "3 12", `{"membership":"invite","third_party_invite":{}}`, nil},
		{"join with a third-party key", "3 12", `{"membership":"join","third_party_invite":{}}`, []matrix.ServerName{"sender.example"}},
		{"restricted join", "8 9 10 11 12", `{"membership":"join",` + via + `}`, []matrix.ServerName{"sender.example", "via.example"}},
		{"restricted join before its time", "1 7", `{"membership":"join",` + via + `}`, []matrix.ServerName{"sender.example"}},
		{"nonsense authoriser", "8", `{"membership":"join","join_authorised_via_users_server":5}`, []matrix.ServerName{"sender.example", ""}},
		{"authorised by the own server", "8", `{"membership":"join","join_authorised_via_users_server":"@x:sender.example"}`, []matrix.ServerName{"sender.example"}},
	} {
		for _, id := range strings.Fields(c.versions) {
			v := version(t, id)
			d := draft(v, matrix.TypeMember, c.content)
			d.Sender, d.StateKey = "@alice:sender.example", ptr("@alice:sender.example")
			e, err := Build(v, d, "origin.example", testKey(t))
			if err != nil {
				t.Fatal(err)
			}
			want := slices.Clone(c.want)
			if v.SignedByIDHost {
				want = append(want, "origin.example")
			}
			if got := e.Signers(); !slices.Equal(got, want) {
				t.Errorf("%s, version %s: %q, want %q", c.name, id, got, want)
			}
		}
	}
}

func TestSignJSONKeepsTheRest(t *testing.T) {
	key := testKey(t)
	in := `{"z":1.5,"unsigned":{"x":1},"signatures":{"a\"b":{"ed25519:9":"old"},"other":{"ed25519:2":"kept"}},"a":-0}`
	got, err := SignJSON([]byte(in), `a"b`, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyJSON(got, `a"b`, key.ID, key.public()); err != nil {
		t.Error(err)
	}
	if ids := SignatureKeyIDs(got, `a"b`); !slices.Equal(ids, []string{"ed25519:1", "ed25519:9"}) {
		t.Errorf("keys %v in %s", ids, got)
	}
	if !strings.Contains(string(got), `"other":{"ed25519:2":"kept"}`) || !strings.Contains(string(got), `"unsigned":{"x":1},"z":1.5}`) {
		t.Errorf("lost something: %s", got)
	}
	altered := strings.Replace(string(got), `"unsigned":{"x":1}`, `"unsigned":{"x":2}`, 1)
	if err := VerifyJSON([]byte(altered), `a"b`, key.ID, key.public()); err != nil {
		t.Errorf("unsigned is covered: %v", err)
	}
	altered = strings.Replace(string(got), `1.5`, `2.5`, 1)
	if err := VerifyJSON([]byte(altered), `a"b`, key.ID, key.public()); !errors.Is(err, ErrBadSignature) {
		t.Errorf("altered object verified: %v", err)
	}
	for _, bad := range []string{`[]`, `{"a":1,"a":1}`, ``} {
		if ids := SignatureKeyIDs([]byte(bad), "x"); ids != nil {
			t.Errorf("%s is signed by %v", bad, ids)
		}
		if _, err := SignJSON([]byte(bad), "x", key); err == nil {
			t.Errorf("signed %s", bad)
		}
		if err := VerifyJSON([]byte(bad), "x", key.ID, key.public()); err == nil {
			t.Errorf("verified %s", bad)
		}
	}
	if _, err := SignJSON([]byte(`{}`), "x", SigningKey{ID: "rsa:1", Private: key.Private}); err == nil {
		t.Error("signed with a key of an unknown algorithm")
	}
}
