package answers_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

// scene is a room that servers stand in every relation to: in.org came after the
// first message, left.org left after the second, invited.org was only invited,
// denied.org is in the room and banned by its ACL, never.org was never there.
type scene struct {
	room               *rooms.Room
	first, second, end *rooms.Stored
	topic              *rooms.Stored // of before anybody came, replaced since
	name               *rooms.Stored // of before anybody came, and still so
}

var servers = []matrix.ServerName{"in.org", "left.org", "invited.org", "denied.org:8448", "never.org"}

func (g *rig) scene(visibility string) *scene {
	g.Helper()
	var more []rooms.Proto
	if visibility != "" {
		more = append(more, State(matrix.TypeHistoryVisibility, "", fmt.Sprintf(`{"history_visibility":%q}`, visibility)))
	}
	s := &scene{room: g.Room("alice", append(more, State(matrix.TypeName, "", `{"name":"n"}`), State(matrix.TypeTopic, "", `{"topic":"old"}`))...)}
	var err error
	if s.topic, err = g.Engine.StateEvent(g.Context(), s.room.View().State, matrix.TypeTopic, ""); err != nil {
		g.Fatal(err)
	}
	if s.name, err = g.Engine.StateEvent(g.Context(), s.room.View().State, matrix.TypeName, ""); err != nil {
		g.Fatal(err)
	}
	s.first = g.Send(s.room, "alice", Message("first"))
	g.Send(s.room, "alice", State(matrix.TypeTopic, "", `{"topic":"new"}`))
	for _, server := range []matrix.ServerName{"in.org", "left.org", "denied.org:8448"} {
		g.Enter(s.room, matrix.NewUserID("u", server))
	}
	g.Send(s.room, "alice", Membership("@u:invited.org", matrix.MembershipInvite))
	s.second = g.Send(s.room, "alice", Message("second"))
	g.Foreign(s.room, "@u:left.org", Membership("@u:left.org", matrix.MembershipLeave))
	g.Send(s.room, "alice", State(matrix.TypeServerACL, "", `{"allow":["*"],"deny":["DENIED.*"]}`))
	g.Send(s.room, "alice", State(matrix.TypeJoinRules, "", `{"join_rule":"invite"}`))
	s.end = g.Send(s.room, "alice", Message("end"))
	return s
}

// TestAccess asks at every door, as every server, under every history
// visibility (F14).
func TestAccess(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		for _, visibility := range []string{"", "shared", "world_readable", "invited", "joined"} {
			s := g.scene(visibility)
			if err := g.publish(s.room.ID); err != nil {
				t.Fatal(err)
			}
			open := visibility != "invited" && visibility != "joined"
			g.asMember(t, s, visibility, open)
			for _, server := range servers[1:] {
				g.asOutsider(s, server)
			}
			for _, server := range servers {
				path := "/hierarchy/" + string(s.room.ID)
				known := server == "in.org" || server == "invited.org" || visibility == "world_readable"
				if server == "denied.org:8448" || !known {
					g.refused(server, "GET", path, "", 404, matrix.CodeNotFound)
				} else if got := get[map[string]any](g, server, path)["room"].(map[string]any); got["name"] != "n" {
					t.Errorf("%s, %s: %v", visibility, server, got)
				}
				page := get[rooms.ListingPage](g, server, "/publicRooms")
				if !slices.ContainsFunc(page.Chunk, func(l rooms.Listing) bool { return l.RoomID == s.room.ID }) {
					t.Errorf("%s: %s does not see a published room", visibility, server)
				}
			}
		}
	})
}

// doors are all that is asked about a room, with an event in it.
func doors(s *scene, id matrix.EventID) map[string]string {
	room := string(s.room.ID)
	return map[string]string{
		"/event/" + string(id):                                           "",
		"/state/" + room + "?event_id=" + string(id):                     "",
		"/state_ids/" + room + "?event_id=" + string(id):                 "",
		"/backfill/" + room + "?limit=10&v=" + string(id):                "",
		"/event_auth/" + room + "/" + string(id):                         "",
		"/timestamp_to_event/" + room + "?ts=1600000000000&dir=f":        "",
		"/timestamp_to_event/" + room + "?ts=9000000000000&dir=b":        "",
		"/get_missing_events/" + room:                                    fmt.Sprintf(`{"earliest_events":[],"latest_events":[%q]}`, id),
		"/get_missing_events/" + room + "?unknown=parameters_are_passed": fmt.Sprintf(`{"earliest_events":[%q],"latest_events":[%q],"limit":0}`, s.first.ID, id),
	}
}

func (g *rig) asOutsider(s *scene, server matrix.ServerName) {
	g.Helper()
	for _, st := range []*rooms.Stored{s.first, s.second, s.end} {
		for path, body := range doors(s, st.ID) {
			method := "GET"
			if body != "" {
				method = "POST"
			}
			g.refused(server, method, path, body, 403, matrix.CodeForbidden)
		}
	}
}

// asMember asks as a server that came after the first message.
func (g *rig) asMember(t *testing.T, s *scene, visibility string, open bool) {
	t.Helper()
	const in = matrix.ServerName("in.org")
	room := string(s.room.ID)
	for _, st := range []*rooms.Stored{s.second, s.end} {
		if got := texts(t, s.room, get[pdus](g, in, "/event/"+string(st.ID)).PDUs); len(got) != 1 || got[0] != body(st) {
			t.Errorf("%s: event %v", visibility, got)
		}
		get[pdus](g, in, "/state/"+room+"?event_id="+string(st.ID))
		get[any](g, in, "/state_ids/"+room+"?event_id="+string(st.ID))
	}
	hidden := "first"
	if open {
		if got := texts(t, s.room, get[pdus](g, in, "/event/"+string(s.first.ID)).PDUs); len(got) != 1 || got[0] != "first" {
			t.Errorf("%s: event %v", visibility, got)
		}
		get[pdus](g, in, "/state/"+room+"?event_id="+string(s.first.ID))
	} else {
		hidden = "-"
		g.refused(in, "GET", "/event/"+string(s.first.ID), "", 404, matrix.CodeNotFound)
		g.refused(in, "GET", "/state/"+room+"?event_id="+string(s.first.ID), "", 403, matrix.CodeForbidden)
		g.refused(in, "GET", "/state_ids/"+room+"?event_id="+string(s.first.ID), "", 403, matrix.CodeForbidden)
	}
	for _, list := range [][]json.RawMessage{
		get[pdus](g, in, "/backfill/"+room+"?limit=100&v="+string(s.end.ID)).PDUs,
		want[pdus](g, in, "POST", "/get_missing_events/"+room, fmt.Sprintf(`{"earliest_events":[],"latest_events":[%q],"limit":100}`, s.end.ID)).Events,
	} {
		got := texts(t, s.room, list)
		if !slices.Contains(got, hidden) || !slices.Contains(got, "second") || open == slices.Contains(got, "-") {
			t.Errorf("%s: the history is %v", visibility, got)
		}
		g.checkTopics(t, list, open)
	}
	for _, id := range []matrix.EventID{s.first.ID, s.end.ID, s.topic.ID} {
		get[pdus](g, in, "/event_auth/"+room+"/"+string(id))
	}
	g.checkTopics(t, get[pdus](g, in, "/event/"+string(s.topic.ID)).PDUs, open)
	if got := get[pdus](g, in, "/event/"+string(s.name.ID)).PDUs; string(got[0]) != string(s.name.JSON) {
		t.Errorf("%s: of the current state there is only %s", visibility, got)
	}
	g.checkTopics(t, get[pdus](g, in, "/state/"+room+"?event_id="+string(s.end.ID)).PDUs, open)
	at := get[struct{ Event_ID matrix.EventID }](g, in, "/timestamp_to_event/"+room+"?dir=f&ts="+fmt.Sprint(s.first.OriginServerTS)).Event_ID
	if open != (at == s.first.ID) {
		t.Errorf("%s: the event nearest to the first is %s", visibility, at)
	}
}

// checkTopics looks for the topic that only those may see who were there.
func (g *rig) checkTopics(t *testing.T, list []json.RawMessage, open bool) {
	t.Helper()
	for _, raw := range list {
		var ev struct {
			Type    string
			Content struct{ Topic *string }
		}
		if err := json.Unmarshal(raw, &ev); err != nil {
			t.Fatal(err)
		}
		if topic := ev.Content.Topic; ev.Type == matrix.TypeTopic && !open && topic != nil && *topic == "old" {
			t.Error("the old topic is shown")
		} else if ev.Type == matrix.TypeTopic && open && topic == nil {
			t.Error("a topic is hidden")
		}
	}
}

func body(st *rooms.Stored) string {
	var c struct{ Body string }
	_ = json.Unmarshal(st.Content, &c)
	return c.Body
}
