package event

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

func clientKeys(t *testing.T, raw []byte) []string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return slices.Sorted(maps.Keys(m))
}

func TestAppendClient(t *testing.T) {
	everything := map[string]string{
		"state_key": `""`, "origin": `"o"`, "membership": `"join"`, "redacts": `"$x:y"`, "unknown": `1`, "unsigned": `{"age":1}`, "user_id": `"@x:y"`,
	}
	for _, v := range Versions() {
		e, err := Parse(v, pdu(v, everything))
		if err != nil {
			t.Fatal(err)
		}
		got := clientKeys(t, e.AppendClient(nil, ClientFormat{}))
		if want := strings.Fields("content event_id origin_server_ts room_id sender state_key type"); !slices.Equal(got, want) {
			t.Errorf("version %s: clients see %v", v.ID, got)
		}
		got = clientKeys(t, e.AppendClient(nil, ClientFormat{OmitRoomID: true, Unsigned: []byte(`{"age":7}`)}))
		if want := strings.Fields("content event_id origin_server_ts sender state_key type unsigned"); !slices.Equal(got, want) {
			t.Errorf("version %s: clients see %v", v.ID, got)
		}
		out := string(e.AppendClient([]byte("x"), ClientFormat{Unsigned: []byte(`{}`)}))
		if want := `x{"content":{},"event_id":"` + string(e.ID) + `","origin_server_ts":6,"room_id":"` + string(e.RoomID) +
			`","sender":"@a:example.org","state_key":"","type":"m.room.message","unsigned":{}}`; out != want {
			t.Errorf("version %s:\n%s\n%s", v.ID, out, want)
		}
	}
}

func TestClientsSeeRedactsTwice(t *testing.T) {
	for _, v := range Versions() {
		for _, content := range []string{`{}`, `{"reason":"x"}`, `{"redacts":"$decoy"}`, `{"a":1,"redacts":5,"z":2}`} {
			d := draft(v, matrix.TypeRedaction, content)
			d.Redacts = "$tar\"get"
			raw := build(t, v, d).AppendClient(nil, ClientFormat{})
			var e struct {
				Redacts string
				Content struct{ Redacts string }
			}
			if err := json.Unmarshal(raw, &e); err != nil {
				t.Fatal(err)
			}
			if e.Redacts != "$tar\"get" || e.Content.Redacts != e.Redacts || strings.Count(string(raw), "redacts") != 2 {
				t.Errorf("version %s: %s", v.ID, raw)
			}
		}
		// After redaction of an old redaction nothing is left to show.
		d := draft(v, matrix.TypeRedaction, `{}`)
		d.Redacts = "$x"
		if got := string(build(t, v, d).Redact().AppendClient(nil, ClientFormat{})); strings.Contains(got, "redacts") != v.RedactsInContent {
			t.Errorf("version %s: %s", v.ID, got)
		}
	}
}

func TestAppendClientAllocatesNothing(t *testing.T) {
	v := version(t, "12")
	e := build(t, v, draft(v, matrix.TypeMessage, `{"body":"x"}`))
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { buf = e.AppendClient(buf[:0], ClientFormat{Unsigned: []byte(`{}`)}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
