package kit

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/teahouse-chat/teahouse/internal/dialer"
)

const (
	// hookRest is the longest rest between attempts at a webhook, and hookFor how long
	// it is tried.
	hookRest = time.Hour
	hookFor  = 3 * 24 * time.Hour
	// hookTimeout is how long one may take until it answers.
	hookTimeout = 30 * time.Second
)

// hookClient follows no redirects. It does not bound bodies: none is read.
func hookClient(d *dialer.Dialer) *http.Client {
	return &http.Client{
		Transport: d.Transport(nil), Timeout: hookTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Webhook is a call of an address that somebody gave. It is repeated for three days,
// until it is answered with a status of 200 to 299, and ended by 410. Those to one
// address are made in their order. Whoever takes it knows repetitions by their
// webhook-id, and that it is ours by its webhook-signature, which is made as
// standardwebhooks.com has it.
type Webhook struct {
	URL    string
	Secret string // of the signature
	Body   any    // as JSON
}

// Webhook calls an address.
func (tx *Tx) Webhook(w Webhook) Ref {
	return tx.put(row{lane: w.URL, kind: kindWebhook, subject: w.Secret, content: w.Body})
}

// hookStatus is a status by which a webhook was refused.
type hookStatus struct {
	status     int
	retryAfter string
}

func (e *hookStatus) Error() string {
	return fmt.Sprintf("kit: the webhook was answered with status %d", e.status)
}

// callHook makes the call of a row once.
func (s *Service) callHook(ctx context.Context, v item) (result, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, v.lane, bytes.NewReader(v.content))
	if err != nil {
		return result{}, err
	}
	name, at := s.txnID(v), strconv.FormatInt(s.clock.Now().Unix(), 10)
	mac := hmac.New(sha256.New, []byte(v.subject))
	fmt.Fprintf(mac, "%s.%s.%s", name, at, v.content)
	r.Header.Set("Content-Type", "application/json")
	r.Header["webhook-id"] = []string{name}
	r.Header["webhook-timestamp"] = []string{at}
	r.Header["webhook-signature"] = []string{"v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))}
	answer, err := s.web.Do(r)
	if err != nil {
		return result{}, err
	}
	_ = answer.Body.Close() // it was taken, or not, whatever else is said
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return result{}, &hookStatus{answer.StatusCode, answer.Header.Get("Retry-After")}
	}
	return result{}, nil
}

// judgeHook is judge for webhooks.
func (s *Service) judgeHook(v item, err error) (wait time.Duration, final bool) {
	wait = min(firstRest<<min(v.attempts, 20), hookRest)
	if _, denied := errors.AsType[*dialer.DeniedError](err); denied {
		return 0, true
	}
	if refused, ok := errors.AsType[*hookStatus](err); ok {
		if refused.status == http.StatusGone {
			return 0, true
		}
		wait = max(wait, s.retryAfter(refused.retryAfter))
	}
	return wait, s.clock.Now().Sub(time.UnixMilli(v.created)) > hookFor
}
