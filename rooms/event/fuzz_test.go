package event

import (
	"encoding/json"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

func FuzzParse(f *testing.F) {
	for i, v := range Versions() {
		f.Add(uint8(i), pdu(v, nil))
		f.Add(uint8(i), pdu(v, map[string]string{"type": `"m.room.redaction"`, "content": `{"redacts":"$x"}`, "redacts": `"$x"`, "unsigned": `{}`}))
		f.Add(uint8(i), pdu(v, map[string]string{"type": `"m.room.create"`, "state_key": `""`, "room_id": ""}))
		f.Add(uint8(i), pdu(v, map[string]string{"type": `"m.room.member"`, "content": `{"membership":"invite","third_party_invite":{"signed":{}}}`}))
		f.Add(uint8(i), []byte(build(f, v, draft(v, matrix.TypeMessage, `{"body":"\ud83d\ude00"}`)).JSON))
	}
	f.Fuzz(func(t *testing.T, n uint8, raw []byte) {
		v := Versions()[int(n)%len(versions)]
		e, err := Parse(v, raw)
		if err != nil {
			return
		}
		if len(e.JSON) > MaxEventBytes {
			t.Fatalf("an event of %d bytes", len(e.JSON))
		}
		checkInvariants(t, e)
	})
}

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{
		`{"b":[1,-0,1e3,0.5],"a":{"\u0041":"\ud83d\ude00\/\u000b"}}`, ` [ ] `, `"\u0000"`, `{"a":1,"\u0061":2}`, `-9007199254740991`, `{"":{}}`, `[[[{}]]]`, "\"\xff\"",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, strict := range []bool{true, false} {
			out, err := canonicalise(raw, strict)
			if err != nil {
				continue
			}
			if !json.Valid(raw) || !json.Valid(out) {
				t.Fatalf("took %q as %q", raw, out)
			}
			again, err := canonicalise(out, strict)
			if err != nil || &again[0] != &out[0] {
				t.Fatalf("%q is not stable: %q, %v", out, again, err)
			}
			var a, b any
			if json.Unmarshal(raw, &a) == nil && json.Unmarshal(out, &b) == nil {
				x, _ := json.Marshal(a)
				y, _ := json.Marshal(b)
				if string(x) != string(y) && string(x) != "-0" && strict {
					t.Fatalf("%q means %s, but %q means %s", raw, x, out, y)
				}
			}
		}
	})
}

// FuzzRedact feeds contents, so that the fuzzer spends its time behind the
// checks of the envelope.
func FuzzRedact(f *testing.F) {
	types := []string{
		matrix.TypeMember, matrix.TypeCreate, matrix.TypeJoinRules, matrix.TypePowerLevels, matrix.TypeAliases,
		matrix.TypeHistoryVisibility, matrix.TypeRedaction, matrix.TypeMessage,
	}
	for i := range 12 * len(types) {
		f.Add(uint8(i), []byte(`{"membership":"join","third_party_invite":{"signed":{"a":[]}},"users":{},"redacts":"$x","creator":"","allow":[],"aliases":[1]}`))
	}
	f.Fuzz(func(t *testing.T, n uint8, content []byte) {
		v := Versions()[int(n)%len(versions)]
		typ := types[int(n)/len(versions)%len(types)]
		change := map[string]string{"type": `"` + typ + `"`, "content": string(content), "state_key": `""`}
		if v.RoomIDHash && typ == matrix.TypeCreate {
			change["room_id"] = ""
		}
		if e, err := Parse(v, pdu(v, change)); err == nil {
			checkInvariants(t, e)
		}
	})
}
