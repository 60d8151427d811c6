package directory

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Publish lists a room in the public directory, in the commit that makes it.
func (d *Directory) Publish(tx *db.Tx, room matrix.RoomID) error {
	return tx.Exec(insertPublished, room)
}

type visibilityAnswer struct {
	Visibility string `json:"visibility"`
}

// getVisibility tells whether a room is published.
// spec: client-server#get_matrixclientv3directorylistroomroomid
func (d *Directory) getVisibility(ctx context.Context, _ *httpx.Caller, q *roomRequest) (*visibilityAnswer, error) {
	if _, err := d.Engine.Room(ctx, q.RoomID); err != nil {
		return nil, err
	}
	answer := &visibilityAnswer{"private"}
	public, err := d.published(ctx, q.RoomID)
	if public {
		answer.Visibility = "public"
	}
	return answer, err
}

type visibilityRequest struct {
	roomRequest
	Visibility string `json:"visibility"`
}

// putVisibility publishes a room or ends that.
// spec: client-server#put_matrixclientv3directorylistroomroomid
func (d *Directory) putVisibility(ctx context.Context, c *httpx.Caller, q *visibilityRequest) (*empty, error) {
	stmt := insertPublished
	switch q.Visibility {
	case "public", "":
	case "private":
		stmt = deletePublished
	default:
		return nil, matrix.InvalidParam("visibility must be public or private")
	}
	r, err := d.Engine.Room(ctx, q.RoomID)
	if err != nil {
		return nil, err
	}
	if ok, err := d.mayPresent(ctx, r, c); err != nil {
		return nil, err
	} else if !ok {
		return nil, matrix.Forbidden("Only who may set the room's main alias can publish it")
	}
	return nil, d.DB.Write(ctx, func(tx *db.Tx) error { return tx.Exec(stmt, q.RoomID) })
}

const (
	publicDefault = 100
	publicMax     = 500
	// publicScanned bounds how many rooms one request looks at.
	publicScanned = 2000
)

type publicRequest struct {
	Server matrix.ServerName `query:"server"`
	Limit  *int              `query:"limit"`
	Since  string            `query:"since"`
}

type searchRequest struct {
	Server matrix.ServerName `query:"server"`
	rooms.ListingQuery
}

// getPublicRooms lists the published rooms.
// spec: client-server#get_matrixclientv3publicrooms
func (d *Directory) getPublicRooms(ctx context.Context, c *httpx.Caller, q *publicRequest) (*rooms.ListingPage, error) {
	return d.postPublicRooms(ctx, c, &searchRequest{q.Server, rooms.ListingQuery{Limit: q.Limit, Since: q.Since}})
}

// postPublicRooms lists those that a filter picks, of this server or another one.
// spec: client-server#post_matrixclientv3publicrooms
func (d *Directory) postPublicRooms(ctx context.Context, _ *httpx.Caller, q *searchRequest) (*rooms.ListingPage, error) {
	if q.Limit != nil && *q.Limit < 0 {
		return nil, matrix.InvalidParam("limit must not be negative")
	}
	if q.Server == "" || q.Server == d.Engine.ServerName {
		return d.Published(ctx, q.ListingQuery)
	}
	if d.Remote == nil {
		return nil, matrix.NotFound("This server does not ask others for their rooms")
	}
	limit := pageLimit(q.Limit)
	q.Limit = &limit
	return d.Remote.PublicRooms(ctx, q.Server, q.ListingQuery)
}

func pageLimit(asked *int) int {
	if asked == nil || *asked <= 0 {
		return publicDefault
	}
	return min(*asked, publicMax)
}

// Published lists this server's published rooms, for whoever asks.
func (d *Directory) Published(ctx context.Context, q rooms.ListingQuery) (*rooms.ListingPage, error) {
	at, err := parseSince(q.Since)
	if err != nil {
		return nil, err
	}
	all, err := d.listed(ctx, q)
	if err != nil {
		return nil, err
	}
	l := &listing{directory: d, rooms: all, term: strings.ToLower(q.Filter.Term), types: q.Filter.Types}
	return l.page(ctx, at, pageLimit(q.Limit))
}

// listed lists the rooms that a directory has: our own, that of another network,
// which application services keep, or both.
func (d *Directory) listed(ctx context.Context, q rooms.ListingQuery) ([]matrix.RoomID, error) {
	var own, bridged []matrix.RoomID
	var err error
	if q.Network == "" {
		if own, err = db.All(ctx, d.DB, listPublished, scan[matrix.RoomID]); err != nil {
			return nil, err
		}
	}
	if d.Bridges != nil && (q.Network != "" || q.AllNetworks) {
		bridged, err = d.Bridges.Published(ctx, q.Network)
	}
	for _, id := range bridged {
		if !slices.Contains(own, id) {
			own = append(own, id)
		}
	}
	return own, err
}

// since is where a page of the list of published rooms starts, and which way it
// goes from there.
type since struct {
	offset int
	back   bool
}

func (s since) String() string {
	way := 'f'
	if s.back {
		way = 'b'
	}
	return fmt.Sprintf("p1_%d_%c", s.offset, way)
}

func parseSince(text string) (s since, err error) {
	if text == "" {
		return s, nil
	}
	if parts := strings.Split(text, "_"); len(parts) == 3 {
		s.offset, err = strconv.Atoi(parts[1])
		s.back = parts[2] == "b"
		if err == nil && s.offset >= 0 && s.String() == text {
			return s, nil
		}
	}
	return s, matrix.InvalidParam(`"since" is not a token of this server`)
}

// listing is the list of published rooms, largest first, and what is wanted of
// it.
type listing struct {
	directory *Directory
	rooms     []matrix.RoomID
	term      string // in lower case
	types     *[]*string
}

func (l *listing) page(ctx context.Context, at since, limit int) (*rooms.ListingPage, error) {
	answer := &rooms.ListingPage{Chunk: []rooms.Listing{}, Total: len(l.rooms)}
	low := min(at.offset, len(l.rooms))
	high := low
	for scanned := 0; len(answer.Chunk) < limit && scanned < publicScanned; scanned++ {
		var next matrix.RoomID
		if at.back {
			if low == 0 {
				break
			}
			low--
			next = l.rooms[low]
		} else {
			if high == len(l.rooms) {
				break
			}
			next = l.rooms[high]
			high++
		}
		entry, ok, err := l.entry(ctx, next)
		if err != nil {
			return nil, err
		}
		if ok {
			answer.Chunk = append(answer.Chunk, entry)
		}
	}
	if at.back {
		slices.Reverse(answer.Chunk)
	}
	if high < len(l.rooms) {
		answer.NextBatch = since{offset: high}.String()
	}
	if low > 0 {
		answer.PrevBatch = since{offset: low, back: true}.String()
	}
	return answer, nil
}

// entry shows one room, if the filter picks it.
func (l *listing) entry(ctx context.Context, id matrix.RoomID) (rooms.Listing, bool, error) {
	r, err := l.directory.Engine.Room(ctx, id)
	if err != nil {
		return rooms.Listing{}, false, err
	}
	s, err := l.directory.Engine.Summary(ctx, r)
	if err != nil {
		return rooms.Listing{}, false, err
	}
	return s.Listing, l.takes(&s.Listing), nil
}

func (l *listing) takes(r *rooms.Listing) bool {
	if l.types != nil && !slices.ContainsFunc(*l.types, func(t *string) bool {
		return t == nil && r.RoomType == "" || t != nil && *t == r.RoomType && *t != ""
	}) {
		return false
	}
	if l.term == "" {
		return true
	}
	for _, text := range []string{r.Name, r.Topic, r.CanonicalAlias, string(r.RoomID)} {
		if strings.Contains(strings.ToLower(text), l.term) {
			return true
		}
	}
	return false
}
