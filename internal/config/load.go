package config

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	File string
	Line int    // 0 if it is in no line
	Key  string // such as "listeners[0].tls.cert"
	What string // what is wrong and what to do
}

func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Key != "" {
		b.WriteString(": " + p.Key)
	}
	return b.String() + ": " + p.What
}

// Unreadable is the problem of a file that cannot be read.
func Unreadable(file string, err error) *Problem {
	return &Problem{File: file, What: "cannot be read (" + reason(err) + "); check the path and its permissions"}
}

// NotYAML is the problem of a file whose YAML cannot be read.
func NotYAML(file string, err error) *Problem {
	what := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if n, _ := fmt.Sscanf(what, "line %d:", &line); n == 1 {
		_, what, _ = strings.Cut(what, ": ")
	}
	return &Problem{File: file, Line: line, What: "is not YAML: " + what + "; check the indentation and the quotes near it"}
}

// Load reads a file. getenv gives the environment; os.Getenv as a rule. The
// error joins a *Problem for everything that is wrong.
func Load(file string, getenv func(string) string) (*Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, &Problem{File: file, What: "cannot be read (" + reason(err) + "); give the right path with --config"}
	}
	return parse(file, text, getenv)
}

// parse reads the text of a file.
func parse(file string, text []byte, getenv func(string) string) (*Config, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, &Problem{File: file, What: err.Error()}
	}
	r := &reader{file: file, lines: make(map[string]int)}
	c := Default()
	c.File = abs
	r.decode(text, c)
	if len(r.problems) == 0 {
		fromEnvironment(reflect.ValueOf(c).Elem(), getenv, r)
		c.complete(filepath.Dir(abs))
		c.check(r)
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// Trial is the configuration without a file: a server for trying things out on
// this machine, with its data in teahouse-data under dir.
func Trial(dir string, getenv func(string) string) (*Config, error) {
	c := Default()
	c.ServerName = "localhost"
	c.PublicURL = "http://localhost:8008"
	c.Registration.Mode = RegistrationOpen
	c.Federation.Enabled = false // nobody could reach a server of this name
	c.Services.News.Enabled = true
	r := &reader{file: "environment"}
	fromEnvironment(reflect.ValueOf(c).Elem(), getenv, r)
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, &Problem{File: dir, What: err.Error()}
	}
	c.complete(abs)
	c.check(r)
	if err := r.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// reader collects where the keys stand and what is wrong with them.
type reader struct {
	file     string
	lines    map[string]int
	problems []*Problem
}

// err joins the problems in the order of the file.
func (r *reader) err() error {
	slices.SortStableFunc(r.problems, func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), strings.Compare(a.Key, b.Key))
	})
	errs := make([]error, len(r.problems))
	for i, p := range r.problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// bad notes a problem with a key.
func (r *reader) bad(key, format string, args ...any) {
	r.problems = append(r.problems, &Problem{File: r.file, Line: r.line(key), Key: key, What: fmt.Sprintf(format, args...)})
}

// line is where key stands, or the innermost thing around it that does.
func (r *reader) line(key string) int {
	for key != "" {
		if n := r.lines[key]; n > 0 {
			return n
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return 0
}

func (r *reader) decode(text []byte, c *Config) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		r.problems = append(r.problems, NotYAML(r.file, err))
		return
	}
	if len(doc.Content) == 0 {
		return // an empty file names nothing
	}
	r.walk(doc.Content[0], reflect.TypeFor[Config](), "")
	if len(r.problems) > 0 {
		return
	}
	if err := doc.Content[0].Decode(c); err != nil {
		r.problems = append(r.problems, &Problem{File: r.file, What: err.Error()})
	}
}

// walk compares a node with the type that it is for, and notes its lines. What
// it lets pass can be decoded.
func (r *reader) walk(n *yaml.Node, t reflect.Type, key string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if key != "" {
		r.lines[key] = n.Line
	}
	if n.Tag == "!!null" {
		return // nothing said: the default stays
	}
	scalar := t.Kind() != reflect.Struct && t.Kind() != reflect.Slice && t.Kind() != reflect.Map || t == reflect.TypeFor[Network]()
	switch {
	case scalar:
		if n.Kind != yaml.ScalarNode || n.Decode(reflect.New(t).Interface()) != nil || t.Kind() == reflect.String && n.Tag == "!!binary" {
			r.bad(key, "must be %s", kindName(t))
		}
	case t.Kind() == reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			r.bad(key, "must be a list; start each entry with \"- \"")
			return
		}
		for i, item := range n.Content {
			r.walk(item, t.Elem(), fmt.Sprintf("%s[%d]", key, i))
		}
	case n.Kind != yaml.MappingNode:
		r.bad(key, "must be a group of keys, each with a colon and a value")
	default:
		r.walkKeys(n, t, key)
	}
}

func (r *reader) walkKeys(n *yaml.Node, t reflect.Type, key string) {
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		full := strings.TrimPrefix(key+"."+name.Value, ".")
		if first := seen[name.Value]; first > 0 {
			r.problems = append(r.problems, &Problem{r.file, name.Line, full, fmt.Sprintf("stands in line %d already; remove one of them", first)})
			continue
		}
		seen[name.Value] = name.Line
		if t.Kind() == reflect.Map {
			r.walk(value, t.Elem(), full)
			continue
		}
		f, ok := fieldNamed(t, name.Value)
		if !ok {
			r.problems = append(r.problems, &Problem{r.file, name.Line, full, "is not a known key; " + suggest(name.Value, t)})
			continue
		}
		r.walk(value, f.Type, full)
		r.lines[full] = name.Line
	}
}

func fieldNamed(t reflect.Type, name string) (reflect.StructField, bool) {
	for f := range t.Fields() {
		if tag := f.Tag.Get("yaml"); tag == name && tag != "-" {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// suggest names the key that was probably meant, or those there are.
func suggest(name string, t reflect.Type) string {
	var keys []string
	best, bestDistance := "", len(name)/2+1
	for f := range t.Fields() {
		tag := f.Tag.Get("yaml")
		if tag == "-" {
			continue
		}
		keys = append(keys, tag)
		if d := distance(name, tag); d < bestDistance {
			best, bestDistance = tag, d
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "known here are " + strings.Join(keys, ", ")
}

// distance is the number of letters to change, add or remove between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

func kindName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Network]():
		return "an address like 127.0.0.1 or a range like 10.0.0.0/8"
	case t == reflect.TypeFor[Size]():
		return "a size like 500 KiB, 100 MiB or 5 GiB"
	case t.PkgPath() == "time":
		return "a duration like 30s, 5m or 1h"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text; put it in quotes"
	case reflect.Float64:
		return "a number"
	}
	return "a whole number in range"
}

// fromEnvironment fills the fields that have a variable which is set.
func fromEnvironment(v reflect.Value, getenv func(string) string, r *reader) {
	for f, field := range v.Fields() {
		if name := f.Tag.Get("env"); name != "" {
			if value := getenv(name); value != "" {
				field.SetString(value)
			}
		} else if field.Kind() == reflect.Struct {
			fromEnvironment(field, getenv, r)
		}
	}
}

// reason is the short form of a file error.
func reason(err error) string {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
