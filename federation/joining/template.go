package joining

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// maxPrev and maxAuth bound what a template may have us refer to.
// spec: server-server#pdus
const (
	maxPrev = 20
	maxAuth = 10
)

const (
	v1 = "/_matrix/federation/v1/"
	v2 = "/_matrix/federation/v2/"
)

// wish is a membership that a local user wants in a room of others.
type wish struct {
	room       matrix.RoomID
	user       matrix.UserID
	membership string
	content    json.RawMessage // of the member event
}

// template is what a resident server answers to make_join, make_leave and
// make_knock, as far as it is believed.
type template struct {
	version *event.Version
	event   templateEvent
}

type templateEvent struct {
	RoomID   matrix.RoomID     `json:"room_id"`
	Sender   matrix.UserID     `json:"sender"`
	StateKey *string           `json:"state_key"`
	Type     string            `json:"type"`
	Depth    json.Number       `json:"depth"`
	Prev     []json.RawMessage `json:"prev_events"`
	Auth     []json.RawMessage `json:"auth_events"`
	Content  struct {
		Membership   string        `json:"membership"`
		AuthorisedBy matrix.UserID `json:"join_authorised_via_users_server"`
	} `json:"content"`
}

// makes are the endpoints that give templates.
var makes = map[string]string{
	matrix.MembershipJoin: "make_join", matrix.MembershipLeave: "make_leave", matrix.MembershipKnock: "make_knock",
}

// template asks a resident server for what an event of the wish builds on.
// spec: server-server#get_matrixfederationv1make_joinroomiduserid
func (j *Joining) template(ctx context.Context, server matrix.ServerName, w wish) (*template, error) {
	query := url.Values{}
	for _, v := range event.Versions() {
		if w.membership == matrix.MembershipJoin || w.membership == matrix.MembershipKnock && v.Knocking {
			query.Add("ver", v.ID)
		}
	}
	var answer struct {
		Version *string       `json:"room_version"`
		Event   templateEvent `json:"event"`
	}
	err := j.Client.JSON(ctx, transport.Request{
		Destination: server, Method: http.MethodGet, Path: transport.Path(v1+makes[w.membership], string(w.room), string(w.user)),
		Query: query, Timeout: makeTime, MaxAnswer: maxTemplate,
	}, &answer)
	if err != nil {
		return nil, err
	}
	id := "1"
	if answer.Version != nil {
		id = *answer.Version
	}
	v, ok := event.Lookup(id)
	if !ok {
		return nil, malformed("%s says that the room is of version %.20q", server, id)
	}
	if err := answer.Event.check(w); err != nil {
		return nil, err
	}
	return &template{v, answer.Event}, nil
}

// check tells whether the template is of the event that was asked for.
func (t *templateEvent) check(w wish) error {
	switch {
	case t.RoomID != w.room:
		return malformed("the template is for another room")
	case t.Sender != w.user || t.StateKey == nil || *t.StateKey != string(w.user):
		return malformed("the template is for another user")
	case t.Type != matrix.TypeMember:
		return malformed("the template is no member event")
	case t.Content.Membership != w.membership:
		return malformed("the template is of another membership")
	}
	return nil
}

// build makes the event that the user wants. Of the template it takes where the
// room stands and who lets the user in, and nothing else: whatever we sign says
// what we want to say.
func (j *Joining) build(t *template, w wish) (*event.Event, error) {
	prev, err := refs(t.version, t.event.Prev, maxPrev)
	if err != nil {
		return nil, err
	}
	auth, err := refs(t.version, t.event.Auth, maxAuth)
	if err != nil {
		return nil, err
	}
	if len(prev) == 0 {
		return nil, malformed("the template builds on nothing")
	}
	depth, err := t.event.Depth.Int64()
	if err != nil || depth < 0 {
		return nil, malformed("the template's depth is no number of a depth")
	}
	content, err := w.eventContent(t)
	if err != nil {
		return nil, err
	}
	key := string(w.user)
	return event.Build(t.version, event.Draft{
		RoomID: w.room, Type: matrix.TypeMember, StateKey: &key, Sender: w.user, Content: content,
		Depth: min(depth, event.MaxDepth), OriginServerTS: j.Now().UnixMilli(), PrevEvents: prev, AuthEvents: auth,
	}, j.Engine.ServerName, j.Engine.Key)
}

// eventContent is the content that was wished for, with the user by whose power
// the join is allowed.
func (w *wish) eventContent(t *template) (json.RawMessage, error) {
	content := map[string]json.RawMessage{}
	if err := json.Unmarshal(w.content, &content); err != nil {
		return nil, err
	}
	content["membership"] = json.RawMessage(fmt.Sprintf("%q", w.membership))
	delete(content, "join_authorised_via_users_server")
	if by := t.event.Content.AuthorisedBy; by != "" && w.membership == matrix.MembershipJoin && t.version.RestrictedJoins {
		if _, err := matrix.ParseUserID(string(by)); err != nil {
			return nil, malformed("the template names %.64q as a user", by)
		}
		quoted, err := json.Marshal(by)
		if err != nil {
			return nil, err
		}
		content["join_authorised_via_users_server"] = quoted
	}
	return json.Marshal(content)
}

// refs reads prev_events or auth_events: ids, or [id, hashes] pairs where ids are
// texts.
// spec: rooms/v1#event-format
func refs(v *event.Version, list []json.RawMessage, most int) ([]event.Ref, error) {
	if len(list) > most {
		return nil, malformed("the template refers to more than %d events", most)
	}
	all := make([]event.Ref, len(list))
	for i, raw := range list {
		id := raw
		if v.EventIDs == event.IDText {
			var pair [2]json.RawMessage
			if err := json.Unmarshal(raw, &pair); err != nil || pair[1] == nil {
				return nil, malformed("the template does not refer to events as [id, hashes]")
			}
			var hashes struct {
				SHA256 string `json:"sha256"`
			}
			if err := json.Unmarshal(pair[1], &hashes); err != nil {
				return nil, malformed("the template does not refer to events as [id, hashes]")
			}
			hash, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(hashes.SHA256, "="))
			if err != nil || len(hash) != len(all[i].Hash) {
				return nil, malformed("the template refers to an event without its hash")
			}
			id, all[i].Hash = pair[0], [32]byte(hash)
		}
		if err := json.Unmarshal(id, &all[i].ID); err != nil {
			return nil, malformed("the template refers to an event by what is no text")
		}
		if _, err := matrix.ParseEventID(string(all[i].ID)); err != nil {
			return nil, malformed("the template refers to %.64q as an event", all[i].ID)
		}
	}
	return all, nil
}
