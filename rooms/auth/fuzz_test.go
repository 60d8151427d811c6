package auth_test

import (
	"bytes"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// FuzzAuth judges any event against any state. Only a *Rejection may come of it,
// the same each time, and what the auth events selection lists must be enough:
// a state of just those events gives the same verdict.
func FuzzAuth(f *testing.F) {
	for i, v := range event.Versions() {
		r := newRoom(f, v)
		var st [][]byte
		for _, e := range r.state {
			st = append(st, e.JSON)
		}
		e := r.build(matrix.TypeMember, func() *string { s := eve; return &s }(), eve,
			`{"membership":"join","join_authorised_via_users_server":"`+bob+`","third_party_invite":{"signed":{"mxid":"a","token":"b","signatures":{}}}}`)
		f.Add(uint8(i), e.JSON, bytes.Join(st, []byte{'\n'}))
	}
	f.Fuzz(func(t *testing.T, version uint8, raw, stateLines []byte) {
		versions := event.Versions()
		v := versions[int(version)%len(versions)]
		e, err := event.Parse(v, raw)
		if err != nil {
			return
		}
		whole := &room{state: map[auth.Key]*event.Event{}}
		for _, line := range bytes.Split(stateLines, []byte{'\n'}) {
			if s, err := event.Parse(v, line); err == nil && s.IsState() {
				whole.state[auth.Key{Type: s.Type, StateKey: s.StateKey()}] = s
			}
		}
		first := auth.Check(e, whole)
		if first != nil {
			verdict(t, v, first)
		}
		selected := &room{state: map[auth.Key]*event.Event{}}
		keys := append(auth.NeededBy(e), auth.Key{Type: matrix.TypeCreate})
		var list []*event.Event
		for _, key := range keys {
			if s := whole.state[key]; s != nil {
				selected.state[key] = s
				list = append(list, s)
			}
		}
		second := auth.Check(e, selected)
		if (first == nil) != (second == nil) || first != nil && first.Error() != second.Error() {
			t.Errorf("the whole state says %v, the selected %v", first, second)
		}
		auth.CheckAuthEvents(e, list, func(matrix.EventID) bool { return false })
		auth.Levels(whole)
	})
}
