//go:build goolm

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	"maunium.net/go/mautrix/crypto/verificationhelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// patience is how long a device tries to do something. Its server may be away.
const patience = 2 * time.Minute

// device is one that is logged in.
type device struct {
	client *mautrix.Client
	crypto *cryptohelper.CryptoHelper
	helper *verificationhelper.VerificationHelper
	progress

	mu     sync.Mutex
	texts  map[id.RoomID][]string // as they came by /sync
	failed map[id.RoomID][]string
}

// syncer tries again at once when its server was away.
type syncer struct{ *mautrix.DefaultSyncer }

func (syncer) OnFailedSync(*mautrix.RespSync, error) (time.Duration, error) {
	return 200 * time.Millisecond, nil
}

// login makes this a device of a user.
func (d *device) login(ctx context.Context, c *command) (*answer, error) {
	client, err := mautrix.NewClient(c.Server, "", "")
	if err != nil {
		return nil, err
	}
	client.DefaultHTTPRetries, client.DefaultHTTPBackoff, client.MaxHTTPBackoff = 500, 50*time.Millisecond, time.Second
	client.Syncer = syncer{mautrix.NewDefaultSyncer()}
	log, err := os.Create(filepath.Join(c.Dir, "log"))
	if err != nil {
		return nil, err
	}
	client.Log = client.Log.Output(log).Level(0) // debug
	d.client, d.texts, d.failed = client, map[id.RoomID][]string{}, map[id.RoomID][]string{}
	if d.crypto, err = cryptohelper.NewCryptoHelper(client, []byte("pickle"), filepath.Join(c.Dir, "store.db")); err != nil {
		return nil, err
	}
	d.crypto.LoginAs = &mautrix.ReqLogin{
		Type: mautrix.AuthTypePassword, Password: c.Password,
		Identifier: mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: c.User},
	}
	d.crypto.DecryptErrorCallback = func(ev *event.Event, err error) {
		d.note(d.failed, ev.RoomID, fmt.Sprintf("%s: %v", ev.ID, err))
	}
	if err := d.crypto.Init(ctx); err != nil {
		return nil, err
	}
	client.Crypto = d.crypto
	client.Syncer.(mautrix.ExtensibleSyncer).OnEventType(event.EventMessage, func(_ context.Context, ev *event.Event) {
		if ev.Mautrix.WasEncrypted {
			d.note(d.texts, ev.RoomID, ev.Content.AsMessage().Body)
		}
	})
	if err := d.prepareVerification(ctx); err != nil {
		return nil, err
	}
	go func() { _ = client.SyncWithContext(ctx) }()
	return &answer{User: client.UserID, Device: client.DeviceID}, nil
}

func (d *device) note(list map[id.RoomID][]string, room id.RoomID, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list[room] = append(list[room], text)
}

// eventually waits for what happens beside.
func eventually(ctx context.Context, what string, ok func(context.Context) (bool, error)) error {
	for deadline := time.Now().Add(patience); ; {
		done, err := ok(ctx)
		if done {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("in vain: %s (%w)", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// wait waits until the device has seen so many members in an encrypted room.
func (d *device) wait(ctx context.Context, c *command) (*answer, error) {
	return &answer{}, eventually(ctx, "members", func(ctx context.Context) (bool, error) {
		encrypted, err := d.client.StateStore.IsEncrypted(ctx, c.Room)
		if err != nil || !encrypted {
			return false, err
		}
		members, err := d.client.StateStore.GetRoomJoinedOrInvitedMembers(ctx, c.Room)
		return len(members) >= c.Number, err
	})
}

// send sends a text, as often as it takes.
func (d *device) send(ctx context.Context, c *command) (*answer, error) {
	return &answer{}, eventually(ctx, "sending", func(ctx context.Context) (bool, error) {
		_, err := d.client.SendMessageEvent(ctx, c.Room, event.EventMessage,
			&event.MessageEventContent{MsgType: event.MsgText, Body: c.Text}, mautrix.ReqSendEvent{TransactionID: c.Text})
		return err == nil, err
	})
}

// seen tells what came by /sync, once so many texts have come.
func (d *device) seen(ctx context.Context, c *command) (*answer, error) {
	a := &answer{}
	err := eventually(ctx, "texts", func(context.Context) (bool, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		a.Texts, a.Failed = slices.Clone(d.texts[c.Room]), slices.Clone(d.failed[c.Room])
		return len(a.Texts) >= c.Number, fmt.Errorf("there are %d of %d; failed: %v", len(a.Texts), c.Number, a.Failed)
	})
	return a, err
}

// history pages back through a room and decrypts what it finds, until so many
// texts are there and nothing is left that cannot be decrypted: keys may be on
// their way.
func (d *device) history(ctx context.Context, c *command) (*answer, error) {
	a := &answer{}
	err := eventually(ctx, "history", func(ctx context.Context) (bool, error) {
		a = &answer{}
		for from := ""; ; {
			page, err := d.client.Messages(ctx, c.Room, from, "", mautrix.DirectionBackward, nil, 100)
			if err != nil {
				return false, err
			}
			for _, ev := range page.Chunk {
				d.decrypt(ctx, ev, a)
			}
			if from = page.End; from == "" {
				break
			}
		}
		return len(a.Texts) >= c.Number && len(a.Failed) == 0,
			fmt.Errorf("there are %d of %d; failed: %v", len(a.Texts), c.Number, a.Failed)
	})
	return a, err
}

func (d *device) decrypt(ctx context.Context, ev *event.Event, a *answer) {
	if ev.Type != event.EventEncrypted {
		return
	}
	err := ev.Content.ParseRaw(ev.Type)
	if err == nil {
		ev, err = d.crypto.Decrypt(ctx, ev)
	}
	if err != nil {
		a.Failed = append(a.Failed, err.Error())
		return
	}
	if text := ev.Content.AsMessage().Body; ev.Type == event.EventMessage && text != "" {
		a.Texts = append(a.Texts, text)
	}
}
