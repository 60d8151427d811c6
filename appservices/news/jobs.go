package news

import (
	"context"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit"
)

// job is a command that needs the network before it has an effect: to ask the
// homeserver whether its sender may change the room, or the web for a feed.
type job struct {
	nid      int64
	kind     string
	room     id.RoomID
	event    id.EventID
	thread   id.EventID
	sender   id.UserID
	direct   bool
	language string
	argument string
	attempts int
	mute     bool // the service may not speak in the room
}

// outcome is what a job does in the transaction that ends it.
type outcome func(tx *kit.Tx) error

// performer does the part of a job that needs the network. Its error means that the
// job has to be tried again.
type performer func(n *News, ctx context.Context, j *job) (outcome, error)

var performers = map[string]performer{
	"follow": (*News).follow, "unfollow": (*News).unfollow, "filter": (*News).filter, "mute": (*News).mute, "digest": (*News).digest,
	"quiet": (*News).quiet, "import": (*News).importList, "export": (*News).exportList, "publish": (*News).publish, "unpublish": (*News).unpublish,
	"language": (*News).speak,
}

const (
	maxAttempts = 8
	jobTimeout  = 2 * time.Minute
)

// errAsk is that the homeserver could not be asked.
var errAsk = errors.New("news: the homeserver could not be asked")

// workDue does the jobs that are due, those of a room in their order, and tells when
// another one is.
func (n *News) workDue(ctx context.Context) (time.Time, error) {
	for {
		due, err := kit.All(ctx, n, dueJobs, func(r kit.Scanner) (j job, err error) {
			err = r.Scan(&j.nid, &j.kind, &j.room, &j.event, &j.thread, &j.sender, &j.direct, &j.language, &j.argument, &j.attempts)
			return j, err
		}, n.now().UnixMilli(), jobsAtOnce)
		if err != nil {
			return time.Time{}, err
		}
		if len(due) == 0 {
			return n.earliest(ctx, nextJob)
		}
		var rooms [][]job
		places := map[id.RoomID]int{}
		for _, j := range due {
			at, ok := places[j.room]
			if !ok {
				at = len(rooms)
				places[j.room], rooms = at, append(rooms, nil)
			}
			rooms[at] = append(rooms[at], j)
		}
		if err := each(ctx, rooms, deliverers, n.workOn); err != nil {
			return time.Time{}, err
		}
		if err := ctx.Err(); err != nil {
			return time.Time{}, err
		}
	}
}

// workOn does the jobs of a room.
func (n *News) workOn(ctx context.Context, jobs []job) error {
	for i := range jobs {
		if err := n.do(ctx, &jobs[i]); err != nil {
			return err
		}
	}
	return nil
}

// do does one job. What it changes, what it answers, and that it is done are one
// transaction.
func (n *News) do(ctx context.Context, j *job) error {
	limited, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	result, why := n.perform(limited, j)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err := n.Do(ctx, func(tx *kit.Tx) error {
		if why != nil && j.attempts < maxAttempts {
			return tx.Exec(postponeJob, j.nid, n.now().Add(time.Second<<j.attempts).UnixMilli())
		}
		done, err := tx.Changed(finishJob, j.nid)
		if err != nil || done == 0 {
			return err
		}
		if why != nil {
			return j.answer(tx, "failed", n.trouble(j, why))
		}
		return result(tx)
	})
	if err == nil {
		n.fetch.wake()
		n.deliver.wake()
	}
	return err
}

func (n *News) perform(ctx context.Context, j *job) (outcome, error) {
	do := performers[j.kind]
	if do == nil {
		return nil, fmt.Errorf("news: there is a job of the kind %q, which a newer version made", j.kind)
	}
	levels, err := n.levels(ctx, j.room)
	if err != nil {
		return nil, errors.Join(errAsk, err)
	}
	j.mute = !n.speaks(levels)
	switch {
	case !j.direct && j.kind != "publish" && j.kind != "unpublish" && levels.GetUserLevel(j.sender) < levels.StateDefault():
		if j.kind == "language" {
			return func(*kit.Tx) error { return nil }, nil // they were answered, and for themselves it is so
		}
		return j.says("forbidden"), nil // only who may change the room's state changes what it follows
	case j.mute && (j.kind == "follow" || j.kind == "import" || j.kind == "export"):
		return j.says("mutehere", n.link(j.room)), nil
	}
	return do(n, ctx, j)
}

// says is the outcome of only answering.
func (j *job) says(key string, args ...any) outcome {
	return func(tx *kit.Tx) error { return j.answer(tx, key, args...) }
}

// answer answers the command; in a direct chat where the service may not speak in the
// room.
func (j *job) answer(tx *kit.Tx, key string, args ...any) error {
	return j.reply(tx, say(j.language, key, args...))
}

func (j *job) reply(tx *kit.Tx, text string) error {
	if j.mute {
		tx.Direct(j.sender, kit.Text(text))
	} else {
		tx.Reply(j.command(), text)
	}
	return nil
}

// command is the event of the command, as far as an answer needs it.
func (j *job) command() *kit.Event {
	ev := &kit.Event{Event: event.Event{ID: j.event, RoomID: j.room, Sender: j.sender}}
	if j.thread != "" {
		ev.Content.Parsed = &event.MessageEventContent{RelatesTo: (&event.RelatesTo{}).SetThread(j.thread, j.event)}
	}
	return ev
}
