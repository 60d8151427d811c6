package queries_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/federation/queries"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// others are all other servers: what they answer is by server and path. Whoever
// has no answer cannot be reached.
type others struct {
	t       *testing.T
	answers map[string]any // a text of JSON, or an error
	asked   atomic.Int32
	last    transport.Request
	hold    chan struct{} // answers wait until it is closed, if it is not nil

	mu    sync.Mutex
	clock time.Time
}

func (o *others) JSON(_ context.Context, r transport.Request, answer any) error {
	o.asked.Add(1)
	o.mu.Lock()
	o.last = r
	o.mu.Unlock()
	if o.hold != nil {
		<-o.hold
	}
	if r.Timeout == 0 || r.MaxAnswer == 0 {
		o.t.Errorf("%s is asked without a bound", r.Path)
	}
	switch v := o.answers[string(r.Destination)+r.Path].(type) {
	case error:
		return v
	case string:
		if err := json.Unmarshal([]byte(v), answer); err != nil {
			return &transport.UnreachableError{Server: r.Destination, Err: err}
		}
		return nil
	}
	return &transport.UnreachableError{Server: r.Destination, Err: errors.New("no such host")}
}

func (o *others) now() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.clock
}

func (o *others) pass(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clock = o.clock.Add(d)
}

func ask(t *testing.T, answers map[string]any) (*others, *queries.Queries) {
	t.Helper()
	o := &others{t: t, answers: answers, clock: time.UnixMilli(1_600_000_000_000)}
	q, err := queries.New(queries.Deps{Client: o, Now: o.now})
	if err != nil {
		t.Fatal(err)
	}
	return o, q
}

func refusal(status int, code matrix.Code) error {
	return &transport.RemoteError{Server: "x.org", Status: status, Code: code, Text: "no"}
}

const (
	directoryPath = "/_matrix/federation/v1/query/directory"
	profilePath   = "/_matrix/federation/v1/query/profile"
	publicPath    = "/_matrix/federation/v1/publicRooms"
	hierarchyPath = "/_matrix/federation/v1/hierarchy/"
)

// TestAlias reads answers of all kinds.
func TestAlias(t *testing.T) {
	for answer, want := range map[string]string{
		`{"room_id":"!r:x.org","servers":["a.org","x.org","b.org","a.org"]}`: "!r:x.org [a.org x.org b.org]",
		`{"room_id":"!r:x.org","servers":[]}`:                                "!r:x.org [x.org]",
		`{"room_id":"!hash"}`:                                                "!hash [x.org]",
		`{"room_id":"!r:x.org","servers":["a b","", "a.org"]}`:               "!r:x.org [a.org x.org]",
		`{"room_id":"r"}`:                                                    "M_UNKNOWN", `{}`: "M_UNKNOWN", `[]`: "M_UNKNOWN", `{"room_id":5}`: "M_UNKNOWN",
		`{"room_id":"!r:x.org","servers":"a.org"}`: "M_UNKNOWN",
	} {
		_, q := ask(t, map[string]any{"x.org" + directoryPath: answer})
		room, servers, err := q.Alias(t.Context(), "#a:x.org")
		got := fmt.Sprint(room, " ", servers)
		if err != nil {
			got = string(matrix.AsError(err).Code)
		}
		if got != want {
			t.Errorf("%s: %s", answer, got)
		}
	}
	many := `{"room_id":"!r:x.org","servers":["s0"`
	for i := range 200 {
		many += fmt.Sprintf(`,"s%d"`, i)
	}
	_, q := ask(t, map[string]any{"x.org" + directoryPath: many + `]}`})
	if _, servers, err := q.Alias(t.Context(), "#a:x.org"); err != nil || len(servers) > 51 {
		t.Errorf("%d servers, %v", len(servers), err)
	}
}

// TestErrors makes failures ones for clients: refusals stay what they are.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   matrix.Code
	}{
		{refusal(404, matrix.CodeNotFound), 404, matrix.CodeNotFound},
		{refusal(403, matrix.CodeForbidden), 403, matrix.CodeForbidden},
		{refusal(404, matrix.CodeUnrecognized), 502, matrix.CodeUnknown},
		{refusal(401, matrix.CodeUnknownToken), 502, matrix.CodeUnknown},
		{refusal(500, matrix.CodeUnknown), 502, matrix.CodeUnknown},
		{&transport.UnreachableError{Server: "x.org", Err: errors.New("secret")}, 502, matrix.CodeUnknown},
		{fmt.Errorf("%w: x.org", transport.ErrNotAllowed), 403, matrix.CodeForbidden},
	} {
		_, q := ask(t, map[string]any{"x.org" + directoryPath: c.err, "x.org" + publicPath: c.err, "x.org" + hierarchyPath + "%21r:x.org": c.err})
		_, _, err := q.Alias(t.Context(), "#a:x.org")
		_, listErr := q.PublicRooms(t.Context(), "x.org", rooms.ListingQuery{})
		for _, err := range []error{err, listErr} {
			if e := matrix.AsError(err); e.Status != c.status || e.Code != c.code || strings.Contains(e.Text, "secret") {
				t.Errorf("%v becomes %d %s %s", c.err, e.Status, e.Code, e.Text)
			}
		}
	}
}

// TestProfiles takes over what may be in a profile, and asks for all of it.
func TestProfiles(t *testing.T) {
	o, q := ask(t, map[string]any{"x.org" + profilePath: `{"displayname":"A","avatar_url":null,"m.tz":5,"org.example.x":{"y":[1]},"` +
		strings.Repeat("k", 256) + `":1,"org.example.bad":"` + "\xff" + `"}`})
	for range 2 {
		got, err := q.Profile(t.Context(), "@a:x.org")
		if err != nil || len(got) != 2 || string(got["displayname"]) != `"A"` || string(got["org.example.x"]) != `{"y":[1]}` {
			t.Errorf("%s, %v", got, err)
		}
	}
	if o.asked.Load() != 1 || o.last.Query.Encode() != "user_id=%40a%3Ax.org" {
		t.Errorf("asked %d times, by %s", o.asked.Load(), o.last.Query.Encode())
	}
}

// TestMemory remembers answers and failures, each for its time.
func TestMemory(t *testing.T) {
	o, q := ask(t, map[string]any{"x.org" + profilePath: `{}`})
	asked := func(user matrix.UserID, want int32) {
		t.Helper()
		_, _ = q.Profile(t.Context(), user)
		if got := o.asked.Load(); got != want {
			t.Errorf("%s: asked %d times, not %d", user, got, want)
		}
	}
	asked("@a:x.org", 1)
	asked("@a:x.org", 1)
	asked("@b:x.org", 2)
	asked("@a:down.org", 3)
	asked("@a:down.org", 3)
	o.pass(20 * time.Second)
	asked("@a:down.org", 4)
	asked("@a:x.org", 4)
	o.pass(time.Minute)
	asked("@a:x.org", 5)
}

// TestTogether asks once for all who ask at the same time, and goes on when the
// first of them gives up.
func TestTogether(t *testing.T) {
	o, q := ask(t, map[string]any{"x.org" + profilePath: `{"displayname":"A"}`})
	o.hold = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			ctx := ctx
			if i > 0 {
				ctx = t.Context()
			}
			if got, err := q.Profile(ctx, "@a:x.org"); err != nil || len(got) != 1 {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	for o.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	close(o.hold)
	all.Wait()
	if o.asked.Load() != 1 {
		t.Errorf("asked %d times", o.asked.Load())
	}
}

// TestBounded remembers no more than it may, however much there is.
func TestBounded(t *testing.T) {
	large := `{"x":"` + strings.Repeat("x", 60<<10) + `"}`
	o, q := ask(t, map[string]any{"x.org" + profilePath: large})
	for i := range 400 {
		if _, err := q.Profile(t.Context(), matrix.UserID(fmt.Sprintf("@u%d:x.org", i))); err != nil {
			t.Fatal(err)
		}
	}
	before := o.asked.Load()
	_, _ = q.Profile(t.Context(), "@u0:x.org") // forgotten
	_, _ = q.Profile(t.Context(), "@u399:x.org")
	if got := o.asked.Load() - before; got != 1 {
		t.Errorf("%d of the oldest and the newest were forgotten", got)
	}
}

// TestPublicRooms asks by the method that is needed and leaves out what is no room.
func TestPublicRooms(t *testing.T) {
	chunk := `{"chunk":[{"room_id":"!a:x.org","name":"A","num_joined_members":3,"more":1},{"room_id":"no room"},{"room_id":"!b:x.org","name":5},7,` +
		`{"room_id":"!c:x.org","world_readable":true}],"next_batch":"n","total_room_count_estimate":"many"}`
	o, q := ask(t, map[string]any{"x.org" + publicPath: chunk, "y.org" + publicPath: `{}`})
	limit := 5
	page, err := q.PublicRooms(t.Context(), "x.org", rooms.ListingQuery{Limit: &limit, Since: "s", Network: "irc"})
	if err != nil || len(page.Chunk) != 2 || page.Chunk[0].Name != "A" || !page.Chunk[1].WorldReadable || page.NextBatch != "n" || page.Total != 0 {
		t.Errorf("%+v, %v", page, err)
	}
	if o.last.Method != "GET" || o.last.Query.Encode() != "limit=5&since=s&third_party_instance_id=irc" {
		t.Errorf("%s %s", o.last.Method, o.last.Query.Encode())
	}
	page, err = q.PublicRooms(t.Context(), "y.org", rooms.ListingQuery{Filter: rooms.ListingFilter{Term: "t"}})
	if err != nil || page.Chunk == nil || len(page.Chunk) != 0 {
		t.Errorf("%+v, %v", page, err)
	}
	if o.last.Method != "POST" || string(o.last.Content) != `{"filter":{"generic_search_term":"t"}}` {
		t.Errorf("%s %s", o.last.Method, o.last.Content)
	}
	_, q = ask(t, map[string]any{"x.org" + publicPath: `{"chunk":[` + strings.Repeat(`{"room_id":"!a:x.org"},`, 2000) + `1]}`})
	if page, err := q.PublicRooms(t.Context(), "x.org", rooms.ListingQuery{}); err != nil || len(page.Chunk) != 1000 {
		t.Errorf("%d rooms, %v", len(page.Chunk), err)
	}
}

// TestHierarchy believes a server about the room that it was asked about only.
func TestHierarchy(t *testing.T) {
	path := "x.org" + hierarchyPath + "%21r:x.org"
	for room, ok := range map[string]bool{
		`{"room_id":"!r:x.org","num_joined_members":3,"children_state":[{"type":"m.space.child"}]}`: true,
		`{"room_id":"!r:x.org","join_rule":"restricted","allowed_room_ids":["!a"]}`:                 true,
		`{"room_id":"!other:x.org"}`: false, `{}`: false, `null`: false, `[]`: false, `{"room_id":"!r:x.org","name":["n"]}`: false,
		`{"room_id":"!r:x.org","num_joined_members":-3}`:                                       false,
		`{"room_id":"!r:x.org","topic":"` + strings.Repeat("x", 100<<10) + `"}`:                false,
		`{"room_id":"!r:x.org","allowed_room_ids":["!a"` + strings.Repeat(`,"!a"`, 200) + `]}`: false,
	} {
		_, q := ask(t, map[string]any{path: `{"room":` + room + `,"children":[{"room_id":"!c:x.org","name":"C"},{"room_id":5},"x",{"room_id":"c"}],"inaccessible_children":["!i:x.org"]}`})
		got, err := q.Hierarchy(t.Context(), "x.org", "!r:x.org", false)
		if (err == nil) != ok || !ok && matrix.AsError(err).Status != 502 {
			t.Errorf("%.100s: %v", room, err)
		}
		if ok && (len(got.Children) != 1 || got.Children[0].Name != "C" || !slices.Equal(got.Inaccessible, []matrix.RoomID{"!i:x.org"})) {
			t.Errorf("%.100s: %+v", room, got)
		}
	}
	o, q := ask(t, map[string]any{path: `{"room":{"room_id":"!r:x.org"}}`})
	for _, suggested := range []bool{false, true, false, true} {
		if _, err := q.Hierarchy(t.Context(), "x.org", "!r:x.org", suggested); err != nil {
			t.Error(err)
		}
	}
	if o.asked.Load() != 2 {
		t.Errorf("asked %d times", o.asked.Load())
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(`{"room_id":"!r:x.org","servers":["a"],"displayname":null,"chunk":[{}],"room":{"room_id":"!r:x.org"},"children":[{"room_id":"!a"}]}`)
	f.Add(`{"room":{"room_id":"!r:x.org","children_state":[{"type":"m.space.child","state_key":"!a","content":{"via":["a"]}}]}}`)
	f.Fuzz(func(t *testing.T, answer string) {
		_, q := ask(t, map[string]any{
			"x.org" + directoryPath: answer, "x.org" + profilePath: answer, "x.org" + publicPath: answer, "x.org" + hierarchyPath + "%21r:x.org": answer,
		})
		ctx := t.Context()
		room, _, aliasErr := q.Alias(ctx, "#a:x.org")
		profile, profileErr := q.Profile(ctx, "@a:x.org")
		_, listErr := q.PublicRooms(ctx, "x.org", rooms.ListingQuery{})
		_, treeErr := q.Hierarchy(ctx, "x.org", "!r:x.org", false)
		for _, err := range []error{aliasErr, profileErr, listErr, treeErr} {
			if err != nil && matrix.AsError(err).Status != 502 {
				t.Errorf("%v", err)
			}
		}
		if _, err := matrix.ParseRoomID(string(room)); aliasErr == nil && err != nil {
			t.Error(err)
		}
		if _, err := json.Marshal(profile); err != nil {
			t.Errorf("%s cannot be shown: %v", profile, err)
		}
	})
}
