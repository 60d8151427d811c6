package httpx

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// RawJSON is an answer that is encoded already.
type RawJSON []byte

// MarshalJSON gives the bytes as they are.
func (j RawJSON) MarshalJSON() ([]byte, error) { return j, nil }

// statused is an answer that chooses its status.
type statused interface{ HTTPStatus() int }

var jsonType = []string{"application/json"}

// encoder is a buffer with an encoder that writes into it.
type encoder struct {
	bytes.Buffer
	json *json.Encoder
}

// maxPooled keeps a rare huge answer from staying in memory.
const maxPooled = 64 << 10

var encoders = sync.Pool{New: func() any {
	e := &encoder{}
	e.json = json.NewEncoder(&e.Buffer)
	e.json.SetEscapeHTML(false)
	return e
}}

// Write answers as a JSON route does, from a Raw one.
func Write(w http.ResponseWriter, a any) error {
	x, ok := w.(*exchange)
	if !ok {
		x = &exchange{ResponseWriter: w}
	}
	return x.writeJSON(a)
}

// writeJSON answers with a, a pointer to the answer or nil for {}.
func (x *exchange) writeJSON(a any) error {
	status := http.StatusOK
	if s, ok := a.(statused); ok {
		status = s.HTTPStatus()
	}
	switch v := a.(type) {
	case nil:
		return x.writeBody(status, []byte("{}"))
	case *RawJSON:
		return x.writeBody(status, *v)
	case json.Marshaler:
		b, err := v.MarshalJSON()
		if err != nil {
			return fmt.Errorf("encoding the answer: %w", err)
		}
		return x.writeBody(status, b)
	case io.WriterTo:
		x.Header()["Content-Type"] = jsonType
		x.WriteHeader(status)
		if _, err := v.WriteTo(x); err != nil {
			return fmt.Errorf("streaming the answer: %w", err)
		}
		return nil
	}
	e := encoders.Get().(*encoder)
	defer func() {
		if e.Cap() <= maxPooled {
			e.Reset()
			encoders.Put(e)
		}
	}()
	if err := e.json.Encode(a); err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	return x.writeBody(status, bytes.TrimSuffix(e.Bytes(), []byte("\n")))
}

func (x *exchange) writeBody(status int, body []byte) error {
	h := x.Header()
	h["Content-Type"] = jsonType
	if len(body) > 1024 { // net/http counts short ones by itself
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	x.WriteHeader(status)
	_, _ = x.Write(body) // a client that left is not our failure
	return nil
}

// writeError answers with the standard error response. A 5xx names the request,
// so that a user's report leads to the line in the log.
func (x *exchange) writeError(err error) {
	e := matrix.AsError(err)
	h := x.Header()
	if e.Status >= http.StatusInternalServerError {
		h.Set("X-Request-Id", x.requestID())
	}
	if ms, ok := e.Extra["retry_after_ms"].(int64); ok {
		h.Set("Retry-After", strconv.FormatInt((ms+999)/1000, 10))
	}
	body, encodeErr := e.MarshalJSON()
	if encodeErr != nil {
		body = []byte(`{"errcode":"M_UNKNOWN","error":"Internal server error"}`)
	}
	_ = x.writeBody(e.Status, body)
}
