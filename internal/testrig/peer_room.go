package testrig

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// PeerRoom is a room as a peer sees it. The peer decides what it builds on, so
// it can fork the room at will: a PeerRoom that is copied by Fork goes its own way.
type PeerRoom struct {
	ID      matrix.RoomID
	Version *event.Version
	State   map[auth.Key]*event.Event
	Events  []*event.Event // all that the peer has made or was told, oldest first
	Tips    []*event.Event // what the next event builds on

	peer *Peer
}

// User is a user of the peer's.
func (p *Peer) User(localpart string) matrix.UserID { return matrix.NewUserID(localpart, p.Name) }

// Create makes a public room of the peer's own.
func (p *Peer) Create(version string, creator matrix.UserID) *PeerRoom {
	p.t.Helper()
	v, ok := event.Lookup(version)
	if !ok {
		p.t.Fatalf("testrig: there is no room version %s", version)
	}
	r := &PeerRoom{Version: v, State: map[auth.Key]*event.Event{}, peer: p}
	create, levels := JSON{"room_version": version}, JSON{}
	if v.CreatorInContent {
		create["creator"] = creator
	}
	if !v.CreatorPower {
		levels["users"] = JSON{string(creator): 100}
	}
	if !v.RoomIDHash {
		r.ID = matrix.RoomID(fmt.Sprintf("!room%d:%s", time.Now().UnixNano(), p.Name))
	}
	r.ID = r.Set(creator, matrix.TypeCreate, "", create).RoomID
	r.Set(creator, matrix.TypeMember, string(creator), JSON{"membership": "join"})
	r.Set(creator, matrix.TypePowerLevels, "", levels)
	r.Set(creator, matrix.TypeJoinRules, "", JSON{"join_rule": "public"})
	return r
}

// Join joins a room of another server's, which answers as a resident.
func (p *Peer) Join(via matrix.ServerName, room matrix.RoomID, user matrix.UserID) *PeerRoom {
	p.t.Helper()
	r, join := p.TryJoin(via, room, user)
	status, answer := p.Ask(p.t.Context(), via, "PUT", "/_matrix/federation/v2/send_join"+Path(room, join.ID), json.RawMessage(join.JSON))
	if status != 200 {
		p.t.Fatalf("testrig: %s may not join %s: %d %v", user, room, status, answer)
	}
	for _, raw := range answer["state"].([]any) {
		r.take(raw)
	}
	r.keep(join)
	return r
}

// TryJoin makes the join event of a make_join, to be sent or not.
func (p *Peer) TryJoin(via matrix.ServerName, room matrix.RoomID, user matrix.UserID) (*PeerRoom, *event.Event) {
	p.t.Helper()
	return p.Try(via, room, user, matrix.MembershipJoin)
}

// Try makes the member event of a make_join, make_leave or make_knock, to be sent
// or not.
func (p *Peer) Try(via matrix.ServerName, room matrix.RoomID, user matrix.UserID, membership string) (*PeerRoom, *event.Event) {
	p.t.Helper()
	known := url.Values{}
	for _, v := range event.Versions() {
		known.Add("ver", v.ID)
	}
	status, answer := p.Ask(p.t.Context(), via, "GET", "/_matrix/federation/v1/make_"+membership+Path(room, user)+"?"+known.Encode(), nil)
	if status != 200 {
		p.t.Fatalf("testrig: make_%s of %s: %d %v", membership, room, status, answer)
	}
	v, ok := event.Lookup(answer["room_version"].(string))
	if !ok {
		p.t.Fatalf("testrig: make_%s answers with room version %v", membership, answer["room_version"])
	}
	r := &PeerRoom{ID: room, Version: v, State: map[auth.Key]*event.Event{}, peer: p}
	raw, err := json.Marshal(answer["event"])
	if err != nil {
		p.t.Fatal(err)
	}
	return r, r.Build(r.draft(raw))
}

// Like is the draft that an event was made of, to be changed and built.
func (r *PeerRoom) Like(ev *event.Event) event.Draft {
	r.peer.t.Helper()
	return r.draft(ev.JSON)
}

// draft reads a template, or an event.
func (r *PeerRoom) draft(raw []byte) event.Draft {
	r.peer.t.Helper()
	var t struct {
		Sender   matrix.UserID     `json:"sender"`
		Type     string            `json:"type"`
		StateKey *string           `json:"state_key"`
		Content  json.RawMessage   `json:"content"`
		Depth    int64             `json:"depth"`
		Prev     []json.RawMessage `json:"prev_events"`
		Auth     []json.RawMessage `json:"auth_events"`
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		r.peer.t.Fatal(err)
	}
	return event.Draft{
		RoomID: r.ID, Type: t.Type, StateKey: t.StateKey, Sender: t.Sender, Content: t.Content, Depth: t.Depth,
		OriginServerTS: time.Now().UnixMilli(), PrevEvents: refs(r.peer.t, t.Prev), AuthEvents: refs(r.peer.t, t.Auth),
	}
}

// refs reads references of either form.
func refs(t testing.TB, list []json.RawMessage) []event.Ref {
	t.Helper()
	out := make([]event.Ref, len(list))
	for i, raw := range list {
		var pair [2]json.RawMessage
		if json.Unmarshal(raw, &out[i].ID) == nil {
			continue
		}
		var hashes struct {
			SHA256 string `json:"sha256"`
		}
		if json.Unmarshal(raw, &pair) != nil || json.Unmarshal(pair[0], &out[i].ID) != nil || json.Unmarshal(pair[1], &hashes) != nil {
			t.Fatalf("testrig: %s is no reference to an event", raw)
		}
		hash, err := base64.RawStdEncoding.DecodeString(hashes.SHA256)
		if err != nil || copy(out[i].Hash[:], hash) != len(out[i].Hash) {
			t.Fatalf("testrig: %s is no reference to an event", raw)
		}
	}
	return out
}

// take adds an event of a state that another server gave.
func (r *PeerRoom) take(raw any) {
	r.peer.t.Helper()
	text, err := json.Marshal(raw)
	if err != nil {
		r.peer.t.Fatal(err)
	}
	ev, err := event.Parse(r.Version, text)
	if err != nil {
		r.peer.t.Fatal(err)
	}
	r.State[auth.Key{Type: ev.Type, StateKey: ev.StateKey()}] = ev
}

// keep makes the event the one that the next builds on.
func (r *PeerRoom) keep(ev *event.Event) {
	if ev.IsState() {
		r.State[auth.Key{Type: ev.Type, StateKey: ev.StateKey()}] = ev
	}
	r.Events = append(r.Events, ev)
	r.Tips = []*event.Event{ev}
}

// Fork copies the room, so that both copies can go different ways.
func (r *PeerRoom) Fork() *PeerRoom {
	c := *r
	c.State = make(map[auth.Key]*event.Event, len(r.State))
	for k, ev := range r.State {
		c.State[k] = ev
	}
	c.Events, c.Tips = slices.Clone(r.Events), slices.Clone(r.Tips)
	return &c
}

// Set makes a state event on the tips and keeps it.
func (r *PeerRoom) Set(sender matrix.UserID, typ, key string, content any) *event.Event {
	r.peer.t.Helper()
	ev := r.Build(r.Draft(sender, typ, &key, content))
	r.keep(ev)
	return ev
}

// Say makes a text message on the tips and keeps it.
func (r *PeerRoom) Say(sender matrix.UserID, text string) *event.Event {
	r.peer.t.Helper()
	ev := r.Build(r.Draft(sender, matrix.TypeMessage, nil, JSON{"msgtype": "m.text", "body": text}))
	r.keep(ev)
	return ev
}

// Draft is an event on the tips, to be changed and built.
func (r *PeerRoom) Draft(sender matrix.UserID, typ string, key *string, content any) event.Draft {
	r.peer.t.Helper()
	raw, err := json.Marshal(content)
	if err != nil {
		r.peer.t.Fatal(err)
	}
	d := event.Draft{
		RoomID: r.ID, Type: typ, StateKey: key, Sender: sender, Content: raw, OriginServerTS: time.Now().UnixMilli(),
	}
	for _, tip := range r.Tips {
		d.PrevEvents = append(d.PrevEvents, tip.Ref())
		d.Depth = max(d.Depth, tip.Depth+1)
	}
	for _, k := range auth.Needed(r.Version, typ, key, sender, raw) {
		if ev := r.State[k]; ev != nil {
			d.AuthEvents = append(d.AuthEvents, ev.Ref())
		}
	}
	return d
}

// Build signs a draft, whatever it says.
func (r *PeerRoom) Build(d event.Draft) *event.Event {
	r.peer.t.Helper()
	ev, err := event.Build(r.Version, d, r.peer.Name, r.peer.Key)
	if err != nil {
		r.peer.t.Fatal(err)
	}
	return ev
}

// Send sends events in a transaction and returns its answer.
func (p *Peer) Send(to matrix.ServerName, txn string, events ...*event.Event) (int, JSON) {
	p.t.Helper()
	pdus := make([]json.RawMessage, len(events))
	for i, ev := range events {
		pdus[i] = ev.JSON
	}
	return p.Transact(to, txn, JSON{"origin": p.Name, "origin_server_ts": time.Now().UnixMilli(), "pdus": pdus})
}

// SendEDUs sends EDUs in a transaction.
func (p *Peer) SendEDUs(to matrix.ServerName, txn string, edus ...JSON) (int, JSON) {
	p.t.Helper()
	return p.Transact(to, txn, JSON{"origin": p.Name, "origin_server_ts": time.Now().UnixMilli(), "pdus": []any{}, "edus": edus})
}

// Transact sends a transaction with any body.
func (p *Peer) Transact(to matrix.ServerName, txn string, body any) (int, JSON) {
	p.t.Helper()
	return p.Ask(p.t.Context(), to, "PUT", "/_matrix/federation/v1/send"+Path(txn), body)
}
