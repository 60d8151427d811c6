package registration

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

// Namespace is a set of identifiers that a service claims.
type Namespace struct {
	Text      string // the expression as it was written
	Exclusive bool   // nobody else may use the identifiers
	matching  *regexp.Regexp
	program   *syntax.Prog // of any identifier that matches, to its end
}

// Namespaces are what a service claims of one kind of identifiers.
type Namespaces []*Namespace

const maxExpressionBytes = 4096

// NewNamespace compiles an expression, which has the syntax of RE2.
func NewNamespace(text string, exclusive bool) (*Namespace, error) {
	if len(text) > maxExpressionBytes {
		return nil, fmt.Errorf("has more than %d bytes", maxExpressionBytes)
	}
	matching, err := regexp.Compile(`\A(?:` + text + `)`)
	if err != nil {
		// The error of the expression itself, without what was put around it.
		if _, plain := regexp.Compile(text); plain != nil {
			err = plain
		}
		return nil, fmt.Errorf("is not a regular expression that is supported: %w; look-around and back references are not, write what should match instead", err)
	}
	parsed, err := syntax.Parse(`\A(?:`+text+`)(?s:.*)\z`, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("is not a regular expression that is supported: %w", err)
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, fmt.Errorf("is not a regular expression that is supported: %w", err)
	}
	return &Namespace{text, exclusive, matching, program}, nil
}

// Matches tells whether an identifier is one of the namespace's.
func (n *Namespace) Matches(id string) bool { return n.matching.MatchString(id) }

// Match tells whether an identifier is in one of the namespaces.
func (l Namespaces) Match(id string) bool {
	for _, n := range l {
		if n.Matches(id) {
			return true
		}
	}
	return false
}

// MatchExclusive tells whether an identifier is claimed for the service alone.
func (l Namespaces) MatchExclusive(id string) bool {
	for _, n := range l {
		if n.Exclusive && n.Matches(id) {
			return true
		}
	}
	return false
}
