package event

import (
	"crypto/ed25519"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Ref names the event, with its reference hash.
func (e *Event) Ref() Ref { return Ref{ID: e.ID} }

// Parse checks an untrusted PDU.
func Parse(v *Version, raw []byte) (*Event, error) { return nil, &FormatError{"not ready"} }

// Load reads a trusted event from our own store.
func Load(v *Version, id matrix.EventID, roomID matrix.RoomID, canonical []byte) (*Event, error) {
	return nil, &FormatError{"not ready"}
}

// ContentHashOK tells whether hashes.sha256 is the content hash.
func (e *Event) ContentHashOK() bool { return false }

// Redact returns the event without what its version's algorithm strips.
func (e *Event) Redact() *Event { return e }

// Build makes, hashes, signs and names an event.
func Build(v *Version, d Draft, server matrix.ServerName, key SigningKey) (*Event, error) {
	return nil, &FormatError{"not ready"}
}

// Sign adds a signature.
func (e *Event) Sign(server matrix.ServerName, key SigningKey) (*Event, error) {
	return nil, &FormatError{"not ready"}
}

// Signers lists the servers whose signature is required.
func (e *Event) Signers() []matrix.ServerName { return nil }

// KeyIDs lists the keys of server that signed the event.
func (e *Event) KeyIDs(server matrix.ServerName) []string { return nil }

// Verify checks one signature.
func (e *Event) Verify(server matrix.ServerName, keyID string, pub ed25519.PublicKey) error {
	return &FormatError{"not ready"}
}

// Canonical returns the canonical JSON of any value.
func Canonical(raw []byte) ([]byte, error) { return nil, &FormatError{"not ready"} }

// SignJSON signs a JSON object.
func SignJSON(obj []byte, signer string, key SigningKey) ([]byte, error) {
	return nil, &FormatError{"not ready"}
}

// VerifyJSON checks a signature of a JSON object.
func VerifyJSON(obj []byte, signer, keyID string, pub ed25519.PublicKey) error {
	return &FormatError{"not ready"}
}

// AppendClient renders the event for clients.
func (e *Event) AppendClient(dst []byte, f ClientFormat) []byte { return dst }
