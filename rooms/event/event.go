package event

import (
	"crypto/ed25519"
	"encoding/json"
	"sync/atomic"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// MaxEventBytes bounds the canonical form of an event.
// spec: client-server#size-limits
const MaxEventBytes = 65536

// Event is one room event. It never changes; share it freely.
type Event struct {
	Version        *Version
	ID             matrix.EventID
	RoomID         matrix.RoomID // of a create event whose version derives it: the derived id
	Type           string
	Sender         matrix.UserID
	Depth          int64
	OriginServerTS int64
	PrevEvents     []matrix.EventID
	AuthEvents     []matrix.EventID
	Redacts        matrix.EventID // from top level or content, as the version says; "" unless a redaction
	Content        []byte         // span of JSON
	JSON           []byte         // canonical, without unsigned; with event_id in versions 1 and 2 only

	at          spans
	stateKey    string
	hasStateKey bool
	membership  string // of a member event
	memo        atomic.Pointer[memo]
}

type memo struct{ value any }

// Ref names an event in another's prev_events or auth_events. Hash, the
// reference hash, is written out in room versions 1 and 2 only.
type Ref struct {
	ID   matrix.EventID
	Hash [32]byte
}

// FormatError says what is wrong with a PDU or a draft. The text holds no
// secrets and may be shown.
type FormatError struct {
	What     string
	TooLarge bool // a size limit is broken: M_TOO_LARGE rather than M_BAD_JSON
}

func (e *FormatError) Error() string { return "bad event: " + e.What }

// SigningKey is one of a server's own keys.
type SigningKey struct {
	ID      string // "ed25519:" + version
	Private ed25519.PrivateKey
}

// Draft is what Build makes an event of.
type Draft struct {
	RoomID         matrix.RoomID // left empty for a create event whose version derives it
	Type           string
	StateKey       *string // nil for a message event
	Sender         matrix.UserID
	Content        json.RawMessage // a JSON object, not necessarily canonical
	Depth          int64
	OriginServerTS int64 // milliseconds since 1970
	PrevEvents     []Ref
	AuthEvents     []Ref
	Redacts        matrix.EventID // only for m.room.redaction; put where the version wants it
}

// ClientFormat says how AppendClient renders an event.
type ClientFormat struct {
	OmitRoomID bool
	Unsigned   []byte // a JSON object, or nil for none
}

// IsState tells whether the event has a state key.
func (e *Event) IsState() bool { return e.hasStateKey }

// StateKey is the state key, "" for message events too.
func (e *Event) StateKey() string { return e.stateKey }

// StateKeyPtr is nil for a message event; nobody may write through it.
func (e *Event) StateKeyPtr() *string {
	if !e.hasStateKey {
		return nil
	}
	return &e.stateKey
}

// Is tells whether the event is state of this type and key.
func (e *Event) Is(typ, stateKey string) bool {
	return e.hasStateKey && e.Type == typ && e.stateKey == stateKey
}

// Membership is content.membership of a member event, "" of any other.
func (e *Event) Membership() string { return e.membership }

// Memo returns what parse makes of the event, computed at the first call and
// kept. There is one slot per event, so all callers must agree on its meaning.
// Racing first callers may both parse; all get the same winner.
func (e *Event) Memo(parse func() any) any {
	if m := e.memo.Load(); m != nil {
		return m.value
	}
	m := &memo{parse()}
	if !e.memo.CompareAndSwap(nil, m) {
		m = e.memo.Load()
	}
	return m.value
}
