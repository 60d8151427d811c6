package auth

import (
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// powerLevels judges a change of power levels by a sender of the given power.
// spec: rooms/v12#authorisation-rules
func (c *check) powerLevels(power int64) error {
	fresh := levelsOf(c.e)
	if err := c.levelsWellFormed(fresh); err != nil {
		return err
	}
	previous := c.st.Event(matrix.TypePowerLevels, "")
	if previous == nil {
		return nil
	}
	old := levelsOf(previous)
	for i, name := range levelNames {
		if old.present[i] == fresh.present[i] && old.value[i] == fresh.value[i] {
			continue
		}
		if old.present[i] && old.value[i] > power {
			return c.reject(ruleLevelsChanged, ".1", "%s is %d, above the sender's power %d", name, old.value[i], power)
		}
		if fresh.present[i] && fresh.value[i] > power {
			return c.reject(ruleLevelsChanged, ".2", "%s becomes %d, above the sender's power %d", name, fresh.value[i], power)
		}
	}
	lists := [][2]map[string]int64{{old.events, fresh.events}}
	if c.v.NotificationLevels {
		lists = append(lists, [2]map[string]int64{old.notifications, fresh.notifications})
	}
	above := func(_ string, level int64) bool { return level > power }
	for _, l := range lists {
		if key, found := changed(l[0], l[1], above); found {
			return c.reject(ruleLevelsOldEntry, ".1", "the level of %q is %d, above the sender's power %d", key, l[0][key], power)
		}
	}
	for _, l := range lists {
		if key, found := changed(l[1], l[0], above); found {
			return c.reject(ruleLevelsNewEntry, ".1", "the level of %q becomes %d, above the sender's power %d", key, l[1][key], power)
		}
	}
	peer := func(user string, level int64) bool { return user != string(c.e.Sender) && level >= power }
	if user, found := changed(old.users, fresh.users, peer); found {
		return c.reject(ruleLevelsOldUser, ".1", "%s has power %d, the sender has %d", user, old.users[user], power)
	}
	if user, found := changed(fresh.users, old.users, above); found {
		return c.reject(ruleLevelsNewUser, ".1", "%s gets power %d, the sender has %d", user, fresh.users[user], power)
	}
	return nil
}

// levelsWellFormed judges the values themselves. Where the page has no rule
// against a value that is not a level, the event breaks the rule as a whole.
func (c *check) levelsWellFormed(l *levels) error {
	if l.badName != "" {
		return c.reject(ruleLevelsNumbers, "", "%s is not an integer", l.badName)
	}
	if l.badEvents != "" {
		return c.reject(ruleLevelsLists, "", "events: %s", l.badEvents)
	}
	if l.badNotifications != "" && c.v.NotificationLevels {
		return c.reject(ruleLevelsLists, "", "notifications: %s", l.badNotifications)
	}
	if l.badUsers != "" {
		return c.reject(ruleLevelsUsers, "", "users: %s", l.badUsers)
	}
	if !c.v.CreatorPower {
		return nil
	}
	for _, creator := range creationOf(c.create).creators {
		if _, listed := l.users[string(creator)]; listed {
			return c.malformed(ruleLevelsCreators, "users lists %s, who has unlimited power as a creator", creator)
		}
	}
	return nil
}

// changed finds an entry of a that b has not or has differently, and that bad
// objects to; of several the one with the smallest key.
func changed(a, b map[string]int64, bad func(key string, level int64) bool) (key string, found bool) {
	for k, level := range a {
		if other, ok := b[k]; ok && other == level || found && k > key {
			continue
		}
		if bad(k, level) {
			key, found = k, true
		}
	}
	return key, found
}
