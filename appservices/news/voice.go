package news

import (
	"context"
	"errors"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit"
)

const (
	// silence is how long a room is left alone that lets the service not speak, if it
	// does not tell of a change.
	silence = 6 * time.Hour
	// maxRefusals is how often a message is refused by a room that lets the service
	// speak until its entries are given up: then it is what it says.
	maxRefusals = 3
	// refusedFor is how long refused entries wait.
	refusedFor = 180 * 24 * time.Hour
)

// In rooms, refused is one of these.
const (
	heard   = 0 // nothing was refused
	refused = 1 // something was: the room has to be looked at
	told    = 2 // the service may not speak, and who followed was told
)

// levels are a room's power levels, those of its creators included.
func (n *News) levels(ctx context.Context, room id.RoomID) (*event.PowerLevelsEventContent, error) {
	create, err := n.Client().FullStateEvent(ctx, room, event.StateCreate, "")
	if err != nil {
		return nil, err
	}
	levels := &event.PowerLevelsEventContent{}
	err = n.Client().StateEvent(ctx, room, event.StatePowerLevels, "", levels)
	if errors.Is(err, mautrix.MNotFound) { // as the rules have it for a room without levels
		levels.Users, err = map[id.UserID]int{create.Sender: 100}, nil
	}
	levels.CreateEvent = create
	return levels, err
}

// speaks tells whether levels let the service say something.
func (n *News) speaks(l *event.PowerLevelsEventContent) bool {
	return l.GetUserLevel(n.User()) >= l.GetEventLevel(messageType)
}

// refusal notes that a room did not take entries: they wait until it does. It is
// called in the transaction that gives the message up.
func (n *News) refusal(tx *kit.Tx, room id.RoomID, ref kit.Ref) error {
	count, err := tx.Changed(refusePosts, int64(ref))
	if err != nil || count == 0 { // it was an answer or an edit
		return err
	}
	times, _, err := kit.One(tx.Context(), tx, refusals, func(r kit.Scanner) (v int, err error) {
		err = r.Scan(&v)
		return v, err
	}, int64(ref))
	if err != nil {
		return err
	}
	due := n.now()
	if times > 1 {
		due = due.Add(silence)
	}
	if times > maxRefusals {
		n.log.Warn("a room lets the service speak, but refuses a message again and again; it was given up", "room", room)
		if err := tx.Exec(removeRefused, int64(ref)); err != nil {
			return err
		}
	}
	tx.Then(n.deliver.wake)
	return tx.Exec(noteRefusal, room, due.UnixMilli())
}

// mute is a room that refused something.
type mute struct {
	name string
	due  int64
	told bool
}

func scanMute(r kit.Scanner) (m mute, err error) {
	var state int
	err = r.Scan(&m.name, &m.due, &state)
	m.told = state == told
	return m, err
}

// again looks whether a room that refused something would take it now, and then sends
// it. Otherwise who followed is told, once.
func (n *News) again(ctx context.Context, m mute) error {
	levels, err := n.levels(ctx, roomID(m.name))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	speaks := err == nil && n.speaks(levels)
	return n.Do(ctx, func(tx *kit.Tx) error {
		r, found, err := readRoom(tx, m.name)
		if err != nil || !found {
			return err
		}
		state := refused
		if speaks {
			until, _, due := r.window(n.now())
			if !until.IsZero() {
				return n.resend(tx, m.name, r)
			}
			return tx.Exec(leaveAlone, m.name, state, due.UnixMilli(), m.due) // the hours are quiet
		}
		if err == nil || m.told {
			state = told
		}
		if state == told && !m.told && r.asker != "" {
			tx.Direct(r.asker, kit.Text(say(tx.Language(r.asker), "silenced", n.link(roomID(m.name)))))
		}
		return tx.Exec(leaveAlone, m.name, state, n.now().Add(silence).UnixMilli(), m.due)
	})
}

// resend sends what a room refused.
func (n *News) resend(tx *kit.Tx, name string, r room) error {
	list, err := kit.All(tx.Context(), tx, refusedEntries, func(r kit.Scanner) (e entry, err error) {
		err = r.Scan(&e.feed, &e.n, &e.from, &e.address, &e.link, &e.title, &e.author, &e.html, &e.text, &e.ref, &e.refused)
		return e, err
	}, name, entriesAtOnce)
	if err != nil {
		return err
	}
	if len(list) < entriesAtOnce {
		if err := tx.Exec(heardAgain, name); err != nil {
			return err
		}
	}
	for _, e := range list {
		if err := tx.Exec(removePost, e.ref, e.feed, e.n); err != nil {
			return err
		}
	}
	return n.show(tx, name, r, list, r.digest != none)
}

// changed heeds that a room's power levels changed: maybe the service may speak now.
func (n *News) changed(tx *kit.Tx, ev *kit.Event) error {
	tx.Then(n.deliver.wake)
	return tx.Exec(lookAgain, ev.RoomID, n.now().UnixMilli())
}

// link is the address of a room.
func (n *News) link(room id.RoomID) string { return room.URI(n.User().Homeserver()).MatrixToURL() }
