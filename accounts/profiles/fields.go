package profiles

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"time"
	_ "time/tzdata" // time zones are known on hosts without a database of them, too
	"unicode/utf8"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// The keys that the specification defines.
const (
	KeyDisplayName = "displayname"
	KeyAvatarURL   = "avatar_url"
	KeyTimeZone    = "m.tz"
)

// Display name and avatar are repeated in every member event of the user, which
// has to stay an event of legal size.
const (
	maxDisplayNameRunes = 256
	maxAvatarURLBytes   = 1000
)

// Fields is a profile: compact JSON values by key.
type Fields map[string]json.RawMessage

// DisplayName is "" if there is none.
func (f Fields) DisplayName() string { return f.text(KeyDisplayName) }

// AvatarURL is "" if there is none.
func (f Fields) AvatarURL() string { return f.text(KeyAvatarURL) }

func (f Fields) text(key string) string {
	var s string
	if raw, ok := f[key]; ok && json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// size is the length of the profile as compact JSON.
func (f Fields) size() int {
	n := 1
	for key, value := range f {
		n += memberSize(key, value, true)
	}
	return n
}

// memberSize counts a member with its quotes, colon and separator. Keys need no
// escapes.
func memberSize(key string, value json.RawMessage, present bool) int {
	if !present {
		return 0
	}
	return len(key) + len(value) + len(`"":,`)
}

// CheckKey tells whether a profile may have the key: one that the specification
// defines, or a namespaced one such as "org.example.job".
// spec: appendices#common-namespaced-identifier-grammar
func CheckKey(key string) error {
	if len(key) > MaxKeyBytes {
		return matrix.NewError(http.StatusBadRequest, matrix.CodeKeyTooLarge,
			"A profile key has at most %d bytes", MaxKeyBytes)
	}
	if key == KeyDisplayName || key == KeyAvatarURL || namespaced(key) {
		return nil
	}
	return matrix.InvalidParam("Not a profile key; use displayname, avatar_url or a namespaced one such as org.example.job")
}

func namespaced(key string) bool {
	if !strings.Contains(key, ".") || key[0] < 'a' || key[0] > 'z' {
		return false
	}
	for part := range strings.SplitSeq(key, ".") {
		if part == "" {
			return false
		}
		for i := range len(part) {
			c := part[i]
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
				return false
			}
		}
	}
	return true
}

// checkValue checks the value of a defined key and returns it in compact form,
// nil if it means that there is to be none.
// spec: client-server#put_matrixclientv3profileuseridkeyname
func checkValue(key string, value json.RawMessage) (json.RawMessage, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, value); err != nil {
		return nil, matrix.NotJSON("The value of %q is not JSON", key)
	}
	value = compact.Bytes()
	switch key {
	case KeyDisplayName, KeyAvatarURL, KeyTimeZone:
	default:
		return value, nil
	}
	var text *string
	if err := json.Unmarshal(value, &text); err != nil {
		return nil, matrix.BadJSON("%q must be a string", key)
	}
	if text == nil || *text == "" {
		return nil, nil
	}
	switch {
	case strings.IndexByte(*text, 0) >= 0:
		return nil, matrix.BadJSON("%q must not contain the character U+0000", key)
	case key == KeyDisplayName && utf8.RuneCountInString(*text) > maxDisplayNameRunes:
		return nil, matrix.InvalidParam("A display name has at most %d characters", maxDisplayNameRunes)
	case key == KeyAvatarURL && len(*text) > maxAvatarURLBytes:
		return nil, matrix.InvalidParam("An avatar URL has at most %d bytes", maxAvatarURLBytes)
	case key == KeyTimeZone && !knownTimeZone(*text):
		return nil, matrix.InvalidParam("m.tz must name a time zone of the IANA database, such as Europe/London")
	}
	return value, nil
}

// knownTimeZone leaves out "Local", which Go knows beside the database.
func knownTimeZone(name string) bool {
	if name == "Local" || len(name) > MaxKeyBytes {
		return false
	}
	_, err := time.LoadLocation(name)
	return err == nil
}
