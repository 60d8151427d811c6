package data

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// MaxTagBytes bounds the name of a tag.
// spec: client-server#room-tagging
const MaxTagBytes = 255

// Tags holds the members of each tag of a room, such as {"order":0.5}, by name.
type Tags map[string]json.RawMessage

// RoomTags returns the tags that user has put on a room.
// spec: client-server#get_matrixclientv3useruseridroomsroomidtags
func (d *Data) RoomTags(ctx context.Context, user matrix.UserID, room matrix.RoomID) (Tags, error) {
	return readTags(ctx, d.db, user, room)
}

// SetTag puts a tag on a room, or changes its members.
// spec: client-server#put_matrixclientv3useruseridroomsroomidtagstag
func (d *Data) SetTag(ctx context.Context, user matrix.UserID, room matrix.RoomID, tag string, members json.RawMessage) error {
	if len(tag) > MaxTagBytes {
		return matrix.InvalidParam("The name of a tag has at most %d bytes", MaxTagBytes)
	}
	if err := checkTag(members); err != nil {
		return err
	}
	return d.changeTags(ctx, user, room, func(tags Tags) { tags[tag] = members })
}

// DeleteTag takes a tag off a room, if it is there.
// spec: client-server#delete_matrixclientv3useruseridroomsroomidtagstag
func (d *Data) DeleteTag(ctx context.Context, user matrix.UserID, room matrix.RoomID, tag string) error {
	return d.changeTags(ctx, user, room, func(tags Tags) { delete(tags, tag) })
}

func (d *Data) changeTags(ctx context.Context, user matrix.UserID, room matrix.RoomID, edit func(Tags)) error {
	return d.db.Write(ctx, func(tx *db.Tx) error {
		tags, err := readTags(ctx, tx, user, room)
		if err != nil {
			return err
		}
		edit(tags)
		content, err := json.Marshal(tagContent{Tags: tags})
		if err != nil {
			return err
		}
		if len(content) > MaxContentBytes {
			return errTooLarge
		}
		return Put(tx, user, room, TypeTag, content)
	})
}

// tagContent is the content of m.tag.
// spec: client-server#mtag
type tagContent struct {
	Tags Tags `json:"tags"`
}

// readTags takes what a client may have stored as m.tag by itself: anything
// that is not a tag is as if it were not there.
func readTags(ctx context.Context, q db.Querier, user matrix.UserID, room matrix.RoomID) (Tags, error) {
	raw, found, err := db.One(ctx, q, selectContent, scanContent, user, room, TypeTag)
	if err != nil {
		return nil, err
	}
	var content tagContent
	if !found || json.Unmarshal(raw, &content) != nil || content.Tags == nil {
		return Tags{}, nil
	}
	for name, members := range content.Tags {
		if len(members) == 0 || members[0] != '{' {
			delete(content.Tags, name)
		}
	}
	return content.Tags, nil
}

// checkTag checks the one member that means something to every client.
func checkTag(members json.RawMessage) error {
	var tag struct {
		Order json.RawMessage `json:"order"`
	}
	if err := json.Unmarshal(members, &tag); err != nil {
		return matrix.BadJSON("A tag must be a JSON object").Because(err)
	}
	if tag.Order == nil {
		return nil
	}
	var order *float64
	if err := json.Unmarshal(tag.Order, &order); err != nil || order == nil {
		return matrix.BadJSON(`"order" must be a number`)
	}
	if *order < 0 || *order > 1 {
		return matrix.InvalidParam(`"order" must be between 0 and 1`)
	}
	return nil
}
