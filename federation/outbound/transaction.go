package outbound

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

const (
	// maxBytes bounds what is put into one transaction; a single event or EDU may
	// go beyond. Many servers stand behind a proxy that takes a megabyte.
	maxBytes    = 900_000
	sendTimeout = time.Minute
	maxAnswer   = 1 << 20
)

// transaction is what is sent at once: the first events of the queue, the first
// stored EDUs, and what was offered.
type transaction struct {
	events  []*rooms.Stored
	taken   int // from the queue: the events, and those that the server has sent itself
	edus    []durable
	allEDUs bool // no more EDUs were stored when these were read
	offers  []offer
}

// size counts what is not lost if the transaction fails.
func (t *transaction) size() int { return len(t.events) + len(t.edus) }

func (t *transaction) empty() bool { return t.size() == 0 && len(t.offers) == 0 }

// single tells whether a refusal can mean one thing only.
func (t *transaction) single() bool { return t.size() == 1 && len(t.offers) == 0 }

// load gathers the next transaction.
func (q *Queues) load(d *destination) (*transaction, error) {
	q.mu.Lock()
	refill := d.more && len(d.queue) == 0
	q.mu.Unlock()
	if refill {
		if err := q.refill(d); err != nil {
			return nil, err
		}
	}
	q.mu.Lock()
	l, edus, sent := d.limits, d.edus, d.eduSent
	if len(d.queue) == 0 || l.pdus == 0 && !edus { // there is but one kind of thing to send
		l.pdus, l.edus = max(l.pdus, 1), max(l.edus, 1)
	}
	nids := make([]state.EventNID, 0, l.pdus)
	for _, it := range d.queue[:min(len(d.queue), l.pdus)] {
		nids = append(nids, it.NID)
	}
	d.freshEDUs = false
	q.mu.Unlock()
	t := &transaction{}
	left := maxBytes
	if err := q.loadEvents(t, d.server, nids, &left); err != nil {
		return nil, err
	}
	if edus && l.edus > 0 && left > 0 {
		if err := q.loadEDUs(t, d.server, sent, l.edus, &left); err != nil {
			return nil, err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if d.limits == full || t.size() == 0 {
		t.offers = d.takeOffers(full.edus-len(t.edus), left)
	}
	return t, nil
}

func (q *Queues) loadEvents(t *transaction, server matrix.ServerName, nids []state.EventNID, left *int) error {
	if len(nids) == 0 {
		return nil
	}
	events, err := q.Rooms.Events(q.ctx, nids)
	if err != nil {
		return err
	}
	for _, st := range events {
		if st.Sender.Server() != server {
			if *left -= len(st.JSON) + 1; *left < 0 && len(t.events) > 0 {
				break
			}
			t.events = append(t.events, st)
		}
		t.taken++
	}
	return nil
}

func (q *Queues) loadEDUs(t *transaction, server matrix.ServerName, sent int64, limit int, left *int) error {
	edus, err := db.All(q.ctx, q.DB, selectEDUs, scanEDU, server, sent, limit)
	if err != nil {
		return err
	}
	t.allEDUs = len(edus) < limit
	for i, e := range edus {
		if *left -= len(e.Content) + 64; *left < 0 && t.size()+i > 0 {
			edus, t.allEDUs = edus[:i], false
			break
		}
	}
	t.edus = edus
	return nil
}

// refill reads the next events from the database. Whoever is far behind gets the
// newest event of each room instead of all.
func (q *Queues) refill(d *destination) error {
	q.mu.Lock()
	after, judge := d.newest, d.refills%16 == 0
	d.refills++
	d.skipped = false
	q.mu.Unlock()
	if judge {
		head := q.DB.Position()
		n, err := q.Rooms.CountOutgoing(q.ctx, d.server, after, q.MaxCatchUp+1)
		if err != nil {
			return err
		}
		if n > q.MaxCatchUp {
			return q.skip(d, after, head)
		}
	}
	list, err := q.Rooms.OutgoingTo(q.ctx, d.server, after, maxQueue)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range list {
		d.queue = append(d.queue, it)
		d.newest = it.Position
	}
	if len(list) < maxQueue && !d.skipped {
		d.more = false
	}
	return nil
}

// skip fills the queue with the newest events of rooms up to the head.
func (q *Queues) skip(d *destination, after, head int64) error {
	list, err := q.Rooms.NewestOutgoing(q.ctx, d.server, after)
	if err != nil {
		return err
	}
	q.Log.Info("another server has missed so much that it gets the newest event of each room only", "server", d.server, "rooms", len(list))
	q.mu.Lock()
	defer q.mu.Unlock()
	d.queue, d.skipTo, d.newest = nil, head, head
	for _, it := range list {
		if it.Position <= head { // what came since follows in its turn
			d.queue = append(d.queue, it)
		}
	}
	if len(d.queue) == 0 {
		d.sent, d.skipTo = head, 0
	}
	return nil
}

// exchange sends a transaction.
// spec: server-server#put_matrixfederationv1sendtxnid
func (q *Queues) exchange(server matrix.ServerName, t *transaction) error {
	began := q.Now()
	pdus, edus := t.encode()
	content := append(make([]byte, 0, len(pdus)+len(edus)+200), `{"edus":[`...)
	content = append(append(content, edus...), `],"origin":`...)
	content = append(strconv.AppendQuote(content, string(q.ServerName)), `,"origin_server_ts":`...)
	content = append(strconv.AppendInt(content, began.UnixMilli(), 10), `,"pdus":[`...)
	content = append(append(content, pdus...), `]}`...)
	answer, err := q.Sender.Do(q.ctx, transport.Request{
		Destination: server, Method: http.MethodPut, Path: transport.Path("/_matrix/federation/v1/send", q.id(t, pdus, edus)),
		Content: content, Timeout: sendTimeout, MaxAnswer: maxAnswer,
	})
	q.metrics.sent(t, err, q.Now().Sub(began))
	if err == nil && q.Log.Enabled(q.ctx, slog.LevelDebug) {
		q.complaints(server, answer)
	}
	return err
}

// complaints logs what an answer says of single events.
func (q *Queues) complaints(server matrix.ServerName, answer []byte) {
	var told struct {
		PDUs map[string]struct {
			Error string `json:"error"`
		} `json:"pdus"`
	}
	if json.Unmarshal(answer, &told) != nil {
		return
	}
	for id, about := range told.PDUs {
		if about.Error != "" {
			q.Log.Debug("another server does not accept an event", "server", server, "event", id, "why", about.Error)
		}
	}
}

// id names a transaction by what it carries.
func (q *Queues) id(t *transaction, pdus, edus []byte) string {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(pdus))))
	h.Write(pdus)
	h.Write(edus)
	for _, e := range t.edus {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(e.id)))
	}
	if len(t.offers) > 0 || t.empty() {
		salt := make([]byte, 16)
		if _, err := io.ReadFull(q.Rand, salt); err != nil {
			binary.BigEndian.PutUint64(salt, uint64(q.Now().UnixNano()))
		}
		h.Write(salt)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
}

// encode gives the members of the lists of a transaction.
func (t *transaction) encode() (pdus, edus []byte) {
	for _, st := range t.events {
		pdus = append(comma(pdus), st.JSON...)
	}
	for _, e := range t.edus {
		edus = e.appendTo(comma(edus))
	}
	for _, e := range merged(t.offers) {
		edus = e.appendTo(comma(edus))
	}
	return pdus, edus
}

func comma(list []byte) []byte {
	if len(list) > 0 {
		return append(list, ',')
	}
	return list
}
