package db

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
)

// Set is the schemas of one kind of database, and the statements for it. The
// homeserver's set is what the functions Schema and SQL add to. A service keeps a
// database of its own, though all are linked into one program, and so has a set of
// its own.
type Set struct {
	name  string
	basis *Set
}

var (
	// common is in every database.
	common = &Set{name: "common"}
	// homeserver is what Open takes for want of another.
	homeserver = &Set{name: "homeserver", basis: common}
)

// NewSet makes a set that has the schemas of basis as well, which may be nil.
func NewSet(name string, basis *Set) *Set {
	if basis == nil {
		basis = common
	}
	return &Set{name: name, basis: basis}
}

// has tells whether a database of the set has what is in the other one.
func (s *Set) has(other *Set) bool {
	for ; s != nil; s = s.basis {
		if s == other {
			return true
		}
	}
	return false
}

var registry struct {
	sync.Mutex
	stmts    []*Stmt
	features []*feature
}

type feature struct {
	name       string
	migrations []string
	set        *Set
}

// SQL registers a statement on the homeserver's database. It is called for
// package-level variables only: a statement lives, and stays prepared, as long as
// the process.
//
// Parameters are $1, $2, and so on. See the package comment for the tokens.
func SQL(text string) *Stmt { return homeserver.register(text) }

// SQL is the function SQL for a database of the set.
func (s *Set) SQL(text string) *Stmt { return s.register(text) }

// register is called by what the declaration of a statement calls.
func (s *Set) register(text string) *Stmt {
	stmt := &Stmt{source: text, where: "unknown place", set: s}
	if _, file, line, ok := runtime.Caller(2); ok {
		dir, name := filepath.Split(file)
		stmt.where = fmt.Sprintf("%s/%s:%d", filepath.Base(dir), name, line)
	}
	registry.Lock()
	defer registry.Unlock()
	stmt.index = len(registry.stmts)
	registry.stmts = append(registry.stmts, stmt)
	return stmt
}

// Schema registers a feature's migrations, which are numbered from 1 in order
// and never change once released. A migration may hold several statements
// separated by semicolons. The result lets a package-level var _ = call it.
func Schema(name string, migrations ...string) struct{} {
	return homeserver.Schema(name, migrations...)
}

// Schema is the function Schema for databases of the set.
func (s *Set) Schema(name string, migrations ...string) struct{} {
	registry.Lock()
	defer registry.Unlock()
	for _, f := range registry.features {
		if f.name == name {
			panic("db: two schemas are named " + name)
		}
	}
	registry.features = append(registry.features, &feature{name, migrations, s})
	return struct{}{}
}

// features are the schemas that a database of the set has, of the basis first.
func (s *Set) features() []*feature {
	registry.Lock()
	defer registry.Unlock()
	var all []*feature
	for ; s != nil; s = s.basis {
		var own []*feature
		for _, f := range registry.features {
			if f.set == s {
				own = append(own, f)
			}
		}
		all = append(own, all...)
	}
	return all
}

// statements are those for databases of the set.
func (s *Set) statements() []*Stmt {
	registry.Lock()
	defer registry.Unlock()
	return slices.DeleteFunc(slices.Clone(registry.stmts), func(stmt *Stmt) bool { return !s.has(stmt.set) })
}

// setOf names the set that a feature of this program is in.
func setOf(name string) (set string, known bool) {
	registry.Lock()
	defer registry.Unlock()
	for _, f := range registry.features {
		if f.name == name {
			return f.set.name, true
		}
	}
	return "", false
}
