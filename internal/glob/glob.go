// Package glob matches texts against patterns in time linear in the text,
// whatever the patterns: no pattern makes a text expensive.
package glob

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Pattern is a list of compiled patterns, of which any may match: "*" stands for
// any run of characters, "?" for any one, and letters match in either case.
//
// It runs as a set of states, one bit per character of the patterns and one for
// the end of each: a bit is set when the characters before it have matched so
// far. Every character of the text costs the same, whatever came before.
// spec: appendices#glob-style-matching
type Pattern struct {
	length int          // of the patterns without their stars, ends included
	words  int          // of a set
	starts set          // the first state of each pattern
	ends   set          // and its last
	stars  set          // states that any character leaves as they are
	any    set          // states that any character leads out of
	edges  map[rune]set // states that this character leads out of, those of any included
}

// set is a set of states.
type set []uint64

func (s set) add(i int) { s[i/64] |= 1 << (i % 64) }

func (s set) addAll(other set) {
	for w, bits := range other {
		s[w] |= bits
	}
}

func (s set) meets(other set) bool {
	for w, bits := range other {
		if s[w]&bits != 0 {
			return true
		}
	}
	return false
}

func fold(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }

// Compile compiles patterns.
func Compile(patterns ...string) *Pattern { return compile(patterns, true) }

// Literal compiles a pattern in which "*" and "?" are characters like any other.
func Literal(text string) *Pattern { return compile([]string{text}, false) }

// Whole tells whether all of text matches the pattern.
func Whole(pattern, text string) bool {
	if !strings.ContainsAny(pattern, "*?") {
		return strings.EqualFold(pattern, text)
	}
	return Compile(pattern).Whole(text)
}

func compile(patterns []string, wild bool) *Pattern {
	states := len(patterns)
	for _, p := range patterns {
		states += utf8.RuneCountInString(p)
	}
	g := &Pattern{edges: make(map[rune]set), words: (states + 63) / 64}
	g.starts, g.ends, g.stars, g.any = g.set(), g.set(), g.set(), g.set()
	for _, p := range patterns {
		g.add(p, wild)
	}
	for _, e := range g.edges {
		e.addAll(g.any)
	}
	return g
}

func (g *Pattern) set() set { return make(set, g.words) }

func (g *Pattern) add(pattern string, wild bool) {
	g.starts.add(g.length)
	for _, r := range pattern {
		switch {
		case wild && r == '*':
			g.stars.add(g.length)
			continue
		case wild && r == '?':
			g.any.add(g.length)
		default:
			r = fold(r)
			if g.edges[r] == nil {
				g.edges[r] = g.set()
			}
			g.edges[r].add(g.length)
		}
		g.length++
	}
	g.ends.add(g.length)
	g.length++
}

// Whole tells whether all of text matches.
func (g *Pattern) Whole(text string) bool {
	states := g.set()
	states.addAll(g.starts)
	for _, r := range text {
		if !g.step(states, r) {
			return false
		}
	}
	return states.meets(g.ends)
}

// Word tells whether a part of text that starts and ends at a boundary of words
// matches. It starts an attempt at every boundary and looks for an end at every
// boundary. A boundary is an end of the text, or a place beside a character that
// belongs to no word.
// spec: client-server#conditions-1
func (g *Pattern) Word(text string) bool {
	states := g.set()
	inside := false // the last character belongs to a word
	for _, r := range text {
		now := inWord(r)
		if !inside || !now {
			states.addAll(g.starts)
			if states.meets(g.ends) {
				return true
			}
		}
		g.step(states, r)
		inside = now
	}
	states.addAll(g.starts)
	return states.meets(g.ends)
}

func inWord(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_'
}

// step moves the states over one character; false if none is left. No character
// leads out of the end of a pattern into the next one.
func (g *Pattern) step(states set, r rune) bool {
	edges, ok := g.edges[fold(r)]
	if !ok {
		edges = g.any
	}
	var carry, left uint64
	for w, s := range states {
		moved := s & edges[w]
		states[w] = s&g.stars[w] | moved<<1 | carry
		carry = moved >> 63
		left |= states[w]
	}
	return left != 0
}
