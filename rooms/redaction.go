package rooms

import (
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// redactionTarget finds the event that p redacts and checks that its sender may
// redact it: their own events, or anybody's with the power to redact. Who has
// that may redact an event, too, that only other servers have: whoever gets it
// takes the content from it, this server as well if it comes; then it awaits it.
// spec: client-server#put_matrixclientv3roomsroomidredacteventidtxnid
func (b *Builder) redactionTarget(p Proto) (target *Stored, awaits bool, err error) {
	if p.Type != matrix.TypeRedaction || p.StateKey != nil {
		return nil, false, nil
	}
	if target, err = b.byID(p.Redacts); err != nil {
		return nil, false, err
	}
	if target != nil && target.Room == b.room.NID && target.Sender == p.Sender {
		return target, false, nil
	}
	levels, err := b.Levels()
	if err != nil {
		return nil, false, err
	}
	powerful := levels.User(p.Sender) >= levels.Redact
	switch {
	case target == nil && powerful && b.got.settled && b.head.servers != nil:
		return nil, true, nil
	case target == nil || target.Room != b.room.NID:
		return nil, false, matrix.NotFound("There is no such event in the room to redact")
	case !powerful:
		return nil, false, matrix.Forbidden("Redacting the events of others needs power level %d", levels.Redact)
	}
	return target, false, nil
}

// Levels are the power levels, what was appended included.
func (b *Builder) Levels() (*auth.PowerLevels, error) {
	var st authState
	for _, typ := range []string{matrix.TypeCreate, matrix.TypePowerLevels} {
		s, err := b.State(typ, "")
		if err != nil {
			return nil, err
		}
		if s != nil {
			st = append(st, s.Event)
		}
	}
	return auth.Levels(st), nil
}

func (b *Builder) byID(id matrix.EventID) (*Stored, error) {
	st, ok := b.got.ids[id]
	if st != nil {
		return st, nil
	}
	for _, st := range b.events {
		if st.ID == id {
			return st, nil
		}
	}
	if !ok {
		return nil, &need{id: id}
	}
	return st, nil
}

// redact takes the content from target on behalf of the redaction event.
// spec: client-server#redactions
func (b *Builder) redact(target, by *Stored) {
	if target.RedactedBy != 0 {
		return
	}
	if b.redacted == nil {
		b.redacted = map[state.EventNID]*Stored{}
	}
	redacted := &Stored{Event: target.Event.Redact(), RedactedBy: by.NID}
	b.redacted[target.NID] = redacted
	b.strips = append(b.strips, redaction{target, redacted})
}

// redaction is an event and what is left of it.
type redaction struct{ target, left *Stored }

// complete takes over what the target is beside its content. It runs on the
// writer goroutine: where the target is about to be committed, too, only there
// it has its position.
func (r redaction) complete() {
	ev, by := r.left.Event, r.left.RedactedBy
	*r.left = *r.target
	r.left.Event, r.left.RedactedBy, r.left.Txn = ev, by, nil
}

// writeRedacted stores a redacted event in the place of the original, whose
// relation to others ends.
func writeRedacted(tx *db.Tx, st *Stored) error {
	if err := tx.Exec(updateJSON, st.JSON, st.NID); err != nil {
		return err
	}
	if err := tx.Exec(markRedact, st.RedactedBy, st.NID); err != nil {
		return err
	}
	if st.Relation.Target == "" {
		return nil
	}
	err := tx.Exec(deleteRelation, st.Relation.Target, st.Relation.Type, st.Sender, st.NID)
	if err != nil || st.Thread == "" || st.Position == 0 {
		return err
	}
	return tx.Exec(dropReply, st.Room, st.Thread)
}
