package push

import (
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// Verdict is what the predefined rules say about an event for everybody.
type Verdict struct {
	// Common is the result for everybody but the sender and the Others.
	Common Result
	// Others are the users with a result of their own, never the sender. They need not
	// be members of the room, nor exist.
	Others map[matrix.UserID]Result

	sender matrix.UserID
}

// For returns the result for a user with the predefined rules.
func (v *Verdict) For(user matrix.UserID) Result {
	if user == v.sender {
		return Result{}
	}
	if r, ok := v.Others[user]; ok {
		return r
	}
	return v.Common
}

// everybody has the predefined rules, and nobody's id.
var everybody = compile(&book{}, "")

// Counts tells whether the predefined rules notify of an event everybody who is
// not meant in particular; allowed tells what its sender has the power for.
// spec: client-server#receiving-notifications
func Counts(e *event.Event, allowed func(key string) bool) bool {
	return everybody.on(subjectOf(e, RoomInfo{Allowed: allowed}), "").Notify
}

// judge evaluates the predefined rules for everybody at once.
//
// They tell users apart by two things: whether the event mentions them, and
// whether it is state of theirs. All who are mentioned and nothing else fare
// alike, so that three evaluations are enough.
func judge(s *subject) *Verdict {
	e := s.event
	v := &Verdict{sender: e.Sender}
	result := func(user matrix.UserID) Result {
		for i := range everybody.rules {
			if s.meets(everybody.rules[i].conditions, user, "") {
				return everybody.rules[i].result
			}
		}
		return Result{}
	}
	v.Common = result("")
	var owner matrix.UserID
	if e.IsState() && e.Type == matrix.TypeMember {
		owner = matrix.UserID(e.StateKey())
	}
	var alike *Result
	for user := range s.mentioned() {
		if user == "" || user == owner {
			continue
		}
		if alike == nil {
			r := result(user)
			alike = &r
		}
		v.differs(user, *alike)
	}
	if owner != "" {
		v.differs(owner, result(owner))
	}
	return v
}

func (v *Verdict) differs(user matrix.UserID, r Result) {
	if user == v.sender {
		return
	}
	if v.Others == nil {
		v.Others = make(map[matrix.UserID]Result)
	}
	v.Others[user] = r
}
