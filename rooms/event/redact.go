package event

import "github.com/teahouse-chat/teahouse/internal/matrix"

// Redact returns the event without all that its room version's algorithm strips;
// the id stays. An event that has nothing to strip is returned itself.
// spec: client-server#redactions
func (e *Event) Redact() *Event {
	json := appendRedacted(make([]byte, 0, len(e.JSON)), e.Version, e.JSON, e.Type, true)
	if len(json) == len(e.JSON) {
		return e
	}
	r := &Event{Version: e.Version}
	r.locate(json)
	if err := r.decode(); err != nil {
		// Redaction keeps every field that decode needs.
		panic("event: redaction broke " + string(e.ID) + ": " + err.Error())
	}
	r.ID, r.RoomID = e.ID, e.RoomID
	return r
}

// appendRedacted appends the redacted form of a canonical event.
func appendRedacted(dst []byte, v *Version, json []byte, typ string, signatures bool) []byte {
	dst = append(dst, '{')
	for m := membersOf(json); m.more(); {
		switch string(m.key) {
		case "content":
			dst = appendMember(dst, json[m.start:m.end-len(m.value)])
			dst = appendRedactedContent(dst, v, typ, m.value)
			continue
		case "signatures":
			if !signatures {
				continue
			}
		case "prev_state", "origin", "membership":
			if !v.RedactKeepsOrigin {
				continue
			}
		case "event_id", "type", "room_id", "sender", "state_key", "hashes", "depth",
			"prev_events", "auth_events", "origin_server_ts":
		default:
			continue
		}
		dst = appendMember(dst, json[m.start:m.end])
	}
	return append(dst, '}')
}

func appendRedactedContent(dst []byte, v *Version, typ string, content []byte) []byte {
	if typ == matrix.TypeCreate && v.RedactKeepsCreate {
		return append(dst, content...)
	}
	dst = append(dst, '{')
	for m := membersOf(content); m.more(); {
		switch {
		case v.keepsContent(typ, string(m.key)):
			dst = appendMember(dst, content[m.start:m.end])
		case v.RedactKeepsSigned && typ == matrix.TypeMember && string(m.key) == "third_party_invite" && m.value[0] == '{':
			// The object stays even if it holds nothing to keep, as other servers have it.
			dst = appendMember(dst, content[m.start:m.end-len(m.value)])
			dst = cut(dst, m.value, func(key []byte) bool { return string(key) != "signed" })
		}
	}
	return append(dst, '}')
}

// keepsContent tells whether redaction keeps a key of the content of a type.
func (v *Version) keepsContent(typ, key string) bool {
	switch typ {
	case matrix.TypeMember:
		return key == "membership" || v.RedactKeepsAuthorised && key == "join_authorised_via_users_server"
	case matrix.TypeCreate:
		return key == "creator"
	case matrix.TypeJoinRules:
		return key == "join_rule" || v.RedactKeepsAllow && key == "allow"
	case matrix.TypePowerLevels:
		switch key {
		case "ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default":
			return true
		}
		return v.RedactKeepsInvite && key == "invite"
	case matrix.TypeHistoryVisibility:
		return key == "history_visibility"
	case matrix.TypeAliases:
		return v.RedactKeepsAliases && key == "aliases"
	case matrix.TypeRedaction:
		return v.RedactsInContent && key == "redacts"
	}
	return false
}
