package appservices

import (
	"maps"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// maxNews bounds the rooms and users of which it is remembered that a service was
// not told yet.
const maxNews = 10_000

// news is what happened beside events and was not told to a service yet. It says
// only where to look: what is sent is how things stand when a transaction is made.
type news struct {
	behind   int64 // some receipts, or device lists, that concern it changed up to this position; 0 if none
	messages bool  // any of its users may have got messages to their devices
	typing   map[rooms.RoomNID]struct{}
	presence map[matrix.UserID]struct{}
	inboxes  map[matrix.UserID]struct{} // of users whose devices got messages
	keys     map[matrix.UserID]struct{} // of users whose keys are others, or fewer
}

// unknown is the news, up to a position, of a service of which nothing is remembered.
func unknown(position int64) news { return news{behind: max(position, 1), messages: true} }

func (n *news) empty() bool {
	return n.behind == 0 && !n.messages && len(n.typing)+len(n.presence)+len(n.inboxes)+len(n.keys) == 0
}

// add joins other news to these.
func (n *news) add(o news) {
	n.behind = max(n.behind, o.behind)
	n.messages = n.messages || o.messages
	n.typing = joinSets(n.typing, o.typing)
	n.presence = joinSets(n.presence, o.presence)
	n.inboxes = joinSets(n.inboxes, o.inboxes)
	n.keys = joinSets(n.keys, o.keys)
	if len(n.inboxes) >= maxNews {
		n.messages, n.inboxes = true, nil // these are not dropped, but looked for
	}
}

// joinSets adds to a set, up to a bound.
func joinSets[K comparable](to, more map[K]struct{}) map[K]struct{} {
	if to == nil {
		return maps.Clone(more)
	}
	for k := range more {
		if len(to) >= maxNews {
			break
		}
		to[k] = struct{}{}
	}
	return to
}

// some takes at most limit out of a set.
func some[K comparable](from map[K]struct{}, limit int) []K {
	var list []K
	for k := range from {
		if len(list) == limit {
			break
		}
		list = append(list, k)
		delete(from, k)
	}
	return list
}

func one[K comparable](k K) map[K]struct{} { return map[K]struct{}{k: {}} }
