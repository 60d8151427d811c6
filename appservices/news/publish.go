package news

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/news/feed"
)

// maxPublished is how many broadcast rooms one person may have; one that was closed
// counts for a day.
const maxPublished = 5

// publish makes a broadcast room of a feed: public, in the directory, and only the
// service speaks there. Its alias follows from the feed's address, so that a crash
// between making it and knowing of it makes no second one.
// THREATS A15: the rooms of a directory belong to all who look into it, so people make
// a few each, and only on their own server.
func (n *News) publish(ctx context.Context, j *job) (outcome, error) {
	if here := n.User().Homeserver(); j.sender.Homeserver() != here {
		return j.says("publishwho", here), nil
	}
	count, _, err := kit.One(ctx, n, publishedBy, func(r kit.Scanner) (v int, err error) {
		err = r.Scan(&v)
		return v, err
	}, j.sender, n.now().Add(-24*time.Hour).UnixMilli())
	if err != nil {
		return nil, err
	}
	if count >= maxPublished {
		return j.says("publishmany", count), nil
	}
	address, err := feed.CheckURL(j.argument)
	if err != nil {
		return j.says("notfound", j.argument, say(j.language, "problem.noaddress")), nil
	}
	d, _, err := n.find(ctx, address)
	if err != nil {
		return j.says("notfound", address, n.trouble(j, err)), nil
	}
	if address, err = feed.CheckURL(d.answer.Moved); err != nil {
		return j.says("notfound", j.argument, say(j.language, "problem.noaddress")), nil
	}
	room, alias, err := n.broadcast(ctx, address, d.parsed)
	if err != nil {
		if !errors.Is(asked(err), errAsk) {
			return j.says("failed", n.trouble(j, err)), nil
		}
		return nil, err
	}
	return func(tx *kit.Tx) error {
		if err := tx.Exec(addPublished, room, address, alias, j.sender, n.now().UnixMilli()); err != nil {
			return err
		}
		there := *j
		there.room = room
		s, added, err := n.attach(tx, &there, address, d.parsed.Title)
		if err != nil {
			return err
		}
		if added && !s.fetched {
			if err := n.store(tx, s, d); err != nil {
				return err
			}
		}
		return j.answer(tx, "published", (&entry{from: d.parsed.Title, address: address}).name(), alias)
	}, nil
}

// broadcast makes the broadcast room of a feed, or finds it.
func (n *News) broadcast(ctx context.Context, address string, f *feed.Feed) (id.RoomID, id.RoomAlias, error) {
	sum := sha256.Sum256([]byte(address))
	name := n.User().Localpart() + "_" + hex.EncodeToString(sum[:6])
	alias := id.NewRoomAlias(name, n.User().Homeserver())
	known, err := n.Client().ResolveAlias(ctx, alias)
	if err == nil {
		return known.RoomID, alias, nil
	}
	if !errors.Is(err, mautrix.MNotFound) {
		return "", "", err
	}
	only := 50
	made, err := n.Client().CreateRoom(ctx, &mautrix.ReqCreateRoom{
		Preset: "public_chat", Visibility: "public", RoomAliasName: name, Name: f.Title, Topic: linked(f.About, f.Site),
		PowerLevelOverride: &event.PowerLevelsEventContent{EventsDefault: only, Events: map[string]int{event.EventReaction.Type: 0}},
	})
	if err != nil {
		return "", "", err
	}
	return made.RoomID, alias, nil
}

// unpublish closes a broadcast room, named by its alias or its feed, for who had it made
// or may change its state: its name goes, the directory does not list it, nothing is
// sent there any more, and the service leaves.
func (n *News) unpublish(ctx context.Context, j *job) (outcome, error) {
	name := j.argument
	if address, err := feed.CheckURL(name); err == nil && !strings.HasPrefix(name, "#") {
		name = address
	}
	type broadcastRoom struct {
		room  id.RoomID
		alias id.RoomAlias
		who   id.UserID
	}
	b, found, err := kit.One(ctx, n, publishedAs, func(r kit.Scanner) (b broadcastRoom, err error) {
		err = r.Scan(&b.room, &b.alias, &b.who)
		return b, err
	}, name)
	if err != nil {
		return nil, err
	}
	if !found {
		return j.says("unpublishwhat", j.argument), nil
	}
	if b.who != j.sender {
		levels, err := n.levels(ctx, b.room)
		if err != nil && !errors.Is(asked(err), errAsk) || err == nil && levels.GetUserLevel(j.sender) < levels.StateDefault() {
			return j.says("unpublishwho", b.alias), nil
		}
		if err != nil {
			return nil, err
		}
	}
	if err := n.unlist(ctx, b.room, b.alias); err != nil {
		return nil, err
	}
	return func(tx *kit.Tx) error {
		if err := tx.Exec(endPublished, b.room, n.now().UnixMilli()); err != nil {
			return err
		}
		tx.Say(b.room, say(j.language, "closed"))
		tx.Leave(b.room)
		if err := n.left(tx, b.room); err != nil {
			return err
		}
		return j.answer(tx, "unpublished", b.alias)
	}, nil
}

// unlist takes a room out of the directory and its alias away. What is done already,
// before a crash, the homeserver may refuse.
func (n *News) unlist(ctx context.Context, room id.RoomID, alias id.RoomAlias) error {
	_, err := n.Client().MakeRequest(ctx, http.MethodPut, n.Client().BuildClientURL("v3", "directory", "list", "room", room), map[string]string{"visibility": "private"}, nil)
	if err != nil && errors.Is(asked(err), errAsk) {
		return err
	}
	if _, err := n.Client().DeleteAlias(ctx, alias); err != nil && errors.Is(asked(err), errAsk) {
		return err
	}
	return nil
}
