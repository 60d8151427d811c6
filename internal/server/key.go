package server

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/teahouse-chat/teahouse/rooms/event"
)

// keyFile is the name of the signing key's file in the data folder: one line,
// "ed25519 VERSION SEED", the seed in unpadded base64.
const keyFile = "signing.key"

// loadKey reads the server's signing key, which it makes at the first start.
// spec: server-server#signing-events
func loadKey(dir string, random io.Reader) (event.SigningKey, error) {
	path := filepath.Join(dir, keyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path, random)
	}
	if err != nil {
		return event.SigningKey{}, fmt.Errorf("the signing key cannot be read: %w", err)
	}
	fields := strings.Fields(string(text))
	if len(fields) != 3 || fields[0] != "ed25519" {
		return event.SigningKey{}, fmt.Errorf(`%s is not a signing key: it must be one line, "ed25519 VERSION SEED"`, path)
	}
	seed, err := base64.RawStdEncoding.DecodeString(fields[2])
	if err != nil || len(seed) != ed25519.SeedSize {
		return event.SigningKey{}, fmt.Errorf("%s is not a signing key: its seed is not %d bytes of unpadded base64", path, ed25519.SeedSize)
	}
	return event.SigningKey{ID: "ed25519:" + fields[1], Private: ed25519.NewKeyFromSeed(seed)}, nil
}

// makeKey writes a new key; an interrupted start leaves no half of one.
func makeKey(path string, random io.Reader) (event.SigningKey, error) {
	seed, version := make([]byte, ed25519.SeedSize), make([]byte, 4)
	if _, err := io.ReadFull(random, seed); err != nil {
		return event.SigningKey{}, err
	}
	if _, err := io.ReadFull(random, version); err != nil {
		return event.SigningKey{}, err
	}
	name := fmt.Sprintf("a_%x", version)
	line := "ed25519 " + name + " " + base64.RawStdEncoding.EncodeToString(seed) + "\n"
	if err := writeSecret(path, line); err != nil {
		return event.SigningKey{}, fmt.Errorf("the signing key cannot be written: %w", err)
	}
	return event.SigningKey{ID: "ed25519:" + name, Private: ed25519.NewKeyFromSeed(seed)}, nil
}

func writeSecret(path, text string) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
