package kit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/internal/db"
)

const (
	// maxRetries is how often an event is handled again after a failure, and retryRest
	// the time before the first of these; each further one waits ten times as long.
	maxRetries = 3
	retryRest  = time.Second
	// batch is how many events of a room are read at a time.
	batch = 32
)

// waiting is a row of the inbox.
type waiting struct {
	nid      int64
	id       id.EventID
	event    []byte
	attempts int
	received int64
}

// handleRoom handles what waits in a room, in its order.
func (s *Service) handleRoom(ctx context.Context, room string) time.Time {
	for ctx.Err() == nil {
		rows, err := db.All(ctx, s.db, selectWaiting, func(r db.Scanner) (w waiting, err error) {
			err = r.Scan(&w.nid, &w.id, &w.event, &w.attempts, &w.received)
			return w, err
		}, room, batch)
		if err != nil {
			return s.later(ctx, "events could not be read from the inbox; trying again", err)
		}
		if len(rows) == 0 {
			break
		}
		for _, w := range rows {
			if again := s.handle(ctx, id.RoomID(room), w); !again.IsZero() {
				return again
			}
		}
	}
	return time.Time{}
}

// later is when something is tried again that failed for the database's sake.
func (s *Service) later(ctx context.Context, what string, err error) time.Time {
	if ctx.Err() == nil {
		s.log.Error(what, "error", err)
	}
	return s.clock.Now().Add(retryRest)
}

// handle has one event handled, and tells when to try again if that failed. All that
// the handlers write and send is committed together with the note that the event is
// done, so that it is handled once, whatever is killed when.
func (s *Service) handle(ctx context.Context, room id.RoomID, w waiting) time.Time {
	ev, err := decode(w.event)
	if err != nil {
		return s.failed(ctx, &Event{Event: event.Event{ID: w.id, RoomID: room}}, w, err)
	}
	// The homeserver's word goes before what the event says of itself.
	ev.ID, ev.RoomID, ev.Received = w.id, room, time.UnixMilli(w.received)
	var failed bool // by the handlers, not by the database
	var took time.Duration
	err = s.db.Write(ctx, func(d *db.Tx) error {
		failed = true
		began := s.clock.Now()
		if err := s.within(ctx, d, func(tx *Tx) error { return s.dispatch(tx, ev) }); err != nil {
			return err
		}
		took = s.clock.Now().Sub(began)
		// This comes last because it waits for what the statements before it say.
		n, err := d.Changed(finishEvent, w.nid, s.now())
		if err != nil {
			return err
		}
		failed = false
		if n == 0 {
			return errHandled
		}
		return nil
	})
	switch {
	case err == nil:
		s.measures.events.WithLabelValues("handled").Inc()
		s.measures.handler.Observe(took.Seconds())
		return time.Time{}
	case errors.Is(err, errHandled) || ctx.Err() != nil:
		return time.Time{}
	case !failed:
		return s.later(ctx, "that an event was handled could not be stored; trying again", err)
	}
	return s.failed(ctx, ev, w, err)
}

// errHandled undoes what was done for an event that is done already: another process
// with the same database was faster.
var errHandled = errors.New("kit: the event has been handled")

// dispatch calls the handlers of an event.
func (s *Service) dispatch(tx *Tx, ev *Event) error {
	if err := s.follow(tx, ev); err != nil {
		return err
	}
	if ev.Sender == s.cfg.User {
		return nil
	}
	if heeded, err := s.converse(tx, ev); heeded || err != nil {
		return err
	}
	for _, h := range s.handlers[ev.Type.Type] {
		if err := h(tx, ev); err != nil {
			return err
		}
	}
	return nil
}

// converse looks whether an event is a command or an answer to a question. What was
// one is not given to other handlers.
func (s *Service) converse(tx *Tx, ev *Event) (bool, error) {
	switch ev.Type.Type {
	case event.EventMessage.Type:
		return s.heed(tx, ev)
	case event.EventReaction.Type:
		return s.reacted(tx, ev)
	case "m.poll.response", event.EventUnstablePollResponse.Type:
		return s.voted(tx, ev)
	}
	return false, nil
}

// failed notes that an event could not be handled. After too many times it is set
// aside, so that what is behind it goes on, and somebody is told.
func (s *Service) failed(ctx context.Context, ev *Event, w waiting, why error) time.Time {
	problem := printable(why.Error())
	state := stateWaiting
	if w.attempts >= maxRetries {
		state = stateAside
	}
	err := s.Do(ctx, func(tx *Tx) error {
		if err := tx.Exec(failEvent, w.nid, problem, state); err != nil {
			return err
		}
		if state == stateAside {
			return s.confess(tx, ev, problem)
		}
		return nil
	})
	if err != nil {
		return s.later(ctx, "the failure of a handler could not be stored", err)
	}
	s.log.Error("an event could not be handled", "event", ev.ID, "room", ev.RoomID, "attempt", w.attempts+1, "set_aside", state == stateAside, "error", problem)
	if state == stateAside {
		s.measures.events.WithLabelValues("set_aside").Inc()
		return time.Time{}
	}
	s.measures.events.WithLabelValues("failed").Inc()
	rest := retryRest
	for range w.attempts {
		rest *= 10
	}
	return s.clock.Now().Add(rest)
}

// Retry has the events that were set aside handled again, and counts them.
func (s *Service) Retry(ctx context.Context) (n int, err error) {
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		rooms, err := db.All(ctx, tx, selectAside, scanRoom)
		if err != nil {
			return err
		}
		for _, room := range rooms {
			tx.Publish(toHandle(room))
		}
		n = len(rooms)
		return tx.Exec(retryEvents)
	})
	return n, err
}

// confess tells that an event was set aside: those who run the service, and who said
// it, if it was said to the service.
func (s *Service) confess(tx *Tx, ev *Event, problem string) error {
	if s.cfg.Admins != "" {
		tx.Say(s.cfg.Admins, fmt.Sprintf("The event %s in %s could not be handled and was set aside: %s", ev.ID, ev.RoomID, firstLine(problem)))
	}
	direct, err := tx.direct(ev.RoomID, ev.Sender)
	if _, how := s.addressed(ev, ev.Text()); ev.Text() != "" && (direct || how != unnamed) {
		tx.Reply(ev, s.text(tx.language(ev.Sender, ev.Text()), "kit.failed"))
	}
	return err
}

// printable is a text that every database stores.
func printable(text string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", "\uFFFD"), "\uFFFD")
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
