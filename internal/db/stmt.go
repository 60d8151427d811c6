package db

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Stmt is a registered statement: one text for both engines.
type Stmt struct {
	source string // as written, with tokens
	where  string // file:line of its declaration, for messages
	set    *Set
	index  int // place in the registry and in each connection's cache

	once   sync.Once
	text   [engines]string
	params int // the highest parameter
}

// String is the statement as it was written.
func (s *Stmt) String() string { return s.source }

// reads tells that the statement can't change the database.
func (s *Stmt) reads() bool {
	text := strings.TrimSpace(s.source)
	return len(text) >= 6 && strings.EqualFold(text[:6], "SELECT")
}

// on returns the statement's text for an engine.
func (s *Stmt) on(e engine) string {
	s.once.Do(s.render)
	return s.text[e]
}

// parameters is how many arguments the statement takes.
func (s *Stmt) parameters() int {
	s.once.Do(s.render)
	return s.params
}

func (s *Stmt) render() {
	for e := range engines {
		s.text[e] = render(s.source, e)
	}
	for _, p := range parameter.FindAllStringSubmatch(s.source, -1) {
		n, _ := strconv.Atoi(p[1])
		s.params = max(s.params, n)
	}
}

// fail wraps what went wrong in the statement.
func (s *Stmt) fail(err error) error {
	return fmt.Errorf("db: statement at %s: %w", s.where, err)
}

// engine names one of the two databases.
type engine int

const (
	sqlite engine = iota
	postgres
	engines
)

// Everything in which the two SQL texts differ stands in this file.

var (
	parameter  = regexp.MustCompile(`\$(\d+)`)
	inToken    = regexp.MustCompile(`(?i)(\bNOT\s+)?\bIN\s*\{(ints|texts) \$(\d+)\}`)
	tableToken = regexp.MustCompile(`\{(?:ints|texts) \$\d+(?:, (?:ints|texts) \$\d+)*\}`)
	listToken  = regexp.MustCompile(`(ints|texts) \$(\d+)`)
	ddlType    = regexp.MustCompile(`\b(INTEGER|TEXT|REAL)\b`)
)

var words = [engines]*strings.Replacer{
	sqlite: strings.NewReplacer(
		"{blob}", "BLOB",
		"{bool}", "INTEGER",
		"{without rowid}", "WITHOUT ROWID",
		"{greatest}", "max",
		"{least}", "min",
		"{instr}", "instr",
		"{begin write}", "BEGIN IMMEDIATE",
		"{begin read}", "BEGIN",
		"{tables}", "(SELECT name FROM sqlite_schema WHERE type = 'table')",
	),
	postgres: strings.NewReplacer(
		"{blob}", "BYTEA",
		"{bool}", "SMALLINT",
		"{without rowid}", "",
		"{greatest}", "greatest",
		"{least}", "least",
		"{instr}", "strpos",
		"{begin write}", "BEGIN READ WRITE",
		"{begin read}", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
		"{tables}", "(SELECT tablename AS name FROM pg_tables WHERE schemaname = current_schema())",
	),
}

// arrays are the PostgreSQL types that id lists are sent as.
var arrays = map[string]string{"ints": "bigint[]", "texts": "text[]"}

// render turns a text with tokens into the engine's SQL.
func render(text string, e engine) string {
	if strings.Contains(text, "{") {
		text = words[e].Replace(text)
		text = inToken.ReplaceAllStringFunc(text, func(m string) string { return renderIn(m, e) })
		text = tableToken.ReplaceAllStringFunc(text, func(m string) string { return renderTable(m, e) })
	}
	if e == sqlite {
		// ?3 is parameter 3; $3 would be a name that is numbered by first use.
		text = parameter.ReplaceAllString(text, "?$1")
	}
	return text
}

// renderIn writes IN {ints $1} and NOT IN {ints $1}. The planner of PostgreSQL
// sees through = ANY, but not through a subselect.
func renderIn(m string, e engine) string {
	p := inToken.FindStringSubmatch(m)
	not, kind, n := p[1] != "", p[2], p[3]
	switch {
	case e == sqlite && not:
		return fmt.Sprintf("NOT IN (SELECT value FROM json_each($%s))", n)
	case e == sqlite:
		return fmt.Sprintf("IN (SELECT value FROM json_each($%s))", n)
	case not:
		return fmt.Sprintf("<> ALL ($%s::%s)", n, arrays[kind])
	default:
		return fmt.Sprintf("= ANY ($%s::%s)", n, arrays[kind])
	}
}

// renderTable writes {ints $1} as a table of columns value and n, which counts
// from 0, and {ints $1, texts $2} as one of value, value2 and n. SQLite looks the
// second value up by its number: to join two lists it would read one of them anew
// for each value of the other.
func renderTable(m string, e engine) string {
	lists := listToken.FindAllStringSubmatch(m, -1)
	names, typed := "value", ""
	lookups := ""
	for i, l := range lists {
		if i == 0 {
			typed = fmt.Sprintf("$%s::%s", l[2], arrays[l[1]])
			continue
		}
		name := fmt.Sprint("value", i+1)
		names += ", " + name
		typed += fmt.Sprintf(", $%s::%s", l[2], arrays[l[1]])
		lookups += fmt.Sprintf("$%s ->> key AS %s, ", l[2], name)
	}
	if e == sqlite {
		return fmt.Sprintf("(SELECT value, %skey AS n FROM json_each($%s))", lookups, lists[0][2])
	}
	return fmt.Sprintf("(SELECT %s, n - 1 AS n FROM unnest(%s) WITH ORDINALITY AS u(%s, n))", names, typed, names)
}

// renderDDL is render for migrations. The types are SQLite's; PostgreSQL gets
// those that hold as much and sort alike, whatever the locale of the database.
func renderDDL(text string, e engine) string {
	text = render(text, e)
	if e == sqlite {
		return text
	}
	return ddlType.ReplaceAllStringFunc(text, func(m string) string {
		switch m {
		case "INTEGER":
			return "BIGINT"
		case "REAL":
			return "DOUBLE PRECISION"
		default:
			return `TEXT COLLATE "C"`
		}
	})
}
