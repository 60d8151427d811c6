package registration

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Registration is a registration file that was checked.
type Registration struct {
	ID              string
	URL             string // without a slash at its end; "" for a service that is sent nothing
	ASToken         string // what the service proves itself with
	HSToken         string // what the homeserver proves itself with
	SenderLocalpart string
	Users           Namespaces
	Aliases         Namespaces
	Rooms           Namespaces
	RateLimited     bool // people's limits hold for the service, too
	Protocols       []string
	Ephemeral       bool // the service is sent typing, receipts and presence
	Devices         bool // it is sent messages to its users' devices, and what there is to know of keys

	Unknown []*config.Problem // fields that are not known and do nothing; they may be misspelt
}

// Sender is the service's own user.
func (r *Registration) Sender(server matrix.ServerName) matrix.UserID {
	return matrix.NewUserID(r.SenderLocalpart, server)
}

// NewToken makes a token for a registration.
func NewToken() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

const (
	maxTokenBytes = 1024
	maxIDBytes    = 255
)

// Parse reads a registration file. The name of the file is for the errors only:
// each names the file, the line and the field. All that is wrong is told at once.
func Parse(file string, text []byte) (*Registration, error) {
	d := &document{file: file}
	root := d.open(text)
	if root.Node == nil {
		return nil, d.err()
	}
	r := &Registration{
		ID:              d.id(root, "id"),
		URL:             d.url(root, "url"),
		ASToken:         d.token(root, "as_token"),
		HSToken:         d.token(root, "hs_token"),
		SenderLocalpart: d.localpart(root, "sender_localpart"),
		RateLimited:     d.flagAt(root, true, "rate_limited", "rate_limited"),
		Protocols:       d.protocols(root, "protocols"),
		Ephemeral:       d.anyFlag(root, "receive_ephemeral", "de.sorunome.msc2409.push_ephemeral", "push_ephemeral"),
		Devices:         d.anyFlag(root, "org.matrix.msc3202"),
	}
	if r.ASToken != "" && r.ASToken == r.HSToken {
		d.bad(root.find("hs_token"), "hs_token", "is the same as as_token; give each a value of its own")
	}
	if spaces := root.find("namespaces"); spaces == nil {
		d.bad(root.Node, "namespaces", "is missing; write \"namespaces: {}\" for a service that claims nothing")
	} else if d.mapping(spaces, "namespaces") {
		n := mapping{spaces}
		d.only(n, "namespaces", "users", "aliases", "rooms")
		r.Users = d.namespaces(n, "users")
		r.Aliases = d.namespaces(n, "aliases")
		r.Rooms = d.namespaces(n, "rooms")
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	r.Unknown = d.unknown(root)
	return r, nil
}

// fields are those of a registration itself. Extensions have names with dots, and
// one that had none before it was specified.
var fields = []string{
	"id", "url", "as_token", "hs_token", "sender_localpart", "rate_limited", "protocols", "namespaces", "receive_ephemeral", "push_ephemeral",
}

// unknown lists the fields that are neither known nor an extension's.
func (d *document) unknown(root mapping) []*config.Problem {
	var list []*config.Problem
	for _, key := range root.keys() {
		if !slices.Contains(fields, key.Value) && !strings.Contains(key.Value, ".") {
			list = append(list, &config.Problem{File: d.file, Line: key.Line, Key: key.Value, What: "is not known and does nothing; if it is misspelt, correct it"})
		}
	}
	return list
}

func (d *document) id(m mapping, key string) string {
	id := d.text(m, key)
	if len(id) > maxIDBytes || strings.ContainsFunc(id, func(r rune) bool { return r < ' ' }) {
		d.bad(m.find(key), key, "is longer than %d bytes or has control characters", maxIDBytes)
	}
	return id
}

// url must be there, but may be null.
func (d *document) url(m mapping, key string) string {
	n := m.find(key)
	if n == nil {
		d.bad(m.Node, key, "is missing; write \"url: null\" for a service that is sent nothing")
		return ""
	}
	if n.Tag == "!!null" || n.Kind == yaml.ScalarNode && n.Value == "" {
		return ""
	}
	u, err := url.Parse(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		d.bad(n, key, "is not the URL of a service; use one like http://127.0.0.1:29317")
		return ""
	}
	return strings.TrimRight(n.Value, "/")
}

// token is a secret. Errors do not repeat it.
func (d *document) token(m mapping, key string) string {
	t := d.text(m, key)
	if len(t) > maxTokenBytes || strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r > '~' }) {
		d.bad(m.find(key), key, "has spaces, control characters or letters beyond ASCII, or more than %d bytes; use a random text such as \"openssl rand -hex 32\" prints", maxTokenBytes)
	}
	return t
}

// localpart need not be one that a person could choose: there are tools that make
// it up at random, with capital letters.
func (d *document) localpart(m mapping, key string) string {
	name := d.text(m, key)
	if _, err := matrix.ParseUserID(string(matrix.NewUserID(name, "x"))); name != "" && (err != nil || strings.ContainsAny(name, ": ")) {
		d.bad(m.find(key), key, "%q is not the local part of a user id; use the characters a-z, 0-9 and ._=-/+", name)
	}
	return name
}

func (d *document) protocols(m mapping, key string) []string {
	n := m.find(key)
	if n == nil || n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		d.bad(n, key, "must be a list of names of third-party networks")
		return nil
	}
	var list []string
	for i, c := range n.Content {
		if c.Kind != yaml.ScalarNode || c.Value == "" {
			d.bad(c, fmt.Sprintf("%s[%d]", key, i), "is not the name of a third-party network")
			continue
		}
		list = append(list, c.Value)
	}
	return list
}

func (d *document) namespaces(m mapping, kind string) Namespaces {
	key := "namespaces." + kind
	n := m.find(kind)
	if n == nil || n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		d.bad(n, key, "must be a list of namespaces, each with a regex and exclusive: true or false")
		return nil
	}
	var list Namespaces
	for i, c := range n.Content {
		at := fmt.Sprintf("%s[%d]", key, i)
		if !d.mapping(c, at) {
			continue
		}
		one := mapping{c}
		d.only(one, at, "regex", "exclusive", "group_id")
		text := d.textAt(one, "regex", at+".regex")
		if e := one.find("exclusive"); e == nil || e.Tag == "!!null" {
			d.bad(c, at+".exclusive", "is missing; write true if what the expression matches is for the service alone, and false if it is not")
		}
		exclusive := d.flagAt(one, false, "exclusive", at+".exclusive")
		if text == "" {
			continue
		}
		space, err := NewNamespace(text, exclusive)
		if err != nil {
			d.bad(one.find("regex"), at+".regex", "%v", err)
			continue
		}
		list = append(list, space)
	}
	return list
}
