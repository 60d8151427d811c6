package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/federation/fetch"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// door is one way by which events come in.
type door struct {
	list string // of the answer, in which the events stand
	ask  func(ctx context.Context, c *fetch.Client, room fetch.Room, id matrix.EventID) ([]*event.Event, error)
}

var doors = map[string]door{
	"event": {"pdus", func(ctx context.Context, c *fetch.Client, room fetch.Room, id matrix.EventID) ([]*event.Event, error) {
		ev, err := c.Event(ctx, "a.org", room, id)
		if err != nil {
			return nil, err
		}
		return []*event.Event{ev}, nil
	}},
	"events": {"pdus", func(ctx context.Context, c *fetch.Client, room fetch.Room, id matrix.EventID) ([]*event.Event, error) {
		return c.Events(ctx, []matrix.ServerName{"a.org"}, room, []matrix.EventID{id})
	}},
	"state": {"pdus", func(ctx context.Context, c *fetch.Client, room fetch.Room, id matrix.EventID) ([]*event.Event, error) {
		s, err := c.State(ctx, "a.org", room, id)
		if err != nil {
			return nil, err
		}
		return s.State, nil
	}},
	"auth chain of state": {"auth_chain", func(ctx context.Context, c *fetch.Client, room fetch.Room, id matrix.EventID) ([]*event.Event, error) {
		s, err := c.State(ctx, "a.org", room, id)
		if err != nil {
			return nil, err
		}
		return s.Auth, nil
	}},
	"event auth": {"auth_chain", func(ctx context.Context, c *fetch.Client, room fetch.Room, id matrix.EventID) ([]*event.Event, error) {
		return c.EventAuth(ctx, "a.org", room, id)
	}},
	"backfill": {"pdus", func(ctx context.Context, c *fetch.Client, room fetch.Room, id matrix.EventID) ([]*event.Event, error) {
		return c.Backfill(ctx, "a.org", room, []matrix.EventID{id}, 10)
	}},
	"missing events": {"events", func(ctx context.Context, c *fetch.Client, room fetch.Room, id matrix.EventID) ([]*event.Event, error) {
		return c.MissingEvents(ctx, "a.org", room, fetch.Missing{Latest: []matrix.EventID{id}, Limit: 10})
	}},
}

// F3, F17: whatever door an event comes in by, it is not taken with a signature
// that does not count, and those beside it are (F10).
func TestSignaturesAtEveryDoor(t *testing.T) {
	for _, version := range []string{"1", "4", "5", "12"} {
		r := newRemotes(t, "a.org", "b.org", "old.org")
		r.until["old.org"] = time.Now().Add(-time.Hour)
		room := roomOf(version)
		other := room
		if other.ID = "!other:a.org"; room.Version.RoomIDHash {
			other.ID = matrix.RoomID("!" + strings.Repeat("o", 43))
		}
		good := r.message(room, "@u:a.org", "a.org", "good")
		cases := map[string]string{
			"signed by another's key": string(r.message(room, "@u:a.org", "b.org", "x").JSON),
			"of another room":         string(r.message(other, "@u:a.org", "a.org", "x").JSON),
			"unknown server":          string(r.message(room, "@u:nowhere.org", "a.org", "x").JSON),
			"not signed":              strings.Replace(string(good.JSON), `"signatures":{"a.org"`, `"signatures":{"b.org"`, 1),
			"changed":                 strings.Replace(string(good.JSON), `"depth":5`, `"depth":6`, 1),
			"changed sender":          strings.Replace(string(good.JSON), "@u:a.org", "@u:b.org", 1),
			"depth is a text":         strings.Replace(string(good.JSON), `"depth":5`, `"depth":"5"`, 1),
			"not an object":           `"x"`,
			"null":                    `null`,
			"empty":                   `{}`,
		}
		expired := r.message(room, "@u:old.org", "old.org", "x")
		if room.Version.KeyValidity {
			cases["by an expired key"] = string(expired.JSON)
		}
		for name, bad := range cases {
			ev, err := event.Parse(room.Version, []byte(bad))
			id := matrix.EventID("$something")
			if err == nil {
				id = ev.ID
			}
			for door, d := range doors {
				r.says("a.org", pdus(t, map[string][]string{d.list: {bad}}))
				if got, _ := d.ask(t.Context(), r.client, room, id); len(got) > 0 {
					t.Errorf("version %s, %s: %s was taken", version, door, name)
				}
				if door == "event" || door == "events" {
					continue
				}
				r.says("a.org", pdus(t, map[string][]string{d.list: {bad, string(good.JSON), bad}}))
				if got, err := d.ask(t.Context(), r.client, room, id); err != nil || len(got) != 1 || got[0].ID != good.ID {
					t.Errorf("version %s, %s: the event beside one that is %s: %v, %v", version, door, name, got, err)
				}
			}
		}
		for door, d := range doors {
			r.says("a.org", pdus(t, map[string][]string{d.list: {string(good.JSON)}}))
			if got, err := d.ask(t.Context(), r.client, room, good.ID); err != nil || len(got) != 1 || got[0].ID != good.ID {
				t.Errorf("version %s, %s: a good event: %v, %v", version, door, got, err)
			}
			r.says("a.org", pdus(t, map[string][]string{d.list: {string(expired.JSON)}}))
			if got, _ := d.ask(t.Context(), r.client, room, expired.ID); len(got) > 0 == room.Version.KeyValidity {
				t.Errorf("version %s, %s: an event by an expired key: %v", version, door, got)
			}
		}
	}
}

// An event that was asked for by its id has that id.
func TestEventHasTheIDThatWasAskedFor(t *testing.T) {
	r := newRemotes(t, "a.org", "b.org")
	room := roomOf("10")
	one, two := r.message(room, "@u:a.org", "a.org", "one"), r.message(room, "@u:a.org", "a.org", "two")
	r.says("a.org", pdus(t, map[string][]string{"pdus": {string(two.JSON)}}))
	if ev, err := r.client.Event(t.Context(), "a.org", room, one.ID); !errors.Is(err, fetch.ErrNotGiven) {
		t.Errorf("%v, %v", ev, err)
	}
	r.says("b.org", pdus(t, map[string][]string{"pdus": {string(one.JSON)}}))
	got, err := r.client.Events(t.Context(), []matrix.ServerName{"a.org", "b.org"}, room, []matrix.EventID{one.ID})
	if err != nil || len(got) != 1 || got[0].ID != one.ID {
		t.Errorf("the second server was not asked: %v, %v", got, err)
	}
}

// What is asked of others is what the specification wants.
func TestRequests(t *testing.T) {
	r := newRemotes(t, "a.org")
	room := roomOf("12")
	r.says("a.org", `{"pdus":[],"auth_chain":[],"events":[],"pdu_ids":["$a","bad",7],"auth_chain_ids":["$b"]}`)
	ids, err := r.client.StateIDs(t.Context(), "a.org", room, "$x/y")
	if err != nil || !slices.Equal(ids.State, []matrix.EventID{"$a"}) || !slices.Equal(ids.Auth, []matrix.EventID{"$b"}) {
		t.Errorf("%+v, %v", ids, err)
	}
	_, _ = r.client.Event(t.Context(), "a.org", room, "$x/y")
	_, _ = r.client.State(t.Context(), "a.org", room, "$x")
	_, _ = r.client.EventAuth(t.Context(), "a.org", room, "$x")
	_, _ = r.client.Backfill(t.Context(), "a.org", room, []matrix.EventID{"$x", "$y"}, 7)
	_, _ = r.client.MissingEvents(t.Context(), "a.org", room, fetch.Missing{Latest: []matrix.EventID{"$x"}, Limit: 7})
	const prefix = "/_matrix/federation/v1/"
	want := []string{
		"GET " + prefix + "state_ids/" + string(room.ID) + "?event_id=%24x%2Fy ",
		"GET " + prefix + "event/$x%2Fy? ",
		"GET " + prefix + "state/" + string(room.ID) + "?event_id=%24x ",
		"GET " + prefix + "event_auth/" + string(room.ID) + "/$x? ",
		"GET " + prefix + "backfill/" + string(room.ID) + "?limit=7&v=%24x&v=%24y ",
		"POST " + prefix + "get_missing_events/" + string(room.ID) + `? {"earliest_events":[],"latest_events":["$x"],"min_depth":0,"limit":7}`,
	}
	for i, q := range r.requests() {
		got := fmt.Sprintf("%s %s?%s %s", q.Method, strings.ReplaceAll(q.Path, "%21", "!"), q.Query.Encode(), q.Content)
		if got != want[i] || q.MaxAnswer == 0 || q.Timeout == 0 || q.Destination != "a.org" {
			t.Errorf("%d: %s, want %s", i, got, want[i])
		}
	}
}

// Answers that are not what they should be.
func TestBadAnswers(t *testing.T) {
	r := newRemotes(t, "a.org")
	room := roomOf("12")
	good := string(r.message(room, "@u:a.org", "a.org", "good").JSON)
	for name, c := range map[string]struct {
		body    io.Reader
		history int  // how many events Backfill makes of it
		state   bool // State takes it
	}{
		"a list":           {strings.NewReader(`[]`), 0, false},
		"nothing":          {strings.NewReader(``), 0, false},
		"no JSON":          {strings.NewReader(`<html>`), 0, false},
		"no list in it":    {strings.NewReader(`{"pdus":{},"auth_chain":[]}`), 0, false},
		"null lists":       {strings.NewReader(`{"pdus":null,"auth_chain":null}`), 0, true},
		"other members":    {strings.NewReader(`{"x":[{}],"pdus":[` + good + `],"y":null}`), 1, true},
		"cut off":          {strings.NewReader(`{"pdus":[` + good + `,` + good[:100]), 1, false},
		"the list is open": {strings.NewReader(`{"pdus":[` + good), 1, false},
		"broken":           {io.MultiReader(strings.NewReader(`{"pdus":[`+good+`,`), broken{}), 1, false},
		"more than asked":  {strings.NewReader(`{"pdus":[` + strings.Repeat(good+",", 99) + good + `]}`), 30, true},
		"too large":        {io.MultiReader(strings.NewReader(`{"pdus":[`+good+`,"`), endless{}), 1, false},
	} {
		text, err := io.ReadAll(io.LimitReader(c.body, 20<<20))
		tail := io.Reader(strings.NewReader(""))
		if err != nil {
			tail = broken{}
		}
		r.answer("a.org", func(transport.Request) (io.Reader, error) {
			return io.MultiReader(strings.NewReader(string(text)), tail), nil
		})
		got, err := r.client.Backfill(t.Context(), "a.org", room, []matrix.EventID{"$x"}, 10)
		if len(got) != c.history || c.history > 0 && err != nil {
			t.Errorf("%s: backfill gives %d events, %v", name, len(got), err)
		}
		if c.history == 0 && !c.state && !fetch.Unreachable(err) {
			t.Errorf("%s: %v is not the server's failure", name, err)
		}
		if name == "too large" {
			continue // of the 256 MiB that a state may have
		}
		if _, err := r.client.State(t.Context(), "a.org", room, "$x"); err == nil != c.state {
			t.Errorf("%s: the state is taken: %v", name, err)
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// F9: a budget ends what would go on for ever.
func TestBudget(t *testing.T) {
	r := newRemotes(t, "a.org")
	room := roomOf("12")
	good := r.message(room, "@u:a.org", "a.org", "good")
	page := pdus(t, map[string][]string{"pdus": {string(good.JSON), string(good.JSON)}})
	r.says("a.org", page)
	ask := func(l fetch.Limits) (requests, events int, err error) {
		ctx, cancel := fetch.WithBudget(t.Context(), l)
		defer cancel()
		for range 100 {
			var got []*event.Event
			if got, err = r.client.Backfill(ctx, "a.org", room, []matrix.EventID{good.ID}, 10); err != nil {
				return requests, events, err
			}
			requests, events = requests+1, events+len(got)
		}
		return requests, events, nil
	}
	for name, c := range map[string]struct {
		limits           fetch.Limits
		requests, events int
	}{
		"requests": {fetch.Limits{Requests: 3}, 3, 6},
		"events":   {fetch.Limits{Events: 5}, 3, 5},
		"bytes":    {fetch.Limits{Bytes: int64(len(page))*3 + 1}, 3, 6},
	} {
		requests, events, err := ask(c.limits)
		if !fetch.Unreachable(err) && !errors.Is(err, fetch.ErrBudget) || requests != c.requests || events != c.events {
			t.Errorf("%s: %d requests, %d events, %v", name, requests, events, err)
		}
	}
	if requests, _, err := ask(fetch.Limits{}); requests != 100 || err != nil {
		t.Errorf("without limits: %d requests, %v", requests, err)
	}
	ctx, cancel := fetch.WithBudget(t.Context(), fetch.Limits{Time: time.Nanosecond})
	defer cancel()
	<-ctx.Done()
	if _, err := r.client.Backfill(ctx, "a.org", room, nil, 10); !errors.Is(err, fetch.ErrBudget) {
		t.Errorf("after the time: %v", err)
	}
}

// Many events come from several servers; those that are of no use are not asked
// again and again.
func TestEventsOfSeveralServers(t *testing.T) {
	r := newRemotes(t, "a.org", "b.org", "c.org")
	room := roomOf("12")
	byPath := map[string]string{}
	var ids []matrix.EventID
	for i := range 200 {
		ev := r.message(room, "@u:a.org", "a.org", fmt.Sprint(i))
		ids = append(ids, ev.ID)
		byPath[transport.Path("/_matrix/federation/v1/event", string(ev.ID))] = pdus(t, map[string][]string{"pdus": {string(ev.JSON)}})
	}
	r.answer("a.org", func(transport.Request) (io.Reader, error) { return nil, remoteError("a.org", 502) })
	r.answer("b.org", func(q transport.Request) (io.Reader, error) {
		if slices.Contains([]string{string(ids[7]), string(ids[9])}, strings.TrimPrefix(q.Path, "/_matrix/federation/v1/event/")) {
			return nil, remoteError("b.org", 404)
		}
		return strings.NewReader(byPath[q.Path]), nil
	})
	r.answer("c.org", func(q transport.Request) (io.Reader, error) {
		if strings.HasSuffix(q.Path, string(ids[9])) {
			return strings.NewReader(`{"pdus":[]}`), nil
		}
		return strings.NewReader(byPath[q.Path]), nil
	})
	servers := []matrix.ServerName{"a.org", "gone.org", "b.org", "c.org"}
	got, err := r.client.Events(t.Context(), servers, room, ids)
	if err != nil || len(got) != len(ids)-1 {
		t.Errorf("%d of %d events, %v", len(got), len(ids), err)
	}
	useless := 0
	for _, q := range r.requests() {
		if q.Destination == "a.org" || q.Destination == "gone.org" {
			useless++
		}
	}
	if useless > 16 {
		t.Errorf("%d requests went to servers that answer nothing", useless)
	}
	ctx, cancel := fetch.WithBudget(t.Context(), fetch.Limits{Requests: 20})
	defer cancel()
	if got, err := r.client.Events(ctx, servers[2:], room, ids); !errors.Is(err, fetch.ErrBudget) || len(got) == 0 || len(got) > 20 {
		t.Errorf("within a budget: %d events, %v", len(got), err)
	}
}
