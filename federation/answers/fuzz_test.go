package answers_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

// FuzzDoors sends other servers' requests of all kinds to a server with a room
// that one of them is in: whatever they are, none is the server's fault.
func FuzzDoors(f *testing.F) {
	g := newRig(f, "sqlite")
	r := g.shared(State(matrix.TypeHistoryVisibility, "", `{"history_visibility":"joined"}`))
	id := g.Say(r, "alice", "hello")
	if err := g.publish(r.ID); err != nil {
		f.Fatal(err)
	}
	// Every process that fuzzes has a room of its own.
	ids := []string{string(r.ID), "ROOM", string(id), "EVENT"}
	for path, body := range doors(&scene{room: r, first: &rooms.Stored{Event: &event.Event{ID: "$first"}}}, id) {
		hide := strings.NewReplacer(ids...)
		f.Add(body != "", hide.Replace(path), hide.Replace(body))
	}
	show := strings.NewReplacer(ids[1], ids[0], ids[3], ids[2])
	for _, path := range []string{
		"/hierarchy/ROOM?suggested_only=true", "/query/directory?room_alias=%23a:test", "/query/profile?user_id=@alice:test&field=displayname",
		"/publicRooms?limit=1&since=p1_1_f&include_all_networks=true", "/openid/userinfo?access_token=x", "/backfill/!x?v=$a&v=$b&limit=-9223372036854775808",
		"/state/%00", "/event/$%ff", "/timestamp_to_event/ROOM?ts=9223372036854775807&dir=b",
	} {
		f.Add(false, path, "")
	}
	f.Add(true, "/publicRooms", `{"limit":-1,"filter":{"generic_search_term":"a","room_types":[null]},"since":"p1_9223372036854775807_b"}`)
	f.Add(true, "/get_missing_events/ROOM", `{"min_depth":-1,"limit":9223372036854775807,"latest_events":["EVENT",""]}`)
	f.Fuzz(func(t *testing.T, post bool, path, body string) {
		method := "GET"
		if post {
			method = "POST"
		}
		path = show.Replace(path)
		r := httptest.NewRequest(method, "/_matrix/federation/v1/x", strings.NewReader(show.Replace(body)))
		url, err := r.URL.Parse("/_matrix/federation/v1" + path)
		if err != nil || !strings.HasPrefix(path, "/") {
			return // net/http does not let it come this far
		}
		r.URL, r.RequestURI = url, url.RequestURI()
		r.Header.Set("Authorization", transport.Header{Origin: other, Destination: Server, Key: "ed25519:1", Signature: "c2ln"}.String())
		w := httptest.NewRecorder()
		g.http.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%s %q %q: %d %s", method, path, body, w.Code, w.Body)
		}
	})
}
