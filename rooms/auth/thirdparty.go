package auth

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// maxThirdPartyTries bounds the signature checks that one invite can cost. Real
// ones carry a signature or two and as many keys; without a bound an event of
// 64 KiB could ask for hundreds of thousands.
const maxThirdPartyTries = 64

// thirdPartyInvite judges an invite that redeems the token of a third-party
// invite.
func (c *check) thirdPartyInvite(m *member) error {
	if c.membership(c.target()) == matrix.MembershipBan {
		return c.reject(ruleInvite, ".1.1", "%s is banned", c.target())
	}
	if m.signed == nil {
		return c.reject(ruleInvite, ".1.2", "the third-party invite has no signed part")
	}
	if m.mxid == "" || m.token == "" {
		return c.reject(ruleInvite, ".1.3", "the signed part has no mxid or no token")
	}
	if m.mxid != c.e.StateKey() {
		return c.reject(ruleInvite, ".1.4", "the signed part is for %s", m.mxid)
	}
	invite := c.st.Event(matrix.TypeThirdPartyInvite, m.token)
	if invite == nil {
		return c.reject(ruleInvite, ".1.5", "the room has no third-party invite with the token")
	}
	if invite.Sender != c.e.Sender {
		return c.reject(ruleInvite, ".1.6", "the third-party invite was sent by %s", invite.Sender)
	}
	if !signedByAny(m.signed, inviteKeys(invite)) {
		return c.reject(ruleInvite, ".1.8", "no signature matches a key of the third-party invite")
	}
	return nil
}

// inviteKeys lists the public keys of a third-party invite, public_key first.
func inviteKeys(invite *event.Event) []ed25519.PublicKey {
	content := fields(invite.Content)
	candidates := []json.RawMessage{content["public_key"]}
	var list []json.RawMessage
	if json.Unmarshal(content["public_keys"], &list) == nil {
		for _, entry := range list {
			candidates = append(candidates, fields(entry)["public_key"])
		}
	}
	var keys []ed25519.PublicKey
	for _, raw := range candidates {
		s, _ := text(raw)
		if key, ok := decodeBase64(s); ok && len(key) == ed25519.PublicKeySize {
			keys = append(keys, key)
		}
	}
	return keys
}

// signedByAny tells whether one of the object's signatures is by one of the
// keys, whatever the signature is called.
func signedByAny(signed json.RawMessage, keys []ed25519.PublicKey) bool {
	tries := 0
	servers := fields(fields(signed)["signatures"])
	for _, server := range slices.Sorted(maps.Keys(servers)) {
		names := fields(servers[server])
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if !strings.HasPrefix(name, "ed25519:") {
				continue
			}
			for _, key := range keys {
				if tries++; tries > maxThirdPartyTries {
					return false
				}
				if event.VerifyJSON(signed, server, name, key) == nil {
					return true
				}
			}
		}
	}
	return false
}

// decodeBase64 takes both alphabets, with or without padding.
// spec: client-server#mroomthird_party_invite
func decodeBase64(s string) ([]byte, bool) {
	s = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(s, "="))
	b, err := base64.RawStdEncoding.DecodeString(s)
	return b, err == nil
}
