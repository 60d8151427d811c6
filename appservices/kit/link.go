package kit

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/internal/db"
)

// linkFor is how long a link can be used.
const linkFor = 5 * time.Minute

// Of a link only the hash of its token is kept, so that a copy of the database opens
// nothing.
var (
	insertLink = basis.SQL(`
		INSERT INTO kit_links (hash, user_id, room_id, name, text, data, language, expires) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`)
	selectLink  = basis.SQL(`SELECT user_id, room_id, name, text, data, language FROM kit_links WHERE hash = $1 AND expires > $2`)
	deleteLink  = basis.SQL(`DELETE FROM kit_links WHERE hash = $1`)
	deleteLinks = basis.SQL(`DELETE FROM kit_links WHERE expires < $1`)
)

// Action is what a link does.
type Action struct {
	Name string // whose handler is called: see Service.Answer
	Text string // what the page asks to confirm
	Data any    // what the handler has to know, as JSON
}

// Link makes a link by which a user does something once, within five minutes. It is a
// secret of the user: send it in a direct chat. Opening it asks for a confirmation,
// for programs that look at links open them, too.
func (tx *Tx) Link(user id.UserID, room id.RoomID, a Action) string {
	if tx.s.cfg.PublicURL == "" {
		tx.fail(errors.New("kit: there are no links without a PublicURL in the configuration"))
		return ""
	}
	var secret [32]byte
	_, _ = rand.Read(secret[:])
	data, err := marshal(a.Data)
	tx.fail(err)
	token := base64.RawURLEncoding.EncodeToString(secret[:])
	expires := tx.s.clock.Now().Add(linkFor).UnixMilli()
	tx.fail(tx.Exec(insertLink, hashOf(token), user, room, a.Name, a.Text, data, tx.Language(user), expires))
	return strings.TrimSuffix(tx.s.cfg.PublicURL, "/") + "/link/" + token
}

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

type link struct {
	user     id.UserID
	room     id.RoomID
	name     string
	text     string
	data     []byte
	language string
}

// link finds a link that can be used.
func (s *Service) link(ctx context.Context, q db.Querier, token string) (*link, error) {
	l, found, err := db.One(ctx, q, selectLink, func(r db.Scanner) (*link, error) {
		v := &link{}
		return v, r.Scan(&v.user, &v.room, &v.name, &v.text, &v.data, &v.language)
	}, hashOf(token), s.now())
	if !found {
		return nil, err
	}
	return l, err
}

var linkPage = template.Must(template.New("link").Parse(`<!DOCTYPE html>
<html lang="{{.Language}}"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{.Title}}</title>
<h1>{{.Title}}</h1><p>{{.Text}}</p>{{if .Button}}<form method="post"><button>{{.Button}}</button></form>{{end}}
`))

// openLink shows what a link does.
func (s *Service) openLink(w http.ResponseWriter, r *http.Request) {
	l, err := s.link(r.Context(), s.db, r.PathValue("token"))
	switch {
	case err != nil:
		s.showFailure(w, r, err)
	case l == nil:
		s.show(w, http.StatusGone, fallback, "kit.link.title", s.text(fallback, "kit.link.gone"), "")
	default:
		s.show(w, http.StatusOK, l.language, "kit.link.title", l.text, "kit.link.go")
	}
}

// errGone is a link that was used meanwhile.
var errGone = errors.New("kit: the link is gone")

// useLink does what a link does, and ends it in the same transaction.
func (s *Service) useLink(w http.ResponseWriter, r *http.Request) {
	token, lang := r.PathValue("token"), fallback
	err := s.Do(r.Context(), func(tx *Tx) error {
		l, err := s.link(r.Context(), tx, token)
		if err != nil {
			return err
		}
		if l == nil {
			return errGone
		}
		lang = l.language
		if err := tx.Exec(deleteLink, hashOf(token)); err != nil {
			return err
		}
		direct, err := tx.direct(l.room, l.user)
		if err != nil {
			return err
		}
		handler := s.answers[l.name]
		if handler == nil {
			return fmt.Errorf("kit: nothing handles the link %q", l.name)
		}
		ev := &Event{Event: event.Event{Type: event.EventMessage, Sender: l.user, RoomID: l.room, Timestamp: s.now()}, Received: s.clock.Now()}
		return handler(tx, &Answer{Event: ev, Language: l.language, Direct: direct, data: l.data})
	})
	switch {
	case errors.Is(err, errGone):
		s.show(w, http.StatusGone, lang, "kit.link.title", s.text(lang, "kit.link.gone"), "")
	case err != nil:
		s.showFailure(w, r, err)
	default:
		s.show(w, http.StatusOK, lang, "kit.link.title", s.text(lang, "kit.link.done"), "")
	}
}

func (s *Service) showFailure(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil {
		s.log.Error("a link failed", "error", err)
	}
	s.show(w, http.StatusInternalServerError, fallback, "kit.link.title", s.text(fallback, "kit.failed"), "")
}

// show answers with a page that holds no script, lies in no frame, and tells nobody
// where it is.
func (s *Service) show(w http.ResponseWriter, status int, lang, title, text, button string) {
	page := struct{ Language, Title, Text, Button string }{lang, s.text(lang, title), text, ""}
	if button != "" {
		page.Button = s.text(lang, button)
	}
	var b bytes.Buffer
	if err := linkPage.Execute(&b, page); err != nil {
		s.log.Error("a page could not be made", "error", err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

// OpenID tells whose OpenID token a widget was given. Only people of the service's own
// homeserver are believed: others' servers are not asked.
// spec: server-server#get_matrixfederationv1openiduserinfo
func (s *Service) OpenID(ctx context.Context, token string) (id.UserID, error) {
	var answer struct {
		Sub id.UserID `json:"sub"`
	}
	address := s.client.HomeserverURL.JoinPath("_matrix/federation/v1/openid/userinfo")
	address.RawQuery = url.Values{"access_token": {token}}.Encode()
	// Without the service's own token, which is none of this endpoint's business.
	anonymous := &mautrix.Client{HomeserverURL: s.client.HomeserverURL, Client: s.client.Client, IgnoreRateLimit: true, ResponseSizeLimit: maxReceipt}
	_, err := anonymous.MakeFullRequest(ctx, mautrix.FullRequest{Method: http.MethodGet, URL: address.String(), ResponseJSON: &answer, MaxAttempts: 1})
	if err != nil {
		// The error of the client would show the token.
		return "", errors.New("kit: the homeserver does not confirm the OpenID token")
	}
	if answer.Sub.Homeserver() != s.cfg.User.Homeserver() || answer.Sub.Localpart() == "" {
		return "", fmt.Errorf("kit: the OpenID token is of %q, who is not of this homeserver", answer.Sub)
	}
	return answer.Sub, nil
}
