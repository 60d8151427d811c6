package auth_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// The people of the test room. Alice created it.
const (
	alice = "@alice:a.example"
	adam  = "@adam:a.example" // power 100
	mod   = "@mod:a.example"  // power 50
	bob   = "@bob:b.example"  // joined
	carol = "@carol:b.example"
	dave  = "@dave:b.example"
	kate  = "@kate:b.example"
	eve   = "@eve:e.example" // never seen
)

var testKey = event.SigningKey{ID: "ed25519:test", Private: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}

// room is a room state to judge events against.
type room struct {
	t      testing.TB
	v      *event.Version
	create *event.Event
	state  map[auth.Key]*event.Event
	last   *event.Event
	n      int64
}

func (r *room) Event(typ, stateKey string) *event.Event {
	return r.state[auth.Key{Type: typ, StateKey: stateKey}]
}

// newRoom is a room of the version with all its people; carol is invited, dave
// banned, kate knocks where one can.
func newRoom(t testing.TB, v *event.Version) *room {
	t.Helper()
	r := &room{t: t, v: v, state: map[auth.Key]*event.Event{}}
	content := fmt.Sprintf(`{"room_version":%q}`, v.ID)
	if v.CreatorInContent {
		content = fmt.Sprintf(`{"room_version":%q,"creator":%q}`, v.ID, alice)
	}
	r.create = r.put(matrix.TypeCreate, "", alice, content)
	for _, user := range []string{alice, adam, mod, bob} {
		r.member(user, matrix.MembershipJoin)
	}
	r.member(carol, matrix.MembershipInvite)
	r.member(dave, matrix.MembershipBan)
	if v.Knocking {
		r.member(kate, matrix.MembershipKnock)
	}
	r.levels(`{}`)
	r.joinRule(matrix.JoinInvite)
	return r
}

func (r *room) member(user, membership string) {
	r.put(matrix.TypeMember, user, user, fmt.Sprintf(`{"membership":%q}`, membership))
}

func (r *room) joinRule(rule string) {
	r.put(matrix.TypeJoinRules, "", alice, fmt.Sprintf(`{"join_rule":%q}`, rule))
}

// levels sets the power levels to content, with the people's powers added.
func (r *room) levels(content string) { r.put(matrix.TypePowerLevels, "", alice, r.powers(content)) }

// powers adds the people's powers to the users of a content without wiping what
// it says.
func (r *room) powers(content string) string {
	var c map[string]any
	if err := json.Unmarshal([]byte(content), &c); err != nil {
		r.t.Fatal(err)
	}
	users, ok := c["users"].(map[string]any)
	if !ok && c["users"] != nil {
		return content
	}
	all := map[string]any{adam: 100, mod: 50}
	if !r.v.CreatorPower {
		all[alice] = 100
	}
	for user, power := range users {
		all[user] = power
		if power == nil {
			delete(all, user)
		}
	}
	c["users"] = all
	b, _ := json.Marshal(c)
	return string(b)
}

// put makes an event part of the state without asking anybody.
func (r *room) put(typ, stateKey, sender, content string) *event.Event {
	r.t.Helper()
	e := r.build(typ, &stateKey, sender, content)
	r.state[auth.Key{Type: typ, StateKey: stateKey}] = e
	r.last = e
	return e
}

func (r *room) build(typ string, stateKey *string, sender, content string) *event.Event {
	r.t.Helper()
	return r.buildDraft(event.Draft{Type: typ, StateKey: stateKey, Sender: matrix.UserID(sender), Content: json.RawMessage(content)})
}

func (r *room) buildDraft(d event.Draft) *event.Event {
	r.t.Helper()
	r.n++
	d.Depth, d.OriginServerTS = r.n, 1_700_000_000_000+r.n
	if r.last != nil && d.PrevEvents == nil {
		d.PrevEvents = []event.Ref{r.last.Ref()}
	}
	switch {
	case d.RoomID != "":
	case r.create != nil:
		d.RoomID = r.create.RoomID
	case !r.v.RoomIDHash:
		d.RoomID = "!room:a.example"
	}
	e, err := event.Build(r.v, d, d.Sender.Server(), testKey)
	if err != nil {
		r.t.Fatalf("building %s %s: %v", d.Type, d.Content, err)
	}
	return e
}

// wants reads "1-5:5.3.2 12:ok": what is expected of each version.
func wants(t testing.TB, s string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, part := range strings.Fields(s) {
		span, want, ok := strings.Cut(part, ":")
		first, last, isRange := strings.Cut(span, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if !ok || err1 != nil || err2 != nil {
			t.Fatalf("cannot read %q", part)
		}
		for n := from; n <= to; n++ {
			all[strconv.Itoa(n)] = want
		}
	}
	return all
}

// verdict is "ok" or the number of the broken rule.
func verdict(t testing.TB, v *event.Version, err error) string {
	t.Helper()
	if err == nil {
		return "ok"
	}
	rejection, ok := err.(*auth.Rejection)
	if !ok {
		t.Fatalf("%T is no Rejection: %v", err, err)
	}
	number, ok := strings.CutPrefix(rejection.Rule, "v"+v.ID+" ")
	if !ok || rejection.Why == "" {
		t.Fatalf("a rejection of version %s: %v", v.ID, err)
	}
	return number
}
