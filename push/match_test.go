package push

import (
	"strings"
	"testing"
)

// TestLongPatterns match nothing.
func TestLongPatterns(t *testing.T) {
	text := strings.Repeat("x", MaxPatternBytes)
	if !matchWhole(text, text) || !matchWord("*"+text[1:], text) || !mentions(text, text) {
		t.Error("a pattern of legal length does not match")
	}
	if matchWhole("*"+text, text) || matchWord("*"+text, text) || mentions(text+"y", text+"y") {
		t.Error("a longer pattern matches")
	}
}
