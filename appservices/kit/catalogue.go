package kit

import (
	"fmt"
	"maps"
	"slices"
	"unicode"

	"maunium.net/go/mautrix/id"
)

// Catalogue is a service's texts, by language ("en", "zh") and by name. They may have
// the verbs of fmt, with positions where another language needs another order:
// "%[2]s 的 %[1]s". English must be there, and every language has every text.
type Catalogue map[string]map[string]string

// fallback is the language of who is not known to want another.
const fallback = "en"

// own are the texts of the kit.
var own = Catalogue{
	"en": {
		"kit.help.intro":       "What you can say here:",
		"kit.help.prefix":      "In a room with others, begin with %s. In a direct chat with me the words alone will do.",
		"kit.help.help":        "shows this",
		"kit.help.language":    "the language that I speak with you: %s",
		"kit.language.is":      "I will speak English with you.",
		"kit.language.unknown": "I speak: %s. For example: language %s",
		"kit.unknown":          "I don't know %q. Say “help” to see what I can do.",
		"kit.failed":           "Something went wrong here, and I could not do this. Those who run this service have been told.",
		"kit.old":              "I see this only now, %d minutes after you said it: %s\nShall I still do it?",
		"kit.yes":              "Yes",
		"kit.cancel":           "0 cancel",
		"kit.cancelled":        "Cancelled.",
		"kit.expired":          "That question is too old. Please ask again.",
		"kit.choose":           "Please answer with a number, or react: %s",
		"kit.encrypted":        "I can't read encrypted messages, so I see nothing of what is said here. Please talk to me in this chat, which is not encrypted: %s",
		"kit.crowded":          "We are not alone here any more. From now on, begin what you say to me with %s.",
		"kit.link.title":       "Please confirm",
		"kit.link.go":          "Continue",
		"kit.link.done":        "Done. You can close this page.",
		"kit.link.gone":        "This link has been used, or is older than five minutes. Please ask for a new one.",
	},
	"zh": {
		"kit.help.intro":       "您可以说：",
		"kit.help.prefix":      "在多人房间里请以 %s 开头；与我私聊时直接说即可。",
		"kit.help.help":        "显示本帮助",
		"kit.help.language":    "我与您交谈所用的语言：%s",
		"kit.language.is":      "我会用中文与您交谈。",
		"kit.language.unknown": "我会的语言：%s。例如：语言 %s",
		"kit.unknown":          "我不明白 %q。说“帮助”可以看看我能做什么。",
		"kit.failed":           "出了点问题，这件事没有办成。已经通知了本服务的管理员。",
		"kit.old":              "这条消息是您 %d 分钟前说的，我现在才看到：%s\n还要照办吗？",
		"kit.yes":              "是",
		"kit.cancel":           "0 取消",
		"kit.cancelled":        "已取消。",
		"kit.expired":          "这个问题已经过期，请重新开始。",
		"kit.choose":           "请回复数字，或点选表情：%s",
		"kit.encrypted":        "我读不了加密消息，所以看不到这里的内容。请在这个未加密的聊天里与我交谈：%s",
		"kit.crowded":          "这里不再只有我们两人。从现在起，对我说话请以 %s 开头。",
		"kit.link.title":       "请确认",
		"kit.link.go":          "继续",
		"kit.link.done":        "完成。您可以关闭本页。",
		"kit.link.gone":        "此链接已被使用，或已超过五分钟。请重新获取。",
	},
}

// check tells what a catalogue lacks.
func (c Catalogue) check() error {
	if len(c) == 0 {
		return nil
	}
	for lang := range c {
		if own[lang] == nil {
			return fmt.Errorf("kit: the catalogue has the language %q, which the kit itself does not speak", lang)
		}
		for name := range c[fallback] {
			if c[lang][name] == "" {
				return fmt.Errorf("kit: the catalogue has no text %q in the language %q", name, lang)
			}
		}
		for name := range c[lang] {
			if c[fallback][name] == "" {
				return fmt.Errorf("kit: the catalogue has no text %q in the language %q", name, fallback)
			}
		}
	}
	return nil
}

// languages are those that the service speaks.
func (s *Service) languages() []string {
	c := s.cfg.Texts
	if len(c) == 0 {
		c = own
	}
	return slices.Sorted(maps.Keys(c))
}

// text is a text of the service's catalogue or of the kit's.
func (s *Service) text(lang, name string, args ...any) string {
	for _, c := range []Catalogue{s.cfg.Texts, own} {
		for _, l := range []string{lang, fallback} {
			if text := c[l][name]; text != "" {
				if len(args) == 0 {
					return text
				}
				return fmt.Sprintf(text, args...)
			}
		}
	}
	return name
}

var (
	upsertUser     = basis.SQL(`INSERT INTO kit_users (user_id, forewarned) VALUES ($1, 0) ON CONFLICT (user_id) DO NOTHING`)
	selectLanguage = basis.SQL(`SELECT language FROM kit_users WHERE user_id = $1 AND language IS NOT NULL`)
	setLanguage    = basis.SQL(`UPDATE kit_users SET language = $2 WHERE user_id = $1`)
)

// Language is the language that a user chose, or else English.
func (tx *Tx) Language(user id.UserID) string { return tx.language(user, "") }

// language is that of somebody who said something: who chose none is answered in the
// language of what was said.
func (tx *Tx) language(user id.UserID, said string) string {
	lang, found, err := One(tx.ctx, tx, selectLanguage, scanText, user)
	tx.fail(err)
	switch {
	case found:
		return lang
	case slices.ContainsFunc([]rune(said), func(r rune) bool { return unicode.Is(unicode.Han, r) }) && slices.Contains(tx.s.languages(), "zh"):
		return "zh"
	}
	return fallback
}

// Text is a text of the catalogue in a user's language.
func (tx *Tx) Text(user id.UserID, name string, args ...any) string {
	return tx.s.text(tx.Language(user), name, args...)
}

// TextIn is a text of the catalogue in a language.
func (tx *Tx) TextIn(lang, name string, args ...any) string { return tx.s.text(lang, name, args...) }
