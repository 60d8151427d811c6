package news

import (
	"context"
	"strings"

	"github.com/teahouse-chat/teahouse/appservices/kit"
)

// off are the words that end a setting.
func off(text string) bool {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "off", "none", "no", "关", "关闭", "无":
		return true
	}
	return false
}

// set changes how a room wants its news; the room need not follow anything yet.
func (j *job) set(tx *kit.Tx, s *kit.Stmt, args ...any) error {
	if err := tx.Exec(addRoom, j.room, j.language); err != nil {
		return err
	}
	return tx.Exec(s, append([]any{j.room}, args...)...)
}

// speak sets the language of what comes to a room by itself.
func (n *News) speak(_ context.Context, j *job) (outcome, error) {
	return func(tx *kit.Tx) error { return j.set(tx, setRoomLanguage, j.argument) }, nil
}

// filter sets the keywords of one feed: "filter 2 green tea, oolong". Without words it
// shows them.
func (n *News) filter(_ context.Context, j *job) (outcome, error) {
	name, rest, _ := strings.Cut(strings.TrimSpace(j.argument), " ")
	return func(tx *kit.Tx) error {
		list, err := subs(tx.Context(), tx, string(j.room))
		if err != nil {
			return err
		}
		s, ok := pick(list, name)
		if !ok {
			return j.answer(tx, "unknown", name)
		}
		keywords, problem := j.words(rest, s.keywords)
		if problem != "" {
			return j.reply(tx, problem)
		}
		if err := tx.Exec(setKeywords, j.room, s.feed, stored(keywords)); err != nil {
			return err
		}
		if len(keywords) == 0 {
			return j.answer(tx, "unfiltered", s.name())
		}
		return j.answer(tx, "filtered", s.name(), strings.Join(keywords, ", "))
	}, nil
}

// mute sets the words that no entry may have that comes to the room. Without words it
// shows them.
func (n *News) mute(_ context.Context, j *job) (outcome, error) {
	return func(tx *kit.Tx) error {
		r, _, err := readRoom(tx, string(j.room))
		if err != nil {
			return err
		}
		muted, problem := j.words(j.argument, stored(r.muted))
		if problem != "" {
			return j.reply(tx, problem)
		}
		if err := j.set(tx, setMuted, stored(muted)); err != nil {
			return err
		}
		if len(muted) == 0 {
			return j.answer(tx, "unmuted")
		}
		return j.answer(tx, "muted", strings.Join(muted, ", "))
	}, nil
}

// words are those that a command has a setting be: none if it ends the setting, and
// those that are stored if it names none. A problem is what to answer instead.
func (j *job) words(text, have string) (list []string, problem string) {
	if off(text) {
		return nil, ""
	}
	l := parseWords(text)
	if problem := l.refuses(j.language); problem != "" {
		return nil, problem
	}
	if len(l.words) == 0 {
		return split(have), ""
	}
	return l.words, ""
}

// digest sets the time of the day at which news come as a list: "digest 8:00",
// "digest 18:30 Asia/Shanghai", "digest off".
func (n *News) digest(ctx context.Context, j *job) (outcome, error) {
	if off(j.argument) {
		return func(tx *kit.Tx) error {
			if err := j.set(tx, setDigest, none, ""); err != nil {
				return err
			}
			return j.answer(tx, "undigested")
		}, nil
	}
	text, zoneName := cutTime(j.argument)
	minute, err := parseMinute(text)
	if err != nil {
		return j.says("badtime", text), nil
	}
	zone, ok := n.zone(ctx, j, zoneName)
	if !ok {
		return j.says("badzone", zoneName), nil
	}
	return func(tx *kit.Tx) error {
		if err := j.set(tx, setDigest, minute, zone); err != nil {
			return err
		}
		return j.answer(tx, "digested", clockText(minute), zone)
	}, nil
}

// quiet sets the hours in which nothing comes: "quiet 22:00-7:00", "quiet off".
func (n *News) quiet(ctx context.Context, j *job) (outcome, error) {
	if off(j.argument) {
		return func(tx *kit.Tx) error {
			if err := j.set(tx, setQuiet, none, none, ""); err != nil {
				return err
			}
			return j.answer(tx, "unquiet")
		}, nil
	}
	text, zoneName := cutTime(j.argument)
	begin, end, _ := strings.Cut(text, "-")
	from, err := parseMinute(begin)
	to, errTo := parseMinute(end)
	if err != nil || errTo != nil || from == to {
		return j.says("badtime", text), nil
	}
	zone, ok := n.zone(ctx, j, zoneName)
	if !ok {
		return j.says("badzone", zoneName), nil
	}
	return func(tx *kit.Tx) error {
		if err := j.set(tx, setQuiet, from, to, zone); err != nil {
			return err
		}
		return j.answer(tx, "quieted", clockText(from), clockText(to), zone)
	}, nil
}

// zone is the time zone that a command names, or else that of its sender's profile, or
// else UTC. False is a name that is none.
// spec: client-server#profiles
func (n *News) zone(ctx context.Context, j *job, name string) (string, bool) {
	if name = strings.TrimSpace(name); name != "" {
		return zoneNamed(name)
	}
	var profile struct {
		Zone string `json:"m.tz"`
	}
	if err := n.Client().GetProfileField(ctx, j.sender, "m.tz", &profile); err == nil {
		if zone, ok := zoneNamed(profile.Zone); ok {
			return zone, true
		}
	}
	return "UTC", true // many people have none, and many servers do not tell
}
