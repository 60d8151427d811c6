package encryption

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// perAnswer is how many messages one answer of /sync holds.
// spec: client-server#send-to-device-messaging
const perAnswer = 100

// inbox is what is known of a device's inbox: the position of its oldest
// message, 0 if it is empty. Nothing waits for an inbox that is empty.
type inbox struct{ oldest int64 }

func (e *Encryption) inboxOf(ctx context.Context, d device) (inbox, error) {
	return e.inboxes.get(ctx, d, func(ctx context.Context) (inbox, error) {
		oldest, _, err := db.One(ctx, e.DB, oldestMessage, scanInt, d.user, d.id)
		return inbox{oldest}, err
	})
}

// ToDevice returns messages for the device that were stored above the position
// after, oldest first, and the position up to which they reach, at most upTo.
// What stands at or below after has been received: it is deleted, beside. Where
// upTo is not above after, that is all that is done.
func (e *Encryption) ToDevice(ctx context.Context, user matrix.UserID, id matrix.DeviceID, after, upTo int64) ([]json.RawMessage, int64, error) {
	d := device{user, id}
	in, err := e.inboxOf(ctx, d)
	if err != nil || in.oldest == 0 {
		return nil, upTo, err
	}
	if in.oldest <= after {
		e.acknowledge(d, after)
	}
	return e.messages(ctx, d, after, upTo)
}

type stored struct {
	position int64
	event    []byte
}

func scanStored(s db.Scanner) (m stored, err error) {
	err = s.Scan(&m.position, &m.event)
	return m, err
}

func (e *Encryption) messages(ctx context.Context, d device, after, upTo int64) ([]json.RawMessage, int64, error) {
	if upTo <= after {
		return nil, upTo, nil
	}
	list, err := db.All(ctx, e.DB, selectMessages, scanStored, d.user, d.id, after, upTo, perAnswer+1)
	if err != nil {
		return nil, upTo, err
	}
	if len(list) > perAnswer {
		list = list[:perAnswer]
		upTo = list[perAnswer-1].position
	}
	events := make([]json.RawMessage, len(list))
	for i, m := range list {
		events[i] = m.event
	}
	return events, upTo, nil
}

// acknowledge deletes what the device has received, and lets those in who wait
// for the room. Nobody waits for it: if it fails the next answer tries again.
func (e *Encryption) acknowledge(d device, position int64) {
	e.DB.Submit(func(tx *db.Tx) error {
		n, err := tx.Changed(deleteMessages, d.user, d.id, position)
		if err != nil || n == 0 {
			return err // another request of the device was faster
		}
		return letIn(tx, d)
	})
}

// letIn moves waiting messages into the inbox, of each sender as many as its
// quota leaves room for.
func letIn(tx *db.Tx, d device) error {
	ctx := context.Background() // a write is not interrupted
	news := inboxChanged{devices: []device{d}}
	senders, err := db.All(ctx, tx, selectWaiters, scanUser, d.user, d.id)
	if err != nil {
		return err
	}
	for _, sender := range senders {
		pending, _, err := db.One(ctx, tx, countPending, scanInt, sender, d.user, d.id)
		if err != nil {
			return err
		}
		if pending >= quota {
			continue
		}
		list, err := db.All(ctx, tx, selectWaiting, scanStored, d.user, d.id, sender, quota-pending)
		if err != nil {
			return err
		}
		for _, m := range list {
			if err := tx.Exec(insertCounted, d.user, d.id, tx.Position(), sender, m.event); err != nil {
				return err
			}
		}
		if len(list) > 0 {
			if err := tx.Exec(deleteWaiting, d.user, d.id, sender, list[len(list)-1].position); err != nil {
				return err
			}
			news.told = []matrix.UserID{d.user}
		}
	}
	tx.Publish(news)
	return nil
}

// removed clears up after devices that are no more. It is called on the writer,
// so that what is submitted runs before a device of the same id can store
// anything.
func (e *Encryption) removed(user matrix.UserID, ids []matrix.DeviceID) {
	for _, id := range ids {
		d := device{user, id}
		e.counts.drop(d)
		e.inboxes.drop(d)
	}
	e.lists.drop(user)
	e.DB.SubmitThen(func(tx *db.Tx) error {
		known, err := e.remove(context.Background(), tx, user, ids) // the request that removed them is over
		if err != nil || len(known) == 0 {
			return err
		}
		return e.announceAlone(tx, user, known)
	}, func(err error) {
		if err != nil {
			e.Log.Warn("clearing up after removed devices was interrupted; the next start goes on", "user", user, "error", err)
		}
	})
}

// remove deletes all that is kept of devices and returns those that others know
// of.
func (e *Encryption) remove(ctx context.Context, tx *db.Tx, user matrix.UserID, ids []matrix.DeviceID) ([]matrix.DeviceID, error) {
	known, err := db.All(ctx, tx, selectKnownDevices, scanDeviceID, user, ids)
	if err != nil {
		return nil, err
	}
	for _, s := range []*db.Stmt{
		deleteDeviceKeys, deleteOneTime, deleteFallback, deleteInboxes, deleteQueues, deleteTxns, deleteSignaturesOn,
	} {
		if err := tx.Exec(s, user, ids); err != nil {
			return nil, err
		}
	}
	if len(known) == 0 {
		return nil, nil
	}
	signed, err := forgetSigner(ctx, tx, user, ids)
	if err != nil || !signed {
		return known, err
	}
	return append(known, crossSigning), nil
}

// forgetSigner deletes what devices have signed beside their own keys, and tells
// whether that was anything: the master key.
func forgetSigner(ctx context.Context, tx *db.Tx, user matrix.UserID, ids []matrix.DeviceID) (bool, error) {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = ed25519Prefix + string(id)
	}
	signed, err := db.All(ctx, tx, selectSignedBy, scanDeviceID, user, names)
	if err != nil || len(signed) == 0 {
		return false, err
	}
	other := slices.ContainsFunc(signed, func(id matrix.DeviceID) bool { return !slices.Contains(ids, id) })
	return other, tx.Exec(deleteSignaturesBy, user, names)
}

// Resume clears up after devices that were removed just before the server
// stopped. It is called once, beside the first requests.
func (e *Encryption) Resume(ctx context.Context) error {
	owners, err := db.All(ctx, e.DB, selectOwners, scanDevice)
	if err != nil {
		return err
	}
	byUser := map[matrix.UserID][]matrix.DeviceID{}
	for _, d := range owners {
		byUser[d.user] = append(byUser[d.user], d.id)
	}
	for user, ids := range byUser {
		there, err := e.allDevices(ctx, e.DB, []matrix.UserID{user})
		if err != nil {
			return err
		}
		var gone []matrix.DeviceID
		for _, id := range ids {
			if _, ok := there[user][id]; !ok {
				gone = append(gone, id)
			}
		}
		if len(gone) == 0 {
			continue
		}
		err = e.change(ctx, user, true, func(tx *db.Tx) ([]matrix.DeviceID, error) {
			// A device may have come back since it was looked for.
			now, err := e.allDevices(ctx, tx, []matrix.UserID{user})
			if err != nil {
				return nil, err
			}
			for _, id := range gone {
				if _, ok := now[user][id]; ok {
					return nil, nil
				}
			}
			return e.remove(ctx, tx, user, gone)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
