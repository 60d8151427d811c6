package news

import (
	"context"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit"
)

// entriesAtOnce is how many entries one transaction sends to a room at most.
const entriesAtOnce = 200

func roomID(room string) id.RoomID { return id.RoomID(room) }

// deliverDue sends to rooms what they are owed and may get now, and tells when more
// becomes due.
func (n *News) deliverDue(ctx context.Context) (time.Time, error) {
	for {
		owed, err := kit.All(ctx, n, owedRooms, scanText, n.now().UnixMilli(), roomsAtOnce)
		if err != nil {
			return time.Time{}, err
		}
		silent, err := kit.All(ctx, n, mutes, scanMute, n.now().UnixMilli(), roomsAtOnce)
		if err != nil {
			return time.Time{}, err
		}
		if len(owed)+len(silent) == 0 {
			return n.earliest(ctx, nextDue, n.now().UnixMilli())
		}
		if err := each(ctx, silent, deliverers, n.again); err != nil {
			return time.Time{}, err
		}
		if err := each(ctx, owed, deliverers, n.deliverTo); err != nil {
			return time.Time{}, err
		}
		if err := ctx.Err(); err != nil {
			return time.Time{}, err
		}
	}
}

func scanText(r kit.Scanner) (v string, err error) {
	err = r.Scan(&v)
	return v, err
}

// deliverTo sends a room what it is owed, in one transaction with the cursors that say
// that it has it.
func (n *News) deliverTo(ctx context.Context, name string) error {
	return n.Do(ctx, func(tx *kit.Tx) error {
		r, found, err := readRoom(tx, name)
		if err != nil || !found {
			return err
		}
		now := n.now()
		until, list, due := r.window(now)
		if until.IsZero() {
			return tx.Exec(setDue, name, due.UnixMilli())
		}
		owed, err := kit.All(ctx, tx, owedEntries, scanEntry, name, until.UnixMilli(), entriesAtOnce)
		if err != nil {
			return err
		}
		if len(owed) < entriesAtOnce && !due.IsZero() { // a digest that is complete
			if err := tx.Exec(setDue, name, due.UnixMilli()); err != nil {
				return err
			}
		}
		return n.send(tx, name, r, owed, list)
	})
}

func scanEntry(r kit.Scanner) (e entry, err error) {
	err = r.Scan(&e.feed, &e.n, &e.from, &e.address, &e.keywords, &e.link, &e.title, &e.author, &e.html, &e.text, &e.found)
	return e, err
}

// readRoom reads how a room wants its news.
func readRoom(q kit.Querier, name string) (r room, found bool, err error) {
	var zone, quietZone, muted string
	r, found, err = kit.One(context.Background(), q, selectRoom, func(s kit.Scanner) (r room, err error) {
		err = s.Scan(&r.language, &zone, &r.digest, &quietZone, &r.quietFrom, &r.quietTo, &muted, &r.asker)
		return r, err
	}, name)
	r.muted, r.zone, r.quietZone = split(muted), location(zone), location(quietZone)
	return r, found, err
}

// location is a time zone, or UTC if there is none of that name any more.
func location(zone string) *time.Location {
	l, err := time.LoadLocation(zone)
	if err != nil {
		return time.UTC
	}
	return l
}

// send sends entries and moves the cursors behind them, and behind those that the
// room does not want.
func (n *News) send(tx *kit.Tx, name string, r room, owed []entry, list bool) error {
	var pass []entry
	cursors := map[int64]int64{}
	for _, e := range owed {
		cursors[e.feed] = max(cursors[e.feed], e.n)
		if wanted(e.title+"\n"+e.text, split(e.keywords), r.muted) {
			pass = append(pass, e)
		}
	}
	for f, cursor := range cursors {
		if err := tx.Exec(moveCursor, name, f, cursor); err != nil {
			return err
		}
	}
	return n.show(tx, name, r, pass, list)
}

// show sends entries as messages of their own, or as a list.
func (n *News) show(tx *kit.Tx, name string, r room, pass []entry, list bool) error {
	if !list && len(pass) <= burst {
		for _, e := range pass {
			if err := n.posted(tx, tx.Send(roomID(name), messageType, e.message()), name, []entry{e}, false); err != nil {
				return err
			}
		}
		return nil
	}
	for _, p := range lists(pass, say(r.language, "digest")) {
		if err := n.posted(tx, tx.Send(roomID(name), messageType, p.content), name, p.entries, true); err != nil {
			return err
		}
	}
	return nil
}

// posted notes which entries a message shows.
func (n *News) posted(tx *kit.Tx, ref kit.Ref, name string, entries []entry, listed bool) error {
	for i, e := range entries {
		place := 0
		if listed {
			place = i + 1
		}
		if err := tx.Exec(addPost, int64(ref), name, e.feed, e.n, listed, n.now().UnixMilli(), -e.refused, place); err != nil {
			return err
		}
	}
	return nil
}
