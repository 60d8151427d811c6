package news

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxWords = 50
	maxWord  = 60 // characters
)

// wordList is what somebody wrote where words or phrases belong.
type wordList struct {
	words   []string
	tooLong []string
}

// parseWords reads words, or phrases, with commas between them; without any comma each
// word counts by itself.
func parseWords(text string) (l wordList) {
	text = strings.NewReplacer("，", ",", "、", ",", ";", ",").Replace(strings.ToLower(text))
	parts := strings.Fields(text)
	if strings.Contains(text, ",") {
		parts = strings.Split(text, ",")
	}
	for _, w := range parts {
		switch w = strings.Join(strings.Fields(w), " "); {
		case utf8.RuneCountInString(w) > maxWord:
			l.tooLong = append(l.tooLong, firstRunes(w, 20)+"…")
		case w != "":
			l.words = append(l.words, w)
		}
	}
	return l
}

// refuses tells what is wrong with the words, in a language; "" for nothing.
func (l *wordList) refuses(language string) string {
	switch {
	case len(l.tooLong) > 0:
		return say(language, "toolong", strings.Join(l.tooLong[:min(len(l.tooLong), 5)], ", "), maxWord)
	case len(l.words) > maxWords:
		return say(language, "toomany", maxWords)
	}
	return ""
}

// firstRunes is the beginning of a text.
func firstRunes(text string, n int) string {
	r := []rune(text)
	return string(r[:min(len(r), n)])
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
