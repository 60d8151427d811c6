package event

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// fataler is a test of the testing package or of rapid.
type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// testKey is the key of the specification's test vectors.
// spec: appendices#cryptographic-test-vectors
func testKey(t fataler) SigningKey {
	t.Helper()
	seed, err := base64.RawStdEncoding.DecodeString("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
	if err != nil {
		t.Fatal(err)
	}
	return SigningKey{ID: "ed25519:1", Private: ed25519.NewKeyFromSeed(seed)}
}

func (k SigningKey) public() ed25519.PublicKey { return k.Private.Public().(ed25519.PublicKey) }

func version(t testing.TB, id string) *Version {
	t.Helper()
	v, ok := Lookup(id)
	if !ok {
		t.Fatalf("no room version %s", id)
	}
	return v
}

func ptr(s string) *string { return &s }

// draft is a draft of an ordinary event that every version takes.
func draft(v *Version, typ, content string) Draft {
	d := Draft{
		RoomID: "!room:example.org", Type: typ, Sender: "@alice:example.org",
		Content: json.RawMessage(content), Depth: 7, OriginServerTS: 1700000000000,
		PrevEvents: []Ref{{ID: "$prev:example.org"}}, AuthEvents: []Ref{{ID: "$auth:example.org"}},
	}
	if v.RoomIDHash {
		d.RoomID = matrix.RoomID("!" + strings.Repeat("A", 43))
	}
	return d
}

func build(t testing.TB, v *Version, d Draft) *Event {
	t.Helper()
	e, err := Build(v, d, "example.org", testKey(t))
	if err != nil {
		t.Fatalf("version %s: %v", v.ID, err)
	}
	return e
}

func TestBuildParseAndLoadAgree(t *testing.T) {
	for _, v := range Versions() {
		t.Run(v.ID, func(t *testing.T) {
			d := draft(v, matrix.TypeMember, `{"membership":"join","displayname":"A\u00e9 <\u2028> \" \\ \u0001"}`)
			d.StateKey = ptr("@alice:example.org")
			e := build(t, v, d)
			p, err := Parse(v, e.JSON)
			if err != nil {
				t.Fatal(err)
			}
			l, err := Load(v, e.ID, e.RoomID, e.JSON)
			if err != nil {
				t.Fatal(err)
			}
			for name, x := range map[string]*Event{"built": e, "parsed": p, "loaded": l} {
				if x.ID != e.ID || x.RoomID != d.RoomID || x.Type != d.Type || x.Sender != d.Sender || x.Depth != 7 ||
					x.OriginServerTS != d.OriginServerTS || !x.Is(matrix.TypeMember, "@alice:example.org") ||
					x.Membership() != "join" || string(x.JSON) != string(e.JSON) || string(x.Content) != string(e.Content) ||
					len(x.PrevEvents) != 1 || x.PrevEvents[0] != "$prev:example.org" ||
					len(x.AuthEvents) != 1 || x.AuthEvents[0] != "$auth:example.org" {
					t.Errorf("%s event differs: %+v", name, x)
				}
				if !x.ContentHashOK() {
					t.Errorf("%s event: bad content hash", name)
				}
				if err := x.Verify("example.org", "ed25519:1", testKey(t).public()); err != nil {
					t.Errorf("%s event: %v", name, err)
				}
				if !json.Valid(x.AppendClient(nil, ClientFormat{})) {
					t.Errorf("%s event: client form is not JSON", name)
				}
			}
			again := build(t, v, d)
			if again.ID != e.ID || string(again.JSON) != string(e.JSON) {
				t.Error("the same draft gave another event")
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	v := version(b, "12")
	d := draft(v, matrix.TypeMessage, `{"body":"`+strings.Repeat("hello world ", 8)+`","msgtype":"m.text"}`)
	d.PrevEvents[0].ID = matrix.EventID("$" + strings.Repeat("b", 43))
	d.AuthEvents = []Ref{d.PrevEvents[0], d.PrevEvents[0]}
	raw := build(b, v, d).JSON
	b.Run("canonical", func(b *testing.B) { benchmarkParse(b, v, raw) })
	b.Run("unsigned", func(b *testing.B) {
		benchmarkParse(b, v, append(append([]byte(nil), raw[:len(raw)-1]...), `,"unsigned":{"age":5}}`...))
	})
	var loose map[string]any
	if err := json.Unmarshal(raw, &loose); err != nil {
		b.Fatal(err)
	}
	indented, _ := json.MarshalIndent(loose, "", " ")
	b.Run("indented", func(b *testing.B) { benchmarkParse(b, v, indented) })
	b.Run("load", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Load(v, "$x", "!x", raw); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchmarkParse(b *testing.B, v *Version, raw []byte) {
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		e, err := Parse(v, raw)
		if err != nil || !e.ContentHashOK() {
			b.Fatal(err)
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	v, key := version(b, "12"), testKey(b)
	d := draft(v, matrix.TypeMessage, `{"msgtype":"m.text","body":"`+strings.Repeat("hello world ", 8)+`"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Build(v, d, "example.org", key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendClient(b *testing.B) {
	v := version(b, "12")
	e := build(b, v, draft(v, matrix.TypeMessage, `{"msgtype":"m.text","body":"hello"}`))
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendClient(buf[:0], ClientFormat{})
	}
}
