package resolve

import (
	"container/heap"
	"fmt"
	"slices"

	"github.com/teahouse-chat/teahouse/rooms/state"
)

// graph holds the part of a room's auth graph that a resolution has seen.
type graph struct {
	src     Source
	records map[state.EventNID]*Record
	auth    map[state.EventNID][]state.EventNID
}

func newGraph(src Source) *graph {
	return &graph{
		src:     src,
		records: make(map[state.EventNID]*Record),
		auth:    make(map[state.EventNID][]state.EventNID),
	}
}

// load fetches the records that are not there yet, in one batch.
func (g *graph) load(nids []state.EventNID) error {
	var missing []state.EventNID
	for _, nid := range nids {
		if _, ok := g.records[nid]; !ok {
			missing = append(missing, nid)
			g.records[nid] = nil // asked for once
		}
	}
	if len(missing) == 0 {
		return nil
	}
	records, err := g.src.Records(missing)
	if err != nil {
		return err
	}
	if len(records) != len(missing) {
		return fmt.Errorf("asked for %d events, got %d", len(missing), len(records))
	}
	for i, rec := range records {
		if rec == nil || rec.NID != missing[i] {
			return fmt.Errorf("event %d is missing", missing[i])
		}
		g.records[rec.NID] = rec
		if err := g.keepAuth(rec.NID, rec.Auth); err != nil {
			return err
		}
	}
	return nil
}

// loadAuth fetches the auth events of events, and no more than that if the
// source can.
func (g *graph) loadAuth(nids []state.EventNID) error {
	src, ok := g.src.(AuthSource)
	if !ok {
		return g.load(nids)
	}
	var missing []state.EventNID
	for _, nid := range nids {
		if _, ok := g.auth[nid]; !ok {
			missing = append(missing, nid)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	lists, err := src.AuthEvents(missing)
	if err != nil {
		return err
	}
	if len(lists) != len(missing) {
		return fmt.Errorf("asked for the auth events of %d events, got %d", len(missing), len(lists))
	}
	for i, nid := range missing {
		if err := g.keepAuth(nid, lists[i]); err != nil {
			return err
		}
	}
	return nil
}

func (g *graph) keepAuth(nid state.EventNID, auth []state.EventNID) error {
	for _, a := range auth {
		if a >= nid || a <= 0 {
			return fmt.Errorf("event %d names event %d as an auth event, which is not older", nid, a)
		}
	}
	g.auth[nid] = auth
	return nil
}

// loadWithAuth fetches the records of events and of their auth events.
func (g *graph) loadWithAuth(nids []state.EventNID) error {
	if err := g.load(nids); err != nil {
		return err
	}
	var auth []state.EventNID
	for _, nid := range nids {
		auth = append(auth, g.auth[nid]...)
	}
	return g.load(auth)
}

// subgraph returns the events on the paths between events of the set, which is
// ascending, ends included.
// spec: rooms/v12#definitions
func (g *graph) subgraph(set []state.EventNID) ([]state.EventNID, error) {
	if len(set) == 0 {
		return nil, nil
	}
	seen := make(map[state.EventNID]struct{}, 2*len(set))
	for _, nid := range set {
		seen[nid] = struct{}{}
	}
	below := slices.Clone(set)
	for frontier := set; len(frontier) > 0; {
		if err := g.loadAuth(frontier); err != nil {
			return nil, err
		}
		var next []state.EventNID
		for _, nid := range frontier {
			for _, a := range g.auth[nid] {
				// Nothing under the oldest event of the set leads back to it.
				if _, ok := seen[a]; !ok && a > set[0] {
					seen[a] = struct{}{}
					next = append(next, a)
				}
			}
		}
		below = append(below, next...)
		frontier = next
	}
	slices.Sort(below)
	between := make(map[state.EventNID]struct{}, len(set))
	for _, nid := range set {
		between[nid] = struct{}{}
	}
	for _, nid := range below {
		for _, a := range g.auth[nid] {
			if _, ok := between[a]; ok {
				between[nid] = struct{}{}
				break
			}
		}
	}
	return slices.DeleteFunc(below, func(nid state.EventNID) bool {
		_, ok := between[nid]
		return !ok
	}), nil
}

// newest is a heap of events, the largest number on top.
type newest []state.EventNID

func (h newest) Len() int           { return len(h) }
func (h newest) Less(i, j int) bool { return h[i] > h[j] }
func (h newest) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *newest) Push(x any)        { *h = append(*h, x.(state.EventNID)) }
func (h *newest) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

var _ heap.Interface = (*newest)(nil)
