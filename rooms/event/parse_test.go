package event

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// pdu is a well-formed event of a version with some members replaced (a value)
// or removed (an empty text).
func pdu(v *Version, change map[string]string) []byte {
	m := map[string]string{
		"type": `"m.room.message"`, "sender": `"@a:example.org"`, "room_id": `"!r:example.org"`, "content": `{}`,
		"depth": `5`, "origin_server_ts": `6`, "hashes": `{"sha256":"x"}`, "signatures": `{}`,
		"prev_events": `["$p"]`, "auth_events": `["$a","$b"]`,
	}
	if v.EventIDs == IDText {
		m["event_id"] = `"$e:example.org"`
		m["prev_events"] = `[["$p:x",{"sha256":"y"}]]`
		m["auth_events"] = `[["$a:x",{}],["$b:x",{"sha256":"z"}]]`
	}
	if v.RoomIDHash {
		m["room_id"] = `"!` + strings.Repeat("b", 43) + `"`
	}
	for key, value := range change {
		if m[key] = value; value == "" {
			delete(m, key)
		}
	}
	var b strings.Builder
	for key, value := range m {
		fmt.Fprintf(&b, `,%q:%s`, key, value)
	}
	return []byte("{" + b.String()[1:] + "}")
}

func quoted(n int) string { return `"` + strings.Repeat("x", n) + `"` }

func list(n int, id string) string {
	return "[" + strings.TrimSuffix(strings.Repeat(id+",", n), ",") + "]"
}

func TestParseAccepts(t *testing.T) {
	for _, v := range Versions() {
		ref := `"$p"`
		if v.EventIDs == IDText {
			ref = `["$p:x",{}]`
		}
		for name, change := range map[string]map[string]string{
			"plain":              nil,
			"empty lists":        {"prev_events": `[]`, "auth_events": `[]`},
			"full lists":         {"prev_events": list(20, ref), "auth_events": list(10, ref)},
			"long type":          {"type": quoted(255)},
			"long state key":     {"state_key": quoted(255)},
			"historical sender":  {"sender": `"@Älice #1:example.org"`},
			"empty localpart":    {"sender": `"@:example.org"`},
			"largest safe depth": {"depth": `9007199254740991`},
			"zero":               {"depth": `0`, "origin_server_ts": `0`},
			"unknown members":    {"zzz": `[1]`, "aaa": `{"b":null}`, "age_ts": `5`, "prev_state": `[]`},
			"unsigned":           {"unsigned": `{"age":1}`},
			"odd unsigned":       {"unsigned": `"x"`},
			"signature junk":     {"signatures": `{"x":5,"y":{"ed25519:1":5}}`},
		} {
			e, err := Parse(v, pdu(v, change))
			if err != nil {
				t.Errorf("version %s: %s: %v", v.ID, name, err)
				continue
			}
			if strings.Contains(string(e.JSON), "unsigned") {
				t.Errorf("version %s: unsigned kept", v.ID)
			}
			if ok, err := check(e.JSON, v.StrictJSON); !ok {
				t.Errorf("version %s: %s: not canonical (%v): %s", v.ID, name, err, e.JSON)
			}
			if e.ContentHashOK() {
				t.Errorf("version %s: %s: content hash of nothing accepted", v.ID, name)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	type change = map[string]string
	all := map[string]change{
		"type missing": {"type": ""}, "type not text": {"type": `5`}, "type too long": {"type": quoted(256)}, "NUL in type": {"type": `"a\u0000"`},
		"sender missing": {"sender": ""}, "sender not text": {"sender": `null`}, "sender grammar": {"sender": `"alice"`},
		"sender without server": {"sender": `"@alice"`}, "sender's server": {"sender": `"@alice:exa mple"`}, "NUL in sender": {"sender": `"@a\u0000:example.org"`},
		"sender too long":     {"sender": `"@` + strings.Repeat("x", 250) + `:a.bc"`},
		"state key null":      {"state_key": `null`},
		"state key number":    {"state_key": `1`},
		"state key long":      {"state_key": quoted(256)},
		"wide state key long": {"state_key": `"` + strings.Repeat("é", 256) + `"`}, "wide type too long": {"type": `"` + strings.Repeat("é", 256) + `"`},
		"NUL in state key": {"state_key": `"\u0000"`},
		"room id missing":  {"room_id": ""}, "room id not text": {"room_id": `{}`}, "room id sigil": {"room_id": `"#r:example.org"`},
		"room id empty": {"room_id": `"!"`}, "room id's server": {"room_id": `"!r:[::1]8448"`}, "NUL in room id": {"room_id": `"!\u0000:example.org"`},
		"content missing": {"content": ""}, "content text": {"content": `"{}"`}, "content array": {"content": `[]`}, "content null": {"content": `null`},
		"hashes missing": {"hashes": ""}, "hashes text": {"hashes": `"x"`}, "signatures missing": {"signatures": ""}, "signatures array": {"signatures": `[]`},
		"depth missing": {"depth": ""}, "depth text": {"depth": `"5"`}, "depth negative": {"depth": `-1`}, "depth float": {"depth": `1.5`},
		"depth huge": {"depth": `9223372036854775808`}, "depth null": {"depth": `null`}, "depth array": {"depth": `[1]`},
		"time missing": {"origin_server_ts": ""}, "time text": {"origin_server_ts": `"6"`}, "time negative": {"origin_server_ts": `-6`},
		"time huge": {"origin_server_ts": `92233720368547758080`}, "time float": {"origin_server_ts": `1e400`},
		"prev missing": {"prev_events": ""}, "prev object": {"prev_events": `{}`}, "prev numbers": {"prev_events": `[1]`}, "prev null": {"prev_events": `[null]`},
		"auth missing": {"auth_events": ""}, "auth text": {"auth_events": `"$a"`}, "auth nested": {"auth_events": `[["$a"]]`},
		"too big":      {"content": `{"b":` + quoted(MaxEventBytes) + `}`},
		"float in old": {"content": `{"a":1.}`},
	}
	some := map[string]struct {
		when   func(*Version) bool
		change change
	}{
		"state key long, by byte": {strictSize, change{"state_key": `"` + strings.Repeat("é", 128) + `"`}},
		"too many prev":           {hashed, change{"prev_events": list(21, `"$p"`)}}, "too many auth": {hashed, change{"auth_events": list(11, `"$p"`)}},
		"too many prev pairs": {texts, change{"prev_events": list(21, `["$p:x",{}]`)}}, "too many auth pairs": {texts, change{"auth_events": list(11, `["$p:x",{}]`)}},
		"pairs": {hashed, change{"prev_events": `[["$p:x",{}]]`}}, "ref sigil": {hashed, change{"auth_events": `["p"]`}}, "empty ref": {hashed, change{"prev_events": `["$"]`}},
		"long ref": {hashed, change{"prev_events": `["$` + strings.Repeat("x", 255) + `"]`}}, "NUL in ref": {hashed, change{"auth_events": `["$\u0000"]`}},
		"no pairs": {texts, change{"prev_events": `["$p:x"]`}}, "short pair": {texts, change{"prev_events": `[["$p:x"]]`}}, "empty pair": {texts, change{"prev_events": `[[]]`}},
		"long pair": {texts, change{"prev_events": `[["$p:x",{},1]]`}}, "pair without object": {texts, change{"prev_events": `[["$p:x","h"]]`}},
		"pair of number": {texts, change{"auth_events": `[[1,{}]]`}},
		"no event id":    {texts, change{"event_id": ""}}, "event id not text": {texts, change{"event_id": `1`}}, "event id without server": {texts, change{"event_id": `"$e"`}},
		"event id's server": {texts, change{"event_id": `"$e:"`}}, "event id sigil": {texts, change{"event_id": `"e:x"`}}, "event id long": {texts, change{"event_id": `"$` + strings.Repeat("e", 254) + `:x"`}},
		"redacts not text": {func(v *Version) bool { return !v.RedactsInContent }, change{"redacts": `5`}},
		"no server":        {func(v *Version) bool { return !v.RoomIDHash }, change{"room_id": `"!r"`}},
		"server":           {func(v *Version) bool { return v.RoomIDHash }, change{"room_id": `"!r:example.org"`}},
		"short hash":       {func(v *Version) bool { return v.RoomIDHash }, change{"room_id": `"!` + strings.Repeat("b", 42) + `"`}},
		"alphabet":         {func(v *Version) bool { return v.RoomIDHash }, change{"room_id": `"!` + strings.Repeat("b", 42) + `+"`}},
		"create with room": {func(v *Version) bool { return v.RoomIDHash }, change{"type": `"m.room.create"`, "state_key": `""`}},
		"create, no state": {func(v *Version) bool { return v.RoomIDHash }, change{"type": `"m.room.create"`, "room_id": ""}},
		"create, odd key":  {func(v *Version) bool { return v.RoomIDHash }, change{"type": `"m.room.create"`, "room_id": "", "state_key": `"x"`}},
		"deep, strict":     {strictJSON, change{"depth": `9007199254740992`}}, "late, strict": {strictJSON, change{"origin_server_ts": `9007199254740992`}},
		"float": {strictJSON, change{"content": `{"a":1.0}`}}, "exponent": {strictJSON, change{"content": `{"a":1e1}`}}, "-0": {strictJSON, change{"content": `{"a":-0}`}},
		"integer": {strictJSON, change{"content": `{"a":9007199254740992}`}}, "float in unsigned": {strictJSON, change{"unsigned": `{"a":1.0}`}},
	}
	refuse := func(v *Version, name string, raw []byte) {
		t.Helper()
		var format *FormatError
		if e, err := Parse(v, raw); !errors.As(err, &format) {
			t.Errorf("version %s: %s: parsed as %+v (%v)", v.ID, name, e, err)
		} else if format.TooLarge != (name == "too big" || strings.HasSuffix(name, "too long") && name != "sender too long" || strings.Contains(name, "state key long")) {
			t.Errorf("version %s: %s: TooLarge is %v: %v", v.ID, name, format.TooLarge, err)
		}
	}
	for _, v := range Versions() {
		for name, c := range all {
			refuse(v, name, pdu(v, c))
		}
		for name, c := range some {
			if c.when(v) {
				refuse(v, name, pdu(v, c.change))
			}
		}
		good := string(pdu(v, nil))
		refuse(v, "array", []byte("["+good+"]"))
		refuse(v, "text", []byte(`"x"`))
		refuse(v, "nothing", nil)
		refuse(v, "cut off", []byte(good[:len(good)-1]))
		refuse(v, "duplicate", []byte(good[:len(good)-1]+`,"type":"x"}`))
		refuse(v, "escaped duplicate", []byte(good[:len(good)-1]+`,"\u0074ype":"x"}`))
		refuse(v, "nested duplicate", pdu(v, change{"content": `{"a":{"b":1,"c":2,"b":1}}`}))
		refuse(v, "nesting", pdu(v, change{"content": `{"a":` + strings.Repeat("[", 10000) + strings.Repeat("]", 10000) + `}`}))
		refuse(v, "bad UTF-8", pdu(v, change{"content": "{\"a\":\"\xff\"}"}))
		refuse(v, "lone surrogate", pdu(v, change{"content": `{"a":"\ud800"}`}))
	}
}

func hashed(v *Version) bool     { return v.EventIDs != IDText }
func texts(v *Version) bool      { return v.EventIDs == IDText }
func strictJSON(v *Version) bool { return v.StrictJSON }
func strictSize(v *Version) bool { return v.StrictSize }

// Some servers counted the characters of fields in versions before 11: what they
// made is part of those rooms, and is not made here.
func TestWideFields(t *testing.T) {
	wide := strings.Repeat("é", 255)
	for _, v := range Versions() {
		for _, field := range []string{"type", "state_key"} {
			if _, err := Parse(v, pdu(v, map[string]string{field: `"` + wide + `"`})); (err == nil) == v.StrictSize {
				t.Errorf("version %s: %s: %v", v.ID, field, err)
			}
			d := draft(v, "m.x", `{}`)
			if field == "type" {
				d.Type = wide
			} else {
				d.StateKey = &wide
			}
			var format *FormatError
			if _, err := Build(v, d, "example.org", testKey(t)); !errors.As(err, &format) || !format.TooLarge {
				t.Errorf("version %s: built with a wide %s: %v", v.ID, field, err)
			}
		}
	}
}

// The limit counts bytes of the canonical form, however the event was sent.
func TestSizeIsOfTheCanonicalForm(t *testing.T) {
	v := version(t, "10")
	empty, err := Parse(v, pdu(v, map[string]string{"content": `{"b":""}`}))
	if err != nil {
		t.Fatal(err)
	}
	room := MaxEventBytes - len(empty.JSON)
	fits := strings.Repeat(`\u0061`, room) // six bytes sent, one byte counted
	e, err := Parse(v, pdu(v, map[string]string{"content": `{"b":"` + fits + `"}`, "unsigned": quoted(MaxEventBytes)}))
	if err != nil || len(e.JSON) != MaxEventBytes {
		t.Fatalf("an event of exactly %d bytes was refused: %v", MaxEventBytes, err)
	}
	var format *FormatError
	if _, err := Parse(v, pdu(v, map[string]string{"content": `{"b":"` + fits + `a"}`})); !errors.As(err, &format) || !format.TooLarge {
		t.Errorf("one byte more: %v", err)
	}
}

func TestOldRoomsKeepTheirNumbers(t *testing.T) {
	for _, v := range Versions() {
		if v.StrictJSON {
			continue
		}
		e, err := Parse(v, pdu(v, map[string]string{
			"depth": `9223372036854775807`, "origin_server_ts": `9223372036854775807`, "content": `{"b":0.50,"a":123456789012345678901234567890}`,
		}))
		if err != nil {
			t.Fatalf("version %s: %v", v.ID, err)
		}
		if e.Depth != MaxDepth || e.OriginServerTS != 9223372036854775807 || string(e.Content) != `{"a":123456789012345678901234567890,"b":0.50}` ||
			!strings.Contains(string(e.JSON), `"depth":9223372036854775807`) {
			t.Errorf("version %s: %d %d %s", v.ID, e.Depth, e.OriginServerTS, e.JSON)
		}
	}
}

func TestParseDecodes(t *testing.T) {
	v := version(t, "11")
	e, err := Parse(v, pdu(v, map[string]string{
		"type": `"m.room.\u006Dember"`, "state_key": `"a\"\n\ud83d\ude00"`, "content": `{"x":1, "membership":"kn\u006fck"}`, "sender": `"@\u00e9\\:example.org"`,
	}))
	if err != nil {
		t.Fatal(err)
	}
	if e.Type != "m.room.member" || e.StateKey() != "a\"\n😀" || *e.StateKeyPtr() != e.StateKey() || !e.IsState() ||
		e.Sender != `@é\:example.org` || e.Membership() != "knock" {
		t.Errorf("%+v", e)
	}
	if !slices.Equal(e.AuthEvents, []matrix.EventID{"$a", "$b"}) || !slices.Equal(e.PrevEvents, []matrix.EventID{"$p"}) {
		t.Errorf("%v %v", e.AuthEvents, e.PrevEvents)
	}
	m, err := Parse(v, pdu(v, map[string]string{"content": `{"membership":"join"}`}))
	if err != nil || m.IsState() || m.StateKeyPtr() != nil || m.StateKey() != "" || m.Is(m.Type, "") || m.Membership() != "" {
		t.Errorf("message event: %+v, %v", m, err)
	}
}

func TestParseKeepsCanonicalBytes(t *testing.T) {
	v := version(t, "12")
	raw := build(t, v, draft(v, matrix.TypeMessage, `{"body":"x"}`)).JSON
	e, err := Parse(v, raw)
	if err != nil || &e.JSON[0] != &raw[0] {
		t.Errorf("canonical bytes were copied (%v)", err)
	}
	if allocs := testing.AllocsPerRun(100, func() { _, _ = Parse(v, raw) }); allocs > 4 {
		t.Errorf("%v allocations to parse, hash and name an event", allocs)
	}
}

func TestLoadNoticesDamage(t *testing.T) {
	v := version(t, "12")
	whole := build(t, v, draft(v, matrix.TypeMessage, `{"body":"x"}`)).JSON
	for n := range len(whole) {
		// Some prefixes still hold all fields; none may panic.
		_, _ = Load(v, "$x", "!x", whole[:n])
	}
	if _, err := Load(v, "$x", "!x", whole[:len(whole)/2]); err == nil {
		t.Error("half an event loaded")
	}
	if _, err := Load(v, "$x", "!x", nil); err == nil {
		t.Error("nothing loaded")
	}
}

func TestMemo(t *testing.T) {
	e := &Event{}
	n := 0
	for range 3 {
		if got := e.Memo(func() any { n++; return n }); got != 1 {
			t.Errorf("memo %v", got)
		}
	}
	// A racing first caller loses to the one that stored first.
	race := &Event{}
	got := race.Memo(func() any {
		race.Memo(func() any { return "first" })
		return "second"
	})
	if got != "first" {
		t.Errorf("memo %v", got)
	}
}
