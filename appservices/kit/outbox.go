package kit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/internal/db"
)

const (
	firstRest   = time.Second
	longestRest = 5 * time.Minute
	// triedFor is how long a row is sent that the homeserver answers with an error of
	// its own each time: it may be the row that breaks it, and others wait behind.
	triedFor = 7 * 24 * time.Hour
)

// item is the row of the outbox that is first on its lane.
type item struct {
	nid      int64
	lane     string
	room     id.RoomID
	kind     string
	typ      string
	subject  string
	target   *int64
	content  []byte
	attempts int
	created  int64
	targeted *id.EventID // what the target became
	where    *id.RoomID  // and where, if this row was written before that was known
}

func scanItem(r db.Scanner) (v item, err error) {
	err = r.Scan(&v.nid, &v.lane, &v.room, &v.kind, &v.typ, &v.subject, &v.target, &v.content, &v.attempts, &v.created, &v.targeted, &v.where)
	if v.room == "" && v.where != nil {
		v.room = *v.where
	}
	return v, err
}

// sendLane sends what waits on a lane, one after the other.
func (s *Service) sendLane(ctx context.Context, lane string) time.Time {
	for ctx.Err() == nil {
		v, found, err := db.One(ctx, s.db, selectHead, scanItem, lane)
		if err != nil {
			return s.later(ctx, "the outbox could not be read; trying again", err)
		}
		if !found {
			break
		}
		if again := s.send(ctx, v); !again.IsZero() {
			return again
		}
	}
	return time.Time{}
}

// errTarget is that what is to be edited, reacted to or redacted was never sent.
var errTarget = errors.New("kit: the message that this is about was not sent")

// send sends one row, notes what became of it, and tells when to try again. A crash
// between the two sends it again, under the same transaction id, which the homeserver
// knows: nothing is posted twice.
func (s *Service) send(ctx context.Context, v item) time.Time {
	done, err := s.perform(ctx, v)
	if ctx.Err() != nil {
		return time.Time{}
	}
	if err == nil {
		s.measures.sends.WithLabelValues("sent").Inc()
		return s.finish(ctx, v, stateDone, done, nil)
	}
	wait, final := s.judge(v, err)
	if final {
		s.measures.sends.WithLabelValues("given_up").Inc()
		s.log.Warn("something could not be sent and was given up", "kind", v.kind, "room", v.room, "row", v.nid, "error", err)
		return s.finish(ctx, v, stateAside, result{}, err)
	}
	s.measures.sends.WithLabelValues("failed").Inc()
	if v.attempts == 0 {
		s.log.Warn("something could not be sent; trying again", "kind", v.kind, "room", v.room, "row", v.nid, "in", wait, "error", err)
	}
	again, problem := s.clock.Now().Add(wait), printable(err.Error())
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		return tx.Exec(postponeRow, v.nid, again.UnixMilli(), problem)
	})
	if err != nil {
		return s.later(ctx, "a failure to send could not be stored", err)
	}
	return again
}

// result is what a row became: an event, and the room that it went to where that was
// not known before. The rest is about a room that was joined.
type result struct {
	event     id.EventID
	room      id.RoomID
	alone     bool // with who invited the service
	encrypted bool
}

// OnRefused has f called when the homeserver forbids a message or another event that
// the service sent: because its user may not speak in the room, or is not in it any
// more. It is called in the transaction that gives the event up.
func (s *Service) OnRefused(f func(tx *Tx, room id.RoomID, ref Ref) error) {
	s.refused = append(s.refused, f)
}

// finish notes what became of a row: why it was given up, if it was.
func (s *Service) finish(ctx context.Context, v item, state int, r result, why error) time.Time {
	var ev, problem *string
	if r.event != "" {
		ev = (*string)(&r.event)
	}
	if why != nil {
		text := printable(why.Error())
		problem = &text
	}
	err := s.Do(ctx, func(tx *Tx) error {
		if err := tx.Exec(finishRow, v.nid, state, ev, r.room, problem, s.now()); err != nil {
			return err
		}
		if v.kind == kindSend && errors.Is(why, mautrix.MForbidden) {
			for _, f := range s.refused {
				if err := f(tx, v.room, Ref(v.nid)); err != nil {
					return err
				}
			}
		}
		if state != stateDone || v.kind != kindJoin && v.kind != kindLeave {
			return nil
		}
		if err := tx.Exec(setAnswered, v.room, s.inboxIDs.Next()); err != nil || v.kind == kindLeave {
			return err
		}
		return s.learn(tx, v, r)
	})
	if err != nil {
		return s.later(ctx, "that something was sent could not be stored; it is sent again", err)
	}
	if r.event != "" {
		s.lastSent.Store(s.now())
		select {
		case s.echoes <- struct{}{}:
		default:
		}
	}
	return time.Time{}
}

// errResources is a homeserver that has reached a limit of its own.
var errResources = mautrix.RespError{ErrCode: "M_RESOURCE_LIMIT_EXCEEDED"}

// judge tells how long to wait after a failure, or that it is final: what the
// homeserver refuses by an error code of its own it will always refuse, except for
// the sake of a limit or of the token. All else may be a proxy's or the network's.
func (s *Service) judge(v item, err error) (wait time.Duration, final bool) {
	if errors.Is(err, errTarget) {
		return 0, true
	}
	if v.kind == kindWebhook {
		return s.judgeHook(v, err)
	}
	wait = min(firstRest<<min(v.attempts, 20), longestRest)
	failure := mautrix.HTTPError{}
	if !errors.As(err, &failure) || failure.Response == nil {
		return wait, false
	}
	status := failure.Response.StatusCode
	if status == http.StatusTooManyRequests {
		s.measures.limited.Inc()
		asked := s.limit(failure, wait)
		s.outbox.pause(s.clock.Now().Add(asked))
		return asked, false
	}
	if failure.RespError == nil || failure.RespError.ErrCode == "" || status == http.StatusUnauthorized {
		return wait, false
	}
	passing := status >= 500 || errors.Is(failure, mautrix.MUnrecognized) || errors.Is(failure, errResources)
	return wait, !passing || s.clock.Now().Sub(time.UnixMilli(v.created)) > triedFor
}

// limit is how long a homeserver that limits us asks to wait.
// spec: client-server#rate-limiting
func (s *Service) limit(e mautrix.HTTPError, otherwise time.Duration) time.Duration {
	if after := s.retryAfter(e.Response.Header.Get("Retry-After")); after > 0 {
		return after
	}
	if e.RespError != nil {
		if ms, ok := e.RespError.ExtraData["retry_after_ms"].(float64); ok && ms > 0 && ms < 1e9 {
			return time.Duration(ms) * time.Millisecond
		}
	}
	return otherwise
}

// retryAfter reads the header Retry-After; 0 if it asks for nothing.
func (s *Service) retryAfter(header string) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil && seconds > 0 && seconds < 1e6 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil && at.After(s.clock.Now()) {
		return at.Sub(s.clock.Now())
	}
	return 0
}

// txnID is the transaction id of a row: always the same, and not that of a row of a
// database that was there before this one.
func (s *Service) txnID(v item) string { return s.instance + "-" + strconv.FormatInt(v.nid, 10) }

// perform does what a row says, once.
func (s *Service) perform(ctx context.Context, v item) (result, error) {
	if v.target != nil && v.targeted == nil {
		return result{}, errTarget
	}
	switch v.kind {
	case kindSend:
		content, err := v.related()
		if err != nil {
			return result{}, err
		}
		return s.put(ctx, content, "rooms", v.room, "send", v.typ, s.txnID(v))
	case kindState:
		return s.put(ctx, v.content, "rooms", v.room, "state", v.typ, v.subject)
	case kindRedact:
		if v.targeted != nil {
			v.subject = string(*v.targeted)
		}
		return s.put(ctx, v.content, "rooms", v.room, "redact", v.subject, s.txnID(v))
	case kindJoin:
		return s.join(ctx, v)
	case kindLeave:
		return s.post(ctx, struct{}{}, "rooms", v.room, "leave")
	case kindDirect:
		return s.sendDirect(ctx, v)
	case kindForewarn:
		return s.sendForewarning(ctx, v)
	case kindDeserted:
		return s.leaveDeserted(ctx, v)
	case kindWebhook:
		return s.callHook(ctx, v)
	case kindInvite:
		return s.post(ctx, map[string]string{"user_id": v.subject}, "rooms", v.room, "invite")
	}
	return result{}, fmt.Errorf("kit: the outbox has a row of the kind %q, which a newer version made", v.kind)
}

// related is the content with the event that it is about, which was not known when
// it was written.
func (v *item) related() (json.RawMessage, error) {
	if v.target == nil {
		return v.content, nil
	}
	var content map[string]json.RawMessage
	var rel map[string]any
	if err := json.Unmarshal(v.content, &content); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(content["m.relates_to"], &rel); err != nil {
		return nil, err
	}
	rel["event_id"] = *v.targeted
	text, err := marshal(rel)
	if err != nil {
		return nil, err
	}
	content["m.relates_to"] = text
	return marshal(content)
}

func (s *Service) put(ctx context.Context, content []byte, path ...any) (result, error) {
	r, err := s.ask(ctx, http.MethodPut, json.RawMessage(content), s.client.BuildURL(clientPath(path)))
	if err == nil && r.event == "" {
		err = errNoEvent
	}
	return r, err
}

func (s *Service) post(ctx context.Context, content any, path ...any) (result, error) {
	return s.ask(ctx, http.MethodPost, content, s.client.BuildURL(clientPath(path)))
}

func clientPath(path []any) mautrix.ClientURLPath {
	return append(mautrix.ClientURLPath{"v3"}, path...)
}

// ask makes one request, without the client's own repetitions.
func (s *Service) ask(ctx context.Context, method string, body any, address string) (result, error) {
	var answer struct {
		EventID id.EventID `json:"event_id"`
	}
	_, err := s.client.MakeFullRequest(ctx, mautrix.FullRequest{Method: method, URL: address, RequestJSON: body, ResponseJSON: &answer, MaxAttempts: 1, ResponseSizeLimit: maxReceipt})
	return result{event: answer.EventID}, err
}

// errNoEvent is an answer that is none of a homeserver's: a proxy in between says 200
// to everything.
var errNoEvent = errors.New("kit: the answer does not name the event that was made")

// join joins a room, by way of the servers that the row names.
// spec: client-server#post_matrixclientv3joinroomidoralias
func (s *Service) join(ctx context.Context, v item) (result, error) {
	var via []string
	if err := json.Unmarshal(v.content, &via); err != nil {
		return result{}, err
	}
	address := s.client.BuildURLWithFullQuery(clientPath([]any{"join", v.room}), func(q url.Values) {
		q["via"], q["server_name"] = via, via
	})
	if _, err := s.ask(ctx, http.MethodPost, struct{}{}, address); err != nil {
		return result{}, err
	}
	return s.look(ctx, v)
}

// isStatus tells whether an error is the homeserver's own answer of a status.
func isStatus(err error, status int) bool {
	failure := mautrix.HTTPError{}
	return errors.As(err, &failure) && failure.IsStatus(status) && failure.RespError != nil && failure.RespError.ErrCode != ""
}
