package media

import (
	"context"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/media/storage"
)

// Target names files for an operator: one of its fields is set.
type Target struct {
	Ref  Ref
	User matrix.UserID // all that a user of this server has uploaded
	Room matrix.RoomID // all that unencrypted events of a room name
	Hash storage.Hash  // whatever has these bytes, also what comes later
}

// ParseTarget reads mxc://server/id, @user:server, !room, or sha256: and a hash.
func ParseTarget(text string) (t Target, err error) {
	hash, isHash := strings.CutPrefix(text, "sha256:")
	switch {
	case isHash:
		if t.Hash = storage.Hash(strings.ToLower(hash)); !t.Hash.Valid() {
			err = matrix.InvalidParam("sha256: is followed by 64 hexadecimal digits")
		}
	case strings.HasPrefix(text, "@"):
		t.User, err = matrix.ParseUserID(text)
	case strings.HasPrefix(text, "!"):
		t.Room, err = matrix.ParseRoomID(text)
	default:
		t.Ref, err = ParseRef(text)
	}
	return t, err
}

// Rooms knows what was written in rooms.
type Rooms interface {
	// Texts calls each with the JSON of every event of a room that the server has.
	Texts(ctx context.Context, room matrix.RoomID, each func(json []byte) error) error
}

// maxMentions bounds what is looked for in one event.
const maxMentions = 100

// Mentions finds the files that an event names, wherever in its JSON.
func Mentions(json []byte) []Ref {
	var refs []Ref
	rest := string(json)
	for len(refs) < maxMentions {
		_, after, found := strings.Cut(rest, "mxc://")
		if !found {
			break
		}
		rest = after
		end := strings.IndexFunc(rest, func(r rune) bool { return r == '"' || r == '\\' || r <= ' ' })
		if end < 0 {
			break
		}
		server, id, _ := strings.Cut(rest[:end], "/")
		id = id[:len(id)-len(strings.TrimLeftFunc(id, func(r rune) bool { return r < 0x80 && validID(string(r)) }))]
		if ref, err := NewRef(server, id); err == nil {
			refs = append(refs, ref)
		}
	}
	return refs
}

var (
	selectByUser = db.SQL(`SELECT ` + columns + ` WHERE m.uploader = $1 AND m.uploader <> '' AND m.nid > $2 ORDER BY m.nid LIMIT 500`)
	selectByHash = db.SQL(`SELECT ` + columns + ` WHERE m.hash = $1 AND m.nid > $2 ORDER BY m.nid LIMIT 500`)
)

// each calls do with the files of a target, in batches; of those in rooms also with
// those that are not here, which have no NID.
func (m *Media) each(ctx context.Context, t Target, do func([]Record) error) error {
	switch {
	case t.User != "":
		return m.eachRow(ctx, selectByUser, t.User, do)
	case t.Hash != "":
		return m.eachRow(ctx, selectByHash, t.Hash, do)
	case t.Room == "":
		return m.eachRef(ctx, []Ref{t.Ref}, do)
	}
	seen := map[Ref]bool{}
	return m.Rooms.Texts(ctx, t.Room, func(json []byte) error {
		var refs []Ref
		for _, ref := range Mentions(json) {
			if !seen[ref] {
				seen[ref] = true
				refs = append(refs, ref)
			}
		}
		return m.eachRef(ctx, refs, do)
	})
}

func (m *Media) eachRow(ctx context.Context, s *db.Stmt, by any, do func([]Record) error) error {
	for after := int64(0); ; {
		list, err := db.All(ctx, m.DB, s, scanRecord, by, after)
		if err != nil || len(list) == 0 {
			return err
		}
		if err := do(list); err != nil {
			return err
		}
		after = list[len(list)-1].NID
	}
}

func (m *Media) eachRef(ctx context.Context, refs []Ref, do func([]Record) error) error {
	list := make([]Record, len(refs))
	for i, ref := range refs {
		rec, found, err := lookup(ctx, m.DB, ref)
		if err != nil {
			return err
		}
		if list[i] = rec; !found {
			list[i] = Record{Ref: ref}
		}
	}
	if len(list) == 0 {
		return nil
	}
	return do(list)
}
