package accounts

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// PasswordParams are argon2id's costs.
type PasswordParams struct {
	Time      uint32
	MemoryKiB uint32
	Threads   uint8
}

const (
	saltBytes        = 16
	keyBytes         = 32
	maxPasswordBytes = 1024
)

// hasher makes and checks password hashes, a few at a time: each takes
// MemoryKiB of memory and a core.
type hasher struct {
	params  PasswordParams
	secrets secrets
	slots   chan struct{}
	decoy   string // checked when there is nothing to check, for the same time
}

func newHasher(p PasswordParams, s secrets) (*hasher, error) {
	if p == (PasswordParams{}) {
		p = PasswordParams{Time: 2, MemoryKiB: 19456, Threads: 1}
	}
	if p.Time < 1 || p.Threads < 1 || p.MemoryKiB < 8*uint32(p.Threads) {
		return nil, fmt.Errorf("accounts: argon2id needs time and threads of at least 1 and 8 KiB a thread, not %+v", p)
	}
	h := &hasher{params: p, secrets: s, slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
	h.decoy = h.encode(s.token(""))
	return h, nil
}

// hash returns the encoded argon2id hash of a password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if err := h.enter(ctx); err != nil {
		return "", err
	}
	defer h.leave()
	return h.encode(password), nil
}

// verify tells whether the password is the encoded one's. With encoded == "" it
// is not, and finding that out takes as long. stale asks for a new hash: the
// encoded one has other parameters than the configuration.
func (h *hasher) verify(ctx context.Context, encoded, password string) (ok, stale bool, err error) {
	if err := h.enter(ctx); err != nil {
		return false, false, err
	}
	defer h.leave()
	switch {
	case encoded == "" || len(password) > maxPasswordBytes:
		_, err := checkArgon2(h.decoy, password[:min(len(password), maxPasswordBytes)])
		return false, false, err
	case strings.HasPrefix(encoded, "$2"):
		err := bcrypt.CompareHashAndPassword([]byte(encoded), []byte(password))
		if errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
			return false, false, nil
		}
		return err == nil, true, err
	default:
		ok, err := checkArgon2(encoded, password)
		return ok, !strings.HasPrefix(encoded, h.head()), err
	}
}

func (h *hasher) enter(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *hasher) leave() { <-h.slots }

// head is the part of an encoded hash that names the algorithm and its costs.
func (h *hasher) head() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, h.params.MemoryKiB, h.params.Time, h.params.Threads)
}

func (h *hasher) encode(password string) string {
	salt := h.secrets.bytes(saltBytes)
	key := argon2.IDKey([]byte(password), salt, h.params.Time, h.params.MemoryKiB, h.params.Threads, keyBytes)
	return h.head() + base64.RawStdEncoding.EncodeToString(salt) + "$" + base64.RawStdEncoding.EncodeToString(key)
}

func checkArgon2(encoded, password string) (bool, error) {
	var version int
	var p PasswordParams
	parts := strings.Split(encoded, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, errors.New("accounts: unknown kind of password hash")
	}
	if _, err := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=%d", &version, &p.MemoryKiB, &p.Time, &p.Threads); err != nil {
		return false, fmt.Errorf("accounts: password hash: %w", err)
	}
	salt, saltErr := base64.RawStdEncoding.DecodeString(parts[4])
	want, keyErr := base64.RawStdEncoding.DecodeString(parts[5])
	if err := errors.Join(saltErr, keyErr); err != nil || version != argon2.Version || p.Time < 1 || p.Threads < 1 || len(want) < 16 {
		return false, fmt.Errorf("accounts: malformed password hash: %w", errors.Join(err, errors.New("bad parameters")))
	}
	got := argon2.IDKey([]byte(password), salt, p.Time, p.MemoryKiB, p.Threads, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

// checkNewPassword refuses what cannot be a password. How strong it has to be
// is the clients' to enforce.
// spec: client-server#password-management
func checkNewPassword(p string) error {
	switch {
	case p == "":
		return matrix.NewError(http.StatusBadRequest, matrix.CodeWeakPassword, "The password is empty; choose another")
	case len(p) > maxPasswordBytes:
		return matrix.InvalidParam("A password has at most %d bytes", maxPasswordBytes)
	}
	return nil
}
