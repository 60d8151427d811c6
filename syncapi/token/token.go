// Package token gives stream positions the form in which clients hold them.
//
// There are two kinds. A Sync token is what /sync hands out as next_batch: the
// stream position up to which the client knows everything, and where it stands
// in what is kept in memory only (typing, presence). A point is a place in one
// room's timeline, between two events: right behind the event, if there is one,
// with that position. It is what prev_batch and the tokens of /messages are.
//
// Both name their version first, so that another form can be told apart from
// the first day on. Clients must not look into them.
//
// The package is a leaf: it imports nothing of ours.
package token

import (
	"errors"
	"strconv"
	"strings"
)

// ErrMalformed says that a text is no token of ours.
var ErrMalformed = errors.New("not a token of this server")

const (
	syncPrefix  = "s1_"
	pointPrefix = "t1_"
)

// Sync is where a client stands.
type Sync struct {
	Position int64 // of the stream; 0 is before everything
	// Epoch names the run of the server that Ephemeral belongs to; that of
	// another run means nothing.
	Epoch     int64
	Ephemeral int64 // how much of typing and presence the client has seen
	// Device is up to where the device has its to-device messages: Position,
	// unless there were more than one answer holds.
	Device int64
}

// String is the token as a client holds it.
func (s Sync) String() string { return string(s.Append(nil)) }

// Append appends the token to dst.
func (s Sync) Append(dst []byte) []byte {
	dst = append(dst, syncPrefix...)
	dst = strconv.AppendInt(dst, s.Position, 10)
	dst = append(dst, '_')
	dst = strconv.AppendInt(dst, s.Epoch, 36)
	dst = append(dst, '_')
	dst = strconv.AppendInt(dst, s.Ephemeral, 10)
	dst = append(dst, '_')
	return strconv.AppendInt(dst, s.Device, 10)
}

// ParseSync reads a token of /sync.
func ParseSync(text string) (Sync, error) {
	rest, ok := strings.CutPrefix(text, syncPrefix)
	if !ok {
		return Sync{}, ErrMalformed
	}
	parts := strings.Split(rest, "_")
	if len(parts) != 4 {
		return Sync{}, ErrMalformed
	}
	var s Sync
	for i, part := range []struct {
		dst  *int64
		base int
	}{{&s.Position, 10}, {&s.Epoch, 36}, {&s.Ephemeral, 10}, {&s.Device, 10}} {
		n, ok := number(parts[i], part.base)
		if !ok || n < 0 {
			return Sync{}, ErrMalformed
		}
		*part.dst = n
	}
	return s, nil
}

// Point gives the place behind a position of a timeline; positions of
// backfilled events are negative. Reading backwards from it gives the events at
// or below the position, reading forwards those above.
func Point(position int64) string { return string(AppendPoint(nil, position)) }

// AppendPoint appends Point(position) to dst.
func AppendPoint(dst []byte, position int64) []byte {
	return strconv.AppendInt(append(dst, pointPrefix...), position, 10)
}

// ParsePoint reads a point. A Sync token stands for the place where it was
// handed out.
func ParsePoint(text string) (position int64, err error) {
	if rest, ok := strings.CutPrefix(text, pointPrefix); ok {
		if position, ok = number(rest, 10); ok {
			return position, nil
		}
		return 0, ErrMalformed
	}
	s, err := ParseSync(text)
	return s.Position, err
}

// number reads a number that is written as it would be written here.
func number(text string, base int) (int64, bool) {
	n, err := strconv.ParseInt(text, base, 64)
	return n, err == nil && strconv.FormatInt(n, base) == text
}
