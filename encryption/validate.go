package encryption

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// What a server may have to send on to others must stay small.
const (
	maxKeysBytes    = 16 << 10 // of device or cross-signing keys
	maxOneTimeBytes = 4 << 10  // of a one-time key
	maxKeys         = 32       // of one device, and as many algorithms
	maxAlgorithm    = 64       // bytes
)

// Names that key ids begin with, and algorithms of one-time keys.
const (
	ed25519Prefix    = "ed25519:"
	curve25519       = "curve25519"
	signedCurve25519 = "signed_curve25519"
)

// codeInvalidSignature is what wrong signatures are refused with.
// spec: client-server#post_matrixclientv3keysdevice_signingupload
const codeInvalidSignature matrix.Code = "M_INVALID_SIGNATURE"

func invalidSignature(format string, args ...any) *matrix.Error {
	return matrix.NewError(http.StatusBadRequest, codeInvalidSignature, format, args...)
}

// signedKeys is an object with keys, taken apart.
type signedKeys struct {
	UserID     matrix.UserID                `json:"user_id"`
	DeviceID   matrix.DeviceID              `json:"device_id"`
	Algorithms []string                     `json:"algorithms"`
	Usage      []string                     `json:"usage"`
	Keys       map[string]string            `json:"keys"`
	Signatures map[string]map[string]string `json:"signatures"`

	signed []byte // the canonical whole
	bare   string // canonical, without signatures and unsigned: what is stored
}

// parseKeys reads an object with keys of any kind.
func parseKeys(name string, raw json.RawMessage) (*signedKeys, error) {
	if len(raw) > maxKeysBytes {
		return nil, matrix.TooLarge("%s has at most %d bytes", name, maxKeysBytes)
	}
	canonical, err := event.Canonical(raw)
	if err != nil {
		return nil, matrix.BadJSON("%s is not valid: %s", name, err).Because(err)
	}
	k := &signedKeys{signed: canonical}
	if err := json.Unmarshal(canonical, k); err != nil {
		return nil, matrix.BadJSON("%s does not have the form of keys", name).Because(err)
	}
	if len(k.Keys) > maxKeys {
		return nil, matrix.InvalidParam("%s has at most %d keys", name, maxKeys)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(canonical, &members); err != nil || members == nil {
		return nil, matrix.BadJSON("%s must be an object", name)
	}
	delete(members, "signatures")
	delete(members, "unsigned")
	// Members of the form that Canonical gives stay canonical when they are put
	// together in order of their names.
	k.bare = string(joinObject(members))
	return k, nil
}

// joinObject writes members in the order of canonical JSON.
func joinObject(members map[string]json.RawMessage) []byte {
	b := []byte{'{'}
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, name)
		b = append(append(b, ':'), members[name]...)
	}
	return append(b, '}')
}

// parseDeviceKeys reads the identity keys that a device uploads for itself.
// spec: client-server#device-keys
func parseDeviceKeys(raw json.RawMessage, owner device) (*signedKeys, error) {
	k, err := parseKeys("device_keys", raw)
	if err != nil {
		return nil, err
	}
	switch {
	case k.UserID != owner.user:
		return nil, matrix.InvalidParam("The user_id of the keys is not yours")
	case k.DeviceID != owner.id:
		return nil, matrix.InvalidParam("The device_id of the keys is not that of this device")
	case k.Algorithms == nil || k.Keys == nil || k.Signatures == nil:
		return nil, matrix.BadJSON("device_keys needs algorithms, keys and signatures")
	case len(k.Algorithms) > maxKeys:
		return nil, matrix.InvalidParam("device_keys has at most %d algorithms", maxKeys)
	}
	for _, a := range k.Algorithms {
		if !plain(a, matrix.MaxIDBytes) {
			return nil, matrix.InvalidParam("device_keys names an algorithm that is empty or too long")
		}
	}
	for id, key := range k.Keys {
		algorithm, name, _ := strings.Cut(id, ":")
		if !plain(algorithm, maxAlgorithm) || matrix.DeviceID(name) != owner.id {
			return nil, matrix.InvalidParam("The ids of device keys are <algorithm>:<device id>")
		}
		if algorithm == "ed25519" || algorithm == curve25519 {
			if _, ok := bytes32(key); !ok {
				return nil, matrix.InvalidParam("The %s key is not 32 bytes in base64", algorithm)
			}
		}
	}
	if k.ed25519() == nil {
		return nil, matrix.InvalidParam("device_keys has no ed25519 key of the device")
	}
	return k, nil
}

// ed25519 is the signing key of a device, nil if it has none.
func (k *signedKeys) ed25519() ed25519.PublicKey {
	pub, ok := bytes32(k.Keys[ed25519Prefix+string(k.DeviceID)])
	if !ok {
		return nil
	}
	return pub
}

// identity are the keys by which others know the device.
func (k *signedKeys) identity() [2]string {
	id := string(k.DeviceID)
	return [2]string{k.Keys[ed25519Prefix+id], k.Keys[curve25519+":"+id]}
}

// parseCrossKey reads a cross-signing key of the user.
// spec: client-server#post_matrixclientv3keysdevice_signingupload
func parseCrossKey(name, usage string, raw json.RawMessage, user matrix.UserID) (*signedKeys, error) {
	k, err := parseKeys(name, raw)
	if err != nil {
		return nil, err
	}
	if k.UserID != user {
		return nil, matrix.InvalidParam("The user_id of %s is not yours", name)
	}
	if !slices.Contains(k.Usage, usage) {
		return nil, matrix.InvalidParam("The usage of %s must be %q", name, usage)
	}
	if k.public() == "" {
		return nil, matrix.InvalidParam("%s must have exactly one key, an ed25519 key under its own name", name)
	}
	return k, nil
}

// public is the one key of a cross-signing key, "" if it is not well-formed.
func (k *signedKeys) public() string {
	if len(k.Keys) != 1 {
		return ""
	}
	for id, key := range k.Keys {
		if _, ok := bytes32(key); ok && id == ed25519Prefix+key {
			return key
		}
	}
	return ""
}

// verify checks a signature by a key that is known.
func (k *signedKeys) verify(signer matrix.UserID, keyID string, pub ed25519.PublicKey) bool {
	return event.VerifyJSON(k.signed, string(signer), keyID, pub) == nil
}

// checkOneTime checks a one-time or fallback key and returns its canonical form.
// What other algorithms look like is up to the clients that use them.
// spec: client-server#key-algorithms
func checkOneTime(id string, raw json.RawMessage, user matrix.UserID) (algorithm, name, key string, err error) {
	algorithm, name, ok := strings.Cut(id, ":")
	if !ok || !plain(algorithm, maxAlgorithm) || !plain(name, matrix.MaxIDBytes) {
		return "", "", "", matrix.InvalidParam("The ids of one-time keys are <algorithm>:<key id>")
	}
	if len(raw) > maxOneTimeBytes {
		return "", "", "", matrix.TooLarge("A one-time key has at most %d bytes", maxOneTimeBytes)
	}
	canonical, err := event.Canonical(raw)
	if err != nil {
		return "", "", "", matrix.BadJSON("The key %q is not valid: %s", id, err).Because(err)
	}
	switch {
	case algorithm == signedCurve25519:
		ok = signedKeyOK(canonical, user)
	case algorithm == curve25519:
		var text string
		ok = json.Unmarshal(canonical, &text) == nil
		if ok {
			_, ok = bytes32(text)
		}
	default:
		ok = canonical[0] == '"' || canonical[0] == '{'
	}
	if !ok {
		return "", "", "", matrix.InvalidParam("The key %q does not have the form of %s", id, algorithm)
	}
	return algorithm, name, string(canonical), nil
}

func signedKeyOK(canonical []byte, user matrix.UserID) bool {
	var k struct {
		Key        string                       `json:"key"`
		Signatures map[string]map[string]string `json:"signatures"`
	}
	if canonical[0] != '{' || json.Unmarshal(canonical, &k) != nil {
		return false
	}
	if _, ok := bytes32(k.Key); !ok || len(k.Signatures[string(user)]) == 0 {
		return false
	}
	for id, sig := range k.Signatures[string(user)] {
		if strings.HasPrefix(id, ed25519Prefix) && !signatureOK(sig) {
			return false
		}
	}
	return true
}

func signatureOK(text string) bool {
	b, ok := decode(text, ed25519.SignatureSize)
	return ok && b != nil
}

// bytes32 decodes a key of 32 bytes.
func bytes32(text string) ([]byte, bool) { return decode(text, 32) }

// decode reads base64, which some clients pad.
// spec: appendices#unpadded-base64
func decode(text string, size int) ([]byte, bool) {
	text = strings.TrimRight(text, "=")
	if len(text) != base64.RawStdEncoding.EncodedLen(size) {
		return nil, false
	}
	b, err := base64.RawStdEncoding.DecodeString(text)
	return b, err == nil && len(b) == size
}

// plain tells whether a text can be an id of at most n bytes.
func plain(text string, n int) bool {
	return text != "" && len(text) <= n && strings.IndexByte(text, 0) < 0
}

// appendText appends a JSON string as canonical JSON has it.
func appendText[T ~string](b []byte, text T) []byte {
	simple := true
	for i := range len(text) {
		if c := text[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x80 {
			simple = false
			break
		}
	}
	if simple {
		return append(append(append(b, '"'), text...), '"')
	}
	quoted, err := json.Marshal(string(text))
	if err != nil {
		panic(err) // a string always has a JSON form
	}
	if canonical, err := event.Canonical(quoted); err == nil {
		quoted = canonical
	}
	return append(b, quoted...)
}
