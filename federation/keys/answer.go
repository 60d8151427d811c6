package keys

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const (
	// MaxAnswer is the largest answer of a server about its keys, in bytes.
	MaxAnswer = 64 << 10
	// maxKeys bounds the keys of one answer, old ones included.
	maxKeys = 128
	// maxValidity bounds how long a key counts without being asked for again.
	// spec: rooms/v5#signing-key-validity-period
	maxValidity = 7 * 24 * time.Hour
)

// Key is a public key of a server.
type Key struct {
	ID         string
	Public     ed25519.PublicKey
	ValidUntil int64 // milliseconds since 1970; of an old key it means nothing
	Expired    int64 // when it became an old key; 0 for one that is published
}

// validAt tells whether something signed at a time, in milliseconds, counts.
// Zero is any time.
func (k *Key) validAt(ts int64) bool {
	switch {
	case ts == 0:
		return true
	case k.Expired != 0:
		return ts < k.Expired
	}
	return ts <= k.ValidUntil
}

// answer is what a server tells about its keys.
// spec: server-server#get_matrixkeyv2server
type answer struct {
	server     matrix.ServerName
	keys       []Key
	validUntil int64 // as told, but no more than maxValidity after it was received
	json       []byte
}

type answerBody struct {
	ServerName matrix.ServerName    `json:"server_name"`
	Verify     map[string]verifyKey `json:"verify_keys"`
	Old        map[string]oldKey    `json:"old_verify_keys"`
	ValidUntil int64                `json:"valid_until_ts"`
}

type verifyKey struct {
	Key string `json:"key"`
}

type oldKey struct {
	Key     string `json:"key"`
	Expired int64  `json:"expired_ts"`
}

// parseAnswer reads what server tells about its keys and checks that it signed
// that: at least once, and never wrongly by a key that it lists.
func parseAnswer(server matrix.ServerName, raw []byte, received time.Time) (*answer, error) {
	if len(raw) > MaxAnswer {
		return nil, fmt.Errorf("keys: the answer about %s is larger than %d bytes", server, MaxAnswer)
	}
	// Canonicalising first means that the JSON which is read is that which is signed.
	canonical, err := event.Canonical(raw)
	if err != nil {
		return nil, fmt.Errorf("keys: the answer about %s: %w", server, err)
	}
	var body answerBody
	if err := json.Unmarshal(canonical, &body); err != nil {
		return nil, fmt.Errorf("keys: the answer about %s: %w", server, err)
	}
	if body.ServerName != server {
		return nil, fmt.Errorf("keys: %q answers for %s", clip(string(body.ServerName)), server)
	}
	if len(body.Verify)+len(body.Old) > maxKeys {
		return nil, fmt.Errorf("keys: %s lists more than %d keys", server, maxKeys)
	}
	a := &answer{server: server, json: canonical, validUntil: min(body.ValidUntil, received.Add(maxValidity).UnixMilli())}
	public := map[string]ed25519.PublicKey{}
	for id, k := range body.Verify {
		if key, ok := readKey(id, k.Key); ok {
			public[id] = key
			a.keys = append(a.keys, Key{ID: id, Public: key, ValidUntil: a.validUntil})
		}
	}
	if err := selfSigned(server, canonical, public); err != nil {
		return nil, err
	}
	for id, k := range body.Old {
		// A key in both lists is published: the server signs with it.
		if key, ok := readKey(id, k.Key); ok && public[id] == nil && k.Expired > 0 {
			a.keys = append(a.keys, Key{ID: id, Public: key, Expired: k.Expired})
		}
	}
	return a, nil
}

// readKey drops keys that nobody should have: unknown algorithms, no keys at
// all, and those whose private half is public.
func readKey(id, text string) (ed25519.PublicKey, bool) {
	if checkKeyID(id) != nil {
		return nil, false
	}
	b, err := decode(text, ed25519.PublicKeySize)
	return b, err == nil && refuse(b) == nil
}

func selfSigned(server matrix.ServerName, canonical []byte, public map[string]ed25519.PublicKey) error {
	good := false
	for _, id := range event.SignatureKeyIDs(canonical, string(server)) {
		key := public[id]
		if key == nil {
			continue // by an old key, or one that was dropped
		}
		if err := event.VerifyJSON(canonical, string(server), id, key); err != nil {
			return fmt.Errorf("keys: the answer about %s, key %s: %w", server, id, err)
		}
		good = true
	}
	if !good {
		return fmt.Errorf("keys: the answer about %s is not signed by a key that it lists", server)
	}
	return nil
}

// publish makes the answer about our own keys.
// spec: server-server#publishing-keys
func publish(server matrix.ServerName, f File, validUntil time.Time) ([]byte, error) {
	body := struct {
		Old map[string]oldKey `json:"old_verify_keys"`
		answerBody
	}{Old: map[string]oldKey{}}
	body.ServerName, body.ValidUntil = server, validUntil.UnixMilli()
	public := f.Current.Private.Public().(ed25519.PublicKey)
	body.Verify = map[string]verifyKey{f.Current.ID: {base64.RawStdEncoding.EncodeToString(public)}}
	for _, k := range f.Old {
		body.Old[k.ID] = oldKey{base64.RawStdEncoding.EncodeToString(k.Public), k.Expired}
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return event.SignJSON(text, string(server), f.Current)
}

// parseNotary reads the answer of a notary into those of the servers, unchecked.
// spec: server-server#post_matrixkeyv2query
func parseNotary(raw []byte) (map[matrix.ServerName][]json.RawMessage, error) {
	var body struct {
		Servers []json.RawMessage `json:"server_keys"`
	}
	if err := json.Unmarshal(raw, &body); err != nil {
		return nil, fmt.Errorf("keys: the notary's answer: %w", err)
	}
	all := map[matrix.ServerName][]json.RawMessage{}
	for _, one := range body.Servers {
		var name struct {
			Server matrix.ServerName `json:"server_name"`
		}
		if json.Unmarshal(one, &name) == nil && bytes.HasPrefix(one, []byte("{")) {
			all[name.Server] = append(all[name.Server], one)
		}
	}
	return all, nil
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
