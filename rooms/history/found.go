package history

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/syncapi/token"
)

type searchAnswer struct {
	Categories struct {
		Events *foundEvents `json:"room_events,omitempty"`
	} `json:"search_categories"`
}

type foundEvents struct {
	Count      int                                 `json:"count"`
	Highlights []string                            `json:"highlights"`
	Results    []foundEvent                        `json:"results"`
	State      map[matrix.RoomID][]json.RawMessage `json:"state,omitempty"`
	Groups     map[string]map[string]*foundGroup   `json:"groups,omitempty"`
	NextBatch  string                              `json:"next_batch,omitempty"`
}

type foundEvent struct {
	Rank    int             `json:"rank"`
	Result  json.RawMessage `json:"result"`
	Context *foundContext   `json:"context,omitempty"`
}

type foundContext struct {
	Before   []json.RawMessage               `json:"events_before"`
	After    []json.RawMessage               `json:"events_after"`
	Start    string                          `json:"start"`
	End      string                          `json:"end"`
	Profiles map[matrix.UserID]memberContent `json:"profile_info,omitempty"`
}

type memberContent struct {
	DisplayName string `json:"displayname,omitempty"`
	AvatarURL   string `json:"avatar_url,omitempty"`
}

type foundGroup struct {
	Order   int              `json:"order"`
	Results []matrix.EventID `json:"results"`
}

// present renders what was found, with what was asked for beside it.
func (s *search) present(ctx context.Context, by *searchCriteria, all []found) (*foundEvents, error) {
	answer := &foundEvents{Count: s.count, Highlights: s.match.words, Results: []foundEvent{}}
	if s.next != nil {
		answer.NextBatch = s.next.String()
	}
	if by.State {
		answer.State = map[matrix.RoomID][]json.RawMessage{}
	}
	for _, f := range all {
		rendered, err := f.reader.render(ctx, []*rooms.Stored{f.event})
		if err != nil {
			return nil, err
		}
		result := foundEvent{Rank: 1, Result: rendered[0]}
		if by.Context != nil {
			if result.Context, err = f.around(ctx, by.Context); err != nil {
				return nil, err
			}
		}
		answer.Results = append(answer.Results, result)
		if _, there := answer.State[f.event.RoomID]; by.State && !there {
			if answer.State[f.event.RoomID], err = f.state(ctx); err != nil {
				return nil, err
			}
		}
	}
	for _, g := range by.Groups.By {
		if answer.Groups == nil {
			answer.Groups = map[string]map[string]*foundGroup{}
		}
		switch g.Key {
		case "room_id":
			answer.Groups[g.Key] = group(all, func(st *rooms.Stored) string { return string(st.RoomID) })
		case "sender":
			answer.Groups[g.Key] = group(all, func(st *rooms.Stored) string { return string(st.Sender) })
		default:
			return nil, matrix.InvalidParam(`results are grouped by "room_id" or "sender"`)
		}
	}
	return answer, nil
}

func group(all []found, by func(*rooms.Stored) string) map[string]*foundGroup {
	groups := map[string]*foundGroup{}
	for _, f := range all {
		name := by(f.event)
		if groups[name] == nil {
			groups[name] = &foundGroup{Order: len(groups) + 1}
		}
		groups[name].Results = append(groups[name].Results, f.event.ID)
	}
	return groups
}

// around renders what was before and after the event.
func (f found) around(ctx context.Context, want *searchAround) (*foundContext, error) {
	before, err := limited(want.Before, 0, aroundDefault, aroundMax)
	if err != nil {
		return nil, err
	}
	after, err := limited(want.After, 0, aroundDefault, aroundMax)
	if err != nil {
		return nil, err
	}
	s := &surroundings{reader: f.reader, filter: nothingLeftOut, event: f.event}
	if err := s.collect(ctx, before, after); err != nil {
		return nil, err
	}
	c := &foundContext{Start: token.Point(s.start), End: token.Point(s.end)}
	if c.Before, err = f.reader.render(ctx, s.before); err != nil {
		return nil, err
	}
	if c.After, err = f.reader.render(ctx, s.after); err != nil {
		return nil, err
	}
	if want.Profiles {
		c.Profiles, err = s.profiles(ctx)
	}
	return c, err
}

// profiles gives what those who are heard of called themselves then.
func (s *surroundings) profiles(ctx context.Context) (map[matrix.UserID]memberContent, error) {
	all := append(append([]*rooms.Stored{s.event}, s.before...), s.after...)
	members, err := s.reader.engine.MembersAt(ctx, s.event.Resolved, sendersOf(all))
	if err != nil {
		return nil, err
	}
	profiles := make(map[matrix.UserID]memberContent, len(members))
	for _, st := range members {
		profiles[matrix.UserID(st.StateKey())] = memberContent(profileOf(st))
	}
	return profiles, nil
}

// state renders the room's state as far as the reader may know it.
func (f found) state(ctx context.Context) ([]json.RawMessage, error) {
	m, err := f.reader.state(ctx)
	if err != nil {
		return nil, err
	}
	events, err := f.reader.engine.StateEvents(ctx, m, nil)
	if err != nil {
		return nil, err
	}
	return f.reader.renderState(ctx, events)
}
