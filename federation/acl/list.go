package acl

import (
	"encoding/json"
	"net/netip"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/glob"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// List is a compiled ACL.
type List struct {
	noLiterals  bool // addresses are no names
	allow, deny *glob.Pattern
}

// Parse compiles the content of an m.room.server_acl. What has the wrong type
// says nothing.
// spec: client-server#mroomserver_acl
func Parse(content []byte) *List {
	var c struct {
		Literals any             `json:"allow_ip_literals"`
		Allow    json.RawMessage `json:"allow"`
		Deny     json.RawMessage `json:"deny"`
	}
	_ = json.Unmarshal(content, &c) // then there is no list either
	literals, is := c.Literals.(bool)
	return &List{noLiterals: is && !literals, allow: compile(c.Allow), deny: compile(c.Deny)}
}

// compile compiles a list of patterns; those that no name can match are left
// out, so that they take no room.
func compile(list json.RawMessage) *glob.Pattern {
	var entries []any
	_ = json.Unmarshal(list, &entries)
	var patterns []string
	for _, e := range entries {
		if p, ok := e.(string); ok && strings.IndexFunc(p, foreign) < 0 {
			patterns = append(patterns, p)
		}
	}
	return glob.Compile(patterns...)
}

// foreign tells whether a character is in no pattern that matches a name.
func foreign(r rune) bool {
	letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !letter && !strings.ContainsRune("-.:[]*?", r)
}

// Allows tells whether a server is let in.
// spec: client-server#mroomserver_acl
func (l *List) Allows(server matrix.ServerName) bool {
	host := server.Host()
	if l.noLiterals && isLiteral(host) {
		return false
	}
	return !l.deny.Whole(host) && l.allow.Whole(host)
}

// isLiteral tells addresses from names. What looks like an IPv4 address counts
// as one even if its numbers are out of range.
// spec: appendices#server-name
func isLiteral(host string) bool {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		_, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		return err == nil
	}
	return strings.Count(host, ".") == 3 && strings.Trim(host, ".0123456789") == ""
}
