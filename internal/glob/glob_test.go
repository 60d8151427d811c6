package glob

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const maxPattern = 512 // of the hostile ones, in bytes

func word(pattern, text string) bool { return Compile(pattern).Word(text) }

func TestWhole(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"lunc?*", "Lunch plans", true},
		{"lunc?*", "LUNCH", true},
		{"lunc?*", " lunch", false},
		{"lunc?*", "lunc", false},
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"*", "anything\nat all", true},
		{"?", "é", true},
		{"?", "", false},
		{"M.Room.*", "m.room.message", true},
		{"m.room.*", "mxroom.message", false},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "a-c-b", false},
		{"straße", "STRAßE", true},
		{"[a-z]+", "abc", false},
		{"[a-z]+", "[a-z]+", true},
		{strings.Repeat("x", 64) + "*", strings.Repeat("x", 70), true}, // a state beyond the first word
		{strings.Repeat("x", 64) + "*", strings.Repeat("x", 63), false},
		{"*" + strings.Repeat("?", 200), strings.Repeat("x", 200), true},
		{"*" + strings.Repeat("?", 200), strings.Repeat("x", 199), false},
	} {
		if got := Whole(c.pattern, c.text); got != c.want {
			t.Errorf("Whole(%q, %q) = %v", c.pattern, c.text, got)
		}
	}
}

func TestWord(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"ex*ple", "An example event.", true},
		{"ex*ple", "exple", true},
		{"ex*ple", "An exciting triple-whammy", true},
		{"ex*ple", "An examples", false},
		{"ex*ple", "unexample", false},
		{"cake", "Let there be CAKE!", true},
		{"cake", "pancake", false},
		{"cake", "cake_", false},
		{"cake", "cake", true},
		{"cake", "", false},
		{"cake", "éclair,cake,é", true},
		{"cake", "écakeé", true}, // é is not in a word, as words are defined
		{"", "", true},
		{"", "a", true}, // the empty part at its start
		{"?", "ab c", true},
		{"a b", "a b", true},
	} {
		if got := word(c.pattern, c.text); got != c.want {
			t.Errorf("Word(%q, %q) = %v", c.pattern, c.text, got)
		}
	}
}

func TestLiteralPatternHasNoWildcards(t *testing.T) {
	g := Literal("*a?")
	if g.Word("xxxaxx") || !g.Word("hi *A? there") {
		t.Error("wildcards of a literal were obeyed, or its characters were not found")
	}
}

// TestAnyPattern compiles patterns together: the whole matches what one of them
// does.
func TestAnyPattern(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		patterns := rapid.SliceOfN(pattern(), 0, 5).Draw(t, "patterns")
		s := textGen().Draw(t, "text")
		whole := slices.ContainsFunc(patterns, func(p string) bool { return Compile(p).Whole(s) })
		part := slices.ContainsFunc(patterns, func(p string) bool { return word(p, s) })
		g := Compile(patterns...)
		if g.Whole(s) != whole || g.Word(s) != part {
			t.Fatalf("whole: %v, want %v; word: %v, want %v", g.Whole(s), whole, g.Word(s), part)
		}
	})
}

// pattern draws from few characters, so that repeats and near misses are common.
func pattern() *rapid.Generator[string] { return rapid.StringMatching(`[ab_ *?]{0,90}`) }
func textGen() *rapid.Generator[string] { return rapid.StringMatching(`[aBb_ -]{0,90}`) }

func reference(pattern string) string {
	return strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern))
}

func TestGlobAgreesWithRegexp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, s := pattern().Draw(t, "pattern"), textGen().Draw(t, "text")
		if got, want := Whole(p, s), regexp.MustCompile(`(?is)\A`+reference(p)+`\z`).MatchString(s); got != want {
			t.Fatalf("whole: %v, want %v", got, want)
		}
		// Words are [A-Za-z0-9_] as in RE2's \b, but boundaries also lie
		// between any two characters that are not in words.
		if got, want := word(p, s), naiveWord(p, s); got != want {
			t.Fatalf("word: %v, want %v", got, want)
		}
	})
}

// naiveWord tries every part of s between boundaries.
func naiveWord(p, s string) bool {
	re := regexp.MustCompile(`(?is)\A` + reference(p) + `\z`)
	boundary := func(i int) bool {
		return i == 0 || i == len(s) || !inWord(rune(s[i-1])) || !inWord(rune(s[i]))
	}
	for i := range len(s) + 1 {
		for j := i; j <= len(s); j++ {
			if boundary(i) && boundary(j) && re.MatchString(s[i:j]) {
				return true
			}
		}
	}
	return false
}

// A pattern that makes backtracking matchers try every split of the text.
func TestHostilePatternIsLinear(t *testing.T) {
	hostile := strings.Repeat("*a", maxPattern/2-1) + "*b"
	text := strings.Repeat("a ", 32<<10)
	start := time.Now()
	if Whole(hostile, text) || word(hostile, text) {
		t.Error("matched")
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("64 KiB took %v", took)
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("ex*ple", "An example event.")
	f.Add("\xff?*", "\xff\xfe")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		word(pattern, text)
		if Whole(pattern, text) && !word(pattern, text) {
			t.Errorf("%q matches all of %q but no part", pattern, text)
		}
	})
}
