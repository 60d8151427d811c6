package transport

import (
	"fmt"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Policy says with which servers there is federation. The zero value, and nil,
// allow all. Allow and Deny hold server names; a name without port stands for
// every port, and *.example.org for everything below example.org.
type Policy struct {
	Closed bool     // none at all
	Allow  []string // if there are any, only these
	Deny   []string // never these
}

// Check tells whether all names of the policy are such.
func (p *Policy) Check() error {
	for _, pattern := range append(append([]string(nil), p.Allow...), p.Deny...) {
		if _, err := matrix.ParseServerName(strings.TrimPrefix(pattern, "*.")); err != nil {
			return fmt.Errorf("%q is not a server name: write example.org, example.org:8448 or *.example.org", pattern)
		}
	}
	return nil
}

// Allows tells whether there is federation with a server.
func (p *Policy) Allows(server matrix.ServerName) bool {
	switch {
	case p == nil:
		return true
	case p.Closed:
		return false
	case server.In(p.Deny):
		return false
	}
	return len(p.Allow) == 0 || server.In(p.Allow)
}
