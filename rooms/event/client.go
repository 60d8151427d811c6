package event

// AppendClient appends the event as clients see it. Only the members listed here
// leave: never auth_events, prev_events, depth, hashes, signatures or members that
// the specification does not know.
//
// A redaction shows its target both at the top level and in content, whatever
// its room version.
// spec: client-server#room-event-format
func (e *Event) AppendClient(dst []byte, f ClientFormat) []byte {
	member := func(name string, value span) {
		dst = append(dst, name...)
		dst = append(dst, value.of(e.JSON)...)
	}
	dst = append(dst, `{"content":`...)
	redacts := e.Redacts
	if redacts != "" && !e.Version.RedactsInContent {
		dst = setMember(dst, e.Content, "redacts", appendString(nil, string(redacts)))
	} else {
		dst = append(dst, e.Content...)
	}
	dst = append(dst, `,"event_id":`...)
	dst = appendString(dst, string(e.ID))
	member(`,"origin_server_ts":`, e.at.originServerTS)
	if redacts != "" {
		dst = append(dst, `,"redacts":`...)
		dst = appendString(dst, string(redacts))
	}
	if !f.OmitRoomID {
		dst = append(dst, `,"room_id":`...)
		dst = appendString(dst, string(e.RoomID))
	}
	member(`,"sender":`, e.at.sender)
	if e.hasStateKey {
		member(`,"state_key":`, e.at.stateKey)
	}
	member(`,"type":`, e.at.typ)
	if f.Unsigned != nil {
		dst = append(dst, `,"unsigned":`...)
		dst = append(dst, f.Unsigned...)
	}
	return append(dst, '}')
}
