package main

import (
	"context"
	"fmt"
	"net/url"
)

type user struct{ id, token string }

// room is one of our rooms and who is in it. The first member made it.
type room struct {
	id      string
	members []user
}

func (r *room) path() string { return "/_matrix/client/v3/rooms/" + url.PathEscape(r.id) }

// people registers count new users.
func (b *bench) people(ctx context.Context, count int) ([]user, error) {
	users := make([]user, count)
	first := b.users
	b.users += count
	_, err := b.all(ctx, count, func(c *conn, i int) error {
		body := fmt.Appendf(nil, `{"username":"user%d","password":"correct horse battery","auth":{"type":"m.login.dummy"}}`, first+i)
		answer, err := c.do("POST", "/_matrix/client/v3/register", "", body)
		users[i] = user{text(answer, "user_id"), text(answer, "access_token")}
		return err
	})
	return users, err
}

// found makes a public room.
func (b *bench) found(c *conn, creator user, name string) (*room, error) {
	body := fmt.Appendf(nil, `{"preset":"public_chat","name":%q,"topic":"Measured"}`, name)
	answer, err := c.do("POST", "/_matrix/client/v3/createRoom", creator.token, body)
	if err != nil {
		return nil, err
	}
	return &room{text(answer, "room_id"), []user{creator}}, nil
}

func enter(c *conn, r *room, u user) error {
	_, err := c.do("POST", "/_matrix/client/v3/join/"+url.PathEscape(r.id), u.token, []byte("{}"))
	return err
}

// place makes a room with these members.
func (b *bench) place(ctx context.Context, members []user) (*room, error) {
	r, err := b.found(b.conns[0], members[0], "A room")
	if err != nil {
		return nil, err
	}
	_, err = b.grow(ctx, r, members[1:])
	return r, err
}

// places makes count rooms with the same members.
func (b *bench) places(ctx context.Context, count int, members []user) ([]*room, error) {
	list := make([]*room, count)
	_, err := b.all(ctx, count, func(c *conn, i int) (err error) {
		if list[i], err = b.found(c, members[0], fmt.Sprint("Room ", i)); err != nil {
			return err
		}
		for _, u := range members[1:] {
			if err := enter(c, list[i], u); err != nil {
				return err
			}
		}
		list[i].members = members
		return nil
	})
	return list, err
}

// grow lets users join a room.
func (b *bench) grow(ctx context.Context, r *room, users []user) (run, error) {
	result, err := b.all(ctx, len(users), func(c *conn, i int) error { return enter(c, r, users[i]) })
	r.members = append(r.members, users...)
	return result, err
}

// crowd is one room for all scenarios that need many members, with at least
// count of them.
func (b *bench) crowd(ctx context.Context, count int) (*room, error) {
	if b.crowded == nil {
		creator, err := b.people(ctx, 1)
		if err != nil {
			return nil, err
		}
		if b.crowded, err = b.place(ctx, creator); err != nil {
			return nil, err
		}
	}
	if missing := count - len(b.crowded.members); missing > 0 {
		users, err := b.people(ctx, missing)
		if err != nil {
			return nil, err
		}
		if _, err := b.grow(ctx, b.crowded, users); err != nil {
			return nil, err
		}
	}
	return b.crowded, nil
}

// say sends a message of the usual length, marked so that it can be found in an
// answer.
func (b *bench) say(c *conn, r *room, u user, mark string) error {
	path := fmt.Sprintf("%s/send/m.room.message/t%d", r.path(), b.txn.Add(1))
	body := fmt.Appendf(nil, `{"msgtype":"m.text","body":"%s: the kettle is on, and the second pot is nearly ready for whoever comes next"}`, mark)
	_, err := c.do("PUT", path, u.token, body)
	return err
}
