package event

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Build makes an event of a draft: canonical, with its content hash, signed by
// server and named. A draft that breaks a limit of events is a *FormatError;
// Depth is clipped to MaxDepth. The draft's slices are not kept.
//
// Building the same draft twice gives the same event, in every room version: the
// text ids of versions 1 and 2 are made from a hash of the draft.
// spec: server-server#signing-events
func Build(v *Version, d Draft, server matrix.ServerName, key SigningKey) (*Event, error) {
	content, err := draftContent(v, d)
	if err != nil {
		return nil, err
	}
	s := getScratch()
	defer s.free()
	var id matrix.EventID
	if v.EventIDs == IDText {
		s.buf = d.append(s.buf, v, content, "", nil)
		hash := s.sum()
		id = matrix.EventID("$" + base64.RawURLEncoding.EncodeToString(hash[:18]) + ":" + string(server))
		s.buf = s.buf[:0]
	}
	s.buf = d.append(s.buf, v, content, id, nil)
	if canonical, err := check(s.buf, v.StrictJSON); err != nil {
		return nil, err
	} else if !canonical {
		return nil, &FormatError{What: "malformed draft"}
	}
	hash := s.sum() // of an event without hashes, signatures and unsigned
	s.buf = s.buf[:0]
	unsigned := d.append(make([]byte, 0, len(content)+1024), v, content, id, &hash)

	s.buf = appendRedacted(s.buf, v, unsigned, d.Type, false)
	json, err := addSignature(unsigned, string(server), key, s.buf)
	if err != nil {
		return nil, err
	}
	e := &Event{Version: v}
	e.locate(json)
	if err := e.decode(); err != nil {
		return nil, err
	}
	if err := e.validate(); err != nil {
		return nil, err
	}
	// We do not add to what some servers cannot read, whatever the version allows.
	if len(e.stateKey) > maxFieldSize {
		return nil, tooLong("state_key")
	}
	if len(e.Type) > maxFieldSize {
		return nil, tooLong("type")
	}
	if v.EventIDs != IDText {
		e.name(s.sum())
	}
	return e, nil
}

// draftContent is the draft's content in canonical form, with the target of a
// redaction where the room version keeps it there.
func draftContent(v *Version, d Draft) ([]byte, error) {
	content, err := canonicalise(d.Content, v.StrictJSON)
	if err != nil {
		return nil, err
	}
	if content[0] != '{' {
		return nil, &FormatError{What: "content is not an object"}
	}
	if d.Redacts != "" && v.RedactsInContent {
		content = setMember(nil, content, "redacts", appendString(nil, string(d.Redacts)))
	}
	return content, nil
}

// append writes the draft as a canonical event without signatures. The members
// stand in the order of their names.
func (d Draft) append(dst []byte, v *Version, content []byte, id matrix.EventID, hash *[sha256.Size]byte) []byte {
	text := func(name, value string) {
		dst = append(dst, name...)
		dst = appendString(dst, value)
	}
	dst = append(dst, `{"auth_events":`...)
	dst = appendDraftRefs(dst, v, d.AuthEvents)
	dst = append(dst, `,"content":`...)
	dst = append(dst, content...)
	dst = append(dst, `,"depth":`...)
	dst = strconv.AppendInt(dst, min(d.Depth, MaxDepth), 10)
	if id != "" {
		text(`,"event_id":`, string(id))
	}
	if hash != nil {
		dst = append(dst, `,"hashes":{"sha256":"`...)
		dst = base64.RawStdEncoding.AppendEncode(dst, hash[:])
		dst = append(dst, `"}`...)
	}
	dst = append(dst, `,"origin_server_ts":`...)
	dst = strconv.AppendInt(dst, d.OriginServerTS, 10)
	dst = append(dst, `,"prev_events":`...)
	dst = appendDraftRefs(dst, v, d.PrevEvents)
	if d.Redacts != "" && !v.RedactsInContent {
		text(`,"redacts":`, string(d.Redacts))
	}
	if d.RoomID != "" {
		text(`,"room_id":`, string(d.RoomID))
	}
	text(`,"sender":`, string(d.Sender))
	if d.StateKey != nil {
		text(`,"state_key":`, *d.StateKey)
	}
	text(`,"type":`, d.Type)
	return append(dst, '}')
}

// appendDraftRefs writes ids, or [id, hashes] pairs where ids are texts.
// spec: rooms/v3#event-format
func appendDraftRefs(dst []byte, v *Version, refs []Ref) []byte {
	dst = append(dst, '[')
	for n, r := range refs {
		if n > 0 {
			dst = append(dst, ',')
		}
		if v.EventIDs != IDText {
			dst = appendString(dst, string(r.ID))
			continue
		}
		dst = append(dst, '[')
		dst = appendString(dst, string(r.ID))
		dst = append(dst, `,{"sha256":"`...)
		dst = base64.RawStdEncoding.AppendEncode(dst, r.Hash[:])
		dst = append(dst, `"}]`...)
	}
	return append(dst, ']')
}

// JSON is the draft as one server gives it to another to complete and sign:
// without hashes, signatures and, in the room versions whose events have one, its
// id. The content must be canonical.
func (d Draft) JSON(v *Version) []byte { return d.append(nil, v, d.Content, "", nil) }
