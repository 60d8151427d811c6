package rooms

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Viewer is whom events are rendered for.
type Viewer struct {
	User    matrix.UserID
	Device  matrix.DeviceID
	Ignores map[matrix.UserID]struct{} // whose events are in no aggregation
}

// Format says how events are rendered.
type Format struct {
	OmitRoomID bool // as /sync has them
	Bundle     bool // with aggregations of the events that relate to them
	PDU        bool // as they are between servers: event_format "federation"
	// State renders events as entries of a state: without what was before them
	// and without the viewer's membership then, which tell of other times than
	// the state and cost a look into each event's own past.
	State bool
}

// Render gives events the form that clients get, with unsigned data for the
// viewer. All events are of the one room.
// spec: client-server#room-event-format
func (e *Engine) Render(ctx context.Context, r *Room, v Viewer, events []*Stored, f Format) ([]json.RawMessage, error) {
	rendered := make([]json.RawMessage, len(events))
	if f.PDU {
		for i, st := range events {
			rendered[i] = st.JSON
		}
		return rendered, nil
	}
	rd, err := e.renderer(ctx, r, v, events, f)
	if err != nil {
		return nil, err
	}
	for i, st := range events {
		if rendered[i], err = rd.render(ctx, st); err != nil {
			return nil, err
		}
	}
	return rendered, nil
}

// renderer holds what was read for a list of events.
type renderer struct {
	viewer  Viewer
	format  Format
	now     int64
	others  map[state.EventNID]*Stored // replaced state events and redactions
	at      *visibilities
	bundles map[matrix.EventID][]byte // members of m.relations
}

func (e *Engine) renderer(ctx context.Context, r *Room, v Viewer, events []*Stored, f Format) (*renderer, error) {
	rd := &renderer{viewer: v, format: f, now: e.Now().UnixMilli()}
	var nids []state.EventNID
	for _, st := range events {
		if st.Replaces != 0 && !f.State {
			nids = append(nids, st.Replaces)
		}
		if st.RedactedBy != 0 {
			nids = append(nids, st.RedactedBy)
		}
	}
	others, err := e.Events(ctx, nids)
	if err != nil {
		return nil, err
	}
	rd.others = make(map[state.EventNID]*Stored, len(others))
	for _, st := range others {
		rd.others[st.NID] = st
	}
	if f.State || v.User == "" {
		return rd, nil
	}
	if rd.at, err = e.visibilities(ctx, r, v.User); err != nil {
		return nil, err
	}
	if f.Bundle {
		rd.bundles, err = e.bundles(ctx, r, v, events)
	}
	return rd, err
}

func (rd *renderer) render(ctx context.Context, st *Stored) ([]byte, error) {
	u := make([]byte, 0, 256)
	u = append(u, `{"age":`...)
	u = strconv.AppendInt(u, max(rd.now-st.OriginServerTS, 0), 10)
	if rd.at != nil {
		membership, err := rd.at.membershipAt(ctx, st)
		if err != nil {
			return nil, err
		}
		u = append(u, `,"membership":"`...)
		u = append(u, membership...)
		u = append(u, '"')
	}
	old, err := rd.replaced(ctx, st)
	if err != nil {
		return nil, err
	}
	if old != nil {
		u = append(u, `,"prev_content":`...)
		u = append(u, old.Content...)
		u = append(u, `,"prev_sender":`...)
		u = appendString(u, string(old.Sender))
		u = append(u, `,"replaces_state":`...)
		u = appendString(u, string(old.ID))
	}
	if by := rd.others[st.RedactedBy]; by != nil {
		u = append(u, `,"redacted_because":`...)
		u = by.AppendClient(u, event.ClientFormat{})
		u = append(u, `,"redacted_by":`...)
		u = appendString(u, string(by.ID))
	}
	if t := st.Txn; t != nil && t.User == rd.viewer.User && t.Device == rd.viewer.Device {
		u = append(u, `,"transaction_id":`...)
		u = appendString(u, t.ID)
	}
	if b := rd.bundles[st.ID]; b != nil {
		u = append(u, `,"m.relations":{`...)
		u = append(u, b...)
		u = append(u, '}')
	}
	u = append(u, '}')
	return st.AppendClient(make([]byte, 0, len(st.JSON)+len(u)), event.ClientFormat{OmitRoomID: rd.format.OmitRoomID, Unsigned: u}), nil
}

// replaced is the state event that another one replaced, nil if there is none or
// the viewer may not see it. Their own memberships are known to everybody.
// spec: client-server#room-event-format
func (rd *renderer) replaced(ctx context.Context, st *Stored) (*Stored, error) {
	old := rd.others[st.Replaces]
	if old == nil || rd.at == nil || old.Is(matrix.TypeMember, string(rd.viewer.User)) {
		return old, nil
	}
	ok, err := rd.at.allows(ctx, old)
	if !ok || err != nil {
		return nil, err
	}
	return old, nil
}

// appendString appends a JSON string.
func appendString(dst []byte, s string) []byte {
	q, err := json.Marshal(s)
	if err != nil { // a string always marshals
		return append(dst, `""`...)
	}
	return append(dst, q...)
}

// strippedTypes are the state events that tell an invited or knocking user what
// the room is.
// spec: client-server#stripped-state
var strippedTypes = []string{
	matrix.TypeCreate, matrix.TypeName, matrix.TypeAvatar, matrix.TypeTopic, matrix.TypeJoinRules,
	matrix.TypeCanonicalAlias, matrix.TypeEncryption,
}

// Stripped renders the state that someone sees who is not in the room yet,
// followed by extra events.
func (e *Engine) Stripped(ctx context.Context, m *state.Map, extra ...*Stored) ([]json.RawMessage, error) {
	var stripped []json.RawMessage
	for _, typ := range strippedTypes {
		st, err := e.StateEvent(ctx, m, typ, "")
		if err != nil {
			return nil, err
		}
		if st != nil {
			stripped = append(stripped, StrippedEvent(st))
		}
	}
	for _, st := range extra {
		stripped = append(stripped, StrippedEvent(st))
	}
	return stripped, nil
}

// StrippedEvent renders one event as stripped state.
func StrippedEvent(st *Stored) json.RawMessage {
	b := append([]byte(nil), `{"type":`...)
	b = appendString(b, st.Type)
	b = append(b, `,"state_key":`...)
	b = appendString(b, st.StateKey())
	b = append(b, `,"sender":`...)
	b = appendString(b, string(st.Sender))
	if st.Type == matrix.TypeCreate {
		b = append(b, `,"event_id":`...)
		b = appendString(b, string(st.ID))
		b = append(b, `,"origin_server_ts":`...)
		b = strconv.AppendInt(b, st.OriginServerTS, 10)
	}
	b = append(b, `,"content":`...)
	b = append(b, st.Content...)
	return append(b, '}')
}
