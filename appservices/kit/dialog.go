package kit

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// A dialog is a question to one user in one room. question is the row of the outbox
// that asked it.
var (
	upsertDialog = basis.SQL(`
		INSERT INTO kit_dialogs (room_id, user_id, name, data, choices, question, language, expires) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (room_id, user_id) DO UPDATE SET name = excluded.name, data = excluded.data, choices = excluded.choices,
			question = excluded.question, language = excluded.language, expires = excluded.expires`)
	selectDialog = basis.SQL(`
		SELECT d.name, d.data, d.choices, d.question, d.language, d.expires, o.event_id
		FROM kit_dialogs AS d LEFT JOIN kit_outbox AS o ON o.nid = d.question WHERE d.room_id = $1 AND d.user_id = $2`)
	deleteDialog = basis.SQL(`DELETE FROM kit_dialogs WHERE room_id = $1 AND user_id = $2`)
)

// Question is what a dialog asks.
type Question struct {
	Name    string        // whose handler gets the answer: see Service.Answer
	Text    string        // the question
	Choices []string      // what can be chosen, up to nine; none if any text is an answer
	Data    any           // what the handler has to know, as JSON
	For     time.Duration // how long an answer is waited for; 0 means 10 minutes
}

// Answer is what somebody answered: by a number, a text, a reaction, a vote or a
// click on a link.
type Answer struct {
	*Event
	Choice   int // from 1; 0 if the question has no choices
	Text     string
	Language string
	Direct   bool
	data     []byte
}

// Data reads what Question.Data was.
func (a *Answer) Data(v any) error {
	if err := json.Unmarshal(a.data, v); err != nil {
		return fmt.Errorf("kit: the data of a question cannot be read: %w", err)
	}
	return nil
}

// patienceFor is the default of Question.For.
const patienceFor = 10 * time.Minute

// Answer sets the handler of the answers to questions of a name.
func (s *Service) Answer(name string, h func(tx *Tx, a *Answer) error) { s.answers[name] = h }

// keycaps are the buttons that a question has as reactions.
var keycaps = []string{"0️⃣", "1️⃣", "2️⃣", "3️⃣", "4️⃣", "5️⃣", "6️⃣", "7️⃣", "8️⃣", "9️⃣"}

// cross is the button that cancels.
const cross = "❌"

// Ask asks the sender of an event something, instead of what it was asked before in
// the same room.
func (tx *Tx) Ask(ev *Event, q Question) Ref {
	lang := tx.language(ev.Sender, ev.Text())
	lines := []string{q.Text}
	for i, choice := range q.Choices {
		lines = append(lines, fmt.Sprintf("%d %s", i+1, choice))
	}
	lines = append(lines, tx.s.text(lang, "kit.cancel"))
	ref := tx.Reply(ev, strings.Join(lines, "\n"))
	for i := range q.Choices {
		tx.ReactTo(ref, keycaps[i+1])
	}
	tx.ReactTo(ref, cross)
	data, err := marshal(q.Data)
	tx.fail(err)
	choices, err := marshal(q.Choices)
	tx.fail(err)
	if q.For == 0 {
		q.For = patienceFor
	}
	expires := tx.s.clock.Now().Add(q.For).UnixMilli()
	tx.fail(tx.Exec(upsertDialog, ev.RoomID, ev.Sender, q.Name, data, choices, int64(ref), lang, expires))
	return ref
}

// dialog is a question that waits for its answer.
type dialog struct {
	name     string
	data     []byte
	choices  []string
	language string
	expires  int64
	question Ref
	event    *id.EventID // of the question; nil as long as that is not known
}

func (tx *Tx) dialog(room id.RoomID, user id.UserID) (*dialog, error) {
	d, found, err := One(tx.ctx, tx, selectDialog, func(r Scanner) (*dialog, error) {
		v := &dialog{}
		var choices []byte
		if err := r.Scan(&v.name, &v.data, &choices, (*int64)(&v.question), &v.language, &v.expires, &v.event); err != nil {
			return nil, err
		}
		return v, json.Unmarshal(choices, &v.choices)
	}, room, user)
	if !found {
		return nil, err
	}
	return d, err
}

// asks tells whether an event is the dialog's question. A question whose sending is
// not confirmed yet may be any.
func (d *dialog) asks(ev id.EventID) bool { return d.event == nil || *d.event == ev }

// answered looks whether a text answers a question. Where others talk, too, only
// numbers and replies to the question do.
func (s *Service) answered(tx *Tx, ev *Event, text string, toUs bool) (bool, error) {
	d, err := tx.dialog(ev.RoomID, ev.Sender)
	if d == nil || err != nil {
		return false, err
	}
	reply := ev.Message().RelatesTo.GetReplyTo()
	toQuestion := reply != "" && d.asks(reply)
	n, err := strconv.Atoi(strings.TrimSpace(text))
	number := err == nil && n >= 0 && n <= len(d.choices)
	switch lower := strings.ToLower(text); {
	case (toUs || toQuestion) && slices.Contains([]string{"cancel", "取消"}, lower), number && n == 0:
		return true, s.take(tx, ev, d, 0, "")
	case number:
		return true, s.take(tx, ev, d, n, text)
	case len(d.choices) == 0 && (toUs || toQuestion) && s.commands[lower] == nil:
		return true, s.take(tx, ev, d, 0, text)
	case toQuestion:
		tx.Reply(ev, s.text(d.language, "kit.choose", s.buttons(d)))
		return true, nil
	}
	return false, nil
}

func (s *Service) buttons(d *dialog) string {
	return strings.Join(append(slices.Clone(keycaps[1:len(d.choices)+1]), cross), " ")
}

// reacted looks whether a reaction answers a question.
func (s *Service) reacted(tx *Tx, ev *Event) (bool, error) {
	rel := ev.Content.AsReaction().RelatesTo
	choice := slices.Index(keycaps, rel.Key)
	if rel.Key == cross {
		choice = 0
	}
	return s.chosen(tx, ev, rel.EventID, choice)
}

// voted looks whether a vote in a poll answers a question. The ids of its answers are
// the numbers of the choices.
func (s *Service) voted(tx *Tx, ev *Event) (bool, error) {
	var vote struct {
		Relates    event.RelatesTo    `json:"m.relates_to"`
		Selections []string           `json:"m.selections"`
		Response   event.PollResponse `json:"org.matrix.msc3381.poll.response"`
	}
	if json.Unmarshal(ev.Content.VeryRaw, &vote) != nil {
		return false, nil
	}
	selected := append(vote.Selections, vote.Response.Answers...)
	if len(selected) == 0 {
		return false, nil
	}
	n, err := strconv.Atoi(selected[0])
	if err != nil {
		return false, nil
	}
	return s.chosen(tx, ev, vote.Relates.EventID, n)
}

func (s *Service) chosen(tx *Tx, ev *Event, question id.EventID, choice int) (bool, error) {
	d, err := tx.dialog(ev.RoomID, ev.Sender)
	if d == nil || err != nil || !d.asks(question) || choice < 0 || choice > len(d.choices) {
		return false, err
	}
	return true, s.take(tx, ev, d, choice, "")
}

// take ends a dialog and gives its handler the answer.
func (s *Service) take(tx *Tx, ev *Event, d *dialog, choice int, text string) error {
	if err := tx.Exec(deleteDialog, ev.RoomID, ev.Sender); err != nil {
		return err
	}
	handler := s.answers[d.name]
	switch {
	case d.expires < s.now() || handler == nil: // or the service has been changed
		tx.Say(ev.RoomID, s.text(d.language, "kit.expired"))
		return nil
	case choice == 0 && (len(d.choices) > 0 || text == ""):
		tx.Say(ev.RoomID, s.text(d.language, "kit.cancelled"))
		return nil
	}
	direct, err := tx.direct(ev.RoomID, ev.Sender)
	if err != nil {
		return err
	}
	if choice > 0 {
		text = d.choices[choice-1]
	}
	return handler(tx, &Answer{Event: ev, Choice: choice, Text: text, Language: d.language, Direct: direct, data: d.data})
}
