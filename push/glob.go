package push

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxPatternBytes bounds a pattern; a longer one matches nothing.
const MaxPatternBytes = 512

// glob is a compiled pattern: "*" stands for any run of characters, "?" for any
// one, and letters match in either case.
//
// It runs as a set of states, one bit per character of the pattern: bit i is
// set when the first i characters have matched so far. Every character of the
// text costs the same, whatever came before: no pattern makes a text expensive.
// spec: appendices#glob-style-matching
type glob struct {
	length int          // of the pattern without its stars
	words  int          // of a set
	stars  set          // states that any character leaves as they are
	any    set          // states that any character leads out of
	edges  map[rune]set // states that this character leads out of, those of any included
	never  bool         // the pattern is too long
}

// set is a set of states.
type set []uint64

func (s set) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s set) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

func fold(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }

// matchWhole tells whether all of text matches the pattern.
func matchWhole(pattern, text string) bool {
	if !strings.ContainsAny(pattern, "*?") {
		return strings.EqualFold(pattern, text)
	}
	return compileGlob(pattern, true).whole(text)
}

// matchWord tells whether a part of text that starts and ends at a boundary of
// words matches the pattern.
func matchWord(pattern, text string) bool { return compileGlob(pattern, true).word(text) }

// compileGlob compiles a pattern. Without wild, "*" and "?" are characters like
// any other.
func compileGlob(pattern string, wild bool) *glob {
	if len(pattern) > MaxPatternBytes {
		return &glob{never: true}
	}
	g := &glob{edges: make(map[rune]set)}
	g.words = utf8.RuneCountInString(pattern)/64 + 1
	g.stars, g.any = make(set, g.words), make(set, g.words)
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
				g.edges[r] = make(set, g.words)
			}
			g.edges[r].add(g.length)
		}
		g.length++
	}
	for _, e := range g.edges {
		for w := range e {
			e[w] |= g.any[w]
		}
	}
	return g
}

func (g *glob) whole(text string) bool {
	if g.never {
		return false
	}
	states := make(set, g.words)
	states.add(0)
	for _, r := range text {
		if !g.step(states, r) {
			return false
		}
	}
	return states.has(g.length)
}

// word starts an attempt at every boundary of words and looks for an end at
// every boundary. A boundary is an end of the text, or a place beside a
// character that belongs to no word.
// spec: client-server#conditions-1
func (g *glob) word(text string) bool {
	if g.never {
		return false
	}
	states := make(set, g.words)
	inside := false // the last character belongs to a word
	for _, r := range text {
		now := inWord(r)
		if !inside || !now {
			states.add(0)
			if states.has(g.length) {
				return true
			}
		}
		g.step(states, r)
		inside = now
	}
	states.add(0)
	return states.has(g.length)
}

func inWord(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_'
}

// step moves the states over one character; false if none is left.
func (g *glob) step(states set, r rune) bool {
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
