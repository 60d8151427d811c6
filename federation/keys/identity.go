package keys

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/teahouse-chat/teahouse/rooms/event"
)

// OldKey is a key that a server signed with until it expired.
type OldKey struct {
	ID      string // "ed25519:" + version
	Public  ed25519.PublicKey
	Expired int64 // milliseconds since 1970
}

// File is the content of a signing key's file. Its lines are
//
//	ed25519 VERSION SEED
//	old ed25519 VERSION PUBLIC_KEY EXPIRED
//
// the first one being the key that is signed with, its seed in unpadded base64.
// The others are keys that were used before; of them only the public half and the
// time in milliseconds are kept. Empty lines and lines that begin with # are
// remarks.
type File struct {
	Current event.SigningKey
	Old     []OldKey
}

const algorithm = "ed25519:"

// ParseFile reads the content of a signing key's file.
func ParseFile(text []byte) (File, error) {
	var f File
	seen := map[string]bool{}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0][0] == '#' {
			continue
		}
		id, err := f.parseLine(fields)
		if err == nil && seen[id] {
			err = errors.New("the version was there before")
		}
		if err != nil {
			return File{}, fmt.Errorf("line %d of the signing key's file: %w", number, err)
		}
		seen[id] = true
	}
	if f.Current.Private == nil {
		return File{}, errors.New(`the signing key's file has no line "ed25519 VERSION SEED"`)
	}
	return f, nil
}

func (f *File) parseLine(fields []string) (id string, err error) {
	switch {
	case len(fields) == 3 && fields[0] == "ed25519":
		if f.Current.Private != nil {
			return "", errors.New(`there is a second key to sign with; keys of the past begin with "old"`)
		}
		seed, err := decode(fields[2], ed25519.SeedSize)
		if err != nil {
			return "", err
		}
		private := ed25519.NewKeyFromSeed(seed)
		if err := refuse(private.Public().(ed25519.PublicKey)); err != nil {
			return "", err
		}
		f.Current = event.SigningKey{ID: algorithm + fields[1], Private: private}
		return f.Current.ID, checkKeyID(f.Current.ID)
	case len(fields) == 5 && fields[0] == "old" && fields[1] == "ed25519":
		public, err := decode(fields[3], ed25519.PublicKeySize)
		if err != nil {
			return "", err
		}
		expired, err := strconv.ParseInt(fields[4], 10, 64)
		if err != nil || expired <= 0 {
			return "", errors.New("the time of expiry is not in milliseconds since 1970")
		}
		f.Old = append(f.Old, OldKey{algorithm + fields[2], public, expired})
		return algorithm + fields[2], checkKeyID(algorithm + fields[2])
	}
	return "", errors.New(`it is neither "ed25519 VERSION SEED" nor "old ed25519 VERSION PUBLIC_KEY EXPIRED"`)
}

func decode(text string, size int) ([]byte, error) {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil || len(b) != size {
		return nil, fmt.Errorf("the key is not %d bytes of unpadded base64", size)
	}
	return b, nil
}

// Format writes the file that ParseFile reads.
func (f File) Format() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "ed25519 %s %s\n", strings.TrimPrefix(f.Current.ID, algorithm), base64.RawStdEncoding.EncodeToString(f.Current.Private.Seed()))
	for _, k := range f.Old {
		fmt.Fprintf(&b, "old ed25519 %s %s %d\n", strings.TrimPrefix(k.ID, algorithm), base64.RawStdEncoding.EncodeToString(k.Public), k.Expired)
	}
	return b.Bytes()
}

// Rotate makes a new key to sign with; the one before becomes an old key that
// expires now. The private half of it is gone for good.
func (f File) Rotate(random io.Reader, now time.Time) (File, error) {
	key, err := Generate(random)
	if err != nil {
		return File{}, err
	}
	old := append([]OldKey(nil), f.Old...)
	if f.Current.Private != nil {
		old = append(old, OldKey{f.Current.ID, f.Current.Private.Public().(ed25519.PublicKey), now.UnixMilli()})
	}
	return File{key, old}, nil
}

// Generate makes a key to sign with.
func Generate(random io.Reader) (event.SigningKey, error) {
	seed, version := make([]byte, ed25519.SeedSize), make([]byte, 4)
	if _, err := io.ReadFull(random, seed); err != nil {
		return event.SigningKey{}, err
	}
	if _, err := io.ReadFull(random, version); err != nil {
		return event.SigningKey{}, err
	}
	return event.SigningKey{ID: fmt.Sprintf("%sa_%x", algorithm, version), Private: ed25519.NewKeyFromSeed(seed)}, nil
}

// checkKeyID checks the grammar of key ids; other algorithms are not known.
// spec: server-server#get_matrixkeyv2server
func checkKeyID(id string) error {
	version, ok := strings.CutPrefix(id, algorithm)
	if !ok || version == "" || len(id) > 255 {
		return errors.New("the key id is not ed25519: and a version")
	}
	for i := range len(version) {
		c := version[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_') {
			return errors.New("the version of a key has letters, digits and _ only")
		}
	}
	return nil
}
