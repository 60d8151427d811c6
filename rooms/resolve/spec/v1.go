package spec

import (
	"crypto/sha1"
	"encoding/hex"
	"sort"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
)

// resolveV1 is the algorithm of room version 1, with the two things that its text
// leaves open as servers do them: the conflicts of one pass do not see each
// other's results, and where nothing is allowed the lowest depth stands.
// spec: rooms/v1#state-resolution
func (r *Room) resolveV1(states []State) State {
	candidates := map[auth.Key]Set{}
	for _, s := range states {
		for key, id := range s {
			if candidates[key] == nil {
				candidates[key] = Set{}
			}
			candidates[key][id] = true
		}
	}
	agreed, _ := split(states)
	resolved := State{}
	conflicts := map[auth.Key][]matrix.EventID{}
	for key, set := range candidates {
		if agreed[key] == "" {
			set = minus(set, r.Rejected)
		}
		list := r.byDepth(set)
		if len(list) == 1 {
			resolved[key] = list[0]
		} else if len(list) > 1 {
			conflicts[key] = list
		}
	}
	for _, typ := range []string{matrix.TypePowerLevels, matrix.TypeJoinRules, matrix.TypeMember} {
		before := copyOf(resolved)
		for key, list := range conflicts {
			if key.Type == typ {
				resolved[key] = r.climb(before, key, list)
				delete(conflicts, key)
			}
		}
	}
	before := copyOf(resolved)
	for key, list := range conflicts {
		resolved[key] = list[0]
		for i := len(list) - 1; i > 0; i-- {
			if auth.Check(r.Events[list[i]], View{r, before}) == nil {
				resolved[key] = list[i]
				break
			}
		}
	}
	return resolved
}

// climb starts with the first event and goes on while the next is allowed by the
// state with the one before.
func (r *Room) climb(before State, key auth.Key, list []matrix.EventID) matrix.EventID {
	s := copyOf(before)
	s[key] = list[0]
	for _, id := range list[1:] {
		if auth.Check(r.Events[id], View{r, s}) != nil {
			break
		}
		s[key] = id
	}
	return s[key]
}

// byDepth sorts by ascending depth, then descending sha1 of the event id.
func (r *Room) byDepth(set Set) []matrix.EventID {
	var list []matrix.EventID
	for id := range set {
		list = append(list, id)
	}
	hash := func(id matrix.EventID) string {
		sum := sha1.Sum([]byte(id))
		return hex.EncodeToString(sum[:])
	}
	sort.Slice(list, func(i, j int) bool {
		x, y := list[i], list[j]
		if dx, dy := r.Events[x].Depth, r.Events[y].Depth; dx != dy {
			return dx < dy
		}
		return hash(x) > hash(y)
	})
	return list
}

func copyOf(s State) State {
	c := State{}
	for key, id := range s {
		c[key] = id
	}
	return c
}
