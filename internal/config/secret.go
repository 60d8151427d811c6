package config

import (
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
)

const redacted = "[redacted]"

// Secret is text that must not be seen. It prints, logs and encodes as
// "[redacted]"; Reveal gives the text.
type Secret string

// Reveal gives the text itself.
func (s Secret) Reveal() string { return string(s) }

// String hides a secret that is set.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format hides the text from every verb of fmt.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue hides the text from log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText hides the text from JSON and other encodings.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML hides the text from YAML.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// DatabaseURL is the address of the database. It prints without its password;
// Reveal gives all of it.
type DatabaseURL string

// Reveal gives the address with its password.
func (d DatabaseURL) Reveal() string { return string(d) }

// String gives the address without what may be a password.
func (d DatabaseURL) String() string {
	if path, ok := strings.CutPrefix(string(d), "sqlite://"); ok {
		return "sqlite://" + path
	}
	u, err := url.Parse(string(d))
	if err != nil || u.Scheme == "" || u.Opaque != "" {
		return Secret(d).String()
	}
	u.RawQuery = "" // may hold password=
	u.Fragment = ""
	return u.Redacted()
}

// Format hides the password from every verb of fmt.
func (d DatabaseURL) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, d.String()) }

// LogValue hides the password from log/slog.
func (d DatabaseURL) LogValue() slog.Value { return slog.StringValue(d.String()) }

// MarshalText hides the password from JSON and other encodings.
func (d DatabaseURL) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// MarshalYAML hides the password from YAML.
func (d DatabaseURL) MarshalYAML() (any, error) { return d.String(), nil }
