package rooms

import (
	"fmt"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// commit enqueues what was appended; the room's turn is held.
func (b *Builder) commit(txn *TxnKey) *db.Pending {
	h := b.head
	done := &Committed{
		Room: b.room, State: h.state, Snapshot: SnapshotNID(h.chain.Top()),
		Joined: h.joined, Invited: h.invited, redacted: b.redacted, memberChanges: b.localMemberChanges(), created: b.creating,
		Moves: b.moves, Destinations: b.destinations(), servers: h.servers, serverMoves: b.serverMoves, gapped: b.gapped,
	}
	for _, st := range b.events {
		if st.Flags == 0 {
			done.Events = append(done.Events, st)
		} else {
			done.unseen = append(done.unseen, st)
		}
		if st.Outgoing {
			done.Outgoing = append(done.Outgoing, st)
		}
	}
	if b.outside != nil {
		done.Events = append(done.Events, b.outside)
	}
	extremities, unread := extremityNIDs(h.extremities), h.unread
	return b.e.DB.SubmitThen(func(tx *db.Tx) error {
		if h.failed.Load() {
			return errHeadFailed
		}
		if err := b.write(tx); err != nil {
			return err
		}
		if txn != nil {
			if err := tx.Exec(insertTxn, txn.User, txn.Device, txn.Path, txn.ID, b.events[0].NID, b.e.Now().UnixMilli()); err != nil {
				return err
			}
		}
		if err := b.writeRoom(tx, done, extremities, unread); err != nil {
			return err
		}
		tx.Publish(done)
		return nil
	}, func(err error) { b.settled(err) })
}

func (b *Builder) writeRoom(tx *db.Tx, done *Committed, extremities []byte, unread int64) error {
	if b.creating {
		return tx.Exec(insertRoom, b.room.NID, b.room.ID, b.room.Version.ID, done.Snapshot, extremities, done.Joined,
			done.Invited, unread)
	}
	if b.gapped != nil {
		if err := tx.Exec(updateGap, b.gapped.Position, b.room.NID); err != nil {
			return err
		}
	}
	return tx.Exec(updateRoom, done.Snapshot, extremities, done.Joined, done.Invited, unread, b.room.NID)
}

var errHeadFailed = fmt.Errorf("rooms: an event that this one builds on could not be stored")

// write stores the events with all that belongs to them.
func (b *Builder) write(tx *db.Tx) error {
	for _, k := range b.newKeys {
		if err := b.e.keys.store(tx, k); err != nil {
			return err
		}
	}
	for _, l := range b.layers {
		if err := tx.Exec(insertSnapshot, l.NID, l.Parent, state.AppendEntries([]byte{}, l.Entries)); err != nil {
			return err
		}
	}
	for _, st := range b.events {
		if st.Flags == 0 && !b.older {
			st.Position = tx.Position()
		}
		write := insertStored
		if slices.Contains(b.known, st) {
			write = placeStored
		}
		if err := write(tx, st); err != nil {
			return err
		}
	}
	if b.outside != nil {
		if err := b.writeOutside(tx); err != nil {
			return err
		}
	}
	for _, m := range b.memberChanges {
		if err := b.writeMembership(tx, m); err != nil {
			return err
		}
	}
	if err := b.writeServers(tx); err != nil {
		return err
	}
	for _, r := range b.strips {
		r.complete()
	}
	for _, st := range b.redacted {
		if err := writeRedacted(tx, st); err != nil {
			return err
		}
	}
	for _, op := range b.then {
		if err := op(tx); err != nil {
			return err
		}
	}
	return nil
}

// settled runs on the writer goroutine after the commit, before the next.
func (b *Builder) settled(err error) {
	if err != nil {
		b.head.failed.Store(true)
		return
	}
	for _, k := range b.newKeys {
		b.e.keys.stored(k)
	}
	for _, fn := range b.onStored {
		fn()
	}
	b.head.pending.remove(b.events)
}

func (b *Builder) writeMembership(tx *db.Tx, m memberChange) error {
	if m.event == nil {
		return tx.Exec(deleteMembership, m.user, b.room.NID)
	}
	local := b.e.Local(m.user)
	if local && m.event.Flags&Outside == 0 {
		if err := tx.Exec(dropOutside, b.room.NID, m.user); err != nil {
			return err
		}
	}
	return tx.Exec(upsertMembership, m.user, b.room.NID, m.membership(), m.event.NID, m.by.Position, local)
}

func (b *Builder) localMemberChanges() []memberChange {
	return slices.DeleteFunc(slices.Clone(b.memberChanges), func(m memberChange) bool { return !b.e.Local(m.user) })
}

func extremityNIDs(xs []extremity) []byte {
	nids := make([]state.EventNID, len(xs))
	for i, x := range xs {
		nids[i] = x.nid
	}
	if len(nids) == 0 { // a room that is known from outside only; NULL is something else
		return []byte{}
	}
	return encodeNIDs(nids)
}
