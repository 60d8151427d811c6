package auth

import (
	"math"
	"strconv"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// PowerLevels are the levels of a room, defaults included. They never change.
type PowerLevels struct {
	Invite, Kick, Ban, Redact int64

	content *levels   // nil when the room has no power level event
	room    *creation // nil when it has no create event
}

// Levels reads the levels from the power level and create events of the state.
func Levels(st State) *PowerLevels {
	p := LevelsOf(st.Event(matrix.TypePowerLevels, ""), st.Event(matrix.TypeCreate, ""))
	return &p
}

// LevelsOf reads the levels from the two events that set them; either may be nil.
// spec: client-server#mroompower_levels
func LevelsOf(powerLevels, create *event.Event) PowerLevels {
	p := PowerLevels{Kick: 50, Ban: 50, Redact: 50}
	if create != nil {
		p.room = creationOf(create)
	}
	if powerLevels != nil {
		p.content = levelsOf(powerLevels)
		p.Invite = p.content.named(levelInvite, 0)
		p.Kick = p.content.named(levelKick, 50)
		p.Ban = p.content.named(levelBan, 50)
		p.Redact = p.content.named(levelRedact, 50)
	}
	return p
}

// User is the user's power; math.MaxInt64 for creators that stand above all.
func (p *PowerLevels) User(user matrix.UserID) int64 {
	creator := p.room != nil && p.room.isCreator(user)
	if creator && p.room.infinite {
		return math.MaxInt64
	}
	if p.content == nil {
		if creator {
			return 100
		}
		return 0
	}
	if power, ok := p.content.users[string(user)]; ok {
		return power
	}
	return p.content.named(levelUsersDefault, 0)
}

// IsCreator tells whether the user created the room, alone or with others.
func (p *PowerLevels) IsCreator(user matrix.UserID) bool {
	return p.room != nil && p.room.isCreator(user)
}

// Required is the power that sending an event of the type needs; membership has
// its own levels.
// spec: server-server#definitions
func (p *PowerLevels) Required(typ string, state bool) int64 {
	if p.content != nil {
		if level, ok := p.content.events[typ]; ok {
			return level
		}
	}
	switch {
	case state && p.content == nil:
		return 50
	case state:
		return p.content.named(levelStateDefault, 50)
	case p.content == nil:
		return 0
	}
	return p.content.named(levelEventsDefault, 0)
}

// Notification is the power that a kind of notification needs, such as "room".
func (p *PowerLevels) Notification(key string) int64 {
	if p.content != nil {
		if level, ok := p.content.notifications[key]; ok {
			return level
		}
	}
	return 50
}

// The levels with names of their own, in the order of the rule about them.
const (
	levelUsersDefault = iota
	levelEventsDefault
	levelStateDefault
	levelBan
	levelRedact
	levelKick
	levelInvite
	levelCount
)

var levelNames = [levelCount]string{
	"users_default", "events_default", "state_default", "ban", "redact", "kick", "invite",
}

// levels is the content of a power level event. Values that are not levels are
// left out; the first of each kind is named in the bad fields.
type levels struct {
	value   [levelCount]int64
	present [levelCount]bool

	events, notifications, users map[string]int64

	badName, badEvents, badNotifications, badUsers string
}

func (l *levels) named(i int, otherwise int64) int64 {
	if l.present[i] {
		return l.value[i]
	}
	return otherwise
}

func levelsOf(e *event.Event) *levels {
	if l, ok := e.Memo(func() any { return parseLevels(e) }).(*levels); ok {
		return l
	}
	return parseLevels(e)
}

func parseLevels(e *event.Event) *levels {
	content := fields(e.Content)
	l := &levels{}
	for i, name := range levelNames {
		raw, ok := content[name]
		if !ok {
			continue
		}
		if l.value[i], l.present[i] = level(e.Version, raw); !l.present[i] && l.badName == "" {
			l.badName = name
		}
	}
	l.events, l.badEvents = levelList(e.Version, content["events"])
	l.notifications, l.badNotifications = levelList(e.Version, content["notifications"])
	l.users, l.badUsers = levelList(e.Version, content["users"])
	for user := range l.users {
		if _, err := matrix.ParseUserID(user); err != nil && l.badUsers == "" {
			l.badUsers = strconv.Quote(user) + " is not a user id"
		}
	}
	return l
}

// levelList reads an object of levels. bad says what is wrong with it.
func levelList(v *event.Version, raw []byte) (list map[string]int64, bad string) {
	if raw == nil {
		return nil, ""
	}
	entries := fields(raw)
	if entries == nil {
		return nil, "it is not an object"
	}
	list = make(map[string]int64, len(entries))
	for key, raw := range entries {
		if n, ok := level(v, raw); ok {
			list[key] = n
		} else {
			bad = "the level of " + strconv.Quote(key) + " is not an integer"
		}
	}
	return list, bad
}

// level reads a power level: an integer, in versions that allow it also a text
// that is one, in versions that do not insist on canonical JSON also a float,
// which is truncated.
// spec: rooms/v1#deprecated-event-content-schemas
func level(v *event.Version, raw []byte) (int64, bool) {
	if s, ok := text(raw); ok {
		n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
		return n, err == nil && !v.IntegerLevels
	}
	if len(raw) == 0 || raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
		return 0, false
	}
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || v.StrictJSON {
		return 0, false
	}
	switch {
	case f >= math.MaxInt64:
		return math.MaxInt64, true
	case f <= math.MinInt64:
		return math.MinInt64, true
	}
	return int64(f), true
}
