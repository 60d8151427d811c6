package news

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/news/feed"
)

// publish makes a broadcast room of a feed: public, in the directory, and only the
// service speaks there. Its alias follows from the feed's address, so that a crash
// between making it and knowing of it makes no second one.
func (n *News) publish(ctx context.Context, j *job) (outcome, error) {
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
