package registration

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/teahouse-chat/teahouse/internal/config"
)

// document collects what is wrong with a file.
type document struct {
	file     string
	problems []*config.Problem
}

// mapping is a node that has keys.
type mapping struct{ *yaml.Node }

// find returns the value of a key; nil if it is not there.
func (m mapping) find(key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

// keys lists the nodes of the keys.
func (m mapping) keys() []*yaml.Node {
	var list []*yaml.Node
	for i := 0; i+1 < len(m.Content); i += 2 {
		list = append(list, m.Content[i])
	}
	return list
}

// only refuses other keys, which would be misspelt, and claim nothing. Extensions have
// names with dots.
func (d *document) only(m mapping, field string, known ...string) {
	for _, key := range m.keys() {
		if !slices.Contains(known, key.Value) && !strings.Contains(key.Value, ".") {
			d.bad(key, join(field, key.Value), "is not known; use %s", strings.Join(known, ", "))
		}
	}
}

// open returns the mapping that the file is; nil if it is none.
func (d *document) open(text []byte) mapping {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		d.problems = append(d.problems, config.NotYAML(d.file, err))
		return mapping{}
	}
	if len(doc.Content) == 0 {
		d.problems = append(d.problems, &config.Problem{File: d.file, What: "is empty; a registration has at least id, url, as_token, hs_token, sender_localpart and namespaces"})
		return mapping{}
	}
	root := doc.Content[0]
	if !d.mapping(root, "") || !d.unambiguous(root, "") {
		return mapping{}
	}
	return mapping{root}
}

// unambiguous refuses keys that stand twice and aliases of other nodes, of which
// readers make different things.
func (d *document) unambiguous(n *yaml.Node, field string) bool {
	if n.Kind == yaml.AliasNode {
		d.bad(n, field, "is an alias of another value; write the value itself")
		return false
	}
	ok := true
	seen := map[string]bool{}
	for i, c := range n.Content {
		at := field
		switch {
		case n.Kind == yaml.MappingNode && i%2 == 0:
			if seen[c.Value] {
				d.bad(c, join(field, c.Value), "stands there twice; remove one")
				ok = false
			}
			seen[c.Value] = true
			continue
		case n.Kind == yaml.MappingNode:
			at = join(field, n.Content[i-1].Value)
		case n.Kind == yaml.SequenceNode:
			at = fmt.Sprintf("%s[%d]", field, i)
		}
		ok = d.unambiguous(c, at) && ok
	}
	return ok
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}

func (d *document) mapping(n *yaml.Node, field string) bool {
	if n.Kind != yaml.MappingNode {
		d.bad(n, field, "must be a mapping: keys, each followed by a colon and a value")
		return false
	}
	return true
}

// text is a value that must be there.
func (d *document) text(m mapping, key string) string { return d.textAt(m, key, key) }

func (d *document) textAt(m mapping, key, field string) string {
	n := m.find(key)
	switch {
	case n == nil:
		d.bad(m.Node, field, "is missing")
		return ""
	case n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Value == "":
		d.bad(n, field, "must be a text that is not empty")
		return ""
	}
	return n.Value
}

// flagAt is a value that may be missing.
func (d *document) flagAt(m mapping, absent bool, key, field string) bool {
	n := m.find(key)
	if n == nil || n.Tag == "!!null" {
		return absent
	}
	var v bool
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || n.Decode(&v) != nil {
		d.bad(n, field, "must be true or false")
	}
	return v
}

// anyFlag tells whether a value is true under one of its names: that of the
// specification, and those that it had before.
func (d *document) anyFlag(m mapping, names ...string) bool {
	set := false
	for _, name := range names {
		set = d.flagAt(m, false, name, name) || set
	}
	return set
}

func (d *document) bad(n *yaml.Node, field, format string, args ...any) {
	line := 0
	if n != nil {
		line = n.Line
	}
	d.problems = append(d.problems, &config.Problem{File: d.file, Line: line, Key: field, What: fmt.Sprintf(format, args...)})
}

// err joins the problems in the order of the file.
func (d *document) err() error {
	slices.SortStableFunc(d.problems, func(a, b *config.Problem) int { return cmp.Compare(a.Line, b.Line) })
	errs := make([]error, len(d.problems))
	for i, p := range d.problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// WithTokens returns the text of a registration with other tokens. All else,
// comments included, stays.
func WithTokens(text []byte, asToken, hsToken string) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	root := mapping{doc.Content[0]}
	for key, value := range map[string]string{"as_token": asToken, "hs_token": hsToken} {
		n := root.find(key)
		if n == nil {
			return nil, fmt.Errorf("registration: there is no %s", key)
		}
		n.SetString(value)
	}
	return yaml.Marshal(&doc)
}
