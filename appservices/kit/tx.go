package kit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/internal/db"
)

// Tx is the one database transaction in which something is handled: rows of the
// service's tables are written with Exec, messages are sent with Reply, Send and so
// on, and either all of it happens, once, or none of it. What is sent leaves after
// the commit, for each room in the order in which it was sent.
//
// It belongs to the handler's goroutine until the handler returns. A handler may be
// run again if the transaction fails, so it has no effects but through the Tx, and
// asks nobody but the database: what needs the network belongs before Service.Do.
// Once something has failed the handler has failed, whatever it returns.
type Tx struct {
	s   *Service
	ctx context.Context
	tx  *db.Tx
	err error // what the first failed send said
}

// Ref is a row of the outbox: a message that is sent some time, and whose event id is
// not known before. It can be edited, reacted to and redacted at once. The zero Ref
// is no message.
type Ref int64

// Context ends with the transaction.
func (tx *Tx) Context() context.Context { return tx.ctx }

// Query reads within the transaction.
func (tx *Tx) Query(ctx context.Context, s *Stmt, args ...any) (*Rows, error) {
	return tx.tx.Query(ctx, s, args...)
}

// Exec runs a statement whose result is not needed.
func (tx *Tx) Exec(s *Stmt, args ...any) error { return tx.tx.Exec(s, args...) }

// Changed runs an INSERT, UPDATE or DELETE and counts the rows it affected.
func (tx *Tx) Changed(s *Stmt, args ...any) (int64, error) { return tx.tx.Changed(s, args...) }

// Next gives a number that no other row of a table has had, from a sequence that is
// named for it.
func (tx *Tx) Next(sequence string) int64 { return tx.s.db.Sequence(sequence).Next() }

// fail keeps the first failure of a send, which makes the handler fail.
func (tx *Tx) fail(err error) {
	if err != nil && tx.err == nil {
		tx.err = err
	}
}

// row is what is put into the outbox.
type row struct {
	lane    string
	room    id.RoomID
	kind    string
	typ     string // of an event
	subject string // a state key, an event, a user, or a reason
	target  Ref
	content any
}

// The kinds of rows.
const (
	kindSend     = "send"
	kindState    = "state"
	kindRedact   = "redact"
	kindJoin     = "join"
	kindLeave    = "leave"
	kindInvite   = "invite"
	kindDirect   = "direct"
	kindForewarn = "forewarn"
	kindDeserted = "deserted" // leaves the room if nobody else is in it
	kindWebhook  = "webhook"
)

func (tx *Tx) put(r row) Ref {
	var content []byte
	if r.content != nil {
		var err error
		if content, err = marshal(r.content); err != nil {
			tx.fail(fmt.Errorf("kit: what is to be sent is no JSON: %w", err))
			return 0
		}
	}
	var target *int64
	if r.target != 0 {
		target = (*int64)(&r.target)
	}
	if r.lane == "" {
		r.lane = string(r.room)
	}
	ref := Ref(tx.s.outboxIDs.Next())
	tx.fail(tx.Exec(insertRow, int64(ref), r.lane, r.room, r.kind, r.typ, r.subject, target, content, tx.s.now()))
	tx.tx.Publish(toSend(r.lane))
	return ref
}

// marshal is JSON without the escapes that are for HTML.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// Send sends an event to a room; content is anything that is a JSON object.
func (tx *Tx) Send(room id.RoomID, typ event.Type, content any) Ref {
	return tx.put(row{room: room, kind: kindSend, typ: typ.Type, content: content})
}

// SetState sets a room's state.
func (tx *Tx) SetState(room id.RoomID, typ event.Type, key string, content any) Ref {
	return tx.put(row{room: room, kind: kindState, typ: typ.Type, subject: key, content: content})
}

// Say sends a text as a notice, which other bots do not answer.
func (tx *Tx) Say(room id.RoomID, text string) Ref {
	return tx.Send(room, event.EventMessage, Text(text))
}

// Reply answers an event with a text, in its thread if it is in one.
func (tx *Tx) Reply(ev *Event, text string) Ref { return tx.ReplyWith(ev, Text(text)) }

// ReplyWith answers an event with a message of any content.
func (tx *Tx) ReplyWith(ev *Event, content *event.MessageEventContent) Ref {
	answer := *content
	to := ev.replyTo()
	if to == "" { // a link
		return tx.Send(ev.RoomID, event.EventMessage, &answer)
	}
	rel := &event.RelatesTo{}
	rel.SetReplyTo(to)
	if thread := ev.Thread(); thread != "" {
		rel.SetThread(thread, ev.ID)
		rel.IsFallingBack = false
	}
	answer.RelatesTo = rel
	return tx.Send(ev.RoomID, event.EventMessage, &answer)
}

// Text is the content of a notice. It mentions nobody, whatever names it holds: what
// people say to a service does not make it call a whole room.
func Text(text string) *event.MessageEventContent {
	return &event.MessageEventContent{MsgType: event.MsgNotice, Body: text, Mentions: &event.Mentions{}}
}

// HTML is the content of a notice with a formatted body, and the plain one for who
// cannot see it. The service answers for what the HTML holds.
func HTML(html, text string) *event.MessageEventContent {
	content := Text(text)
	content.Format, content.FormattedBody = event.FormatHTML, html
	return content
}

// React reacts to an event that was received.
func (tx *Tx) React(ev *Event, key string) Ref {
	return tx.Send(ev.RoomID, event.EventReaction, reaction(ev.ID, key))
}

// ReactTo reacts to a message of the service's own: so are buttons put on it.
func (tx *Tx) ReactTo(ref Ref, key string) Ref {
	return tx.about(ref, row{kind: kindSend, typ: event.EventReaction.Type, content: reaction("", key)})
}

func reaction(to id.EventID, key string) *event.ReactionEventContent {
	return &event.ReactionEventContent{RelatesTo: event.RelatesTo{Type: event.RelAnnotation, EventID: to, Key: key}}
}

// Edit gives a message of the service's own a new content.
func (tx *Tx) Edit(ref Ref, content *event.MessageEventContent) Ref {
	edited := *content
	edited.SetEdit("")
	return tx.about(ref, row{kind: kindSend, typ: event.EventMessage.Type, content: &edited})
}

// Redact removes a message of the service's own.
func (tx *Tx) Redact(ref Ref, reason string) Ref {
	return tx.about(ref, row{kind: kindRedact, content: redaction(reason)})
}

// RedactEvent removes an event of anybody; the service needs the power to do so.
func (tx *Tx) RedactEvent(room id.RoomID, ev id.EventID, reason string) Ref {
	return tx.put(row{room: room, kind: kindRedact, subject: string(ev), content: redaction(reason)})
}

func redaction(reason string) map[string]string {
	if reason == "" {
		return map[string]string{}
	}
	return map[string]string{"reason": reason}
}

// about puts a row behind the message that it is about. What is about a message that
// is not known any more is left out.
func (tx *Tx) about(ref Ref, r row) Ref {
	sent, found, err := tx.sent(ref)
	if err != nil || !found {
		tx.fail(err)
		return 0
	}
	r.lane, r.room, r.target = sent.lane, sent.room, ref
	return tx.put(r)
}

type sentRow struct {
	lane  string
	room  id.RoomID
	event *id.EventID
}

func (tx *Tx) sent(ref Ref) (sentRow, bool, error) {
	return One(tx.ctx, tx, selectRow, func(r Scanner) (v sentRow, err error) {
		err = r.Scan(&v.lane, &v.room, &v.event)
		return v, err
	}, int64(ref))
}

// EventID is the event that a message became; false if it is not sent yet, was given
// up, or is so old that it is forgotten.
func (tx *Tx) EventID(ref Ref) (id.EventID, bool) {
	sent, found, err := tx.sent(ref)
	tx.fail(err)
	if !found || sent.event == nil {
		return "", false
	}
	return *sent.event, true
}

// Sent is the message of the service's own that an event is, if it is one: what
// people reply and react to.
func (tx *Tx) Sent(ev id.EventID) (Ref, bool) {
	ref, found, err := One(tx.ctx, tx, selectSent, func(r Scanner) (v Ref, err error) {
		err = r.Scan((*int64)(&v))
		return v, err
	}, ev)
	tx.fail(err)
	return ref, found
}

// then is published to be called after the commit.
type then func()

// Then calls f after the commit. It must not block.
func (tx *Tx) Then(f func()) { tx.tx.Publish(then(f)) }

// Join joins a room that the service's user is invited to or that is public.
func (tx *Tx) Join(room id.RoomID, via ...string) Ref {
	return tx.put(row{room: room, kind: kindJoin, content: via})
}

// Leave leaves a room, or refuses an invitation to it.
func (tx *Tx) Leave(room id.RoomID) Ref { return tx.put(row{room: room, kind: kindLeave}) }

// Invite invites a user to a room.
func (tx *Tx) Invite(room id.RoomID, user id.UserID) Ref {
	return tx.put(row{room: room, kind: kindInvite, subject: string(user)})
}

// Do runs fn in a transaction of its own: for work that no event caused. It returns
// when what was written, and what is to be sent, is safe on disk.
func (s *Service) Do(ctx context.Context, fn func(tx *Tx) error) error {
	return s.db.Write(ctx, func(d *db.Tx) error { return s.within(ctx, d, fn) })
}

func (s *Service) within(ctx context.Context, d *db.Tx, fn func(tx *Tx) error) error {
	tx := &Tx{s: s, ctx: ctx, tx: d}
	if err := fn(tx); err != nil {
		return err
	}
	return tx.err
}

// Query reads what is committed.
func (s *Service) Query(ctx context.Context, st *Stmt, args ...any) (*Rows, error) {
	return s.db.Query(ctx, st, args...)
}
