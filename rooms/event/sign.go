package event

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Why a signature does not count.
var (
	ErrNotSigned    = errors.New("event: no such signature")
	ErrBadSignature = errors.New("event: the signature does not verify")
)

const algorithm = "ed25519:"

// Sign returns the event with one more signature; the id stays.
// spec: server-server#signing-events
func (e *Event) Sign(server matrix.ServerName, key SigningKey) (*Event, error) {
	s := getScratch()
	defer s.free()
	s.buf = e.appendSigned(s.buf)
	json, err := addSignature(e.JSON, string(server), key, s.buf)
	if err != nil {
		return nil, err
	}
	return e.withSignatures(json)
}

// AddSignature returns the event with a signature that another server made, in
// unpadded base64, unverified; the id stays.
func (e *Event) AddSignature(server matrix.ServerName, keyID, signature string) (*Event, error) {
	if len(signature) > base64.RawStdEncoding.EncodedLen(ed25519.SignatureSize) || !isBase64(signature) {
		return nil, errors.New("event: the signature is not base64")
	}
	return e.withSignatures(setSignature(e.JSON, string(server), keyID, []byte(`"`+signature+`"`)))
}

// withSignatures is the event with other signatures in its JSON.
func (e *Event) withSignatures(json []byte) (*Event, error) {
	signed := &Event{Version: e.Version}
	signed.locate(json)
	if err := signed.decode(); err != nil {
		return nil, err
	}
	if err := signed.validate(); err != nil {
		return nil, err
	}
	signed.ID, signed.RoomID = e.ID, e.RoomID
	return signed, nil
}

func isBase64(text string) bool {
	_, err := base64.RawStdEncoding.DecodeString(text)
	return err == nil
}

// Signers lists the servers whose signatures the event needs. It is empty for an
// invite that a third party's token vouches for: whoever sends that on, its
// proof is in content and judged by the auth rules. A name in the list may be
// malformed; nobody can have signed for it then.
// spec: server-server#validating-hashes-and-signatures-on-received-events
func (e *Event) Signers() []matrix.ServerName {
	list := make([]matrix.ServerName, 0, 2)
	add := func(s matrix.ServerName) {
		if len(list) == 0 || list[0] != s {
			list = append(list, s)
		}
	}
	thirdParty := e.membership == matrix.MembershipInvite && find(e.Content, "third_party_invite") != nil
	if !thirdParty {
		add(e.Sender.Server())
	}
	if e.Version.SignedByIDHost {
		add(textIDHost(e.ID))
	}
	if e.Version.RestrictedJoins && e.Type == matrix.TypeMember {
		// spec: rooms/v8#authorisation-rules
		if value := find(e.Content, "join_authorised_via_users_server"); value != nil {
			user, _ := textOf(value)
			add(matrix.UserID(user).Server())
		}
	}
	return list
}

// KeyIDs lists the ids of the keys by which the server signed the event, those of
// unknown algorithms left out.
func (e *Event) KeyIDs(server matrix.ServerName) []string {
	return keyIDs(e.at.signatures.of(e.JSON), string(server))
}

// Verify checks the signature that server made with the key. It fails with
// ErrNotSigned or ErrBadSignature.
func (e *Event) Verify(server matrix.ServerName, keyID string, pub ed25519.PublicKey) error {
	s := getScratch()
	defer s.free()
	s.buf = e.appendSigned(s.buf)
	return verify(e.at.signatures.of(e.JSON), string(server), keyID, pub, s.buf)
}

// SignJSON signs a JSON object and returns its canonical form with the signature
// among its "signatures". Numbers keep the text that older room versions allow,
// since such events travel inside signed requests.
// spec: appendices#signing-details
func SignJSON(obj []byte, signer string, key SigningKey) ([]byte, error) {
	obj, err := canonicalObject(obj)
	if err != nil {
		return nil, err
	}
	return addSignature(obj, signer, key, cut(nil, obj, dropSignatures))
}

// VerifyJSON checks a signature of a JSON object, in any form.
// spec: appendices#checking-for-a-signature
func VerifyJSON(obj []byte, signer, keyID string, pub ed25519.PublicKey) error {
	obj, err := canonicalObject(obj)
	if err != nil {
		return err
	}
	return verify(find(obj, "signatures"), signer, keyID, pub, cut(nil, obj, dropSignatures))
}

// SignatureKeyIDs lists the ids of the keys by which signer signed a JSON object.
func SignatureKeyIDs(obj []byte, signer string) []string {
	obj, err := canonicalObject(obj)
	if err != nil {
		return nil
	}
	return keyIDs(find(obj, "signatures"), signer)
}

func canonicalObject(obj []byte) ([]byte, error) {
	obj, err := canonicalise(obj, false)
	if err != nil {
		return nil, err
	}
	if obj[0] != '{' {
		return nil, &FormatError{What: "not a JSON object"}
	}
	return obj, nil
}

func keyIDs(signatures []byte, signer string) []string {
	byServer := find(signatures, signer)
	if len(byServer) == 0 || byServer[0] != '{' {
		return nil
	}
	var ids []string
	for m := membersOf(byServer); m.more(); {
		if strings.HasPrefix(string(m.key), algorithm) && m.value[0] == '"' {
			ids = append(ids, string(m.key))
		}
	}
	return ids
}

// verify checks signatures[signer][keyID] over message.
func verify(signatures []byte, signer, keyID string, pub ed25519.PublicKey, message []byte) error {
	text, ok := textOf(find(find(signatures, signer), keyID))
	if !ok || !strings.HasPrefix(keyID, algorithm) {
		return ErrNotSigned
	}
	var signature [ed25519.SignatureSize]byte
	if len(pub) != ed25519.PublicKeySize || !decodeBase64(signature[:], text) || !ed25519.Verify(pub, message, signature[:]) {
		return ErrBadSignature
	}
	return nil
}

// addSignature signs message and returns the canonical object obj with the
// signature set in its "signatures".
func addSignature(obj []byte, signer string, key SigningKey, message []byte) ([]byte, error) {
	if len(key.Private) != ed25519.PrivateKeySize || !strings.HasPrefix(key.ID, algorithm) {
		return nil, errors.New("event: not an ed25519 signing key")
	}
	signature := make([]byte, 0, 2+base64.RawStdEncoding.EncodedLen(ed25519.SignatureSize))
	signature = append(signature, '"')
	signature = base64.RawStdEncoding.AppendEncode(signature, ed25519.Sign(key.Private, message))
	signature = append(signature, '"')
	return setSignature(obj, signer, key.ID, signature), nil
}

// setSignature returns the canonical object obj with the signature, a JSON text,
// set in its "signatures".
func setSignature(obj []byte, signer, keyID string, signature []byte) []byte {
	all := orEmptyObject(find(obj, "signatures"))
	own := setMember(nil, orEmptyObject(find(all, signer)), keyID, signature)
	all = setMember(nil, all, signer, own)
	return setMember(make([]byte, 0, len(obj)+len(all)+16), obj, "signatures", all)
}

func orEmptyObject(value []byte) []byte {
	if len(value) == 0 || value[0] != '{' {
		return []byte("{}")
	}
	return value
}

// setMember appends a canonical object with one member added or replaced.
func setMember(dst, obj []byte, key string, value []byte) []byte {
	quoted := appendString(make([]byte, 0, 64), key)
	inside := quoted[1 : len(quoted)-1]
	dst = append(dst, '{')
	set := func() {
		dst = append(append(appendMember(dst, quoted), ':'), value...)
	}
	done := false
	for m := membersOf(obj); m.more(); {
		order := -1
		if !done {
			if order = compareKeys(m.key, inside); order >= 0 {
				set()
				done = true
			}
		}
		if order != 0 {
			dst = appendMember(dst, obj[m.start:m.end])
		}
	}
	if !done {
		set()
	}
	return append(dst, '}')
}
