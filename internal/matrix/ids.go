package matrix

import (
	"net/netip"
	"strings"
	"unicode/utf8"
)

// MaxIDBytes bounds every identifier, sigil included.
// spec: client-server#common-identifier-format
const MaxIDBytes = 255

// UserID is "@localpart:server".
type UserID string

// RoomID is "!opaque:server", or "!hash" from room version 12 on.
type RoomID string

// EventID is "$opaque:server" (room versions 1 and 2) or "$hash".
type EventID string

// RoomAlias is "#localpart:server".
type RoomAlias string

// DeviceID names one of a user's devices; any text of at most 255 bytes.
type DeviceID string

// ServerName is a host name or IP literal with an optional port.
type ServerName string

// NewUserID joins a localpart and a server name; it checks nothing.
func NewUserID(localpart string, server ServerName) UserID {
	return UserID("@" + localpart + ":" + string(server))
}

// ParseUserID checks s against the grammar that any server's users may have,
// historical ones included.
// spec: client-server#historical-user-ids
func ParseUserID(s string) (UserID, error) {
	local, server, ok := split(s, '@')
	if !ok || !validServerName(server) || !printable(local) {
		return "", InvalidParam("%q is not a user id; one looks like @name:server", clip(s))
	}
	return UserID(s), nil
}

// Localpart is the part between the sigil and the first colon.
func (u UserID) Localpart() string { return localpart(string(u)) }

// Server is the part after the first colon.
func (u UserID) Server() ServerName { return serverPart(string(u)) }

// ValidNewLocalpart tells whether a user may be registered under the name.
// spec: client-server#user-identifiers
func ValidNewLocalpart(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', strings.IndexByte("._=-/+", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// ParseRoomID checks s against both room id grammars.
// spec: client-server#room-ids
func ParseRoomID(s string) (RoomID, error) {
	if len(s) > 1 && len(s) <= MaxIDBytes && s[0] == '!' && printable(s) {
		if _, server, ok := split(s, '!'); !ok || validServerName(server) {
			return RoomID(s), nil
		}
	}
	return "", InvalidParam("%q is not a room id; one looks like !opaque:server or !hash", clip(s))
}

// Server is the server in a room id of versions 1 to 11, "" in version 12's.
func (r RoomID) Server() ServerName { return serverPart(string(r)) }

// ParseEventID checks s against the event id grammars of all room versions.
// spec: client-server#event-ids
func ParseEventID(s string) (EventID, error) {
	if len(s) > 1 && len(s) <= MaxIDBytes && s[0] == '$' && printable(s) {
		return EventID(s), nil
	}
	return "", InvalidParam("%q is not an event id; one starts with $", clip(s))
}

// ParseRoomAlias checks s against the room alias grammar.
// spec: client-server#room-aliases
func ParseRoomAlias(s string) (RoomAlias, error) {
	local, server, ok := split(s, '#')
	if !ok || local == "" || !validServerName(server) || !printable(local) {
		return "", InvalidParam("%q is not a room alias; one looks like #name:server", clip(s))
	}
	return RoomAlias(s), nil
}

// Localpart is the part between the sigil and the first colon.
func (a RoomAlias) Localpart() string { return localpart(string(a)) }

// Server is the part after the first colon.
func (a RoomAlias) Server() ServerName { return serverPart(string(a)) }

// ParseServerName checks s against the server name grammar.
// spec: client-server#server-name
func ParseServerName(s string) (ServerName, error) {
	if !validServerName(s) {
		return "", InvalidParam("%q is not a server name; one looks like example.org or example.org:8448", clip(s))
	}
	return ServerName(s), nil
}

// Host is the server name without its port; IPv6 literals keep their brackets.
func (s ServerName) Host() string {
	host, _ := splitPort(string(s))
	return host
}

// In tells whether a list names the server: by its name, by its host for every port,
// or by *.example.org for everything below example.org.
func (s ServerName) In(list []string) bool {
	name, host := strings.ToLower(string(s)), strings.ToLower(s.Host())
	for _, pattern := range list {
		pattern = strings.ToLower(pattern)
		if below, ok := strings.CutPrefix(pattern, "*"); ok {
			if strings.HasSuffix(host, below) || strings.HasSuffix(name, below) {
				return true
			}
		} else if pattern == name || pattern == host {
			return true
		}
	}
	return false
}

func split(s string, sigil byte) (local, server string, ok bool) {
	if len(s) < 2 || len(s) > MaxIDBytes || s[0] != sigil {
		return "", "", false
	}
	local, server, ok = strings.Cut(s[1:], ":")
	return local, server, ok
}

func localpart(s string) string {
	if s == "" {
		return ""
	}
	local, _, _ := strings.Cut(s[1:], ":")
	return local
}

func serverPart(s string) ServerName {
	_, server, _ := strings.Cut(s, ":")
	return ServerName(server)
}

func validServerName(s string) bool {
	if s == "" || len(s) > 230 {
		return false
	}
	host, port := splitPort(s)
	if port != "" {
		digits, ok := strings.CutPrefix(port, ":")
		if !ok || digits == "" || len(digits) > 5 || !all(digits, isDigit) {
			return false
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		return ok && err == nil && addr.Is6() && addr.Zone() == ""
	}
	return host != "" && all(host, func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c) || c == '-' || c == '.'
	})
}

// splitPort cuts s after its host; port is all that follows, colon included.
func splitPort(s string) (host, port string) {
	end := strings.IndexByte(s, ':')
	if strings.HasPrefix(s, "[") {
		end = strings.IndexByte(s, ']') + 1
		if end == 0 {
			return s, ""
		}
	}
	if end < 0 {
		return s, ""
	}
	return s[:end], s[end:]
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func all(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

// printable accepts what historical identifiers may hold: any text but NUL.
func printable(s string) bool { return utf8.ValidString(s) && noNUL(s) }

func noNUL(s string) bool { return strings.IndexByte(s, 0) < 0 }

// clip keeps error texts short.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
