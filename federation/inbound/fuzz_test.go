package inbound_test

import (
	"fmt"
	"testing"

	"github.com/teahouse-chat/teahouse/federation/inbound"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
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
	n := 0
	f.Fuzz(func(t *testing.T, body []byte) {
		n++
		text, err := g.in.Receive(t.Context(), "there", fmt.Sprint("fuzz", n), body)
		if err != nil && matrix.AsError(err).Status >= 500 {
			t.Fatalf("%v", err)
		}
		if err == nil && len(text) < len(`{"pdus":{}}`) {
			t.Fatalf("the answer is %q", text)
		}
		if n%100 == 0 {
			ev := r.say(1)[0]
			if status, answer := g.there.Transact("here", fmt.Sprint("good", n), testrig.JSON{"pdus": []any{rawOf(ev.JSON)}}); status != 200 {
				t.Fatalf("%d %v", status, answer)
			}
			g.until("a good event is there", func() bool { return g.known(ev.ID) != nil })
		}
	})
}
