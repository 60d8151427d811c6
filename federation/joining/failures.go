package joining

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

var errNotAnswer = errors.New("the answer is not what it should be")

// malformed is the failure of a server whose answer is of no use.
func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errNotAnswer, fmt.Sprintf(format, args...))
}

// failures are why the servers that were asked did not help.
type failures []failure

type failure struct {
	server matrix.ServerName
	err    error
}

// final tells whether other servers would say the same.
func final(err error) bool {
	var remote *transport.RemoteError
	return errors.As(err, &remote) && remote.Code == matrix.CodeIncompatibleRoom
}

// How much a failure tells a client; the best of them is what it gets to hear.
const (
	tellsNothing = iota
	tellsUnknown
	tellsRefusal
)

func tells(err error) int {
	var remote *transport.RemoteError
	var ours *matrix.Error
	switch {
	case errors.As(err, &remote):
	case errors.As(err, &ours) && ours.Status < http.StatusInternalServerError:
		return tellsRefusal
	default:
		return tellsNothing
	}
	switch remote.Code {
	case matrix.CodeUnableToAuthoriseJoin, matrix.CodeUnableToGrantJoin, matrix.CodeIncompatibleRoom:
		return tellsRefusal
	case matrix.CodeNotFound:
		return tellsUnknown
	case "", matrix.CodeMissingParam, matrix.CodeInvalidParam, matrix.CodeUnrecognized:
		// spec: server-server#put_matrixfederationv2send_joinroomideventid
		return tellsNothing
	}
	if remote.Status == http.StatusForbidden {
		return tellsRefusal
	}
	return tellsNothing
}

// forClient is the error for the client on whose behalf the servers were asked.
func (f failures) forClient(room matrix.RoomID) error {
	if len(f) == 0 {
		return matrix.NotFound("This server does not know %s, and no server was named that does", room)
	}
	best := f[0]
	for _, one := range f[1:] {
		if tells(one.err) > tells(best.err) {
			best = one
		}
	}
	var remote *transport.RemoteError
	var ours *matrix.Error
	switch told := tells(best.err) > tellsNothing; {
	case told && errors.As(best.err, &remote):
		return remote.Matrix()
	case told && errors.As(best.err, &ours):
		return ours
	}
	return matrix.NewError(http.StatusBadGateway, matrix.CodeUnknown,
		"None of the servers that were asked could help; the last one was %s. Try again later", f[len(f)-1].server).Because(best.err)
}

// LogValue says what each server did.
func (f failures) LogValue() slog.Value {
	attrs := make([]slog.Attr, len(f))
	for i, one := range f {
		attrs[i] = slog.String(string(one.server), one.err.Error())
	}
	return slog.GroupValue(attrs...)
}

// refused tells whether one of the servers has a reason to refuse.
func (f failures) refused() bool {
	for _, one := range f {
		if tells(one.err) == tellsRefusal {
			return true
		}
	}
	return false
}

// cannotAuthorise tells whether a server is in the room and cannot let the user in
// by a restricted join.
func (f failures) cannotAuthorise() bool {
	return slices.ContainsFunc(f, func(one failure) bool {
		var remote *transport.RemoteError
		return errors.As(one.err, &remote) && (remote.Code == matrix.CodeUnableToAuthoriseJoin || remote.Code == matrix.CodeUnableToGrantJoin)
	})
}

// unsigned is the error for an event whose signatures do not hold.
func unsigned(err error) error {
	var why *keys.Error
	switch {
	case errors.As(err, &why) && errors.Is(err, keys.ErrNoKey):
		return matrix.NewError(http.StatusForbidden, matrix.CodeForbidden, "The keys of %.64s cannot be had", why.Server).Because(err)
	case errors.As(err, &why):
		return matrix.InvalidParam("The event has no signature of %.64s that counts", why.Server).Because(err)
	}
	return err
}
