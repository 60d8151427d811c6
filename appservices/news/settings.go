package news

import (
	"context"
	"strings"
	"time"

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

// filter sets the keywords of one feed: "filter 2 green tea, oolong".
func (n *News) filter(_ context.Context, j *job) (outcome, error) {
	name, words, _ := strings.Cut(strings.TrimSpace(j.argument), " ")
	return func(tx *kit.Tx) error {
		list, err := subs(tx.Context(), tx, string(j.room))
		if err != nil {
			return err
		}
		s, ok := pick(list, name)
		if !ok {
			return j.answer(tx, "unknown", name)
		}
		if off(words) || len(parseWords(words)) == 0 {
			if err := tx.Exec(setKeywords, j.room, s.feed, ""); err != nil {
				return err
			}
			return j.answer(tx, "unfiltered", s.name())
		}
		keywords := parseWords(words)
		if err := tx.Exec(setKeywords, j.room, s.feed, stored(keywords)); err != nil {
			return err
		}
		return j.answer(tx, "filtered", s.name(), strings.Join(keywords, ", "))
	}, nil
}

// mute sets the words that no entry may have that comes to the room.
func (n *News) mute(_ context.Context, j *job) (outcome, error) {
	words := parseWords(j.argument)
	return func(tx *kit.Tx) error {
		if off(j.argument) || len(words) == 0 {
			if err := j.set(tx, setMuted, ""); err != nil {
				return err
			}
			return j.answer(tx, "unmuted")
		}
		if err := j.set(tx, setMuted, stored(words)); err != nil {
			return err
		}
		return j.answer(tx, "muted", strings.Join(words, ", "))
	}, nil
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
	text, zoneName, _ := strings.Cut(strings.TrimSpace(j.argument), " ")
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
	text, zoneName, _ := strings.Cut(strings.NewReplacer(" - ", "-", "–", "-", "—", "-", "～", "-", "~", "-").Replace(strings.TrimSpace(j.argument)), " ")
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
	name = strings.TrimSpace(name)
	if name == "" {
		var profile struct {
			Zone string `json:"m.tz"`
		}
		if err := n.Client().GetProfileField(ctx, j.sender, "m.tz", &profile); err != nil || profile.Zone == "" || !isZone(profile.Zone) {
			return "UTC", true // many people have none, and many servers do not tell
		}
		name = profile.Zone
	}
	return name, isZone(name)
}

func isZone(name string) bool {
	_, err := time.LoadLocation(name)
	return err == nil && name != "Local"
}
