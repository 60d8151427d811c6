package httpx

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Steady reads the body of a Raw request for as long as something comes at least
// every stall. A body that ends early, or does not come any more, fails with a
// *matrix.Error; so does one that is longer than the route's MaxBody.
func Steady(w http.ResponseWriter, r *http.Request, stall time.Duration) io.Reader {
	return &steady{body: r.Body, control: http.NewResponseController(w), stall: stall, w: w}
}

type steady struct {
	body    io.Reader
	control *http.ResponseController
	stall   time.Duration
	w       http.ResponseWriter
}

func (s *steady) Read(p []byte) (int, error) {
	timed := s.control.SetReadDeadline(time.Now().Add(s.stall)) == nil // the network's clock, not the domain's
	n, err := s.body.Read(p)
	if err == nil {
		return n, nil
	}
	if timed && err == io.EOF {
		_ = s.control.SetReadDeadline(time.Time{})
	}
	if err == io.EOF {
		return n, err
	}
	s.w.Header().Set("Connection", "close") // what is left of the body is not read
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return n, matrix.TooLarge("The file is larger than the %d bytes that this server takes", tooLarge.Limit).Because(err)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return n, matrix.NewError(http.StatusRequestTimeout, matrix.CodeUnknown, "Nothing came for %v; send the file again", s.stall).Because(err)
	}
	return n, matrix.NewError(http.StatusBadRequest, matrix.CodeUnknown, "The file ended early; send it again").Because(err)
}
