package kit

import (
	"context"
	"encoding/json"

	"maunium.net/go/mautrix/event"
)

// ephemeralKept is how many ephemeral events wait for their handlers at most; what
// comes when there are as many is left out.
const ephemeralKept = 1000

// OnEphemeral has a handler called for typing, receipts or presence, where the
// homeserver sends them: the registration has to ask for it by receive_ephemeral.
// They are passing: they have no ids, are not stored before they are handled, and one
// that fails is left out.
func (s *Service) OnEphemeral(typ event.Type, h Handler) {
	s.ephemeral[typ.Type] = append(s.ephemeral[typ.Type], h)
}

// pass has ephemeral events handled some time soon.
// spec: application-service#pushing-ephemeral-data
func (s *Service) pass(events []json.RawMessage) {
	if len(s.ephemeral) == 0 {
		return
	}
	for _, text := range events {
		ev := &Event{Received: s.clock.Now()}
		if json.Unmarshal(text, &ev.Event) != nil || s.ephemeral[ev.Type.Type] == nil {
			continue
		}
		ev.Type.Class = event.EphemeralEventType
		_ = ev.Content.ParseRaw(ev.Type)
		done := s.Busy()
		select {
		case s.passing <- passing{ev, done}:
		default:
			done()
		}
	}
}

// passing is an ephemeral event on its way.
type passing struct {
	*Event
	done func()
}

// handlePassing handles ephemeral events, in their order.
func (s *Service) handlePassing(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-s.passing:
			err := s.Do(ctx, func(tx *Tx) error {
				for _, h := range s.ephemeral[p.Type.Type] {
					if err := h(tx, p.Event); err != nil {
						return err
					}
				}
				return nil
			})
			p.done()
			if err != nil && ctx.Err() == nil {
				s.log.Error("an ephemeral event could not be handled", "type", p.Type.Type, "error", printable(err.Error()))
			}
		}
	}
}
