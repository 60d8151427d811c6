package api

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// relation is what an event that is being sent relates to.
type relation struct {
	Type   string         `json:"rel_type"`
	Target matrix.EventID `json:"event_id"`
	Key    string         `json:"key"`
}

// checkRelation refuses relations that cannot be: to say the same of an event
// twice, or to begin a thread within another.
func (a *API) checkRelation(ctx context.Context, c *httpx.Caller, q *sendRequest) error {
	if !bytes.Contains(q.Body, []byte(`"m.relates_to"`)) {
		return nil
	}
	var content struct {
		RelatesTo relation `json:"m.relates_to"`
	}
	rel := &content.RelatesTo
	if json.Unmarshal(q.Body, &content) != nil || rel.Target == "" {
		return nil // of the wrong type: it relates to nothing
	}
	switch rel.Type {
	case "m.annotation":
		return a.checkAnnotation(ctx, c, q, rel)
	case "m.thread":
		return a.checkThread(ctx, q.RoomID, rel)
	}
	return nil
}

// checkAnnotation refuses a second annotation of a user that says the same,
// unless it is the first one's request that is sent again.
// spec: client-server#avoiding-duplicate-annotations
func (a *API) checkAnnotation(ctx context.Context, c *httpx.Caller, q *sendRequest, rel *relation) error {
	there, err := a.Engine.Annotated(ctx, rel.Target, c.User, q.Type, rel.Key)
	if err != nil || !there {
		return err
	}
	again, err := a.Engine.Sent(ctx, q.txn(c))
	if err != nil || again {
		return err
	}
	return matrix.NewError(400, matrix.CodeDuplicateAnnotation, "You have reacted so to the event already")
}

// checkThread refuses a thread whose root relates to another event. A root that
// this server does not know may be anything.
// spec: client-server#validation-of-mthread-relationships
func (a *API) checkThread(ctx context.Context, room matrix.RoomID, rel *relation) error {
	r, err := a.Engine.Room(ctx, room)
	if err != nil {
		return err
	}
	root, err := a.Engine.EventByID(ctx, r, rel.Target)
	if matrix.HasCode(err, matrix.CodeNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if root.Relation.Target != "" {
		return matrix.NewError(400, matrix.CodeUnknown, "A thread cannot begin at an event that relates to another")
	}
	return nil
}
