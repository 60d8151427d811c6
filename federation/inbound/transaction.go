package inbound

import (
	"bytes"
	"context"
	"encoding/json"
	"hash/fnv"
	"net/http"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	// spec: server-server#put_matrixfederationv1sendtxnid
	maxPDUs = 50
	maxEDUs = 100
	// 50 events of 64 KiB and 100 EDUs of the same size, with some of their text
	// written as escapes.
	maxBody     = 16 << 20
	maxEDUBytes = 1 << 20
	maxTxnID    = 255
	slots       = 16 // transactions that are remembered of a server
	// A server sends one transaction at a time; others repeat what they lost
	// sight of.
	activeAtOnce = 4
	receiveTime  = 2 * time.Minute
)

// transaction is the body of a request. Its origin is that of the request, which
// was authenticated; what the body says about that counts for nothing.
type transaction struct {
	PDUs []json.RawMessage `json:"pdus"`
	EDUs []json.RawMessage `json:"edus"`
}

type result struct {
	Error string `json:"error,omitempty"`
}

type answer struct {
	PDUs map[matrix.EventID]result `json:"pdus"`
}

// send answers a request.
// spec: server-server#put_matrixfederationv1sendtxnid
func (in *Inbound) send(w http.ResponseWriter, r *http.Request, origin matrix.ServerName, body []byte) error {
	text, err := in.Receive(r.Context(), origin, r.PathValue("txnId"), body)
	if err != nil {
		return err
	}
	return transport.Answer(w, text)
}

// Receive takes a transaction of a server and gives the answer.
func (in *Inbound) Receive(ctx context.Context, origin matrix.ServerName, txnID string, body []byte) (json.RawMessage, error) {
	if len(txnID) > maxTxnID {
		return nil, matrix.InvalidParam("A transaction id has at most %d bytes", maxTxnID)
	}
	// A request that is repeated while the first is under way waits for that, and
	// what was begun is ended if the origin hangs up.
	v, err, _ := in.flights.Do(string(origin)+"\x00"+txnID, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), receiveTime)
		defer cancel()
		return in.receive(ctx, origin, txnID, body)
	})
	if err != nil {
		return nil, err
	}
	return v.(json.RawMessage), nil
}

func (in *Inbound) receive(ctx context.Context, origin matrix.ServerName, txnID string, body []byte) (json.RawMessage, error) {
	leave, err := in.enter(origin)
	if err != nil {
		return nil, err
	}
	defer leave()
	var t transaction
	if err := json.Unmarshal(body, &t); err != nil {
		return nil, matrix.BadJSON("The body is not a transaction").Because(err)
	}
	if len(t.PDUs) > maxPDUs || len(t.EDUs) > maxEDUs {
		return nil, matrix.BadJSON("A transaction has at most %d PDUs and %d EDUs", maxPDUs, maxEDUs)
	}
	s := newStage(in, origin)
	if err := s.sort(ctx, t.PDUs); err != nil {
		return nil, err
	}
	text, err := json.Marshal(answer{s.results})
	if err != nil {
		return nil, err
	}
	remember := func(tx *db.Tx) error {
		return tx.Exec(upsertTransaction, origin, slotOf(txnID), txnID, in.Now().UnixMilli(), text)
	}
	var before []byte
	// Whoever gives up waiting must not leave rows that no queue knows of.
	err = in.DB.Write(context.WithoutCancel(ctx), func(tx *db.Tx) error {
		var err error
		if before, err = remembered(ctx, tx, origin, txnID); err != nil || before != nil {
			return err
		}
		if err := s.write(ctx, tx); err != nil || len(t.EDUs) > 0 {
			return err
		}
		return remember(tx)
	})
	if err != nil || before != nil {
		return before, err
	}
	s.staged()
	if len(t.EDUs) == 0 {
		return text, nil
	}
	if err := in.dispatch(ctx, origin, t.EDUs); err != nil {
		return nil, err
	}
	// If this is lost the transaction is received anew when it comes again, which
	// changes nothing.
	in.DB.Submit(remember)
	return text, nil
}

// enter counts a transaction that is being received. It refuses those of an
// origin that sends more than can be brought in.
func (in *Inbound) enter(origin matrix.ServerName) (leave func(), err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.active[origin] >= activeAtOnce {
		return nil, matrix.LimitExceeded(time.Second)
	}
	if in.tooMuch(origin) {
		in.metrics.pdus.WithLabelValues("limited").Inc()
		return nil, matrix.LimitExceeded(5 * time.Second)
	}
	in.active[origin]++
	return func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		if in.active[origin]--; in.active[origin] == 0 {
			delete(in.active, origin)
		}
	}, nil
}

// remembered is the answer that a transaction got before, nil if it is new.
func remembered(ctx context.Context, tx *db.Tx, origin matrix.ServerName, txnID string) ([]byte, error) {
	type past struct {
		txnID  string
		answer []byte
	}
	p, found, err := db.One(ctx, tx, transactionAt, func(s db.Scanner) (p past, err error) {
		err = s.Scan(&p.txnID, &p.answer)
		return p, err
	}, origin, slotOf(txnID))
	if err != nil || !found || p.txnID != txnID {
		return nil, err
	}
	return p.answer, nil
}

func slotOf(txnID string) int64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(txnID))
	return int64(h.Sum32() % slots)
}

// dispatch hands EDUs to their handlers, each by itself. It fails if one could
// not be taken by a fault of ours.
// spec: server-server#edus
func (in *Inbound) dispatch(ctx context.Context, origin matrix.ServerName, edus []json.RawMessage) (failed error) {
	for _, raw := range edus {
		var edu struct {
			Type    string          `json:"edu_type"`
			Content json.RawMessage `json:"content"`
		}
		if len(raw) > maxEDUBytes || json.Unmarshal(raw, &edu) != nil || !bytes.HasPrefix(edu.Content, []byte("{")) {
			in.metrics.edus.WithLabelValues("", "malformed").Inc()
			continue
		}
		handle := in.EDUs[edu.Type]
		if handle == nil {
			in.metrics.edus.WithLabelValues("", "unknown").Inc()
			continue
		}
		panicked := true
		err := guard(func() error {
			err := handle(ctx, origin, edu.Content)
			panicked = false
			return err
		})
		switch {
		case panicked:
			// It would do so again, and keep the origin from sending anything else.
			in.Log.Error("An EDU could not be handled and is dropped; this is a bug", "origin", origin, "type", edu.Type, "error", err)
			in.metrics.edus.WithLabelValues(edu.Type, "failed").Inc()
		case err != nil:
			in.metrics.edus.WithLabelValues(edu.Type, "failed").Inc()
			failed = err
		default:
			in.metrics.edus.WithLabelValues(edu.Type, "taken").Inc()
		}
	}
	return failed
}
