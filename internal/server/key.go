package server

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/internal/config"
)

// keyFile is the name of the signing key's file in the data folder.
const keyFile = "signing.key"

// loadKeys reads the server's signing keys: from the configuration, or else from
// the data folder, where one is made at the first start.
// spec: server-server#signing-events
func loadKeys(cfg *config.Config, random io.Reader) (keys.File, error) {
	if text := cfg.SigningKey.Reveal(); text != "" {
		f, err := keys.ParseFile([]byte(text))
		if err != nil {
			return f, fmt.Errorf("the signing key of the configuration: %w", err)
		}
		return f, nil
	}
	path := filepath.Join(cfg.DataDir, keyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path, random)
	}
	if err != nil {
		return keys.File{}, fmt.Errorf("the signing key cannot be read: %w", err)
	}
	f, err := keys.ParseFile(text)
	if err != nil {
		return f, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func makeKey(path string, random io.Reader) (keys.File, error) {
	key, err := keys.Generate(random)
	if err != nil {
		return keys.File{}, err
	}
	f := keys.File{Current: key}
	return f, writeKeys(path, f)
}

// writeKeys replaces the file; when it is interrupted, the old one is still
// there whole.
func writeKeys(path string, f keys.File) error {
	if err := writeSecret(path, f.Format()); err != nil {
		return fmt.Errorf("the signing key cannot be written: %w", err)
	}
	return nil
}

// RotateKey gives the server a new key to sign with. What was signed with the old
// one stays valid: it is published as a key of the past. The server must not be
// running.
// spec: server-server#publishing-keys
func RotateKey(cfg *config.Config, random io.Reader, now time.Time) (keys.File, error) {
	if cfg.SigningKey != "" {
		return keys.File{}, errors.New("the signing key comes from the configuration or the environment, and has to be changed there")
	}
	f, err := loadKeys(cfg, random)
	if err != nil {
		return f, err
	}
	if f, err = f.Rotate(random, now); err != nil {
		return f, err
	}
	return f, writeKeys(filepath.Join(cfg.DataDir, keyFile), f)
}

// Keys reads the server's signing keys, which are made if there are none.
func Keys(cfg *config.Config, random io.Reader) (keys.File, error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return keys.File{}, fmt.Errorf("the data folder cannot be made: %w", err)
	}
	return loadKeys(cfg, random)
}

func writeSecret(path string, text []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
