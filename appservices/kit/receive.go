package kit

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// maxTransaction is the longest body that is read: many times what a homeserver puts
// into one.
const maxTransaction = 32 << 20

// Handler is what the homeserver calls, the application service API, and below /link/
// what people open. It bounds what is read; the http.Server that it is served by, if Run
// does not listen, has to bound the time, by its ReadTimeout.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, prefix := range []string{"/_matrix/app/v1", ""} { // older homeservers use the bare paths
		mux.HandleFunc("PUT "+prefix+"/transactions/{txn}", s.answer(s.transaction))
		mux.HandleFunc("GET "+prefix+"/users/{user}", s.answer(s.queryUser))
		mux.HandleFunc("GET "+prefix+"/rooms/{alias}", s.answer(s.queryAlias))
	}
	mux.HandleFunc("GET /link/{token}", s.openLink)
	mux.HandleFunc("POST /link/{token}", s.useLink)
	mux.HandleFunc("POST /_matrix/app/v1/ping", s.answer(s.pinged))
	mux.HandleFunc("/", s.answer(func(*http.Request) error {
		return matrix.NewError(http.StatusNotFound, matrix.CodeUnrecognized, "There is no such endpoint here")
	}))
	return mux
}

// answer answers with {} or with an error, and only to the homeserver.
func (s *Service) answer(f func(r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxTransaction)
		err := s.authenticate(r)
		if err == nil {
			err = f(r)
		}
		w.Header().Set("Content-Type", "application/json")
		if err == nil {
			_, _ = io.WriteString(w, "{}")
			return
		}
		e := matrix.AsError(err)
		if e.Status >= http.StatusInternalServerError && r.Context().Err() == nil {
			s.log.Error("a request of the homeserver failed", "path", r.URL.Path, "error", err)
		}
		text, _ := json.Marshal(e)
		w.WriteHeader(e.Status)
		_, _ = w.Write(text)
	}
}

// authenticate compares the homeserver's token in a time that says nothing of it.
// spec: application-service#authorization
func (s *Service) authenticate(r *http.Request) error {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		token = r.URL.Query().Get("access_token") // homeservers before v1.4
	}
	if token == "" {
		return matrix.NewError(http.StatusUnauthorized, matrix.CodeUnauthorized, "The hs_token is missing")
	}
	got, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(s.cfg.HSToken))
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return matrix.Forbidden("This is not the hs_token of the registration")
	}
	return nil
}

// received is an event as it came.
type received struct {
	id   id.EventID
	room id.RoomID
	text json.RawMessage
}

// transaction stores what the homeserver tells. It answers when all of it is safe on
// disk; an event that came before, under whatever transaction, is left as it is.
// spec: application-service#put_matrixappv1transactionstxnid
func (s *Service) transaction(r *http.Request) error {
	var body []byte
	err := error(&http.MaxBytesError{})
	if r.ContentLength <= maxTransaction {
		body, err = io.ReadAll(r.Body)
	}
	if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
		return matrix.TooLarge("The transaction is longer than %d bytes", maxTransaction)
	}
	if err != nil {
		return err
	}
	var t struct {
		Events    []json.RawMessage `json:"events"`
		Ephemeral []json.RawMessage `json:"ephemeral"`
		Unstable  []json.RawMessage `json:"de.sorunome.msc2409.ephemeral"`
	}
	if err := json.Unmarshal(body, &t); err != nil {
		return matrix.NotJSON("The transaction is no JSON")
	}
	var events []received
	for _, text := range t.Events {
		if ev, ok := parse(text); ok {
			events = append(events, ev)
		} else { // refusing it would only hold up its neighbours
			s.log.Warn("an event without proper ids is left out", "transaction", r.PathValue("txn"), "event", string(text[:min(len(text), 200)]))
		}
	}
	if err := s.store(r.Context(), events); err != nil {
		return err
	}
	if t.Ephemeral == nil {
		t.Ephemeral = t.Unstable
	}
	s.pass(t.Ephemeral)
	return s.suspect(r.Context(), r.PathValue("txn"))
}

func parse(text json.RawMessage) (received, bool) {
	var v struct {
		ID   id.EventID `json:"event_id"`
		Room id.RoomID  `json:"room_id"`
	}
	if json.Unmarshal(text, &v) != nil || !proper(string(v.ID), '$') || !proper(string(v.Room), '!') {
		return received{}, false
	}
	return received{v.ID, v.Room, text}, true
}

// proper tells whether an id has its sigil and can be stored.
func proper(id string, sigil byte) bool {
	return len(id) > 1 && len(id) <= 255 && id[0] == sigil && utf8.ValidString(id) && !strings.ContainsRune(id, 0)
}

// store puts what the homeserver tells into the inbox, in one transaction.
func (s *Service) store(ctx context.Context, events []received) error {
	if len(events) == 0 {
		return nil
	}
	return s.db.Write(ctx, func(tx *db.Tx) (err error) {
		for _, ev := range events {
			if m, at := s.membership(ev.text); m != "" {
				err = s.insertOwn(ctx, tx, ev, m, at)
			} else {
				err = s.insert(tx, ev)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Service) insert(tx *db.Tx, ev received) error {
	tx.Publish(toHandle(ev.room))
	return tx.Exec(insertEvent, s.inboxIDs.Next(), ev.id, ev.room, []byte(ev.text), s.now())
}

// suspect has all rooms swept when the numbers of transactions begin anew: the
// homeserver was restored from a copy, and may not know what it still has to tell.
func (s *Service) suspect(ctx context.Context, txn string) error {
	n, err := strconv.ParseInt(txn, 10, 64)
	if err != nil || s.lastTxn.Swap(n) <= n {
		return nil
	}
	return s.Sweep(ctx)
}

// pinged answers that the homeserver gets through.
// spec: application-service#post_matrixappv1ping
func (s *Service) pinged(*http.Request) error { return nil }

// queryUser tells that of all users that the homeserver may ask for there is only the
// service's own.
// spec: application-service#get_matrixappv1usersuserid
func (s *Service) queryUser(r *http.Request) error {
	if r.PathValue("user") != string(s.cfg.User) {
		return matrix.NotFound("There is no such user")
	}
	return nil
}

// queryAlias tells that there is no room of the service's to be made.
// spec: application-service#get_matrixappv1roomsroomalias
func (s *Service) queryAlias(*http.Request) error { return matrix.NotFound("There is no such room") }
