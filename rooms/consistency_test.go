package rooms_test

import (
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// Damages, and a word of what the check must say of them. A room's newest event
// is the last one of the room, and so on.
var damages = map[string]struct {
	stmt *db.Stmt
	says string
}{
	"extremity gone":       {db.SQL(`UPDATE rooms SET extremities = (SELECT auth FROM events WHERE event_nid = (SELECT MAX(event_nid) FROM events WHERE key_nid <> 0))`), "forward extremity"},
	"no extremities":       {db.SQL(`UPDATE rooms SET extremities = SUBSTR(extremities, 1, 0)`), "no forward extremities"},
	"event rejected":       {db.SQL(`UPDATE events SET flags = 1 WHERE event_nid = (SELECT MAX(event_nid) FROM events)`), "has the flags 1"},
	"state rejected":       {db.SQL(`UPDATE events SET flags = 1, position = 0 WHERE event_nid = (SELECT MAX(event_nid) FROM events WHERE key_nid <> 0)`), "does not belong there"},
	"snapshot gone":        {db.SQL(`DELETE FROM snapshots WHERE snapshot = (SELECT MAX(snapshot) FROM snapshots)`), "snapshot"},
	"snapshot's parent":    {db.SQL(`UPDATE snapshots SET parent = snapshot + 5 WHERE snapshot = (SELECT MAX(snapshot) FROM snapshots)`), "not older"},
	"wrong snapshot":       {db.SQL(`UPDATE rooms SET snapshot = (SELECT MIN(snapshot) FROM snapshots)`), "memberships"},
	"membership gone":      {db.SQL(`DELETE FROM memberships WHERE user_id = '@user:b'`), "membership of @user:b"},
	"membership too many":  {db.SQL(`INSERT INTO memberships (user_id, room_nid, membership, event_nid, position, local, forgotten) SELECT '@x:y', room_nid, membership, event_nid, position, 0, 0 FROM memberships WHERE user_id = '@user:b'`), "memberships, and"},
	"membership changed":   {db.SQL(`UPDATE memberships SET membership = 'leave' WHERE user_id = '@user:b'`), "membership of @user:b"},
	"membership not local": {db.SQL(`UPDATE memberships SET local = 1 - local WHERE user_id = '@user:a'`), "membership of @user:a"},
	"room gone":            {db.SQL(`DELETE FROM rooms`), "does not exist"},
	"line broken":          {db.SQL(`UPDATE events SET snapshot = 2, resolved = 2 WHERE event_nid = (SELECT MAX(event_nid) - 1 FROM events WHERE key_nid = 0)`), "none of state"},
	"line ends elsewhere":  {db.SQL(`UPDATE events SET resolved = 2 WHERE event_nid = (SELECT MAX(event_nid) FROM events)`), "its newest event"},
	"joined":               {db.SQL(`UPDATE rooms SET joined = joined + 1`), "joined"},
	"invited":              {db.SQL(`UPDATE rooms SET invited = invited + 1`), "invited"},
	"position twice":       {db.SQL(`UPDATE events SET position = (SELECT MIN(position) FROM events) WHERE event_nid = (SELECT MAX(event_nid) FROM events)`), "position"},
	"position lost":        {db.SQL(`UPDATE events SET position = 0 WHERE event_nid = (SELECT MAX(event_nid) FROM events)`), "position 0"},
	"unread":               {db.SQL(`UPDATE events SET unread = 0 WHERE event_nid = (SELECT MAX(event_nid) FROM events)`), "unread"},
	"unread of the room":   {db.SQL(`UPDATE rooms SET unread = 0`), "unread"},
	"key too many":         {db.SQL(`INSERT INTO state_keys (key_nid, type, state_key) VALUES (999998, 'a', 'b')`), "no event has the state key"},
	"key changed":          {db.SQL(`UPDATE state_keys SET state_key = '@user:z' WHERE state_key = '@user:b'`), "has the state key"},
	"server too many":      {db.SQL(`INSERT INTO room_servers (room_nid, server, members, since, until) SELECT room_nid, 'z', 2, since, 0 FROM room_servers`), "counts the members"},
	"server gone":          {db.SQL(`DELETE FROM room_servers`), "counts the members"},
	"servers' members":     {db.SQL(`UPDATE room_servers SET members = members + 1`), "counts the members"},
	"server's stay":        {db.SQL(`UPDATE room_servers SET until = since`), "with 1 members from"},
	"server twice":         {db.SQL(`INSERT INTO room_servers (room_nid, server, members, since, until) SELECT room_nid, server, members, since + 1, 0 FROM room_servers`), "twice"},
	"outside without user": {db.SQL(insertOutside + `SELECT 999999, 'x', room_nid, '12', 'x', 1, 0, j.json FROM events e JOIN event_json j ON j.event_nid = e.event_nid AND e.position = (SELECT MAX(position) FROM events)`), "from outside"},
	"outside of no room":   {db.SQL(insertOutside + `SELECT 999999, 'x', 77, '12', 'x', 1, 0, json FROM event_json WHERE event_nid = (SELECT MAX(event_nid) FROM event_json)`), "does not exist"},
	"shell with events":    {db.SQL(`UPDATE rooms SET extremities = SUBSTR(extremities, 1, 0), snapshot = 0, joined = 0, invited = 0`), "known from outside only"},
	"text gone":            {db.SQL(`DELETE FROM event_json WHERE event_nid = (SELECT MAX(event_nid) FROM events)`), "no text"},
	"text of another":      {db.SQL(`UPDATE event_json SET json = (SELECT json FROM event_json WHERE event_nid = (SELECT MAX(event_nid) FROM events)) WHERE event_nid = (SELECT MIN(event_nid) FROM events WHERE key_nid = 0)`), "not its own"},
	"auth event newer":     {db.SQL(`UPDATE events SET auth = (SELECT extremities FROM rooms) WHERE event_nid = (SELECT MIN(event_nid) FROM events WHERE key_nid <> 0)`), "not older"},
	"gap not listed":       {db.SQL(`DELETE FROM backward`), "does not go on at"},
	"gap that is none":     {db.SQL(`INSERT INTO backward (prev, event_nid, room_nid) SELECT event_id, event_nid, room_nid FROM events WHERE event_nid = (SELECT MAX(event_nid) FROM events)`), "which is here"},
	"gap of no room":       {db.SQL(`UPDATE backward SET room_nid = 999`), "which does not exist, goes on at"},
	"awaited by none":      {db.SQL(`INSERT INTO awaited (target, event_nid) VALUES ('$x', 999998)`), "is not there"},
	"awaited by others":    {db.SQL(`INSERT INTO awaited (target, event_nid) SELECT '$x', MAX(event_nid) FROM events`), "waits for what it redacts"},
	"replies miscounted":   {db.SQL(`UPDATE threads SET replies = replies + 1`), "replies, and counts"},
	"thread gone":          {db.SQL(`DELETE FROM threads`), "is not kept"},
	"auth events gone":     {db.SQL(`UPDATE events SET auth = (SELECT auth FROM events WHERE event_nid = (SELECT MIN(event_nid) FROM events WHERE auth IS NOT NULL)) WHERE event_nid = (SELECT MAX(event_nid) FROM events WHERE key_nid <> 0)`), "auth events"},
}

const insertOutside = `INSERT INTO outside (event_nid, event_id, room_nid, version, user_id, position, replaces, json) `

// TestDamagesAreNamed damages a database in many ways. The check finds nothing
// before, and says what is wrong after.
func TestDamagesAreNamed(t *testing.T) {
	for name, damage := range damages {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			a, b := two(t, lookup(t, "12"))
			for range 3 {
				a.say("hello")
			}
			a.send(stateProto(matrix.TypeTopic, "", `{"topic":"x"}`))
			a.accept(b.say("hello from b"))
			a.send(stateProto(matrix.TypeMember, "@guest:b", `{"membership":"invite"}`))
			a.send(rooms.Proto{Type: matrix.TypeMessage, Content: []byte(`{"body":"x","m.relates_to":{"rel_type":"m.thread","event_id":"$root"}}`)})
			gap := a.extremities()[0].ID
			said := b.forge(draft{sender: b.user, typ: matrix.TypeMessage, content: `{}`, prev: []event.Ref{{ID: "$gone"}}, from: current(a.events()), depth: 20})
			if _, err := a.Receive(t.Context(), a.room, []rooms.Incoming{{Event: said, State: a.stateIDs(a, gap)}}); err != nil {
				t.Fatal(err)
			}
			a.say("last")
			if err := a.CheckConsistency(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := a.DB.Write(t.Context(), func(tx *db.Tx) error { return tx.Exec(damage.stmt) }); err != nil {
				t.Fatal(err)
			}
			a.ForgetBranches()
			err := a.CheckConsistency(t.Context())
			if err == nil || !strings.Contains(err.Error(), damage.says) {
				t.Errorf("the check says: %v", err)
			}
		})
	}
}
