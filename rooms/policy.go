package rooms

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// PolicySigner asks policy servers to sign events.
type PolicySigner interface {
	// Sign returns the server's signature on the event, in unpadded base64. What
	// the server refuses with is a *matrix.Error that a client may be shown.
	Sign(ctx context.Context, server matrix.ServerName, ev *event.Event) (string, error)
}

// policyKeyID names the key by which a policy server signs.
// spec: server-server#validating-policy-server-signatures
const policyKeyID = "ed25519:policy_server"

// askedAtOnce is how many signatures on events of one batch are asked for at a
// time.
const askedAtOnce = 8

var (
	errNotRecommended = errors.New("the room's policy server has not signed the event")
	policyStateKey    = auth.Key{Type: matrix.TypePolicy}
)

// policy is a server that has to sign a room's events. nil is none.
type policy struct {
	server matrix.ServerName
	key    ed25519.PublicKey
}

// policyOf reads m.room.policy; nil if it names no policy server.
// spec: server-server#determining-if-a-policy-server-is-enabled-in-a-room
func policyOf(st *Stored) *policy {
	if st == nil {
		return nil
	}
	p, _ := st.Memo(func() any {
		var c struct {
			Via  matrix.ServerName `json:"via"`
			Keys struct {
				Ed25519 string `json:"ed25519"`
			} `json:"public_keys"`
		}
		if json.Unmarshal(st.Content, &c) != nil {
			return (*policy)(nil)
		}
		if _, err := matrix.ParseServerName(string(c.Via)); err != nil || c.Keys.Ed25519 == "" {
			return (*policy)(nil)
		}
		return &policy{c.Via, publicKey(c.Keys.Ed25519)}
	}).(*policy)
	return p
}

// publicKey reads base64 of either alphabet. A text that is no key gives one that
// nothing verifies with.
func publicKey(text string) ed25519.PublicKey {
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	key, _ := base64.RawStdEncoding.DecodeString(text)
	return key
}

// recommends tells whether the policy server has signed the event, or need not.
// spec: server-server#validating-policy-server-signatures
func (p *policy) recommends(ev *event.Event) bool {
	return p == nil || ev.Is(matrix.TypePolicy, "") || ev.Verify(p.server, policyKeyID, p.key) == nil
}

// policy is the one of the room as its head has it.
func (b *Builder) policy() (*policy, error) {
	if b.creating || b.importing {
		return nil, nil // somebody in the room has judged
	}
	st, err := b.stateIn(b.head.state, policyStateKey)
	if st == nil || err != nil {
		return nil, err
	}
	p := policyOf(st)
	if p == nil || b.head.servers.count(p.server) > 0 || p.server == b.e.ServerName && b.room.LocalMemberCount() > 0 {
		return p, nil
	}
	return nil, nil
}

// appendSigned is Append in a room whose policy server has to sign events first.
// It is asked while the room's turn is not held; if the room has moved on by then,
// the event goes the way of those of other servers.
func (b *Builder) appendSigned(p Proto, by *policy) (*Stored, error) {
	at := len(b.events)
	if at < len(b.got.signed) {
		return b.bringIn(b.got.signed[at])
	}
	prevs, before, err := b.footing()
	if err != nil {
		return nil, err
	}
	ev, st, _, err := b.build(p, before, prevs)
	if err != nil {
		return nil, err
	}
	if err := auth.Check(ev, st); err != nil {
		return nil, forbidden(err)
	}
	return nil, &need{sign: ev, signer: by}
}

// sign asks for the signature that a builder needs.
func (e *Engine) sign(ctx context.Context, got *fetched, n *need) error {
	signed, err := e.askPolicy(ctx, n.signer, n.sign)
	if err != nil {
		return err
	}
	if !n.signer.recommends(signed) {
		return matrix.Forbidden("The signature of the room's policy server %s does not verify; the room's m.room.policy may name an old key", n.signer.server)
	}
	got.signed = append(got.signed, signed)
	return nil
}

// askPolicy returns the event with the policy server's signature.
// spec: server-server#asking-for-a-policy-server-signature-on-an-event
func (e *Engine) askPolicy(ctx context.Context, p *policy, ev *event.Event) (*event.Event, error) {
	if e.Policy == nil {
		return nil, matrix.NewError(http.StatusForbidden, matrix.CodeForbidden, "The room's policy server %s cannot be asked: this server does not federate", p.server)
	}
	signature, err := e.Policy.Sign(ctx, p.server, ev)
	if err != nil {
		return nil, err
	}
	return ev.AddSignature(p.server, policyKeyID, signature)
}

// Recommended asks the room's policy server, if it has one, to sign those of
// other servers' events that it has not signed yet, and returns them all. What it
// does not sign, Receive soft-fails.
func (e *Engine) Recommended(ctx context.Context, r *Room, events []*event.Event) ([]*event.Event, error) {
	p, err := e.policyNow(ctx, r)
	if p == nil || err != nil {
		return events, err
	}
	signed := make([]*event.Event, len(events))
	var group errgroup.Group
	group.SetLimit(askedAtOnce)
	for i, ev := range events {
		signed[i] = ev
		if p.recommends(ev) {
			continue
		}
		group.Go(func() error {
			if got, err := e.askPolicy(ctx, p, ev); err == nil {
				signed[i] = got
			} else {
				e.Log.DebugContext(ctx, "a policy server does not sign an event", "server", p.server, "event", ev.ID, "error", err)
			}
			return nil
		})
	}
	return signed, group.Wait()
}

// policyNow is the policy server of the committed room.
func (e *Engine) policyNow(ctx context.Context, r *Room) (*policy, error) {
	st, err := e.StateEvent(ctx, r.View().State, matrix.TypePolicy, "")
	p := policyOf(st)
	if p == nil || err != nil || r.HasServer(p.server) || p.server == e.ServerName && r.LocalMemberCount() > 0 {
		return p, err
	}
	return nil, nil
}
