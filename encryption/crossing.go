package encryption

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Messages to devices cross to other servers, and come from there, as EDUs.

const (
	// maxEDUBytes is what the messages of one EDU are kept below, unless a single
	// one is larger.
	maxEDUBytes = 60 << 10
	// receivedKept is how long a server may take to send a message once more.
	receivedKept = 7 * 24 * time.Hour
)

// directMessages is the content of m.direct_to_device.
// spec: server-server#definition-mdirect_to_device
type directMessages struct {
	Sender    matrix.UserID `json:"sender"`
	Type      string        `json:"type"`
	MessageID string        `json:"message_id"`
	Messages  Messages      `json:"messages"`
}

// outgoing is messages on their way to other servers.
type outgoing struct {
	to      matrix.ServerName
	content json.RawMessage
}

// pack puts messages into EDUs: one for each server, more where they are large.
func (e *Encryption) pack(sender matrix.UserID, eventType string, messages Messages) ([]outgoing, error) {
	byServer := map[matrix.ServerName][]matrix.UserID{}
	for _, user := range slices.Sorted(maps.Keys(messages)) {
		byServer[user.Server()] = append(byServer[user.Server()], user)
	}
	var all []outgoing
	for _, server := range slices.Sorted(maps.Keys(byServer)) {
		part, size := Messages{}, 0
		flush := func() error {
			if len(part) == 0 {
				return nil
			}
			id, err := e.messageID()
			if err != nil {
				return err
			}
			content, err := json.Marshal(directMessages{sender, eventType, id, part})
			all = append(all, outgoing{server, content})
			part, size = Messages{}, 0
			return err
		}
		for _, user := range byServer[server] {
			for _, id := range slices.Sorted(maps.Keys(messages[user])) {
				content := messages[user][id]
				n := len(content) + len(id) + len(user)
				if size > 0 && size+n > maxEDUBytes {
					if err := flush(); err != nil {
						return nil, err
					}
				}
				size += n
				if part[user] == nil {
					part[user] = map[matrix.DeviceID]json.RawMessage{}
				}
				part[user][id] = content
			}
		}
		if err := flush(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// messageID makes an id that no other message has, of at most 32 characters.
func (e *Encryption) messageID() (string, error) {
	b := make([]byte, 18)
	if _, err := io.ReadFull(e.Rand, b); err != nil {
		return "", fmt.Errorf("encryption: no id for a message: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// HandleToDevice delivers what another server's user sends to devices here: once,
// however often it comes. What is malformed is left out.
func (e *Encryption) HandleToDevice(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
	var m directMessages
	if err := json.Unmarshal(content, &m); err != nil {
		e.Log.Debug("messages to devices were malformed", "origin", origin, "error", err)
		return nil
	}
	if _, err := matrix.ParseUserID(string(m.Sender)); err != nil || m.Sender.Server() != origin || e.local(m.Sender) ||
		!plainText(m.Type) || !plainText(m.MessageID) {
		return nil
	}
	messages := e.deliverable(m.Messages)
	if len(messages) == 0 {
		return nil
	}
	account, err := e.accountOf(ctx, m.Sender)
	if err != nil {
		return err
	}
	parcel := newParcel(m.Sender, account, m.Type, messages)
	return e.DB.Write(ctx, func(tx *db.Tx) error {
		n, err := tx.Changed(insertReceived, origin, m.MessageID, e.Now().UnixMilli())
		if err != nil || n == 0 {
			return err
		}
		if err := e.deliver(ctx, tx, parcel); err != nil {
			return err
		}
		return e.prune(tx)
	})
}

// deliverable are the messages that a server may send here.
func (e *Encryption) deliverable(all Messages) Messages {
	good, total := Messages{}, 0
	for user, devices := range all {
		if _, err := matrix.ParseUserID(string(user)); err != nil || !e.local(user) {
			continue
		}
		for id, content := range devices {
			if checkMessage(user, id, content) != nil || total >= maxRecipients {
				continue
			}
			if good[user] == nil {
				good[user] = map[matrix.DeviceID]json.RawMessage{}
			}
			good[user][id] = content
			total++
		}
	}
	return good
}

// accountOf is whose quota a remote user's messages count against: their own if
// they share a room with somebody here, else that of all strangers of their
// server, who may be as many as it likes.
func (e *Encryption) accountOf(ctx context.Context, sender matrix.UserID) (string, error) {
	company, err := e.Rooms.LocalCompany(ctx, sender)
	if err != nil || len(company) > 0 {
		return string(sender), err
	}
	return string(sender.Server()), nil
}

// plainText tells whether a text can be stored, and is short.
func plainText(text string) bool { return plain(text, matrix.MaxIDBytes) && utf8.ValidString(text) }
