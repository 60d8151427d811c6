package push

import "github.com/teahouse-chat/teahouse/internal/glob"

// MaxPatternBytes bounds a pattern; a longer one matches nothing.
const MaxPatternBytes = 512

// matchWhole tells whether all of text matches the pattern.
func matchWhole(pattern, text string) bool {
	return len(pattern) <= MaxPatternBytes && glob.Whole(pattern, text)
}

// matchWord tells whether a part of text that starts and ends at a boundary of
// words matches the pattern.
func matchWord(pattern, text string) bool {
	return len(pattern) <= MaxPatternBytes && glob.Compile(pattern).Word(text)
}

// mentions tells whether a name stands in the text, as it is.
func mentions(name, text string) bool {
	return len(name) <= MaxPatternBytes && glob.Literal(name).Word(text)
}
