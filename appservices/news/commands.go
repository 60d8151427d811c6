package news

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit"
)

// listen adds what people can say, and what else concerns the service.
func (n *News) listen() {
	n.Command(kit.Command{Name: "follow", Aliases: []string{"subscribe", "add", "关注", "订阅"}, Args: "args.url", Help: "help.follow", Run: n.later("follow")})
	n.Command(kit.Command{Name: "unfollow", Aliases: []string{"unsubscribe", "remove", "取消关注", "退订"}, Args: "args.feed", Help: "help.unfollow", Run: n.later("unfollow")})
	n.Command(kit.Command{Name: "list", Aliases: []string{"列表"}, Help: "help.list", Always: true, Run: n.list})
	n.Command(kit.Command{Name: "filter", Aliases: []string{"筛选"}, Args: "args.filter", Help: "help.filter", Run: n.later("filter")})
	n.Command(kit.Command{Name: "mute", Aliases: []string{"屏蔽"}, Args: "args.words", Help: "help.mute", Run: n.later("mute")})
	n.Command(kit.Command{Name: "digest", Aliases: []string{"摘要"}, Args: "args.digest", Help: "help.digest", Run: n.later("digest")})
	n.Command(kit.Command{Name: "quiet", Aliases: []string{"安静"}, Args: "args.quiet", Help: "help.quiet", Run: n.later("quiet")})
	n.Command(kit.Command{Name: "top", Aliases: []string{"热门"}, Help: "help.top", Always: true, Run: n.top})
	n.Command(kit.Command{Name: "save", Aliases: []string{"收藏"}, Help: "help.save", Always: true, Run: n.save})
	n.Command(kit.Command{Name: "saved", Aliases: []string{"收藏夹"}, Help: "help.saved", Always: true, Run: n.saved})
	n.Command(kit.Command{Name: "import", Aliases: []string{"导入"}, Args: "args.import", Help: "help.import", Run: n.later("import")})
	n.Command(kit.Command{Name: "export", Aliases: []string{"导出"}, Help: "help.export", Run: n.later("export")})
	n.Command(kit.Command{Name: "publish", Aliases: []string{"发布"}, Args: "args.url", Help: "help.publish", Run: n.later("publish")})
	n.Command(kit.Command{Name: "unpublish", Aliases: []string{"取消发布"}, Args: "args.published", Help: "help.unpublish", Run: n.later("unpublish")})
	n.On(event.EventMessage, n.file)
	n.On(event.EventReaction, n.reaction)
	n.On(event.EventRedaction, n.redaction)
	n.On(event.StatePowerLevels, n.changed)
	n.OnLeft(n.left)
	n.OnRefused(n.refusal)
	n.OnLanguage(n.language)
}

// maxArgument is how much of a command is heeded: an answer may repeat it.
const maxArgument = 4 << 10

// followsAtOnce is how many addresses one command follows.
const followsAtOnce = 10

// later is a command that becomes a job.
func (n *News) later(kind string) func(*kit.Tx, *kit.Call) error {
	return func(tx *kit.Tx, c *kit.Call) error {
		argument := strings.ReplaceAll(c.Rest[:min(len(c.Rest), maxArgument)], "\x00", "") // which no database takes
		argument = strings.ToValidUTF8(argument, "")
		if kind == "import" && argument == "" {
			argument = attached(c)
		}
		if argument == "" && c.Command.Args != "" && kind != "mute" {
			tx.Reply(c.Event, say(c.Language, "usage", c.Usage()))
			return nil
		}
		arguments := []string{argument}
		if list := strings.Fields(argument); kind == "follow" && len(list) > 1 && !slices.ContainsFunc(list, noAddress) {
			arguments = list
		}
		if len(arguments) > followsAtOnce {
			tx.Reply(c.Event, say(c.Language, "fewer", followsAtOnce))
			return nil
		}
		tx.Then(n.work.wake)
		for _, argument := range arguments {
			if err := tx.Exec(addJob, tx.Next("jobs"), kind, c.RoomID, c.ID, c.Thread(), c.Sender, c.Direct, c.Language, argument); err != nil {
				return err
			}
		}
		return nil
	}
}

// noAddress tells that a word is surely none.
func noAddress(word string) bool { return !strings.Contains(word, ".") }

// attached is where the list of an import without an address is: in the file that has
// the command as its caption, or in the event that it is a reply to.
func attached(c *kit.Call) string {
	if m := c.Message(); m != nil && m.MsgType == event.MsgFile {
		return string(m.URL)
	}
	return string(repliedTo(c))
}

// file imports the list of feeds that somebody sends in a direct chat without a word.
func (n *News) file(tx *kit.Tx, ev *kit.Event) error {
	m := ev.Message()
	if m == nil || m.MsgType != event.MsgFile || m.RelatesTo != nil && m.RelatesTo.Type == event.RelReplace || !tx.IsDirect(ev) {
		return nil
	}
	tx.Then(n.work.wake)
	return tx.Exec(addJob, tx.Next("jobs"), "import", ev.RoomID, ev.ID, ev.Thread(), ev.Sender, true, tx.Language(ev.Sender), string(m.URL))
}

// repliedTo is the event that a command is a reply to; "" for none.
func repliedTo(c *kit.Call) id.EventID {
	if m := c.Message(); m != nil {
		return m.RelatesTo.GetReplyTo()
	}
	return ""
}

// list shows what the room follows.
func (n *News) list(tx *kit.Tx, c *kit.Call) error {
	list, err := subs(tx.Context(), tx, string(c.RoomID))
	if err != nil {
		return err
	}
	r, found, err := readRoom(tx, string(c.RoomID))
	if err != nil {
		return err
	}
	lines := []string{say(c.Language, "list")}
	if len(list) == 0 {
		lines[0] = say(c.Language, "nothing")
	}
	for i, s := range list {
		line := fmt.Sprintf("%d. %s", i+1, linked(s.name(), s.url))
		if s.keywords != "" {
			line += "\n    " + say(c.Language, "only", strings.Join(split(s.keywords), ", "))
		}
		switch {
		case s.problem != "":
			line += "\n    " + say(c.Language, "problem", inWords(c.Language, s.problem))
		case !s.fetched:
			line += "\n    " + say(c.Language, "unfetched")
		}
		lines = append(lines, line)
	}
	if len(r.muted) > 0 {
		lines = append(lines, say(c.Language, "mutes", strings.Join(r.muted, ", ")))
	}
	if found && r.digest != none {
		lines = append(lines, say(c.Language, "digested", clockText(r.digest), r.zone))
	}
	if found && r.quietFrom != none {
		lines = append(lines, say(c.Language, "quieted", clockText(r.quietFrom), clockText(r.quietTo), r.quietZone))
	}
	for _, text := range messagesOf(lines) {
		tx.Reply(c.Event, text)
	}
	return nil
}

// messagesOf puts lines together to messages that events have room for.
func messagesOf(lines []string) []string {
	var all []string
	var b strings.Builder
	for _, line := range lines {
		if b.Len() > 0 && b.Len()+len(line) > maxListBytes {
			all = append(all, b.String())
			b.Reset()
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(line)
	}
	return append(all, b.String())
}

const (
	topDays   = 7
	topCount  = 10
	saveEmoji = "🔖"
)

// story is an entry as lists of single ones show it.
type story struct {
	title, link, from string
	votes             int
}

// top shows the entries that most people reacted to.
func (n *News) top(tx *kit.Tx, c *kit.Call) error {
	since := n.now().Add(-topDays * 24 * time.Hour).UnixMilli()
	list, err := kit.All(tx.Context(), tx, topPosts, func(r kit.Scanner) (s story, err error) {
		var e entry
		err = r.Scan(&e.title, &e.link, &e.text, &e.from, &e.address, &s.votes)
		s.title, s.link, s.from = e.heading(), e.link, e.name()
		return s, err
	}, c.RoomID, since, topCount)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		tx.Reply(c.Event, say(c.Language, "notop"))
		return nil
	}
	lines := []string{say(c.Language, "top")}
	for i, s := range list {
		lines = append(lines, fmt.Sprintf("%d. %s (%s, +%d)", i+1, linked(s.title, s.link), s.from, s.votes))
	}
	tx.Reply(c.Event, strings.Join(lines, "\n"))
	return nil
}

// save keeps what a message of ours shows, for who answers it with "save".
func (n *News) save(tx *kit.Tx, c *kit.Call) error {
	kept, err := n.keepFor(tx, c.Sender, repliedTo(c))
	if err != nil {
		return err
	}
	if !kept {
		tx.Reply(c.Event, say(c.Language, "savewhat"))
		return nil
	}
	tx.Reply(c.Event, say(c.Language, "saved"))
	return nil
}

// keepFor keeps the entries of a message for somebody; false if it is none of ours.
func (n *News) keepFor(tx *kit.Tx, who id.UserID, message id.EventID) (bool, error) {
	ref, ok := tx.Sent(message)
	if !ok {
		return false, nil
	}
	list, err := kit.All(tx.Context(), tx, postsOfRef, func(r kit.Scanner) (s story, err error) {
		var e entry
		err = r.Scan(&e.title, &e.link, &e.text)
		s.title, s.link = e.heading(), e.link
		return s, err
	}, int64(ref))
	if err != nil {
		return false, err
	}
	for _, s := range list {
		if err := tx.Exec(addSaved, who, s.link, s.title, n.now().UnixMilli()); err != nil {
			return false, err
		}
	}
	return len(list) > 0, nil
}

// saved shows what somebody kept, to nobody else.
func (n *News) saved(tx *kit.Tx, c *kit.Call) error {
	if !c.Direct {
		tx.Reply(c.Event, say(c.Language, "private"))
		return nil
	}
	list, err := kit.All(tx.Context(), tx, savedOf, func(r kit.Scanner) (s story, err error) {
		err = r.Scan(&s.title, &s.link)
		return s, err
	}, c.Sender)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		tx.Reply(c.Event, say(c.Language, "nosaved"))
		return nil
	}
	lines := []string{say(c.Language, "savedlist")}
	for i, s := range list {
		lines = append(lines, fmt.Sprintf("%d. %s", i+1, linked(s.title, s.link)))
	}
	for _, text := range messagesOf(lines) {
		tx.Reply(c.Event, text)
	}
	return nil
}

// reaction counts what people react to, and keeps what they mark.
func (n *News) reaction(tx *kit.Tx, ev *kit.Event) error {
	r, ok := ev.Content.Parsed.(*event.ReactionEventContent)
	if !ok || r.RelatesTo.EventID == "" {
		return nil
	}
	if strings.TrimSuffix(r.RelatesTo.Key, "\ufe0f") == saveEmoji {
		_, err := n.keepFor(tx, ev.Sender, r.RelatesTo.EventID)
		return err
	}
	ref, ok := tx.Sent(r.RelatesTo.EventID)
	if !ok {
		return nil
	}
	return tx.Exec(addVote, ev.ID, int64(ref), placeIn(r.RelatesTo.Key), ev.Sender, n.now().UnixMilli())
}

// placeIn is the number that a reaction is, "3", "3️⃣" or "🔟"; 0 for none.
func placeIn(key string) int {
	key = strings.NewReplacer("\ufe0f", "", "\u20e3", "", "🔟", "10").Replace(key)
	number, err := strconv.Atoi(key)
	if err != nil || number < 1 || number > maxList {
		return 0
	}
	return number
}

// redaction takes a reaction back.
func (n *News) redaction(tx *kit.Tx, ev *kit.Event) error {
	what := ev.Redacts
	if c, ok := ev.Content.Parsed.(*event.RedactionEventContent); ok && c.Redacts != "" {
		what = c.Redacts
	}
	return tx.Exec(removeVote, what)
}

// language has a room be told things in the language that somebody chose there, if they
// may change the room.
func (n *News) language(tx *kit.Tx, c *kit.Call) error {
	tx.Then(n.work.wake)
	return tx.Exec(addJob, tx.Next("jobs"), "language", c.RoomID, c.ID, c.Thread(), c.Sender, c.Direct, c.Language, c.Language)
}
