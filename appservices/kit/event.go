package kit

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// Event is something that happened in a room. Content.Parsed is of the type that
// mautrix has for the event, if the content is as it should be.
type Event struct {
	event.Event
	// Received is when the service was told of it.
	Received time.Time
}

// decode reads an event as the homeserver gave it. A content that is not what the
// type demands is no error: whoever looks at it finds nothing parsed.
func decode(text []byte) (ev *Event, err error) {
	defer func() { // strangers write events, and others wrote what parses them
		if v := recover(); v != nil {
			err = fmt.Errorf("kit: reading an event panicked: %v", v)
		}
	}()
	ev = &Event{}
	if err := json.Unmarshal(text, &ev.Event); err != nil {
		return nil, fmt.Errorf("kit: an event cannot be read: %w", err)
	}
	if ev.StateKey != nil {
		ev.Type.Class = event.StateEventType
	} else {
		ev.Type.Class = event.MessageEventType
	}
	_ = ev.Content.ParseRaw(ev.Type)
	return ev, nil
}

// Message is the content of a message; nil if the event is none.
func (ev *Event) Message() *event.MessageEventContent {
	m, _ := ev.Content.Parsed.(*event.MessageEventContent)
	return m
}

// Text is what somebody wrote: the body of a text message without what it quotes of
// the message that it replies to. It is empty for everything else, and for edits: an
// edit is not said anew.
func (ev *Event) Text() string {
	m := ev.Message()
	if m == nil || m.MsgType != event.MsgText || m.RelatesTo != nil && m.RelatesTo.Type == event.RelReplace {
		return ""
	}
	text := m.Body
	if m.RelatesTo.GetReplyTo() != "" {
		text = event.TrimReplyFallbackText(text)
	}
	return strings.TrimSpace(text)
}

// Caption is what somebody wrote about a file that they sent.
func (ev *Event) Caption() string {
	m := ev.Message()
	if m == nil || m.MsgType != event.MsgFile || m.FileName == "" || m.FileName == m.Body || m.RelatesTo != nil && m.RelatesTo.Type == event.RelReplace {
		return ""
	}
	return strings.TrimSpace(m.Body)
}

// replyTo is what a reply to the event refers to: a message. A reaction or a vote is
// none, but it is about one.
func (ev *Event) replyTo() id.EventID {
	if rel, ok := ev.Content.Parsed.(event.Relatable); ok && ev.Message() == nil {
		if about := rel.OptionalGetRelatesTo(); about != nil && about.EventID != "" {
			return about.EventID
		}
	}
	return ev.ID
}

// Thread is the root of the thread that the event is in.
func (ev *Event) Thread() id.EventID {
	if m := ev.Message(); m != nil {
		return m.RelatesTo.GetThreadParent()
	}
	return ""
}

// Sent is when its sender's server says that it was sent.
func (ev *Event) Sent() time.Time { return time.UnixMilli(ev.Timestamp) }
