package media

import (
	"crypto/rand"
	"encoding/base64"
	"io"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Ref names a file in the whole network.
// spec: client-server#matrix-content-mxc-uris
type Ref struct {
	Server matrix.ServerName
	ID     string
}

// String is the mxc:// URI.
func (r Ref) String() string { return "mxc://" + string(r.Server) + "/" + r.ID }

// maxIDBytes bounds the media ids that are looked at.
const maxIDBytes = 255

// NewRef checks both parts.
// spec: client-server#content-repo-security-considerations
func NewRef(server, id string) (Ref, error) {
	name, err := matrix.ParseServerName(server)
	if err != nil {
		return Ref{}, err
	}
	if !validID(id) {
		return Ref{}, matrix.InvalidParam("This is not a media id; one consists of letters, digits, _ and -")
	}
	return Ref{name, id}, nil
}

// ParseRef reads an mxc:// URI.
func ParseRef(uri string) (Ref, error) {
	rest, ok := strings.CutPrefix(uri, "mxc://")
	server, id, both := strings.Cut(rest, "/")
	if !ok || !both {
		return Ref{}, matrix.InvalidParam("This is not the URI of a file; one looks like mxc://example.org/abc")
	}
	return NewRef(server, id)
}

func validID(id string) bool {
	if id == "" || len(id) > maxIDBytes {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// idBytes make ids that nobody guesses.
const idBytes = 18

func newID(random io.Reader) (string, error) {
	if random == nil {
		random = rand.Reader
	}
	raw := make([]byte, idBytes)
	if _, err := io.ReadFull(random, raw); err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(raw), nil
}
