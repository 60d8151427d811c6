package push

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// send tells a pusher's gateway of its next event, or of the badge alone.
func (p *Push) send(ctx context.Context, u *pusher) outcome {
	n, err := p.next(ctx, u)
	if err != nil {
		return outcome{kind: broken, err: err}
	}
	badge, err := p.badge(ctx, u.user)
	if err != nil {
		return outcome{kind: broken, err: err}
	}
	p.delivery.mu.Lock()
	same := badge == u.badge
	p.delivery.mu.Unlock()
	if n == nil && same {
		return outcome{}
	}
	body, err := p.notification(ctx, u, n, badge)
	if err != nil {
		return outcome{kind: broken, err: err}
	}
	out := p.post(ctx, u, body)
	out.badge = badge
	if n != nil {
		out.note = n.position
	}
	return out
}

// next is the first event that is still worth a notification; what is not is
// given up on the way. nil if there is none.
func (p *Push) next(ctx context.Context, u *pusher) (*note, error) {
	d := p.delivery
	d.mu.Lock()
	resume := u.resume
	d.mu.Unlock()
	if resume > 0 {
		if err := p.pickUp(ctx, u, resume); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	u.counts = false // whatever is sent now has the badge
	pending := slices.Clone(u.pending)
	d.mu.Unlock()
	for _, n := range pending {
		worth, err := p.worth(ctx, u.user, n)
		if err != nil {
			return nil, err
		}
		if worth {
			return &n, nil
		}
		d.mu.Lock()
		u.done(n.position)
		d.dirty[u] = struct{}{}
		d.mu.Unlock()
	}
	return nil, nil
}

// worth tells whether a user is still to be told of an event.
func (p *Push) worth(ctx context.Context, user matrix.UserID, n note) (bool, error) {
	if p.Now().Sub(n.at) > maxAge {
		return false, nil
	}
	read, err := p.Reading.Standings(ctx, user, []rooms.RoomNID{n.room})
	if err != nil {
		return false, err
	}
	if s := read[n.room]; s != nil && s.Read(n.thread, n.position) {
		return false, nil
	}
	events, err := p.Rooms.Events(ctx, []state.EventNID{n.event})
	if err != nil {
		return false, err
	}
	return events[0].RedactedBy == 0, nil
}

// pickUp finds what a pusher had not delivered when the server stopped: the
// newest of it, as much as may be pending.
func (p *Push) pickUp(ctx context.Context, u *pusher, after int64) error {
	list, _, err := p.notified(ctx, u.user, scan{above: after, limit: maxPending, budget: scanBudget})
	if err != nil {
		return err
	}
	d := p.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range list {
		u.add(note{
			room: n.event.Room, event: n.event.NID, position: n.event.Position, thread: n.event.Thread, result: n.result,
			at: time.UnixMilli(min(n.event.OriginServerTS, p.Now().UnixMilli())),
		})
	}
	u.resume = 0
	d.dirty[u] = struct{}{}
	return nil
}

// gatewayNotification is what push gateways are sent.
// spec: push#post_matrixpushv1notify
type gatewayNotification struct {
	EventID    matrix.EventID   `json:"event_id,omitempty"`
	RoomID     matrix.RoomID    `json:"room_id,omitempty"`
	Type       string           `json:"type,omitempty"`
	Sender     matrix.UserID    `json:"sender,omitempty"`
	SenderName string           `json:"sender_display_name,omitempty"`
	RoomName   string           `json:"room_name,omitempty"`
	RoomAlias  string           `json:"room_alias,omitempty"`
	IsTarget   bool             `json:"user_is_target,omitempty"`
	Priority   string           `json:"prio"`
	Content    json.RawMessage  `json:"content,omitempty"`
	Counts     gatewayCounts    `json:"counts"`
	Devices    [1]gatewayDevice `json:"devices"`
}

type gatewayCounts struct {
	Unread *int64 `json:"unread,omitempty"`
}

type gatewayDevice struct {
	AppID   string                     `json:"app_id"`
	PushKey string                     `json:"pushkey"`
	TS      int64                      `json:"pushkey_ts"` // seconds
	Data    json.RawMessage            `json:"data"`
	Tweaks  map[string]json.RawMessage `json:"tweaks,omitempty"`
}

// notification is the body of a request about an event, or about the badge alone
// if n is nil. Counts that are zero are left out, unless that is the news.
func (p *Push) notification(ctx context.Context, u *pusher, n *note, badge int64) ([]byte, error) {
	g := gatewayNotification{Priority: "low"}
	g.Devices[0] = gatewayDevice{AppID: u.settings.AppID, PushKey: u.settings.PushKey, TS: u.ts / 1000, Data: u.data}
	if badge > 0 || n == nil {
		g.Counts.Unread = &badge
	}
	if n != nil {
		r, err := p.Rooms.RoomByNID(ctx, n.room)
		if err != nil {
			return nil, err
		}
		events, err := p.Rooms.Events(ctx, []state.EventNID{n.event})
		if err != nil {
			return nil, err
		}
		if err := p.describe(ctx, &g, u, r, events[0], n.result); err != nil {
			return nil, err
		}
	}
	return json.Marshal(map[string]gatewayNotification{"notification": g})
}

// describe adds what the gateway is told of an event.
func (p *Push) describe(ctx context.Context, g *gatewayNotification, u *pusher, r *rooms.Room, ev *rooms.Stored, result Result) error {
	g.EventID, g.RoomID = ev.ID, r.ID
	tweaks := result.tweaks()
	if ev.Type == matrix.TypeEncrypted || result.Highlight || tweaks["sound"] != nil {
		g.Priority = "high"
	}
	if u.idOnly {
		return nil
	}
	g.Type, g.Sender, g.Content = ev.Type, ev.Sender, json.RawMessage(ev.Content)
	g.IsTarget = ev.Is(matrix.TypeMember, string(u.user))
	if len(tweaks) > 0 {
		g.Devices[0].Tweaks = tweaks
	}
	v := r.View()
	for _, part := range []struct {
		to               *string
		typ, key, member string
	}{
		{&g.SenderName, matrix.TypeMember, string(ev.Sender), "displayname"},
		{&g.RoomName, matrix.TypeName, "", "name"},
		{&g.RoomAlias, matrix.TypeCanonicalAlias, "", "alias"},
	} {
		st, err := p.Rooms.StateEvent(ctx, v.State, part.typ, part.key)
		if err != nil {
			return err
		}
		if st != nil {
			*part.to, _ = stringOf(event.Member(st.Content, part.member))
		}
	}
	return nil
}

// post sends a request to a pusher's gateway.
func (p *Push) post(ctx context.Context, u *pusher, body []byte) outcome {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.url, bytes.NewReader(body))
	if err != nil {
		return outcome{kind: refused, err: err}
	}
	req.Header.Set("Content-Type", "application/json")
	answer, err := p.Gateways.Do(req)
	if err != nil {
		return outcome{kind: failed, err: err}
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	switch code := answer.StatusCode; {
	case code == http.StatusGone:
		return outcome{kind: rejected}
	case code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= 500:
		seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
		return outcome{kind: failed, after: time.Duration(max(seconds, 0)) * time.Second, err: fmt.Errorf("push: the gateway answers %d", code)}
	case code != http.StatusOK:
		return outcome{kind: refused, err: fmt.Errorf("push: the gateway answers %d", code)}
	case err != nil:
		return outcome{kind: failed, err: err}
	}
	var said struct {
		Rejected []string `json:"rejected"`
	}
	if json.Unmarshal(raw, &said) == nil && slices.Contains(said.Rejected, u.settings.PushKey) {
		return outcome{kind: rejected}
	}
	return outcome{kind: delivered}
}
