package kit

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// Command is something that people can say to a service: "!news follow URL" in a room
// with others, "follow URL" in a direct chat.
type Command struct {
	Name    string   // in lower case; may be several words
	Aliases []string // further names, such as those in other languages
	Args    string   // the text of the catalogue that shows its arguments: "URL"; "" for none
	Help    string   // the text of the catalogue that says what it does; "" keeps it out of the help
	Always  bool     // it does no harm whenever it was said, so it is not asked for again when it is old
	Run     func(tx *Tx, c *Call) error
}

// Call is a command that somebody said.
type Call struct {
	*Event
	Command  *Command
	Rest     string // what follows the command's name
	Language string
	Direct   bool // said in a direct chat with the speaker
	s        *Service
}

// Args are the words that follow the command's name.
func (c *Call) Args() []string { return strings.Fields(c.Rest) }

// T is a text of the catalogue in the speaker's language.
func (c *Call) T(name string, args ...any) string { return c.s.text(c.Language, name, args...) }

// Answer replies with a text of the catalogue in the speaker's language.
func (c *Call) Answer(tx *Tx, name string, args ...any) Ref {
	return tx.Reply(c.Event, c.T(name, args...))
}

// Usage shows how the command is said: its name and arguments, with the prefix that it
// needs where it was said.
func (c *Call) Usage() string {
	text := c.s.nameIn(c.Language, c.Command)
	if c.Command.Args != "" {
		text += " " + c.T(c.Command.Args)
	}
	if !c.Direct && c.s.cfg.Prefix != "" {
		text = c.s.cfg.Prefix + " " + text
	}
	return text
}

// OnLanguage has f called when somebody chose the language that c has now.
func (s *Service) OnLanguage(f func(tx *Tx, c *Call) error) { s.spoken = append(s.spoken, f) }

// Command adds a command.
func (s *Service) Command(c Command) {
	for _, name := range append([]string{c.Name}, c.Aliases...) {
		if s.commands[name] != nil {
			panic("kit: two commands are named " + name)
		}
		s.commands[name] = &c
	}
	s.listed = append(s.listed, &c)
}

// freshFor is how old a command may be that is obeyed without a question.
const freshFor = 5 * time.Minute

// heed looks whether a text is an answer or a command, and obeys it.
func (s *Service) heed(tx *Tx, ev *Event) (heeded bool, err error) {
	text := ev.Text()
	if text == "" {
		// What a file is sent with is about the file, unless it is said to the service.
		if _, how := s.addressed(ev, ev.Caption()); how == called {
			text = ev.Caption()
		}
	}
	if text == "" || len(s.commands) == 0 && len(s.answers) == 0 {
		return false, nil
	}
	direct, err := tx.direct(ev.RoomID, ev.Sender)
	if err != nil {
		return false, err
	}
	words, how := s.addressed(ev, text)
	if heeded, err := s.answered(tx, ev, words, how != unnamed || direct); heeded || err != nil {
		return heeded, err
	}
	if how == unnamed && !direct {
		return false, nil
	}
	c := s.call(tx, ev, words, direct)
	switch {
	case c.Command == nil && (len(s.listed) == 0 || how == named && !direct):
		return false, nil
	case c.Command == nil:
		c.Answer(tx, "kit.unknown", firstWord(words))
		return true, nil
	case s.clock.Now().Sub(ev.Sent()) > freshFor && !c.Command.Always:
		return true, s.askAgain(tx, c)
	}
	return true, c.Command.Run(tx, c)
}

// addressing is how surely something is said to the service.
type addressing int

const (
	unnamed addressing = iota
	named              // "News: ..." may also be a headline
	called             // by its prefix, by an @-name, or by a mention
)

// addressed takes off a text what makes it one to the service: "!news follow" and
// "@news: follow" are "follow".
func (s *Service) addressed(ev *Event, text string) (words string, how addressing) {
	for _, name := range []string{s.cfg.Prefix, string(s.cfg.User), "@" + s.cfg.User.Localpart(), s.cfg.DisplayName, s.cfg.User.Localpart()} {
		if name == "" || len(text) < len(name) || !strings.EqualFold(text[:len(name)], name) {
			continue
		}
		rest := text[len(name):]
		bare := name == s.cfg.Prefix || strings.HasPrefix(name, "@")
		after := strings.TrimLeft(rest, ":,： ")
		if rest == "" || bare && after != rest || strings.IndexAny(rest, ":,：") == 0 {
			how = named
			if m := ev.Message(); bare || m != nil && m.Mentions != nil && m.Mentions.Has(s.cfg.User) {
				how = called
			}
			return strings.TrimSpace(after), how
		}
	}
	return text, unnamed
}

// call finds the command with the longest name that a text begins with.
func (s *Service) call(tx *Tx, ev *Event, words string, direct bool) *Call {
	c := &Call{Event: ev, Direct: direct, Language: tx.language(ev.Sender, words), s: s}
	if words == "" {
		words = "help"
	}
	lower, best := strings.ToLower(words), ""
	for name := range s.commands {
		if len(name) > len(best) && (lower == name || strings.HasPrefix(lower, name+" ") || strings.HasPrefix(lower, name+"\n")) {
			best = name
		}
	}
	if best != "" {
		// ToLower may change the length of what follows the name, but not of the name,
		// which is in lower case.
		c.Command, c.Rest = s.commands[best], strings.TrimSpace(words[min(len(best), len(words)):])
	}
	return c
}

func firstWord(text string) string {
	word := strings.Fields(text + " ?")[0]
	if r := []rune(word); len(r) > 40 {
		word = string(r[:40]) + "…"
	}
	return word
}

// builtIn adds the commands that every service has which has any.
func (s *Service) builtIn() {
	if len(s.listed) == 0 {
		return
	}
	s.Command(Command{Name: "help", Aliases: []string{"?", "帮助"}, Help: "kit.help.help", Always: true, Run: s.help})
	if len(s.languages()) > 1 {
		s.Command(Command{Name: "language", Aliases: []string{"语言"}, Help: "kit.help.language", Always: true, Run: s.chooseLanguage})
	}
	s.Answer(oldCommand, s.meant)
}

// oldCommand is the question whether an old command is still meant.
const oldCommand = "kit.old"

// help answers with one message about everything.
func (s *Service) help(tx *Tx, c *Call) error {
	lines := []string{c.T("kit.help.intro")}
	for _, cmd := range s.listed {
		if cmd.Help == "" {
			continue
		}
		line := "• " + s.nameIn(c.Language, cmd)
		if cmd.Args != "" {
			line += " " + c.T(cmd.Args)
		}
		what := c.T(cmd.Help)
		if cmd.Help == "kit.help.language" {
			what = c.T(cmd.Help, strings.Join(s.languages(), ", "))
		}
		lines = append(lines, line+" – "+what)
	}
	if s.cfg.Prefix != "" {
		lines = append(lines, c.T("kit.help.prefix", s.cfg.Prefix))
	}
	tx.Reply(c.Event, strings.Join(lines, "\n"))
	return nil
}

// nameIn is the name of a command that has the script of a language.
func (s *Service) nameIn(lang string, c *Command) string {
	if lang == "zh" {
		for _, alias := range c.Aliases {
			if alias[0] >= 0x80 {
				return alias
			}
		}
	}
	return c.Name
}

func (s *Service) chooseLanguage(tx *Tx, c *Call) error {
	lang := strings.ToLower(c.Rest)
	switch lang {
	case "english", "英文", "英语":
		lang = "en"
	case "chinese", "中文", "汉语", "华语":
		lang = "zh"
	}
	if all := s.languages(); !slices.Contains(all, lang) {
		c.Answer(tx, "kit.language.unknown", strings.Join(all, ", "), all[len(all)-1])
		return nil
	}
	if err := tx.SetLanguage(c.Sender, lang); err != nil {
		return err
	}
	c.Language = lang
	c.Answer(tx, "kit.language.is")
	for _, f := range s.spoken {
		if err := f(tx, c); err != nil {
			return err
		}
	}
	return nil
}

// SetLanguage notes the language that a user wants to be spoken with.
func (tx *Tx) SetLanguage(user id.UserID, lang string) error {
	if err := tx.Exec(upsertUser, user); err != nil {
		return err
	}
	return tx.Exec(setLanguage, user, lang)
}

// askAgain asks whether a command is still meant.
func (s *Service) askAgain(tx *Tx, c *Call) error {
	age := int(s.clock.Now().Sub(c.Sent()) / time.Minute)
	tx.Ask(c.Event, Question{
		Name: oldCommand, Text: c.T("kit.old", age, c.Text()), Choices: []string{c.T("kit.yes")}, Data: said{c.ID, c.Text()},
	})
	return nil
}

// said is a command that was said a while ago.
type said struct {
	Event id.EventID `json:"event"`
	Text  string     `json:"text"`
}

// meant runs a command that was asked for again: as if it was said now, whatever was
// done to the event meanwhile.
func (s *Service) meant(tx *Tx, a *Answer) error {
	var old said
	if err := a.Data(&old); err != nil {
		return err
	}
	ev := *a.Event
	ev.ID, ev.Type, ev.Timestamp = old.Event, event.EventMessage, s.now()
	ev.Content = event.Content{Parsed: &event.MessageEventContent{MsgType: event.MsgText, Body: old.Text}}
	words, _ := s.addressed(&ev, old.Text)
	c := s.call(tx, &ev, words, a.Direct)
	if c.Command == nil {
		return fmt.Errorf("kit: the command %q is not known any more", firstWord(old.Text))
	}
	c.Language = a.Language
	return c.Command.Run(tx, c)
}
