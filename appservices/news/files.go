package news

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/news/feed"
)

// maxListFile is how large a list of feeds may be.
const maxListFile = 2 << 20

// importList follows the feeds of an OPML list: of the file at an mxc:// or web
// address, or of the file in an event of the room. They are fetched for the first time
// by and by, and fail by themselves.
func (n *News) importList(ctx context.Context, j *job) (outcome, error) {
	text, err := n.listFile(ctx, j)
	if errors.Is(err, errAsk) {
		return nil, err
	}
	if err != nil {
		return j.says("nolist", n.trouble(j, err)), nil
	}
	links, err := feed.ReadOPML(text)
	if err != nil || len(links) == 0 {
		return j.says("nolist", say(j.language, "problem.nolist")), nil
	}
	return func(tx *kit.Tx) error {
		have, err := subs(tx.Context(), tx, string(j.room))
		if err != nil {
			return err
		}
		count, added := len(have), 0
		for _, l := range links {
			address, err := feed.CheckURL(l.URL)
			if err != nil || count >= maxSubs {
				continue
			}
			_, isNew, err := n.attach(tx, j, address, l.Title)
			if err != nil {
				return err
			}
			if isNew {
				count, added = count+1, added+1
			}
		}
		return j.answer(tx, "imported", added, len(links)-added)
	}, nil
}

// listFile gets the text of a list.
func (n *News) listFile(ctx context.Context, j *job) ([]byte, error) {
	argument := j.argument
	if strings.HasPrefix(argument, "$") {
		ev, err := n.Client().GetEvent(ctx, j.room, id.EventID(argument))
		if err != nil {
			return nil, asked(err)
		}
		_ = ev.Content.ParseRaw(event.EventMessage)
		if argument = string(ev.Content.AsMessage().URL); argument == "" {
			return nil, feed.ErrNoList
		}
	}
	if !strings.HasPrefix(argument, "mxc://") {
		address, err := feed.CheckURL(argument)
		if err != nil {
			return nil, err
		}
		a, err := n.fetcher.Fetch(ctx, feed.Request{URL: address})
		if err != nil {
			return nil, err
		}
		return a.Body, nil
	}
	uri, err := id.ParseContentURI(argument)
	if err != nil {
		return nil, feed.ErrNoList
	}
	answer, err := n.Client().Download(ctx, uri)
	if err != nil {
		return nil, asked(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxListFile+1))
	if err != nil {
		return nil, asked(err)
	}
	if len(text) > maxListFile {
		return nil, feed.ErrNoList
	}
	return text, nil
}

// asked tells what the homeserver refuses from what may be better another time.
func asked(err error) error {
	if answer, ok := errors.AsType[mautrix.HTTPError](err); ok && answer.Response != nil &&
		answer.Response.StatusCode >= 400 && answer.Response.StatusCode < 500 && answer.Response.StatusCode != http.StatusTooManyRequests {
		return err
	}
	return errors.Join(errAsk, err)
}

// exportList sends what the room follows as an OPML file.
func (n *News) exportList(ctx context.Context, j *job) (outcome, error) {
	list, err := subs(ctx, n, string(j.room))
	if err != nil {
		return nil, err
	}
	links := make([]feed.Link, len(list))
	for i, s := range list {
		links[i] = feed.Link{URL: s.url, Title: s.title}
	}
	text := feed.WriteOPML(say(j.language, "digest"), links)
	const name, kind = "news.opml", "text/x-opml"
	file, err := n.Client().UploadBytesWithName(ctx, text, kind, name)
	if err != nil {
		if !errors.Is(asked(err), errAsk) {
			return j.says("failed", n.trouble(j, err)), nil
		}
		return nil, err
	}
	return func(tx *kit.Tx) error {
		tx.ReplyWith(j.command(), &event.MessageEventContent{
			MsgType: event.MsgFile, Body: name, FileName: name, URL: file.ContentURI.CUString(), Mentions: &event.Mentions{}, Info: &event.FileInfo{MimeType: kind, Size: len(text)},
		})
		return nil
	}, nil
}
