package httpx

import (
	"cmp"
	"slices"
)

// Access says who may ask a route.
type Access string

// The kinds of access.
const (
	AccessToken    Access = "token"    // needs a valid token
	AccessOptional Access = "optional" // needs none, but refuses one that is not valid
	AccessOpen     Access = "open"     // looks at none
)

// Listing describes a route that is served.
type Listing struct {
	Surface string
	Method  string
	Path    string   // in http.ServeMux syntax
	Paths   []string // Path and those that stand for it
	Access  Access
	Guests  bool   // may use it
	Limit   string // rate-limit class, "" for none
}

// Routes lists what has been added, in the order of surface, path and method.
func (e *Edge) Routes() []Listing {
	var all []Listing
	for _, s := range e.surfaces {
		for _, rt := range s.routes {
			l := Listing{Surface: s.name, Method: rt.Method, Path: rt.Path, Paths: rt.paths(), Guests: rt.guests, Limit: rt.limit}
			switch rt.access {
			case tokenNeeded:
				l.Access = AccessToken
			case tokenOptional:
				l.Access = AccessOptional
			case tokenIgnored:
				l.Access = AccessOpen
			}
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b Listing) int {
		return cmp.Or(cmp.Compare(a.Surface, b.Surface), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method))
	})
	return all
}
