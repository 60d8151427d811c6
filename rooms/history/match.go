package history

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// matcher finds words in the texts of events. Its cost is linear in a text for
// each word.
type matcher struct {
	words []string // in lower case
	keys  []string
}

// searchable names the texts that can be searched, and the types of events that
// have them.
var searchable = map[string]string{
	"content.body": matrix.TypeMessage, "content.name": matrix.TypeName, "content.topic": matrix.TypeTopic,
}

func newMatcher(term string, keys []string) (matcher, error) {
	if len(term) > searchTermMax {
		return matcher{}, matrix.InvalidParam("search_term may have at most %d bytes", searchTermMax)
	}
	m := matcher{words: strings.Fields(strings.ToLower(term)), keys: keys}
	if len(m.words) == 0 {
		return matcher{}, matrix.InvalidParam("search_term is missing")
	}
	for _, key := range keys {
		if searchable[key] == "" {
			return matcher{}, matrix.InvalidParam(`"keys" are content.body, content.name and content.topic`)
		}
	}
	return m, nil
}

// matches tells whether an event has all the words.
func (m matcher) matches(st *rooms.Stored) bool {
	var content struct {
		Body  any `json:"body"`
		Name  any `json:"name"`
		Topic any `json:"topic"`
	}
	var value *any
	var key string
	switch st.Type {
	case matrix.TypeMessage:
		key, value = "content.body", &content.Body
	case matrix.TypeName:
		key, value = "content.name", &content.Name
	case matrix.TypeTopic:
		key, value = "content.topic", &content.Topic
	default:
		return false
	}
	if m.keys != nil && !slices.Contains(m.keys, key) || json.Unmarshal(st.Content, &content) != nil {
		return false
	}
	text, ok := (*value).(string)
	if !ok {
		return false
	}
	text = strings.ToLower(text)
	return !slices.ContainsFunc(m.words, func(word string) bool { return !strings.Contains(text, word) })
}
