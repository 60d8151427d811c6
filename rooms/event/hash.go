package event

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"sync"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// hashIDBytes is the length of an id that is a sigil and a hash.
const hashIDBytes = 1 + 43

// scratch is a buffer for bytes that are hashed or signed and then forgotten.
type scratch struct{ buf []byte }

var scratches = sync.Pool{New: func() any { return &scratch{make([]byte, 0, 2048)} }}

func getScratch() *scratch { return scratches.Get().(*scratch) }

func (s *scratch) sum() [sha256.Size]byte { return sha256.Sum256(s.buf) }

func (s *scratch) free() {
	s.buf = s.buf[:0]
	scratches.Put(s)
}

// appendSigned appends the bytes that both the reference hash and the signatures
// cover: the redacted event without signatures (and unsigned, which it never has).
// spec: server-server#calculating-the-reference-hash-for-an-event
func (e *Event) appendSigned(dst []byte) []byte {
	return appendRedacted(dst, e.Version, e.JSON, e.Type, false)
}

// name gives the event its id, and a create event its room's, from the reference
// hash.
// spec: rooms/v4#event-ids
func (e *Event) name(hash [sha256.Size]byte) {
	encoding := base64.RawURLEncoding
	if e.Version.EventIDs == IDBase64 {
		encoding = base64.RawStdEncoding
	}
	var id [hashIDBytes]byte
	id[0] = '$'
	encoding.Encode(id[1:], hash[:])
	e.ID = matrix.EventID(id[:])
	if e.derivesRoomID() {
		id[0] = '!'
		e.RoomID = matrix.RoomID(id[:])
	}
}

// Ref names the event as others' prev_events and auth_events do. Where the id is
// the hash it is decoded from there, else computed.
func (e *Event) Ref() Ref {
	r := Ref{ID: e.ID}
	encoding := base64.RawURLEncoding
	switch e.Version.EventIDs {
	case IDText:
		s := getScratch()
		s.buf = e.appendSigned(s.buf)
		r.Hash = s.sum()
		s.free()
		return r
	case IDBase64:
		encoding = base64.RawStdEncoding
	}
	if len(e.ID) == hashIDBytes {
		// An id that is no hash can only come from a caller of Load; its Hash is zero.
		_, _ = encoding.Decode(r.Hash[:], []byte(e.ID[1:]))
	}
	return r
}

// contentHash covers the whole event but for what is added after hashing.
// spec: server-server#calculating-the-content-hash-for-an-event
func contentHash(json []byte) [sha256.Size]byte {
	s := getScratch()
	defer s.free()
	s.buf = cut(s.buf, json, dropHashes)
	return s.sum()
}

// ContentHashOK tells whether hashes.sha256 is the event's content hash. If not,
// the event is to be treated as the redacted copy that it then must be.
// spec: server-server#validating-hashes-and-signatures-on-received-events
func (e *Event) ContentHashOK() bool {
	claimed, ok := textOf(find(e.at.hashes.of(e.JSON), "sha256"))
	if !ok {
		return false
	}
	var want [sha256.Size]byte
	if !decodeBase64(want[:], claimed) {
		return false
	}
	got := contentHash(e.JSON)
	return bytes.Equal(got[:], want[:])
}

// decodeBase64 fills dst from standard base64, padded or not; false unless it
// fits exactly.
// spec: appendices#unpadded-base64
func decodeBase64(dst []byte, text string) bool {
	for len(text) > 0 && text[len(text)-1] == '=' {
		text = text[:len(text)-1]
	}
	if base64.RawStdEncoding.DecodedLen(len(text)) != len(dst) {
		return false
	}
	n, err := base64.RawStdEncoding.Decode(dst, []byte(text))
	return err == nil && n == len(dst)
}

func isURLBase64(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// dropUnsigned and its like say which members cut leaves out.
func dropUnsigned(key []byte) bool { return string(key) == "unsigned" }

func dropSignatures(key []byte) bool {
	return string(key) == "signatures" || string(key) == "unsigned"
}

func dropHashes(key []byte) bool {
	return string(key) == "hashes" || dropSignatures(key)
}

// cut appends a canonical object without some of its members.
func cut(dst, obj []byte, drop func(key []byte) bool) []byte {
	dst = append(dst, '{')
	for m := membersOf(obj); m.more(); {
		if !drop(m.key) {
			dst = appendMember(dst, obj[m.start:m.end])
		}
	}
	return append(dst, '}')
}
