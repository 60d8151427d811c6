package event

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// The limits of an event beside MaxEventBytes.
const (
	// MaxDepth is where depth stops growing; what lies beyond it in old rooms
	// reads as MaxDepth.
	MaxDepth = maxInteger

	maxFieldSize  = 255 // of type and state_key
	maxPrevEvents = 20
	maxAuthEvents = 10
)

// spans says where the members of the top level lie in the JSON.
type spans struct {
	authEvents, content, depth, eventID, hashes, originServerTS, prevEvents,
	redacts, roomID, sender, signatures, stateKey, typ, unsigned span
}

// Parse reads an untrusted PDU: it checks the JSON, the limits, the types of the
// fields and the grammar of identifiers, and names the event. What fails is a
// *FormatError; such a PDU is dropped. Hashes and signatures are for the caller:
// Verify, then ContentHashOK, then Redact if that is false.
//
// Fields that the room version does not define are kept, "unsigned" is dropped.
// If raw is canonical and has no "unsigned", the event keeps raw itself.
// spec: server-server#checks-performed-on-receipt-of-a-pdu
func Parse(v *Version, raw []byte) (*Event, error) {
	json, err := canonicalise(raw, v.StrictJSON)
	if err != nil {
		return nil, err
	}
	if json[0] != '{' {
		return nil, &FormatError{What: "not a JSON object"}
	}
	e := &Event{Version: v}
	if e.locate(json); e.at.unsigned.present() {
		e.locate(cut(make([]byte, 0, len(json)), json, dropUnsigned))
	}
	if err := e.decode(); err != nil {
		return nil, err
	}
	if err := e.validate(); err != nil {
		return nil, err
	}
	if v.EventIDs == IDText {
		return e, nil
	}
	s := getScratch()
	s.buf = e.appendSigned(s.buf)
	e.name(s.sum())
	s.free()
	return e, nil
}

// Load reads an event that Parse or Build made before, from our own store. It
// checks and hashes nothing; an error means that the store is damaged. The event
// keeps canonical.
func Load(v *Version, id matrix.EventID, roomID matrix.RoomID, canonical []byte) (e *Event, err error) {
	defer func() {
		if recover() != nil { // a span ran over the end
			e, err = nil, &FormatError{What: "stored event " + string(id) + " is damaged"}
		}
	}()
	e = &Event{Version: v}
	e.locate(canonical)
	if err := e.decode(); err != nil {
		return nil, err
	}
	e.ID, e.RoomID = id, roomID
	return e, nil
}

// locate makes json the event's and finds the known members in it.
func (e *Event) locate(json []byte) {
	e.JSON, e.at = slices.Clip(json), spans{}
	for m := membersOf(json); m.more(); {
		s := span{uint32(m.end - len(m.value)), uint32(m.end)}
		switch string(m.key) {
		case "auth_events":
			e.at.authEvents = s
		case "content":
			e.at.content = s
		case "depth":
			e.at.depth = s
		case "event_id":
			e.at.eventID = s
		case "hashes":
			e.at.hashes = s
		case "origin_server_ts":
			e.at.originServerTS = s
		case "prev_events":
			e.at.prevEvents = s
		case "redacts":
			e.at.redacts = s
		case "room_id":
			e.at.roomID = s
		case "sender":
			e.at.sender = s
		case "signatures":
			e.at.signatures = s
		case "state_key":
			e.at.stateKey = s
		case "type":
			e.at.typ = s
		case "unsigned":
			e.at.unsigned = s
		}
	}
}

// decode fills the exported fields, but for an id or room id that is a hash.
func (e *Event) decode() (err error) {
	text := func(s span, name string, required bool) string {
		if !s.present() && !required {
			return ""
		}
		t, ok := textOf(s.of(e.JSON))
		if !ok && err == nil {
			err = &FormatError{What: name + " is missing or not a string"}
		}
		return t
	}
	integer := func(s span, name string) int64 {
		// A minus or a fraction fails here too: neither depth nor time has one.
		n, bad := strconv.ParseUint(string(s.of(e.JSON)), 10, 63)
		if bad != nil && err == nil {
			err = &FormatError{What: name + " is missing, not an integer or out of range"}
		}
		return int64(n)
	}
	textID := e.Version.EventIDs == IDText
	e.Type = text(e.at.typ, "type", true)
	e.Sender = matrix.UserID(text(e.at.sender, "sender", true))
	e.hasStateKey = e.at.stateKey.present()
	e.stateKey = text(e.at.stateKey, "state_key", false)
	e.RoomID = matrix.RoomID(text(e.at.roomID, "room_id", !e.derivesRoomID()))
	if textID {
		e.ID = matrix.EventID(text(e.at.eventID, "event_id", true))
	}
	e.Depth = min(integer(e.at.depth, "depth"), MaxDepth)
	e.OriginServerTS = integer(e.at.originServerTS, "origin_server_ts")
	if err != nil {
		return err
	}
	if e.Content = slices.Clip(e.at.content.of(e.JSON)); len(e.Content) == 0 || e.Content[0] != '{' {
		return &FormatError{What: "content is missing or not an object"}
	}
	var buf [maxPrevEvents + maxAuthEvents]matrix.EventID
	ids, err := appendRefs(buf[:0], e.at.prevEvents.of(e.JSON), "prev_events", maxPrevEvents, textID)
	if err != nil {
		return err
	}
	prev := len(ids)
	if ids, err = appendRefs(ids, e.at.authEvents.of(e.JSON), "auth_events", maxAuthEvents, textID); err != nil {
		return err
	}
	if len(ids) > 0 {
		kept := slices.Clone(ids) // of its own, so that buf stays on the stack
		e.PrevEvents, e.AuthEvents = kept[:prev:prev], slices.Clip(kept[prev:])
	}
	switch e.Type {
	case matrix.TypeMember:
		e.membership, _ = textOf(find(e.Content, "membership"))
	case matrix.TypeRedaction:
		e.Redacts = e.redacts()
	}
	return nil
}

// derivesRoomID tells whether the event's own hash is its room's id.
// spec: rooms/v12#event-format
func (e *Event) derivesRoomID() bool {
	return e.Version.RoomIDHash && e.Type == matrix.TypeCreate
}

// redacts finds the target of a redaction; a malformed one redacts nothing.
// spec: rooms/v11#redactions
func (e *Event) redacts() matrix.EventID {
	value := e.at.redacts.of(e.JSON)
	if e.Version.RedactsInContent {
		value = find(e.Content, "redacts")
	}
	text, _ := textOf(value)
	id, err := matrix.ParseEventID(text)
	if err != nil {
		return ""
	}
	return id
}

// appendRefs reads prev_events or auth_events: plain ids, or [id, hashes] pairs
// where ids are texts.
func appendRefs(ids []matrix.EventID, array []byte, name string, most int, pairs bool) ([]matrix.EventID, error) {
	if len(array) == 0 || array[0] != '[' {
		return nil, &FormatError{What: name + " is missing or not an array"}
	}
	base := len(ids)
	for i := 1; array[i] != ']'; {
		if array[i] == ',' {
			i++
		}
		end := valueEnd(array, i)
		id := array[i:end]
		if pairs {
			if id = firstOfPair(id); id == nil {
				return nil, &FormatError{What: name + " is not a list of [event id, hashes] pairs"}
			}
		}
		text, ok := textOf(id)
		if !ok {
			return nil, &FormatError{What: name + " is not a list of event ids"}
		}
		if len(ids)-base == most {
			return nil, &FormatError{What: name + " has more than " + strconv.Itoa(most) + " entries"}
		}
		ids = append(ids, matrix.EventID(text))
		i = end
	}
	return ids, nil
}

// firstOfPair returns the first element of [x, {…}], or nil.
func firstOfPair(pair []byte) []byte {
	if len(pair) < 2 || pair[0] != '[' || pair[1] == ']' {
		return nil
	}
	end := valueEnd(pair, 1)
	if pair[end] != ',' || pair[end+1] != '{' || valueEnd(pair, end+1) != len(pair)-1 {
		return nil
	}
	return pair[1:end]
}

// validate checks sizes and identifiers.
// spec: client-server#size-limits
func (e *Event) validate() error {
	if len(e.JSON) > MaxEventBytes {
		return &FormatError{What: "larger than " + strconv.Itoa(MaxEventBytes) + " bytes", TooLarge: true}
	}
	for _, f := range [...]struct{ name, text string }{{"type", e.Type}, {"state_key", e.stateKey}} {
		if len(f.text) > maxFieldSize && (e.Version.StrictSize || utf8.RuneCountInString(f.text) > maxFieldSize) {
			return tooLong(f.name)
		}
		// A NUL could not be stored in every database, and no server needs one.
		if strings.IndexByte(f.text, 0) >= 0 {
			return &FormatError{What: f.name + " contains U+0000"}
		}
	}
	if _, err := matrix.ParseUserID(string(e.Sender)); err != nil {
		return &FormatError{What: "sender " + clip(string(e.Sender)) + " is not a user id"}
	}
	for _, f := range [...]struct {
		name string
		at   span
	}{{"hashes", e.at.hashes}, {"signatures", e.at.signatures}} {
		if value := f.at.of(e.JSON); len(value) == 0 || value[0] != '{' {
			return &FormatError{What: f.name + " is missing or not an object"}
		}
	}
	if value := e.at.redacts.of(e.JSON); !e.Version.RedactsInContent && len(value) > 0 && value[0] != '"' {
		return &FormatError{What: "redacts is not a string"}
	}
	if err := e.validateRoomID(); err != nil {
		return err
	}
	return e.validateEventIDs()
}

// validateRoomID checks the room id against the grammar of the room version.
// spec: rooms/v12#event-format
func (e *Event) validateRoomID() error {
	if e.derivesRoomID() {
		if e.at.roomID.present() {
			return &FormatError{What: "a create event of version " + e.Version.ID + " has no room_id"}
		}
		if !e.Is(matrix.TypeCreate, "") {
			return &FormatError{What: "a create event has an empty state_key"}
		}
		return nil
	}
	var valid bool
	if e.Version.RoomIDHash {
		valid = len(e.RoomID) == hashIDBytes && e.RoomID[0] == '!' && isURLBase64(string(e.RoomID[1:]))
	} else {
		_, err := matrix.ParseRoomID(string(e.RoomID))
		valid = err == nil && e.RoomID.Server() != ""
	}
	if !valid {
		return &FormatError{What: "room_id " + clip(string(e.RoomID)) + " is not a room id of version " + e.Version.ID}
	}
	return nil
}

func (e *Event) validateEventIDs() error {
	for _, ids := range [...][]matrix.EventID{e.PrevEvents, e.AuthEvents} {
		for _, id := range ids {
			if _, err := matrix.ParseEventID(string(id)); err != nil {
				return &FormatError{What: "reference " + clip(string(id)) + " is not an event id"}
			}
		}
	}
	if e.Version.EventIDs != IDText {
		return nil
	}
	// spec: rooms/v1#event-ids
	_, err := matrix.ParseEventID(string(e.ID))
	if _, host := matrix.ParseServerName(string(textIDHost(e.ID))); err != nil || host != nil {
		return &FormatError{What: "event_id " + clip(string(e.ID)) + " is not an event id of version " + e.Version.ID}
	}
	return nil
}

// textIDHost is the server named in an id of the form "$opaque:server".
func textIDHost(id matrix.EventID) matrix.ServerName {
	_, host, _ := strings.Cut(string(id), ":")
	return matrix.ServerName(host)
}

func tooLong(field string) error {
	return &FormatError{What: field + " is longer than " + strconv.Itoa(maxFieldSize) + " bytes", TooLarge: true}
}
