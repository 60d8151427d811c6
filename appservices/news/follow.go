package news

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/news/feed"
)

// maxSubs is how many feeds a room may follow.
const maxSubs = 1000

// follow looks at an address, which may be that of a page, and follows its feed.
func (n *News) follow(ctx context.Context, j *job) (outcome, error) {
	address, err := feed.CheckURL(j.argument)
	if err != nil || strings.ContainsAny(j.argument, " \t\n") {
		return j.says("notfound", j.argument, say(j.language, "problem.noaddress")), nil
	}
	_, known, err := kit.One(ctx, n, feedByURL, scanSource, address)
	if err != nil {
		return nil, err
	}
	if known {
		return func(tx *kit.Tx) error { return n.subscribe(tx, j, address, nil, nil) }, nil
	}
	found, others, err := n.find(ctx, address)
	if err != nil {
		return j.says("notfound", address, n.trouble(j, err)), nil
	}
	return func(tx *kit.Tx) error { return n.subscribe(tx, j, found.answer.Moved, found, others) }, nil
}

// find fetches a feed, or the first feed that a page names; others are those that it
// names beside.
func (n *News) find(ctx context.Context, address string) (d *document, others []feed.Link, err error) {
	d, err = n.look(ctx, source{url: address})
	if err == nil || !errors.Is(err, feed.ErrNoFeed) {
		return d, nil, err
	}
	page, fetchErr := n.fetcher.Fetch(ctx, feed.Request{URL: address})
	if fetchErr != nil {
		return nil, nil, fetchErr
	}
	links := feed.Discover(page.Body, page.ContentType, page.URL)
	for i, l := range links {
		u, err := feed.CheckURL(l.URL)
		if err != nil {
			continue
		}
		if d, err = n.look(ctx, source{url: u}); err == nil {
			return d, append(links[:i:i], links[i+1:]...), nil
		}
		if i == 2 { // what a page names first is what it is about
			break
		}
	}
	return nil, nil, err
}

// subscribe has a room follow a feed, which is made of the document if nobody follows
// it yet. What the feed has already does not come to the room.
func (n *News) subscribe(tx *kit.Tx, j *job, address string, d *document, others []feed.Link) error {
	address, err := feed.CheckURL(address)
	if err != nil {
		return j.answer(tx, "notfound", j.argument, say(j.language, "problem.noaddress"))
	}
	have, err := subs(tx.Context(), tx, string(j.room))
	if err != nil {
		return err
	}
	if len(have) >= maxSubs {
		return j.answer(tx, "full", maxSubs)
	}
	s, added, err := n.attach(tx, j, address, "")
	if err != nil {
		return err
	}
	if !added {
		return j.answer(tx, "already", s.name())
	}
	if !s.fetched && d != nil {
		if err := n.store(tx, s, d); err != nil {
			return err
		}
		s.title = d.parsed.Title
	}
	text := say(j.language, "followed", s.name())
	type item struct{ title, link string }
	last, found, err := kit.One(tx.Context(), tx, lastEntry, func(r kit.Scanner) (v item, err error) {
		err = r.Scan(&v.title, &v.link)
		return v, err
	}, s.nid)
	if err != nil {
		return err
	}
	if found {
		text += "\n" + say(j.language, "latest", linked(last.title, last.link))
	}
	if len(others) > 0 {
		text += "\n" + say(j.language, "others")
		for _, l := range others[:min(len(others), 5)] {
			text += "\n• " + linked(l.Title, l.URL)
		}
	}
	tx.Reply(j.command(), text)
	return nil
}

// attach has a room follow the feed of an address, which is made if it is not there.
func (n *News) attach(tx *kit.Tx, j *job, address, title string) (s source, added bool, err error) {
	if err := tx.Exec(addRoom, j.room, j.language); err != nil {
		return s, false, err
	}
	if err := tx.Exec(setAsker, j.room, j.sender); err != nil {
		return s, false, err
	}
	if err := tx.Exec(addFeed, tx.Next("feeds"), address, title, n.now().UnixMilli()); err != nil {
		return s, false, err
	}
	if s, _, err = kit.One(tx.Context(), tx, feedByURL, scanSource, address); err != nil {
		return s, false, err
	}
	count, err := tx.Changed(addSub, j.room, s.nid, s.newest, n.now().UnixMilli())
	return s, count > 0, err
}

// sub is a feed that a room follows.
type sub struct {
	feed     int64
	keywords string
	url      string
	title    string
	problem  string
	fetched  bool
}

func (s *sub) name() string { return (&source{title: s.title, url: s.url}).name() }

// subs are those of a room, in the order in which they are listed.
func subs(ctx context.Context, q kit.Querier, room string) ([]sub, error) {
	return kit.All(ctx, q, subsOfRoom, func(r kit.Scanner) (s sub, err error) {
		err = r.Scan(&s.feed, &s.keywords, &s.url, &s.title, &s.problem, &s.fetched)
		return s, err
	}, room)
}

// pick finds the feed that somebody names by its number in the list, its address or
// its title.
func pick(list []sub, name string) (sub, bool) {
	name = strings.TrimSpace(name)
	var number int
	if _, err := fmt.Sscanf(name, "%d", &number); err == nil && number >= 1 && number <= len(list) && fmt.Sprint(number) == name {
		return list[number-1], true
	}
	address, addressErr := feed.CheckURL(name)
	for _, s := range list {
		if addressErr == nil && s.url == address || strings.EqualFold(s.title, name) {
			return s, true
		}
	}
	return sub{}, false
}

// unfollow ends a subscription, and the feed if it was the last one.
func (n *News) unfollow(_ context.Context, j *job) (outcome, error) {
	return func(tx *kit.Tx) error {
		list, err := subs(tx.Context(), tx, string(j.room))
		if err != nil {
			return err
		}
		s, ok := pick(list, j.argument)
		if !ok {
			return j.answer(tx, "unknown", j.argument)
		}
		if err := detach(tx, string(j.room), s.feed); err != nil {
			return err
		}
		return j.answer(tx, "unfollowed", s.name())
	}, nil
}

// detach ends a subscription, and the feed with the last one.
func detach(tx *kit.Tx, room string, nid int64) error {
	if err := tx.Exec(removeSub, room, nid); err != nil {
		return err
	}
	left, _, err := kit.One(tx.Context(), tx, unused, func(r kit.Scanner) (v int, err error) {
		err = r.Scan(&v)
		return v, err
	}, nid)
	if err != nil || left > 0 {
		return err
	}
	return forget(tx, nid)
}

// left ends everything about a room that the service is not in any more.
func (n *News) left(tx *kit.Tx, room id.RoomID) error {
	list, err := subs(tx.Context(), tx, string(room))
	if err != nil {
		return err
	}
	for _, s := range list {
		if err := detach(tx, string(room), s.feed); err != nil {
			return err
		}
	}
	if err := tx.Exec(leavePosts, room); err != nil {
		return err
	}
	return tx.Exec(removeRoom, room)
}
