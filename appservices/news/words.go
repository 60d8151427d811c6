package news

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxWords = 50
	maxWord  = 60 // bytes
)

// parseWords reads words, or phrases, with commas between them; without any comma each
// word counts by itself.
func parseWords(text string) []string {
	text = strings.NewReplacer("，", ",", "、", ",", ";", ",").Replace(strings.ToLower(text))
	parts := strings.Fields(text)
	if strings.Contains(text, ",") {
		parts = strings.Split(text, ",")
	}
	var list []string
	for _, w := range parts {
		if w = strings.Join(strings.Fields(w), " "); w != "" && len(w) <= maxWord && len(list) < maxWords {
			list = append(list, w)
		}
	}
	return list
}

// stored is how words are kept, and split how they are read.
func stored(words []string) string { return strings.Join(words, ",") }

func split(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// wanted tells whether an entry passes: one of the keywords, if there are any, and none
// of the muted words.
func wanted(text string, keywords, muted []string) bool {
	text = strings.ToLower(text)
	return (len(keywords) == 0 || mentions(text, keywords)) && !mentions(text, muted)
}

func mentions(text string, words []string) bool {
	for _, w := range words {
		for from := 0; from < len(text); {
			at := strings.Index(text[from:], w)
			if at < 0 {
				break
			}
			at += from
			if end := at + len(w); apart(text[:at], w) && apart(w, text[end:]) {
				return true
			}
			from = at + 1
		}
	}
	return false
}

// apart tells whether no word goes on across the border of two texts. Scripts that
// write without spaces have no such borders.
func apart(a, b string) bool {
	last, _ := utf8.DecodeLastRuneInString(a)
	first, _ := utf8.DecodeRuneInString(b)
	return a == "" || b == "" || !spaced(last) || !spaced(first)
}

// spaced tells that a character is part of a word in a script with spaces.
func spaced(r rune) bool {
	return (unicode.IsLetter(r) || unicode.IsDigit(r)) && !unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer)
}
