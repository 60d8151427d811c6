package auth_test

import (
	"fmt"
	"testing"

	gml "github.com/matrix-org/gomatrixserverlib"
	gmlspec "github.com/matrix-org/gomatrixserverlib/spec"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// secondOpinion asks another implementation whether the event is allowed.
func secondOpinion(t *testing.T, e *event.Event, r *room) (err error) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it panics: %v", p)
		}
	}()
	impl := gml.MustGetRoomVersion(gml.RoomVersion(e.Version.ID))
	pdu := func(e *event.Event) gml.PDU {
		p, err := impl.NewEventFromTrustedJSON(e.JSON, false)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	var list []gml.PDU
	for _, key := range auth.NeededBy(e) {
		if s := r.Event(key.Type, key.StateKey); s != nil {
			list = append(list, pdu(s))
		}
	}
	provider, err := gml.NewAuthEvents(list)
	if err != nil {
		return err
	}
	return gml.Allowed(pdu(e), provider, func(_ gmlspec.RoomID, sender gmlspec.SenderID) (*gmlspec.UserID, error) {
		return gmlspec.NewUserID(string(sender), true)
	})
}

// otherwise are the cases in which the other implementation departs from the
// pages, in one version at least, and how.
var otherwise = map[string]string{
	"notifications is a list":          "it looks at notifications before version 6",
	"null":                             "it takes null for zero",
	"aliases without state key":        "it panics",
	"aliases of own server":            "it keeps the aliases rule after version 5",
	"aliases from outside":             "the same",
	"authoriser is no user":            "it leaves that to the signature check",
	"redact":                           "it wants a target",
	"redact with the level lowered":    "the same",
	"join a private room, invited":     "it takes private for invite",
	"join by invite, join rule knock":  "it knows the rule before version 7",
	"join by invite, knock_restricted": "it knows the rule before version 10",
	"knock_restricted join":            "the same",
	"knock, knock_restricted":          "the same",
	"withdraw a knock":                 "it knows the membership before version 7",
	"leave when outside":               "it lets leave follow leave",
	"unban without kick level":         "it asks for the ban level only",
}

func TestSecondOpinion(t *testing.T) {
	differ := map[string]bool{}
	compare := func(name, id, want string, r *room, e *event.Event) {
		err := secondOpinion(t, e, r)
		if (err == nil) == (want == "ok") {
			return
		}
		differ[name] = true
		if otherwise[name] == "" {
			t.Errorf("%s: version %s: %v, we say %s", name, id, err, want)
		}
	}
	second := func(id string) bool { return id != "1" && id != "12" }
	for _, c := range ruleCases {
		for id, want := range wants(t, c.want) {
			if !second(id) {
				continue
			}
			v, _ := event.Lookup(id)
			r := newRoom(t, v)
			if c.setup != nil {
				c.setup(r)
			}
			key := &c.key
			if c.key == msg {
				key = nil
			}
			compare(c.name, id, want, r, r.build(c.typ, key, c.sender, c.content))
		}
	}
	for _, c := range levelCases {
		for id, want := range wants(t, c.want) {
			if second(id) {
				v, _ := event.Lookup(id)
				r := newRoom(t, v)
				r.levelsBefore(c.before)
				compare(c.name, id, want, r, r.build(matrix.TypePowerLevels, new(string), c.sender, r.powers(c.after)))
			}
		}
	}
	for name := range otherwise {
		if !differ[name] {
			t.Errorf("%s: no difference any more", name)
		}
	}
}
