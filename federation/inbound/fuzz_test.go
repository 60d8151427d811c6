package inbound_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/federation/inbound"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// FuzzTransaction sends bodies of all kinds: none is a fault of ours, and none
// keeps what comes after it from being taken.
func FuzzTransaction(f *testing.F) {
	var edus counted
	g := newRig(f, "sqlite", func(d *inbound.Deps) { d.EDUs = map[string]inbound.EDUHandler{"m.typing": edus.handle} })
	r := g.found("12")
	old := g.found("1")
	for _, pdu := range []string{string(r.say(1)[0].JSON), string(old.say(1)[0].JSON), `{}`, `null`, `[]`, `{"room_id":7}`, fmt.Sprintf(`{"room_id":%q}`, r.ID)} {
		f.Add([]byte(`{"origin":"there","pdus":[` + pdu + `],"edus":[]}`))
	}
	for _, edu := range []string{`{"edu_type":"m.typing","content":{}}`, `{"edu_type":7}`, `{"edu_type":"m.typing","content":[]}`, `null`, `7`} {
		f.Add([]byte(`{"edus":[` + edu + `]}`))
	}
	f.Add([]byte(`{"pdus":{}}`))
	f.Add([]byte(`{"pdus":null,"edus":null,"x":[[[[]]]]}`))
	good := r.say(500)
	n := 0
	f.Fuzz(func(t *testing.T, body []byte) {
		send := func(body []byte) error {
			n++
			text, err := g.in.Receive(t.Context(), "there", fmt.Sprint("fuzz", n), body)
			if err == nil && len(text) < len(`{"pdus":{}}`) {
				t.Fatalf("the answer is %q", text)
			}
			return err
		}
		if err := send(body); err != nil && matrix.AsError(err).Status >= 500 {
			t.Fatalf("%v", err)
		}
		if n%100 != 0 || len(good) == 0 {
			return
		}
		ev := good[0]
		good = good[1:]
		if err := send(fmt.Appendf(nil, `{"pdus":[%s]}`, ev.JSON)); err != nil {
			t.Fatal(err)
		}
		for begun := time.Now(); ; time.Sleep(time.Millisecond) {
			known, err := g.engine.Known(t.Context(), []matrix.EventID{ev.ID})
			if err != nil || time.Since(begun) > time.Minute {
				t.Fatalf("a good event does not come in: %v", err)
			}
			if known[ev.ID] != nil {
				return
			}
		}
	})
}
