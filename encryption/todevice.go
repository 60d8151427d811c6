package encryption

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const (
	// quota is how many messages of one sender stand in a device's inbox; what
	// is more waits outside. A device that is away for long loses what goes
	// beyond maxWaiting of one sender. The messages of as many requests a day of a
	// local user do not count: most users send no more, and keeping count costs.
	quota      = 100
	maxWaiting = 10_000

	maxMessageBytes = 64 << 10 // of one message, so that it fits into an EDU
	maxRecipients   = 10_000   // devices named in one request
	txnsKept        = 24 * time.Hour

	everyDevice matrix.DeviceID = "*"
)

// inboxChanged is published when messages came into inboxes, or were deleted.
type inboxChanged struct {
	devices []device
	told    []matrix.UserID // those whose devices have something new
}

type sendRequest struct {
	EventType string    `path:"eventType"`
	TxnID     string    `path:"txnId"`
	Messages  *Messages `json:"messages"`
}

// send delivers messages to devices.
// spec: client-server#put_matrixclientv3sendtodeviceeventtypetxnid
func (e *Encryption) send(ctx context.Context, c *httpx.Caller, q *sendRequest) (*struct{}, error) {
	if q.Messages == nil {
		return nil, matrix.MissingParam("messages is missing")
	}
	if !plain(q.EventType, matrix.MaxIDBytes) || !plain(q.TxnID, matrix.MaxIDBytes) {
		return nil, matrix.InvalidParam("The event type and the transaction id have 1 to %d bytes and no NUL", matrix.MaxIDBytes)
	}
	local, remote, err := e.sortMessages(*q.Messages)
	if err != nil {
		return nil, err
	}
	if len(remote) > 0 && e.Outbox == nil {
		e.Log.Debug("messages to devices of other servers were dropped", "users", len(remote))
		remote = nil
	}
	abroad, err := e.pack(c.User, q.EventType, remote)
	if err != nil {
		return nil, err
	}
	here := newParcel(c.User, string(c.User), q.EventType, local)
	return nil, e.DB.Write(ctx, func(tx *db.Tx) error {
		// spec: client-server#transaction-identifiers
		n, err := tx.Changed(insertTxn, c.User, c.Device, q.EventType, q.TxnID, e.Now().UnixMilli())
		if err != nil || n == 0 {
			return err
		}
		for _, m := range abroad {
			if err := e.Outbox.Store(tx, []matrix.ServerName{m.to}, EDUToDevice, m.content); err != nil {
				return err
			}
		}
		if err := e.deliver(ctx, tx, here); err != nil {
			return err
		}
		return e.prune(tx)
	})
}

// sortMessages checks messages and parts those to local users from the others.
func (e *Encryption) sortMessages(all Messages) (local, remote Messages, err error) {
	local, remote = Messages{}, Messages{}
	total := 0
	for user, devices := range all {
		if _, err := matrix.ParseUserID(string(user)); err != nil {
			return nil, nil, err
		}
		for id, content := range devices {
			if err := checkMessage(user, id, content); err != nil {
				return nil, nil, err
			}
		}
		if total += len(devices); total > maxRecipients {
			return nil, nil, matrix.InvalidParam("At most %d devices can be sent to at once", maxRecipients)
		}
		if e.local(user) {
			local[user] = devices
		} else {
			remote[user] = devices
		}
	}
	return local, remote, nil
}

// checkMessage checks the content of a message.
func checkMessage(user matrix.UserID, id matrix.DeviceID, content json.RawMessage) error {
	switch {
	case len(content) == 0 || content[0] != '{':
		return matrix.BadJSON("The message to %s %s must be an object", user, id)
	case len(content) > maxMessageBytes:
		return matrix.TooLarge("A message to a device has at most %d bytes", maxMessageBytes)
	}
	if err := event.WellFormed(content); err != nil {
		return matrix.BadJSON("The message to %s %s is not valid: %s", user, id, err).Because(err)
	}
	return nil
}

// parcel is messages of one sender, made ready before the write.
type parcel struct {
	sender  matrix.UserID
	account string // whose quota they count against
	to      []matrix.UserID
	events  map[matrix.UserID]map[matrix.DeviceID][]byte
}

func newParcel(sender matrix.UserID, account, eventType string, messages Messages) *parcel {
	events := make(map[matrix.UserID]map[matrix.DeviceID][]byte, len(messages))
	p := &parcel{sender, account, slices.Sorted(maps.Keys(messages)), events}
	for user, contents := range messages {
		p.events[user] = make(map[matrix.DeviceID][]byte, len(contents))
		for id, content := range contents {
			p.events[user][id] = toDeviceEvent(sender, eventType, content)
		}
	}
	return p
}

// message is what is put into an inbox.
type message struct {
	to    device
	event []byte
}

// deliver puts messages into the inboxes of local users' devices, within a write.
// Devices that are not there are passed over.
func (e *Encryption) deliver(ctx context.Context, tx *db.Tx, p *parcel) error {
	if len(p.to) == 0 {
		return nil
	}
	there, err := e.allDevices(ctx, tx, p.to)
	if err != nil {
		return err
	}
	var all []message
	for _, user := range p.to {
		all = appendMessages(all, user, there[user], p.events[user])
	}
	if len(all) == 0 {
		return nil
	}
	return e.post(ctx, tx, p, all)
}

// appendMessages addresses a user's messages to their devices. One that is for a
// certain device takes the place of the one for all.
func appendMessages(all []message, user matrix.UserID, there map[matrix.DeviceID]string, events map[matrix.DeviceID][]byte) []message {
	for _, id := range slices.Sorted(maps.Keys(there)) {
		if ev, ok := events[id]; ok {
			all = append(all, message{device{user, id}, ev})
		} else if ev, ok := events[everyDevice]; ok {
			all = append(all, message{device{user, id}, ev})
		}
	}
	return all
}

func toDeviceEvent(sender matrix.UserID, eventType string, content json.RawMessage) []byte {
	b := append(make([]byte, 0, len(content)+len(sender)+len(eventType)+40), `{"type":`...)
	b = append(appendText(b, eventType), `,"sender":`...)
	b = append(appendText(b, sender), `,"content":`...)
	if spaced(content) { // what is encrypted mostly is not
		var compact bytes.Buffer
		if json.Compact(&compact, content) == nil {
			content = compact.Bytes()
		}
	}
	return append(append(b, content...), '}')
}

// post stores messages of one sender.
func (e *Encryption) post(ctx context.Context, tx *db.Tx, p *parcel, all []message) error {
	counted, err := e.counted(ctx, tx, p)
	if err != nil {
		return err
	}
	var news inboxChanged
	if counted {
		err = postCounted(ctx, tx, p, all, &news)
	} else {
		err = postAll(tx, all, &news)
	}
	if err != nil {
		return err
	}
	if len(news.devices) > 0 {
		tx.Publish(news)
	}
	return nil
}

// counted tells whether messages count against a quota.
func (e *Encryption) counted(ctx context.Context, tx *db.Tx, p *parcel) (bool, error) {
	if !e.local(p.sender) {
		return true, nil
	}
	counted, _, err := db.One(ctx, tx, countRequests, func(s db.Scanner) (bool, error) {
		var requests int
		var waits bool
		err := s.Scan(&requests, &waits)
		return requests > quota || waits, err
	}, p.sender, quota+1)
	return counted, err
}

func postAll(tx *db.Tx, all []message, news *inboxChanged) error {
	for _, m := range all {
		if err := tx.Exec(insertMessage, m.to.user, m.to.id, tx.Position(), m.event); err != nil {
			return err
		}
		news.add(m.to)
	}
	return nil
}

// postCounted stores messages in the inboxes as far as the quota goes, the others
// behind the earlier ones that wait.
func postCounted(ctx context.Context, tx *db.Tx, p *parcel, all []message, news *inboxChanged) error {
	loads, err := loadsOf(ctx, tx, p)
	if err != nil {
		return err
	}
	for _, m := range all {
		l := loads[m.to]
		room := l.waiting == 0 && l.pending < quota
		if !room && l.waiting == 0 && l.pending < maxWaiting {
			// Nothing is deleted from the inbox of a dehydrated device while there is
			// one, so waiting would have no end.
			dry, _, err := dehydratedOf(ctx, tx, m.to.user)
			if err != nil {
				return err
			}
			room = dry.device == m.to
		}
		switch {
		case room:
			err = tx.Exec(insertCounted, m.to.user, m.to.id, tx.Position(), p.account, m.event)
			news.add(m.to)
		case l.waiting < maxWaiting:
			err = tx.Exec(insertWaiting, m.to.user, m.to.id, p.account, tx.Position(), m.event)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// spaced tells whether white space may be saved.
func spaced(content []byte) bool {
	for _, c := range []byte(" \t\r\n") {
		if bytes.IndexByte(content, c) >= 0 {
			return true
		}
	}
	return false
}

// load is how much a device holds against a quota.
type load struct{ pending, waiting int }

// loadsOf counts what the devices of a parcel's recipients hold. Those that hold
// nothing are left out.
func loadsOf(ctx context.Context, tx *db.Tx, p *parcel) (map[device]load, error) {
	loads := map[device]load{}
	return loads, db.Each(ctx, tx, countByAccount, func(s db.Scanner) error {
		var d device
		var waits, n int
		err := s.Scan(&d.user, &d.id, &waits, &n)
		l := loads[d]
		if waits == 0 {
			l.pending = n
		} else {
			l.waiting = n
		}
		loads[d] = l
		return err
	}, p.account, p.to)
}

// add notes a new message; those of one user come one after the other.
func (c *inboxChanged) add(d device) {
	c.devices = append(c.devices, d)
	if n := len(c.told); n == 0 || c.told[n-1] != d.user {
		c.told = append(c.told, d.user)
	}
}
