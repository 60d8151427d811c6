package state

import (
	"encoding/binary"
	"errors"
)

var errMalformed = errors.New("state: malformed entries")

// AppendEntries encodes a layer's entries: per entry the distance from the key
// before as an unsigned varint, then 0 for a removal or 1 + the zigzag distance
// from the event before. Keys and events grow together in a growing room, so
// most entries take two to four bytes.
//
// Entries are brought into normal order first. It panics on numbers that no
// database allots (a key below 1, an event below 0): what it wrote could never
// be read back.
func AppendEntries(dst []byte, entries []Entry) []byte {
	var key KeyNID
	var event EventNID
	for _, e := range normal(entries) {
		if e.Key < 1 || e.Event < 0 {
			panic("state: numbers of keys and events are positive")
		}
		dst = binary.AppendUvarint(dst, uint64(e.Key-key))
		key = e.Key
		if e.Event == 0 {
			dst = append(dst, 0)
			continue
		}
		dst = binary.AppendUvarint(dst, zigzag(int64(e.Event-event))+1)
		event = e.Event
	}
	return dst
}

// DecodeEntries reads what AppendEntries wrote. It accepts nothing else: a
// damaged row is an error, not another state.
func DecodeEntries(src []byte) ([]Entry, error) {
	entries := make([]Entry, 0, len(src)/3+1)
	var last Entry
	for len(src) > 0 {
		step, n := uvarint(src)
		if n == 0 {
			return nil, errMalformed
		}
		src = src[n:]
		code, n := uvarint(src)
		if n == 0 {
			return nil, errMalformed
		}
		src = src[n:]

		key := last.Key + KeyNID(step)
		if key <= last.Key {
			return nil, errMalformed
		}
		last.Key = key
		if code == 0 {
			entries = append(entries, Entry{Key: key})
			continue
		}
		event := last.Event + EventNID(unzigzag(code-1))
		if event < 1 {
			return nil, errMalformed
		}
		last.Event = event
		entries = append(entries, last)
	}
	return entries, nil
}

// uvarint reads an unsigned varint in its shortest form; n is 0 if there is
// none.
func uvarint(src []byte) (v uint64, n int) {
	v, n = binary.Uvarint(src)
	if n <= 0 || n > 1 && src[n-1] == 0 {
		return 0, 0
	}
	return v, n
}

func zigzag(v int64) uint64 { return uint64(v)<<1 ^ uint64(v>>63) }

func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }
