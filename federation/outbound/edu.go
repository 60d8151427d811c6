package outbound

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// EDU is something that is not part of a room's history.
// spec: server-server#edus
type EDU struct {
	Type    string
	Content json.RawMessage // a JSON object
}

func (e *EDU) appendTo(b []byte) []byte {
	b = append(append(b, `{"content":`...), e.Content...)
	typ, _ := json.Marshal(e.Type) // a string can always be encoded
	b = append(append(b, `,"edu_type":`...), typ...)
	return append(b, '}')
}

// maxStored is how many stored EDUs may wait for a server that fails; beyond that
// the oldest are dropped.
const maxStored = 10_000

// durable is an EDU of the database.
type durable struct {
	id int64
	EDU
}

func scanEDU(s db.Scanner) (e durable, err error) {
	return e, s.Scan(&e.id, &e.Type, (*[]byte)(&e.Content))
}

// storedEDU is published when an EDU was stored.
type storedEDU struct{ to []matrix.ServerName }

// Store sends an EDU to servers, in the caller's write: they get it if that is
// committed, whatever happens, once they can be reached.
func (q *Queues) Store(tx *db.Tx, to []matrix.ServerName, e EDU) error {
	if len(e.Content) == 0 || e.Content[0] != '{' || !json.Valid(e.Content) {
		return errors.New("outbound: the content of an EDU must be a JSON object")
	}
	to = slices.Clone(to)
	slices.Sort(to)
	to = slices.DeleteFunc(slices.Compact(to), func(s matrix.ServerName) bool { return s == q.ServerName })
	if len(to) == 0 {
		return nil
	}
	ids := make([]int64, len(to))
	for i := range ids {
		ids[i] = q.eduSeq.Next()
	}
	tx.Publish(storedEDU{to})
	return tx.Exec(insertEDU, to, ids, about(e), e.Type, []byte(e.Content))
}

// about is the user whose devices an EDU lists, or "".
func about(e EDU) string {
	if e.Type != "m.device_list_update" {
		return ""
	}
	var content struct {
		User string `json:"user_id"`
	}
	if json.Unmarshal(e.Content, &content) != nil {
		return ""
	}
	return content.User
}

// offer is an EDU that lives in memory, shared by those whom it is for.
type offer struct {
	key  string
	keep bool
	edu  *EDU
}

// maxOffers bounds the offers of a destination.
const maxOffers = 100

// What is offered waits a moment for more, the longer the more servers it is for:
// typing in a room of a thousand servers costs at most some hundred requests a
// second.
const (
	gather        = 50 * time.Millisecond
	gatherEach    = 2 * time.Millisecond
	gatherAtLeast = 5 // servers that cost nothing
	maxGather     = 10 * time.Second
)

// Offer sends an EDU to servers before long. Until then a later one with the same
// key takes its place. keep says that a server which fails should get it once it
// is back; otherwise it is dropped. A restart drops all.
func (q *Queues) Offer(to []matrix.ServerName, key string, keep bool, e EDU) {
	if len(e.Content) == 0 || e.Content[0] != '{' || !json.Valid(e.Content) {
		q.Log.Error("an EDU whose content is not a JSON object is not sent", "type", e.Type)
		return
	}
	o := offer{key, keep, &e}
	delay := min(gather+time.Duration(max(len(to)-gatherAtLeast, 0))*gatherEach, maxGather)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	for _, server := range to {
		if server == q.ServerName {
			continue
		}
		if there := q.all[server]; !keep && there != nil && there.failures > 0 {
			continue
		}
		d := q.get(server)
		d.put(o)
		q.collect(d, delay)
	}
}

// collect sends what is offered after a while; mu is held.
func (q *Queues) collect(d *destination, delay time.Duration) {
	d.delay = delay
	if d.timer != nil || d.busy || d.resting || q.closed || !q.started {
		return
	}
	var t *time.Timer
	t = time.AfterFunc(delay, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if d.timer == t {
			d.timer = nil
			q.launch(d)
		}
	})
	d.timer = t
}

// put adds an offer. Where there are too many, what may be dropped goes first.
func (d *destination) put(o offer) {
	at := slices.IndexFunc(d.offers, func(old offer) bool { return old.key == o.key })
	if at < 0 && len(d.offers) >= maxOffers {
		at = max(slices.IndexFunc(d.offers, func(old offer) bool { return !old.keep }), 0)
	}
	if at >= 0 {
		d.offers = slices.Delete(d.offers, at, at+1)
	}
	d.offers = append(d.offers, o)
}

// takeOffers takes the oldest offers that fit into a transaction.
func (d *destination) takeOffers(n, bytes int) []offer {
	n = min(n, len(d.offers))
	for i, o := range d.offers[:n] {
		if bytes -= len(o.edu.Content) + 64; bytes < 0 && i > 0 {
			n = i
			break
		}
	}
	taken := slices.Clone(d.offers[:n])
	if d.offers = slices.Delete(d.offers, 0, n); len(d.offers) == 0 {
		d.offers = nil
	}
	return taken
}

// keepOffers puts back what should reach the destination after a failure.
func (d *destination) keepOffers(failed []offer) {
	kept := slices.DeleteFunc(d.offers, func(o offer) bool { return !o.keep })
	d.offers = nil
	for _, o := range failed {
		if o.keep {
			d.put(o)
		}
	}
	for _, o := range kept { // these are newer
		d.put(o)
	}
}
