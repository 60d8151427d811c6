package kittest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
)

// Faults are what goes wrong, each as how often out of 1. The zero value is a world in
// which nothing does.
type Faults struct {
	// On the way from the homeserver to the service.
	Drop      float64 // a transaction is taken, but the answer is lost
	Refuse    float64 // a transaction does not arrive
	Duplicate float64 // a transaction that was taken comes again
	Reorder   float64 // a transaction has its rooms in another order
	Delay     float64 // nothing comes for a while
	Lose      float64 // a message or an invitation is never sent to the service
	Restart   float64 // transaction ids begin anew, and the last events come again

	// On the way from the service to the homeserver.
	Fail    float64 // a request does not arrive, or fails before anything was done
	Forget  float64 // a request is obeyed, but the answer is lost
	Limit   float64 // a request is refused with 429
	Garbage float64 // the answer is none of a homeserver's

	// The service is killed with a request, before or after that was obeyed, or while
	// it takes a transaction.
	Kill float64
}

// Everything has all go wrong equally often.
func Everything(p float64) Faults {
	return Faults{
		Drop: p, Refuse: p, Duplicate: p, Reorder: p, Delay: p, Lose: p, Restart: p,
		Fail: p, Forget: p, Limit: p, Garbage: p, Kill: p,
	}
}

// dice decides what goes wrong.
type dice struct{ *rand.Rand }

func (d dice) hit(p float64) bool { return p > 0 && d.Float64() < p }

var errCut = errors.New("kittest: the connection was cut")

// wire is the service's way to the homeserver. Each life of the service has its own.
type wire struct {
	rig *Rig
	api http.Handler
}

// RoundTrip asks the homeserver, unless something goes wrong.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		_ = r.Body.Close()
	}
	f, fate := w.rig.fate(w)
	switch {
	case fate.dead:
		return nil, errCut
	case fate.hit(f.Kill / 2):
		w.rig.kill(w)
		return nil, errCut
	case fate.hit(f.Fail / 2):
		return nil, errCut
	case fate.hit(f.Fail / 2):
		return respond(r, http.StatusBadGateway, `<html>Bad Gateway</html>`), nil
	case fate.hit(f.Limit):
		answer := respond(r, http.StatusTooManyRequests, `{"errcode":"M_LIMIT_EXCEEDED","error":"slowly","retry_after_ms":3000}`)
		if fate.hit(0.5) {
			answer.Header.Set("Retry-After", "3")
		}
		w.rig.limited()
		return answer, nil
	}
	again := r.Clone(r.Context())
	again.Body = io.NopCloser(bytes.NewReader(body))
	again.RequestURI = ""
	recorder := httptest.NewRecorder()
	w.api.ServeHTTP(recorder, again)
	if r.Method == http.MethodGet {
		return recorder.Result(), nil
	}
	switch {
	case fate.hit(f.Kill / 2):
		w.rig.kill(w)
		return nil, errCut
	case fate.hit(f.Forget):
		return nil, errCut
	case fate.hit(f.Garbage):
		return respond(r, http.StatusOK, `<html>welcome</html>`), nil
	}
	return recorder.Result(), nil
}

func respond(r *http.Request, status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader([]byte(body))), ContentLength: int64(len(body)),
	}
}
