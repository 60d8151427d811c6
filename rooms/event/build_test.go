package event

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

func TestRefs(t *testing.T) {
	for _, v := range Versions() {
		a := build(t, v, draft(v, matrix.TypeMessage, `{}`))
		ref := a.Ref()
		if ref.ID != a.ID || ref.Hash == [32]byte{} {
			t.Errorf("version %s: %+v", v.ID, ref)
		}
		d := draft(v, matrix.TypeMessage, `{}`)
		d.PrevEvents, d.AuthEvents = []Ref{ref}, nil
		b := build(t, v, d)
		if len(b.PrevEvents) != 1 || b.PrevEvents[0] != a.ID || len(b.AuthEvents) != 0 {
			t.Errorf("version %s: %+v", v.ID, b)
		}
		// The text ids of versions 1 and 2 come with the same hash that later names an event.
		if l, err := Load(v, a.ID, a.RoomID, a.JSON); err != nil || l.Ref() != ref {
			t.Errorf("version %s: loaded event has another reference: %v", v.ID, err)
		}
		if hasPair := strings.Contains(string(b.JSON), `{"sha256":"`+base64.RawStdEncoding.EncodeToString(ref.Hash[:])+`"}]`); hasPair != (v.EventIDs == IDText) {
			t.Errorf("version %s: %s", v.ID, b.JSON)
		}
	}
}

func TestDraftJSON(t *testing.T) {
	for _, v := range Versions() {
		ref := build(t, v, draft(v, matrix.TypeMessage, `{}`)).Ref()
		d := draft(v, matrix.TypeMember, `{"membership":"join"}`)
		d.StateKey, d.PrevEvents, d.AuthEvents = ptr("@alice:example.org"), []Ref{ref}, []Ref{ref}
		built := map[string]any{}
		if err := json.Unmarshal(build(t, v, d).JSON, &built); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"hashes", "signatures", "event_id"} {
			delete(built, name)
		}
		want, err := json.Marshal(built)
		if got := d.JSON(v); err != nil || string(got) != string(want) {
			t.Errorf("version %s: %s, want %s", v.ID, got, want)
		}
	}
}

func TestCreateNamesItsRoom(t *testing.T) {
	for _, v := range Versions() {
		d := draft(v, matrix.TypeCreate, `{"room_version":"`+v.ID+`"}`)
		d.StateKey, d.PrevEvents, d.AuthEvents = ptr(""), nil, nil
		if !v.RoomIDHash {
			if e := build(t, v, d); e.RoomID != d.RoomID {
				t.Errorf("version %s: room %s", v.ID, e.RoomID)
			}
			continue
		}
		var format *FormatError
		if _, err := Build(v, d, "example.org", testKey(t)); !errors.As(err, &format) {
			t.Errorf("version %s: built a create event with a room id: %v", v.ID, err)
		}
		d.RoomID = ""
		e := build(t, v, d)
		if want := matrix.RoomID("!" + e.ID[1:]); e.RoomID != want || strings.Contains(string(e.JSON), "room_id") {
			t.Errorf("version %s: room %s, want %s", v.ID, e.RoomID, want)
		}
		p, err := Parse(v, e.JSON)
		if err != nil || p.RoomID != e.RoomID || p.Redact().RoomID != e.RoomID {
			t.Errorf("version %s: %v", v.ID, err)
		}
		if got := string(e.AppendClient(nil, ClientFormat{})); !strings.Contains(got, `"room_id":"`+string(e.RoomID)+`"`) {
			t.Errorf("version %s: clients see %s", v.ID, got)
		}
		d.RoomID, d.Type, d.StateKey = "", matrix.TypeMessage, nil
		if _, err := Build(v, d, "example.org", testKey(t)); !errors.As(err, &format) {
			t.Errorf("version %s: built an event without a room: %v", v.ID, err)
		}
	}
}

func TestEventIDForms(t *testing.T) {
	for _, v := range Versions() {
		for n := range 40 {
			id := string(build(t, v, draft(v, matrix.TypeMessage, fmt.Sprintf(`{"n":%d}`, n))).ID)
			var ok bool
			switch v.EventIDs {
			case IDText:
				ok = strings.HasSuffix(id, ":example.org")
			case IDBase64:
				ok = len(id) == hashIDBytes && !strings.ContainsAny(id, "-_")
			case IDURL:
				ok = len(id) == hashIDBytes && !strings.ContainsAny(id, "+/")
			}
			if !ok || id[0] != '$' {
				t.Errorf("version %s: id %s", v.ID, id)
			}
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	for name, change := range map[string]func(*Draft){
		"content not object": func(d *Draft) { d.Content = json.RawMessage(`[]`) },
		"content not JSON":   func(d *Draft) { d.Content = json.RawMessage(`{`) },
		"no content":         func(d *Draft) { d.Content = nil },
		"float":              func(d *Draft) { d.Content = json.RawMessage(`{"a":1.5}`) },
		"long type":          func(d *Draft) { d.Type = strings.Repeat("x", 256) },
		"bad UTF-8 in type":  func(d *Draft) { d.Type = "\xff" },
		"NUL in type":        func(d *Draft) { d.Type = "\x00" },
		"long state key":     func(d *Draft) { d.StateKey = ptr(strings.Repeat("x", 256)) },
		"bad state key":      func(d *Draft) { d.StateKey = ptr("\xc3") },
		"NUL in state key":   func(d *Draft) { d.StateKey = ptr("a\x00") },
		"sender":             func(d *Draft) { d.Sender = "alice" },
		"room":               func(d *Draft) { d.RoomID = "room" },
		"negative depth":     func(d *Draft) { d.Depth = -1 },
		"negative time":      func(d *Draft) { d.OriginServerTS = -1 },
		"late":               func(d *Draft) { d.OriginServerTS = 1 << 53 },
		"many prev":          func(d *Draft) { d.PrevEvents = slices.Repeat(d.PrevEvents, 21) },
		"many auth":          func(d *Draft) { d.AuthEvents = slices.Repeat(d.AuthEvents, 11) },
		"no ref":             func(d *Draft) { d.PrevEvents = []Ref{{}} },
		"too big":            func(d *Draft) { d.Content = json.RawMessage(`{"a":` + quoted(MaxEventBytes-10) + `}`) },
	} {
		for _, v := range Versions() {
			if !v.StrictJSON {
				continue
			}
			d := draft(v, "m.x", `{}`)
			change(&d)
			var format *FormatError
			if e, err := Build(v, d, "example.org", testKey(t)); !errors.As(err, &format) {
				t.Errorf("version %s: %s: built %s (%v)", v.ID, name, e.JSON, err)
			}
		}
	}
	v := version(t, "12")
	d := draft(v, "m.x", `{}`)
	d.Depth = 1 << 60
	if e := build(t, v, d); e.Depth != MaxDepth {
		t.Errorf("depth %d", e.Depth)
	}
	if _, err := Build(v, d, "example.org", SigningKey{ID: "ed25519:1"}); err == nil {
		t.Error("built without a key")
	}
}
