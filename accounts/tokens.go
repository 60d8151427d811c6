package accounts

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"math/big"
)

// Tokens carry a prefix so that scanners for leaked secrets can know them.
const (
	accessPrefix  = "tha_"
	refreshPrefix = "thr_"
	loginPrefix   = "thl_"
)

// secrets draws from the random source that was passed in.
type secrets struct{ r io.Reader }

// bytes returns n random bytes. A source that fails leaves nothing to fall
// back on, as with crypto/rand itself.
func (s secrets) bytes(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.r, b); err != nil {
		panic("accounts: no randomness: " + err.Error())
	}
	return b
}

// token returns a prefix and 256 random bits.
func (s secrets) token(prefix string) string {
	return prefix + base64.RawURLEncoding.EncodeToString(s.bytes(32))
}

// letters returns n characters of the alphabet, each equally likely.
func (s secrets) letters(n int, alphabet string) string {
	out := make([]byte, n)
	limit := byte(256/len(alphabet)*len(alphabet) - 1)
	for i := range out {
		for {
			if b := s.bytes(1)[0]; b <= limit {
				out[i] = alphabet[int(b)%len(alphabet)]
				break
			}
		}
	}
	return string(out)
}

// number returns a decimal number of up to 63 bits.
func (s secrets) number() string {
	n := new(big.Int).SetBytes(s.bytes(8))
	return n.Rsh(n, 1).String()
}

// tokenHash is how a token is stored and looked up. Tokens are 256 random bits,
// so one round without salt is enough, and a lookup by it leaks no timing.
type tokenHash [sha256.Size]byte

func hashToken(token string) tokenHash { return sha256.Sum256([]byte(token)) }

func (h tokenHash) String() string { return hex.EncodeToString(h[:]) }

// parseTokenHash reads what String wrote.
func parseTokenHash(s string) (h tokenHash, err error) {
	if len(s) != hex.EncodedLen(len(h)) {
		return h, errors.New("accounts: not the hash of a token")
	}
	_, err = hex.Decode(h[:], []byte(s))
	return h, err
}
