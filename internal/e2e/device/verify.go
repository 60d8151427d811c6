//go:build goolm

package main

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix/crypto/verificationhelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

func x25519(public []byte) (*ecdh.PublicKey, error) { return ecdh.X25519().NewPublicKey(public) }

// progress is where a verification stands. The callbacks only pass it on: they run
// under the helper's lock.
type progress struct {
	requested chan id.VerificationTransactionID
	ready     chan id.VerificationTransactionID
	shown     chan string
	done      chan error
	current   id.VerificationTransactionID
}

func (d *device) prepareVerification(ctx context.Context) error {
	d.progress = progress{
		requested: make(chan id.VerificationTransactionID, 10), ready: make(chan id.VerificationTransactionID, 10),
		shown: make(chan string, 10), done: make(chan error, 10),
	}
	d.helper = verificationhelper.NewVerificationHelper(d.client, d.crypto.Machine(), nil, &d.progress, false, false, true)
	return d.helper.Init(ctx)
}

func (p *progress) VerificationRequested(_ context.Context, txn id.VerificationTransactionID, _ id.UserID, _ id.DeviceID) {
	p.requested <- txn
}

func (p *progress) VerificationReady(_ context.Context, txn id.VerificationTransactionID, _ id.DeviceID, _, _ bool, _ *verificationhelper.QRCode) {
	p.ready <- txn
}

func (p *progress) VerificationCancelled(_ context.Context, _ id.VerificationTransactionID, code event.VerificationCancelCode, reason string) {
	p.done <- fmt.Errorf("%s: %s", code, reason)
}

func (p *progress) VerificationDone(context.Context, id.VerificationTransactionID, event.VerificationMethod) {
	p.done <- nil
}

func (p *progress) ShowSAS(_ context.Context, _ id.VerificationTransactionID, emojis []rune, _ []string, _ []int) {
	p.shown <- string(emojis)
}

var errLate = errors.New("the other device does not go on")

// next takes what a callback passes on; that a verification is over is an error
// before it should be.
func next[T any](p *progress, from chan T) (v T, err error) {
	select {
	case v = <-from:
		return v, nil
	case err = <-p.done:
		return v, fmt.Errorf("it is over: %w", err)
	case <-time.After(patience):
		return v, errLate
	}
}

// verify asks a user to verify each other and gives the emojis.
func (d *device) verify(ctx context.Context, c *command) (*answer, error) {
	if _, err := d.helper.StartVerification(ctx, id.UserID(c.User)); err != nil {
		return nil, err
	}
	var err error
	if d.current, err = next(&d.progress, d.ready); err != nil {
		return nil, err
	}
	if err := d.helper.StartSAS(ctx, d.current); err != nil {
		return nil, err
	}
	emojis, err := next(&d.progress, d.shown)
	return &answer{Emojis: emojis}, err
}

// compare accepts to be verified and gives the emojis.
func (d *device) compare(ctx context.Context, _ *command) (*answer, error) {
	var err error
	if d.current, err = next(&d.progress, d.requested); err != nil {
		return nil, err
	}
	if err := d.helper.AcceptVerification(ctx, d.current); err != nil {
		return nil, err
	}
	emojis, err := next(&d.progress, d.shown)
	return &answer{Emojis: emojis}, err
}

// confirm says that the emojis are the same, and waits until the other one has
// said so, too.
func (d *device) confirm(ctx context.Context, _ *command) (*answer, error) {
	if err := d.helper.ConfirmSAS(ctx, d.current); err != nil {
		return nil, err
	}
	select {
	case err := <-d.done:
		return &answer{}, err
	case <-time.After(patience):
		return nil, errLate
	}
}
