package directory

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Resolve finds the room of an alias, and servers that are in it; 404
// M_NOT_FOUND. Other servers are asked for their aliases.
func (d *Directory) Resolve(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
	if alias.Server() != d.Engine.ServerName && d.Remote != nil {
		return d.Remote.Alias(ctx, alias)
	}
	return d.Local(ctx, alias)
}

// Local finds the room of an alias of this server, and servers that are in it;
// 404 M_NOT_FOUND.
func (d *Directory) Local(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
	e, found, err := d.alias(ctx, alias)
	if err == nil && !found && d.Bridges != nil && alias.Server() == d.Engine.ServerName {
		var made bool
		if made, err = d.Bridges.MakeAlias(ctx, alias); made && err == nil {
			e, found, err = d.alias(ctx, alias)
		}
	}
	if err != nil {
		return "", nil, err
	}
	if !found {
		return "", nil, noAlias(alias)
	}
	servers, err := d.servers(ctx, e.room)
	return e.room, servers, err
}

// maxServers bounds the servers by which a room is to be joined.
const maxServers = 50

// servers lists servers that are in a room, this one first if it is.
func (d *Directory) servers(ctx context.Context, id matrix.RoomID) ([]matrix.ServerName, error) {
	own := []matrix.ServerName{d.Engine.ServerName}
	r, err := d.Engine.Room(ctx, id)
	if err != nil {
		if matrix.HasCode(err, matrix.CodeNotFound) {
			err = nil
		}
		return own, err
	}
	others := r.Servers()
	others = others[:min(len(others), maxServers)]
	if r.LocalMemberCount() == 0 && len(others) > 0 {
		return slices.Clone(others), nil
	}
	return append(own, others...), nil
}

func noAlias(alias matrix.RoomAlias) error {
	return matrix.NotFound("There is no room alias %s", alias)
}

// Check tells whether the caller may take a local alias that is free; otherwise
// 400 M_ROOM_IN_USE, M_INVALID_PARAM or M_EXCLUSIVE.
func (d *Directory) Check(ctx context.Context, alias matrix.RoomAlias, c *httpx.Caller) error {
	if err := d.claimable(alias, c); err != nil {
		return err
	}
	_, found, err := d.alias(ctx, alias)
	if err == nil && found {
		err = inUse(alias)
	}
	return err
}

// claimable tells whether a caller may take an alias, if it is free.
func (d *Directory) claimable(alias matrix.RoomAlias, c *httpx.Caller) error {
	switch {
	case alias.Server() != d.Engine.ServerName:
		return matrix.InvalidParam("%s is not an alias of this server, %s", alias, d.Engine.ServerName)
	case alias.Localpart() == "":
		return matrix.InvalidParam("A room alias needs a name before the server's")
	}
	return d.unclaimed(alias, c)
}

// unclaimed fails with 400 M_EXCLUSIVE for aliases that other application services
// keep for themselves, and for services where they do not claim the alias.
// spec: application-service#server-admin-style-permissions
func (d *Directory) unclaimed(alias matrix.RoomAlias, c *httpx.Caller) error {
	if d.Claims == nil || d.Claims.MayAlias(alias, c.User, c.Appservice) {
		return nil
	}
	text := "An application service keeps this alias for itself"
	if c.Appservice != "" {
		text = "The alias is not in the namespaces of the application service, or another one keeps it for itself"
	}
	return matrix.NewError(http.StatusBadRequest, matrix.CodeExclusive, "%s", text)
}

func inUse(alias matrix.RoomAlias) error {
	return matrix.NewError(http.StatusBadRequest, matrix.CodeRoomInUse, "The room alias %s is taken", alias)
}

// AliasesMoved is published on the stream when a room has got an alias of this
// server, or lost one.
type AliasesMoved struct{ Room matrix.RoomID }

// AliasesOf lists a room's aliases of this server.
func (d *Directory) AliasesOf(ctx context.Context, room matrix.RoomID) ([]matrix.RoomAlias, error) {
	return db.All(ctx, d.DB, aliasesOf, scan[matrix.RoomAlias], room)
}

// Add stores an alias in the commit that makes it true.
func (d *Directory) Add(tx *db.Tx, alias matrix.RoomAlias, room matrix.RoomID, user matrix.UserID) error {
	tx.Publish(AliasesMoved{room})
	n, err := tx.Changed(insertAlias, alias, room, user)
	if err == nil && n == 0 {
		err = inUse(alias)
	}
	return err
}

// Move gives an upgraded room's local aliases, and its place in the public
// directory, to its replacement.
// spec: client-server#server-behaviour-19
func (d *Directory) Move(tx *db.Tx, from, to matrix.RoomID) error {
	tx.Publish(AliasesMoved{from})
	tx.Publish(AliasesMoved{to})
	if err := tx.Exec(moveAliases, to, from); err != nil {
		return err
	}
	if err := tx.Exec(copyPublished, to, from); err != nil {
		return err
	}
	return tx.Exec(deletePublished, from)
}

type aliasRequest struct {
	Alias matrix.RoomAlias `path:"roomAlias"`
}

type aliasAnswer struct {
	RoomID  matrix.RoomID       `json:"room_id"`
	Servers []matrix.ServerName `json:"servers"`
}

// getAlias resolves an alias.
// spec: client-server#get_matrixclientv3directoryroomroomalias
func (d *Directory) getAlias(ctx context.Context, _ *httpx.Caller, q *aliasRequest) (*aliasAnswer, error) {
	room, servers, err := d.Resolve(ctx, q.Alias)
	if err != nil {
		return nil, err
	}
	return &aliasAnswer{room, servers}, nil
}

type putAliasRequest struct {
	aliasRequest
	RoomID matrix.RoomID `json:"room_id"`
}

type empty struct{}

// putAlias gives an alias to a room that the caller is in. Application services have
// rooms of other networks found, whether their users are in them yet or not.
// spec: client-server#put_matrixclientv3directoryroomroomalias
func (d *Directory) putAlias(ctx context.Context, c *httpx.Caller, q *putAliasRequest) (*empty, error) {
	if q.RoomID == "" {
		return nil, matrix.MissingParam("room_id is missing")
	}
	if _, err := matrix.ParseRoomID(string(q.RoomID)); err != nil {
		return nil, err
	}
	if err := d.claimable(q.Alias, c); err != nil {
		return nil, err
	}
	if err := d.mayName(ctx, q.RoomID, c); err != nil {
		return nil, err
	}
	return nil, d.DB.Write(ctx, func(tx *db.Tx) error {
		tx.Publish(AliasesMoved{q.RoomID})
		n, err := tx.Changed(insertAlias, q.Alias, q.RoomID, c.User)
		if err == nil && n == 0 {
			err = matrix.NewError(http.StatusConflict, matrix.CodeUnknown, "The room alias %s is taken", q.Alias)
		}
		return err
	})
}

// mayName tells whether the caller may give a room an alias that they may have.
func (d *Directory) mayName(ctx context.Context, room matrix.RoomID, c *httpx.Caller) (err error) {
	if c.Appservice != "" {
		_, err = d.Engine.Room(ctx, room)
	} else {
		_, err = d.joined(ctx, room, c.User)
	}
	return err
}

// joined returns a room that the user is in; 403 if they are not, or there is
// no such room.
func (d *Directory) joined(ctx context.Context, id matrix.RoomID, u matrix.UserID) (*rooms.Room, error) {
	r, err := d.Engine.Room(ctx, id)
	if err != nil && !matrix.HasCode(err, matrix.CodeNotFound) {
		return nil, err
	}
	if err != nil || !r.IsLocalMember(u) {
		return nil, matrix.Forbidden("You are not in the room")
	}
	return r, nil
}

// mayPresent tells whether the caller may decide how the room is found: server
// administrators may, and members with the power to set the room's main alias.
func (d *Directory) mayPresent(ctx context.Context, r *rooms.Room, c *httpx.Caller) (bool, error) {
	if c.Admin {
		return true, nil
	}
	if !r.IsLocalMember(c.User) {
		return false, nil
	}
	levels, err := d.Engine.Levels(ctx, r.View().State)
	if err != nil {
		return false, err
	}
	return levels.User(c.User) >= levels.Required(matrix.TypeCanonicalAlias, true), nil
}

// deleteAlias takes an alias away: who made it may, and whoever decides how the
// room is found. What an application service keeps for itself only that service may
// delete, and the server's administrators.
// spec: client-server#delete_matrixclientv3directoryroomroomalias
func (d *Directory) deleteAlias(ctx context.Context, c *httpx.Caller, q *aliasRequest) (*empty, error) {
	e, found, err := d.alias(ctx, q.Alias)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, noAlias(q.Alias)
	}
	if err := d.mayDelete(ctx, q.Alias, e, c); err != nil {
		return nil, err
	}
	if err := d.DB.Write(ctx, func(tx *db.Tx) error {
		tx.Publish(AliasesMoved{e.room})
		return tx.Exec(deleteAlias, q.Alias)
	}); err != nil {
		return nil, err
	}
	_, err = d.Engine.Update(ctx, e.room, c.User, func(b *rooms.Builder) error { return withdraw(b, q.Alias) })
	if matrix.HasCode(err, matrix.CodeForbidden) {
		err = nil // the alias is gone all the same
	}
	return nil, err
}

func (d *Directory) mayDelete(ctx context.Context, alias matrix.RoomAlias, e entry, c *httpx.Caller) error {
	if c.Admin {
		return nil
	}
	if err := d.unclaimed(alias, c); err != nil {
		return err
	}
	if e.creator == c.User || c.Appservice != "" && d.Claims != nil && d.Claims.OwnsAlias(alias, e.creator, c.Appservice) {
		return nil
	}
	r, err := d.Engine.Room(ctx, e.room)
	if err != nil {
		return err
	}
	if ok, err := d.mayPresent(ctx, r, c); err != nil {
		return err
	} else if !ok {
		return matrix.Forbidden("Only who made the alias, or may set the room's main alias, can delete it")
	}
	return nil
}

// withdraw takes an alias from the room's m.room.canonical_alias.
func withdraw(b *rooms.Builder, alias matrix.RoomAlias) error {
	raw, err := b.Content(matrix.TypeCanonicalAlias, "")
	if err != nil || raw == nil {
		return err
	}
	content := map[string]json.RawMessage{}
	if json.Unmarshal(raw, &content) != nil {
		return nil
	}
	var main matrix.RoomAlias
	var alt []matrix.RoomAlias
	_ = json.Unmarshal(content["alias"], &main)      // what is no text
	_ = json.Unmarshal(content["alt_aliases"], &alt) // or list lists nothing
	if main != alias && !slices.Contains(alt, alias) {
		return nil
	}
	if main == alias {
		delete(content, "alias")
	}
	if slices.Contains(alt, alias) {
		alt = slices.DeleteFunc(alt, func(a matrix.RoomAlias) bool { return a == alias })
		if content["alt_aliases"], err = json.Marshal(alt); err != nil {
			return err
		}
	}
	changed, err := json.Marshal(content)
	if err != nil {
		return err
	}
	key := ""
	_, err = b.Append(rooms.Proto{Type: matrix.TypeCanonicalAlias, StateKey: &key, Content: changed})
	return err
}

type roomRequest struct {
	RoomID matrix.RoomID `path:"roomId"`
}

type aliasesAnswer struct {
	Aliases []matrix.RoomAlias `json:"aliases"`
}

// roomAliases lists a room's local aliases.
// spec: client-server#get_matrixclientv3roomsroomidaliases
func (d *Directory) roomAliases(ctx context.Context, c *httpx.Caller, q *roomRequest) (*aliasesAnswer, error) {
	r, err := d.Engine.Room(ctx, q.RoomID)
	var access rooms.Access
	if err == nil {
		access, err = d.Engine.Access(ctx, r, c.User)
	}
	hidden := matrix.HasCode(err, matrix.CodeForbidden)
	switch {
	case err == nil && (access.Joined || access.World), c.Admin && (err == nil || hidden):
	case err == nil, hidden, matrix.HasCode(err, matrix.CodeNotFound):
		return nil, matrix.Forbidden("You are not in the room").Because(err) // whether there is one or not
	default:
		return nil, err
	}
	aliases, err := d.AliasesOf(ctx, q.RoomID)
	return &aliasesAnswer{append([]matrix.RoomAlias{}, aliases...)}, err
}
