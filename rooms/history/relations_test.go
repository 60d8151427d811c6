package history_test

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

type relationsAnswer struct {
	Chunk     []clientEvent `json:"chunk"`
	NextBatch string        `json:"next_batch"`
	PrevBatch string        `json:"prev_batch"`
	Depth     *int          `json:"recursion_depth"`
}

// relationPages walks all pages.
func relationPages(g *Rig, user string, r *rooms.Room, path string, limit int) []matrix.EventID {
	g.Helper()
	met, from := []matrix.EventID{}, ""
	for range 1000 {
		q := fmt.Sprintf("&limit=%d&from=%s", limit, url.QueryEscape(from))
		page := Get[relationsAnswer](g, user, room1Path(r, "relations/"+path+q))
		if len(page.Chunk) > limit || page.PrevBatch != from {
			g.Fatalf("%s: a page of %d has %d events, prev_batch %q", path, limit, len(page.Chunk), page.PrevBatch)
		}
		met = append(met, idsOf(page.Chunk)...)
		if from = page.NextBatch; from == "" {
			return met
		}
	}
	g.Fatalf("%s: the pages do not end", path)
	return nil
}

// TestRelations pages through what relates to an event, in one step and in
// several.
func TestRelations(t *testing.T) {
	each(t, func(g *Rig) {
		r := g.Room("alice")
		g.Join(r, "bob")
		root := g.Say(r, "alice", "root")
		var direct, threaded, all []matrix.EventID
		for i := range 7 {
			relType := []string{"m.thread", "m.reference"}[i%2]
			reply := g.Send(r, "bob", Relation(relType, root, "")).ID
			direct, all = append(direct, reply), append(all, reply)
			if relType == "m.thread" {
				threaded = append(threaded, reply)
				deep := g.Send(r, "alice", Relation("m.replace", reply, `,"m.new_content":{}`)).ID
				deeper := g.Send(r, "bob", Relation("m.reference", deep, "")).ID
				all = append(all, deep, deeper)
				g.Send(r, "bob", Relation("m.reference", deeper, "")) // is too deep
			}
		}
		for limit := 1; limit < 9; limit++ {
			for path, want := range map[string][]matrix.EventID{
				"?": direct, "/m.thread?": threaded, "/m.thread/m.room.message?": threaded, "/m.thread/m.sticker?": {},
				"?recurse=true": all, "?recurse=false": direct,
			} {
				path = string(root) + path
				if got := relationPages(g, "alice", r, path+"&dir=f", limit); !slices.Equal(got, want) {
					g.Errorf("%s by %d: %d events, not %d", path, limit, len(got), len(want))
				}
				want = slices.Clone(want)
				slices.Reverse(want)
				if got := relationPages(g, "alice", r, path, limit); !slices.Equal(got, want) {
					g.Errorf("%s backwards by %d: %d events, not %d", path, limit, len(got), len(want))
				}
			}
		}
		deep := Get[relationsAnswer](g, "alice", room1Path(r, "relations/"+string(root)+"?recurse=true"))
		flat := Get[relationsAnswer](g, "alice", room1Path(r, "relations/"+string(root)))
		if deep.Depth == nil || *deep.Depth != 3 || flat.Depth != nil {
			g.Errorf("depths are %v and %v", deep.Depth, flat.Depth)
		}
		g.Refused("alice", "GET", room1Path(r, "relations/$nothing"), "", 404, matrix.CodeNotFound)
		g.Refused("alice", "GET", room1Path(r, "relations/"+string(root)+"?limit=0"), "", 400, matrix.CodeInvalidParam)
		g.Refused("alice", "GET", room1Path(r, "relations/"+string(root)+"?from=x"), "", 400, matrix.CodeInvalidParam)
	})
}

// TestForeignRelations keeps what another room's events say of an event out of
// its own room.
func TestForeignRelations(t *testing.T) {
	each(t, func(g *Rig) {
		r, other := g.Room("alice"), g.Room("alice")
		root := g.Say(r, "alice", "root")
		own := g.Send(r, "alice", Relation("m.thread", root, "")).ID
		for _, relType := range []string{"m.thread", "m.reference", "m.replace"} {
			g.Send(other, "alice", Relation(relType, root, `,"m.new_content":{}`))
		}
		for _, more := range []string{"", "?recurse=true"} {
			if got := idsOf(Get[relationsAnswer](g, "alice", room1Path(r, "relations/"+string(root)+more)).Chunk); !slices.Equal(got, []matrix.EventID{own}) {
				g.Errorf("relations%s: %v", more, got)
			}
		}
		bundle := bundleOf(g, "alice", r, root)
		if len(bundle) != 1 || bundle["m.thread"].(map[string]any)["count"] != 1.0 {
			g.Errorf("the bundle has what another room says: %v", bundle)
		}
	})
}

func bundleOf(g *Rig, user string, r *rooms.Room, id matrix.EventID) map[string]any {
	g.Helper()
	bundle, _ := Get[clientEvent](g, user, roomPath(r, "event/"+string(id))).Unsigned["m.relations"].(map[string]any)
	return bundle
}

// TestBundles shows the newest edit, references and the thread's summary with
// an event, from memory and from the database.
func TestBundles(t *testing.T) {
	each(t, func(g *Rig) {
		r := g.Room("alice")
		g.Join(r, "bob", "carol")
		root := g.Say(r, "alice", "root")
		g.Send(r, "alice", Relation("m.replace", root, `,"m.new_content":{"body":"first"}`))
		edit := g.Send(r, "alice", Relation("m.replace", root, `,"m.new_content":{"body":"second"}`)).ID
		g.Send(r, "bob", Relation("m.replace", root, `,"m.new_content":{"body":"of another"}`))
		g.Send(r, "alice", Relation("m.replace", root, ``))
		reference := g.Send(r, "bob", Relation("m.reference", root, "")).ID
		g.Send(r, "bob", Relation("m.thread", root, ""))
		last := g.Send(r, "bob", Relation("m.thread", root, "")).ID
		check := func(user string, participated bool, count float64, last matrix.EventID) {
			g.Helper()
			b := bundleOf(g, user, r, root)
			if b["m.replace"].(map[string]any)["event_id"] != string(edit) {
				g.Errorf("the newest edit: %v", b["m.replace"])
			}
			chunk := b["m.reference"].(map[string]any)["chunk"].([]any)
			if len(chunk) != 1 || chunk[0].(map[string]any)["event_id"] != string(reference) {
				g.Errorf("the references: %v", chunk)
			}
			thread := b["m.thread"].(map[string]any)
			if thread["count"] != count || thread["current_user_participated"] != participated ||
				thread["latest_event"].(map[string]any)["event_id"] != string(last) {
				g.Errorf("the thread for %s: %v", user, thread)
			}
		}
		for range 2 {
			check("alice", true, 2, last)
			check("bob", true, 2, last)
			check("carol", false, 2, last)
			g.Reload()
			r, _ = g.Engine.Room(g.Context(), r.ID)
		}
		for range 150 {
			g.Say(r, "carol", "much later")
		}
		check("carol", false, 2, last)
		more := g.Send(r, "carol", Relation("m.thread", root, "")).ID
		check("carol", true, 3, more)
		g.Send(r, "carol", rooms.Proto{Type: matrix.TypeRedaction, Content: fmt.Appendf(nil, `{"redacts":%q}`, more), Redacts: more})
		check("carol", false, 2, last)
		g.Send(r, "alice", rooms.Proto{Type: matrix.TypeRedaction, Content: fmt.Appendf(nil, `{"redacts":%q}`, root), Redacts: root})
		b := bundleOf(g, "carol", r, root)
		if b["m.replace"] != nil || b["m.thread"] == nil {
			g.Errorf("a redacted root has %v", b)
		}
	})
}

type threadsAnswer struct {
	Chunk     []clientEvent `json:"chunk"`
	NextBatch string        `json:"next_batch"`
}

// TestThreads lists threads by their latest replies, in pages.
func TestThreads(t *testing.T) {
	each(t, func(g *Rig) {
		chance := rand.New(rand.NewPCG(3, 4))
		r := g.Room("alice")
		g.Join(r, "bob", "troll")
		var roots []matrix.EventID
		for range 12 {
			roots = append(roots, g.Say(r, "alice", "root"))
		}
		roots = append(roots, g.Say(r, "troll", "bait"))
		mine := map[matrix.EventID]bool{}
		latest := map[matrix.EventID]int{}
		for i := range 60 {
			root := roots[chance.IntN(len(roots))]
			user := "alice"
			if chance.IntN(5) == 0 {
				user, mine[root] = "bob", true
			}
			g.Send(r, user, Relation("m.thread", root, ""))
			latest[root] = i
		}
		slices.SortFunc(roots, func(a, b matrix.EventID) int { return latest[b] - latest[a] })
		own := slices.DeleteFunc(slices.Clone(roots), func(id matrix.EventID) bool { return !mine[id] })
		for limit := 1; limit < 14; limit += 4 {
			for include, want := range map[string][]matrix.EventID{"all": roots, "participated": own} {
				got, from := []matrix.EventID{}, ""
				for range 30 {
					page := Get[threadsAnswer](g, "bob", room1Path(r, fmt.Sprintf("threads?include=%s&limit=%d&from=%s", include, limit, from)))
					got = append(got, idsOf(page.Chunk)...)
					for _, e := range page.Chunk {
						if e.Sender == User("troll") && e.body() != "" {
							g.Errorf("an ignored user's thread shows what they said")
						}
					}
					if from = page.NextBatch; from == "" {
						break
					}
				}
				if !slices.Equal(got, want) {
					g.Errorf("%s by %d: %d threads, not %d", include, limit, len(got), len(want))
				}
			}
		}
		g.Refused("bob", "GET", room1Path(r, "threads?include=some"), "", 400, matrix.CodeInvalidParam)
		g.Refused("bob", "GET", room1Path(r, "threads?from=some"), "", 400, matrix.CodeInvalidParam)
	})
}
