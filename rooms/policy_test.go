package rooms_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// judge is a policy server that refuses what says "spam".
type judge struct {
	server matrix.ServerName
	key    event.SigningKey
	asked  int
	before func() // called before each answer, once
}

func newJudge(t *testing.T, server matrix.ServerName) *judge {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &judge{server: server, key: event.SigningKey{ID: "ed25519:policy_server", Private: private}}
}

func (j *judge) public() string {
	return base64.RawStdEncoding.EncodeToString(j.key.Private.Public().(ed25519.PublicKey))
}

func (j *judge) Sign(_ context.Context, server matrix.ServerName, ev *event.Event) (string, error) {
	j.asked++
	if do := j.before; do != nil {
		j.before = nil
		do()
	}
	var c struct {
		Body string `json:"body"`
	}
	_ = json.Unmarshal(ev.Content, &c)
	if server != j.server || c.Body == "spam" {
		return "", matrix.NewError(400, matrix.CodeForbidden, "It looks like spam")
	}
	signed, err := ev.Sign(server, j.key)
	if err != nil {
		return "", err
	}
	var found struct {
		Signatures map[matrix.ServerName]map[string]string `json:"signatures"`
	}
	err = json.Unmarshal(signed.JSON, &found)
	return found.Signatures[server][j.key.ID], err
}

// policed lets b, which is in the room, decide about its events.
func policed(t *testing.T, version, kind string) (a, b *server, j *judge) {
	t.Helper()
	v, _ := event.Lookup(version)
	a, b, _ = three(t, v, kind)
	j = newJudge(t, "b")
	a.Policy, b.Policy = j, j
	a.send(stateProto(matrix.TypePolicy, "", encode(map[string]any{"via": "b", "public_keys": map[string]any{"ed25519": j.public()}})))
	if j.asked != 0 {
		t.Error("the policy server was asked about m.room.policy itself")
	}
	return a, b, j
}

// A local event goes out with the signature of the policy server, or not at all.
func TestPolicySend(t *testing.T) {
	for _, version := range []string{"1", "6", "12"} {
		t.Run(version, func(t *testing.T) {
			a, _, j := policed(t, version, "sqlite")
			ev := a.say("hello")
			if err := ev.Verify("b", j.key.ID, j.key.Private.Public().(ed25519.PublicKey)); err != nil || j.asked != 1 {
				t.Errorf("asked %d times: %v", j.asked, err)
			}
			_, err := a.Send(t.Context(), a.room, a.user, message("spam"), nil)
			if !matrix.HasCode(err, matrix.CodeForbidden) || matrix.AsError(err).Status != 400 {
				t.Errorf("spam: %v", err)
			}
			// While the policy server thinks, somebody else sends: a fork, which the
			// next event joins.
			j.before = func() { a.say("in between") }
			forked := a.say("slow")
			if forked.PrevEvents[0] != ev.ID {
				t.Errorf("%v is not built on %s", forked.PrevEvents, ev.ID)
			}
			if last := a.say("last"); len(last.PrevEvents) != 2 {
				t.Errorf("built on %v", last.PrevEvents)
			}
			// All events of an update are signed, and committed together.
			events, err := a.Update(t.Context(), a.room, a.user, func(b *rooms.Builder) error {
				for _, topic := range []string{"one", "two"} {
					if _, err := b.Append(stateProto("m.room.topic", "", encode(map[string]any{"topic": topic}))); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil || len(events) != 2 || events[1].PrevEvents[0] != events[0].ID {
				t.Fatalf("%v %v", events, err)
			}
			for _, st := range events {
				if st.Verify("b", j.key.ID, j.key.Private.Public().(ed25519.PublicKey)) != nil || !st.Outgoing {
					t.Errorf("%s is not signed or does not go out", st.ID)
				}
			}
			if got := a.state()[auth.Key{Type: "m.room.topic"}]; got != events[1].ID {
				t.Errorf("the topic is %s", got)
			}
		})
	}
}

// An event of another server that the policy server does not sign is
// soft-failed; one that came without its signature gets it.
func TestPolicyReceive(t *testing.T) {
	a, b, j := policed(t, "11", "sqlite")
	for _, ev := range a.events() {
		b.give(ev.Event)
	}
	make := func(text string) *event.Event {
		t.Helper()
		return b.forge(draft{sender: b.user, typ: matrix.TypeMessage, content: encode(map[string]any{"body": text}), prev: a.extremities(), from: current(a.events()), depth: 20})
	}
	r := a.theRoom()
	for text, flags := range map[string]rooms.Flags{"fine": 0, "spam": rooms.SoftFailed} {
		events, err := a.Recommended(t.Context(), r, []*event.Event{wire(t, make(text))})
		if err != nil {
			t.Fatal(err)
		}
		out := a.give(events[0])[0]
		if out.Event == nil || out.Event.Flags != flags {
			t.Errorf("%s became %+v", text, out)
		}
	}
	if out := a.give(make("unsigned"))[0]; out.Event == nil || out.Event.Flags != rooms.SoftFailed {
		t.Errorf("without a signature: %+v", out)
	}
	// A signature by another key than the room names is as good as none.
	other := newJudge(t, "b")
	signature, err := other.Sign(t.Context(), "b", make("forged"))
	if err != nil {
		t.Fatal(err)
	}
	forged, err := make("forged").AddSignature("b", other.key.ID, signature)
	if err != nil {
		t.Fatal(err)
	}
	if out := a.give(forged)[0]; out.Event == nil || out.Event.Flags != rooms.SoftFailed {
		t.Errorf("with a forged signature: %+v", out)
	}
	// Once the policy server has no user in the room, it has no say.
	leave := b.forge(draft{sender: b.user, typ: matrix.TypeMember, key: (*string)(&b.user), content: `{"membership":"leave"}`, prev: a.extremities(), from: current(a.events()), depth: 30})
	events, err := a.Recommended(t.Context(), r, []*event.Event{wire(t, leave)})
	if err != nil {
		t.Fatal(err)
	}
	a.accept(events[0])
	asked := j.asked
	if a.say("spam"); j.asked != asked {
		t.Error("a policy server was asked that is not in the room")
	}
}

// What m.room.policy says may be nonsense; the room goes on then.
func TestPolicyMalformed(t *testing.T) {
	v, _ := event.Lookup("12")
	a, _, _ := three(t, v, "sqlite")
	for _, content := range []string{
		`{}`, `{"via":"b"}`, `{"via":7,"public_keys":{"ed25519":"x"}}`, `{"via":"b","public_keys":{"ed25519":7}}`,
		`{"via":"not a name!","public_keys":{"ed25519":"x"}}`, `{"via":"b","public_keys":[]}`, `{"via":"elsewhere","public_keys":{"ed25519":"x"}}`,
	} {
		a.send(stateProto(matrix.TypePolicy, "", content))
		a.say("still here")
	}
	// A key that is none signs nothing, so nothing but the setting itself can be sent.
	a.Policy = newJudge(t, "b")
	a.send(stateProto(matrix.TypePolicy, "", `{"via":"b","public_keys":{"ed25519":"AAAA"}}`))
	if _, err := a.Send(t.Context(), a.room, a.user, message("hello"), nil); !matrix.HasCode(err, matrix.CodeForbidden) {
		t.Errorf("%v", err)
	}
	a.send(stateProto(matrix.TypePolicy, "", `{}`))
	a.say("free again")
}
