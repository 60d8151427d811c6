//go:build goolm

package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/backup"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// identify gives the user cross-signing keys and a key backup, with the secrets
// stored on the server under a recovery key.
func (d *device) identify(ctx context.Context, c *command) (*answer, error) {
	m := d.crypto.Machine()
	recovery, _, err := m.GenerateAndUploadCrossSigningKeysWithPassword(ctx, c.Password, "")
	if err != nil {
		return nil, err
	}
	if err := m.SignOwnDevice(ctx, m.OwnIdentity()); err != nil {
		return nil, err
	}
	if err := m.SignOwnMasterKey(ctx); err != nil {
		return nil, err
	}
	key, err := backup.NewMegolmBackupKey()
	if err != nil {
		return nil, err
	}
	keyID, data, err := m.SSSS.GetDefaultKeyData(ctx)
	if err != nil {
		return nil, err
	}
	secret, err := data.VerifyRecoveryKey(keyID, recovery)
	if err != nil {
		return nil, err
	}
	if err := m.SSSS.SetEncryptedAccountData(ctx, event.AccountDataMegolmBackupKey, key.Bytes(), secret); err != nil {
		return nil, err
	}
	auth := backup.MegolmAuthData{PublicKey: id.Ed25519(base64.RawStdEncoding.EncodeToString(key.PublicKey().Bytes()))}
	signature, err := m.CrossSigningKeys.MasterKey.SignJSON(auth)
	if err != nil {
		return nil, err
	}
	auth.Signatures = signatures.NewSingleSignature(d.client.UserID, id.KeyAlgorithmEd25519, m.CrossSigningKeys.MasterKey.PublicKey().String(), signature)
	_, err = d.client.CreateKeyBackupVersion(ctx, &mautrix.ReqRoomKeysVersionCreate[backup.MegolmAuthData]{
		Algorithm: id.KeyBackupAlgorithmMegolmBackupV1, AuthData: auth,
	})
	return &answer{Key: recovery}, err
}

// backup stores the keys of all sessions that the device has in the backup.
func (d *device) backup(ctx context.Context, _ *command) (*answer, error) {
	version, err := d.client.GetKeyBackupLatestVersion(ctx)
	if err != nil {
		return nil, err
	}
	raw, err := base64.RawStdEncoding.DecodeString(string(version.AuthData.PublicKey))
	if err != nil {
		return nil, err
	}
	sessions, err := d.crypto.Machine().CryptoStore.GetAllGroupSessions(ctx).AsList()
	if err != nil {
		return nil, err
	}
	req := &mautrix.ReqKeyBackup{Rooms: map[id.RoomID]mautrix.ReqRoomKeyBackup{}}
	for _, s := range sessions {
		sealed, err := seal(raw, s)
		if err != nil {
			return nil, err
		}
		if req.Rooms[s.RoomID].Sessions == nil {
			req.Rooms[s.RoomID] = mautrix.ReqRoomKeyBackup{Sessions: map[id.SessionID]mautrix.ReqKeyBackupData{}}
		}
		req.Rooms[s.RoomID].Sessions[s.ID()] = *sealed
	}
	stored, err := d.client.PutKeysInBackup(ctx, version.Version, req)
	if err == nil && stored.Count != len(sessions) {
		err = fmt.Errorf("the backup has %d sessions of %d", stored.Count, len(sessions))
	}
	return &answer{}, err
}

// seal encrypts a session for the backup.
func seal(publicKey []byte, s *crypto.InboundGroupSession) (*mautrix.ReqKeyBackupData, error) {
	first := s.Internal.FirstKnownIndex()
	key, err := s.Internal.Export(first)
	if err != nil {
		return nil, err
	}
	public, err := x25519(publicKey)
	if err != nil {
		return nil, err
	}
	sealed, err := backup.EncryptSessionDataWithPubkey(public, backup.MegolmSessionData{
		Algorithm: id.AlgorithmMegolmV1, ForwardingKeyChain: s.ForwardingChains, SenderKey: s.SenderKey,
		SenderClaimedKeys: backup.SenderClaimedKeys{Ed25519: s.SigningKey}, SessionKey: string(key),
	})
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(sealed)
	return &mautrix.ReqKeyBackupData{FirstMessageIndex: int(first), IsVerified: true, SessionData: raw}, err
}

// restore makes a new device one of the user's own by the recovery key, and reads
// the backup.
func (d *device) restore(ctx context.Context, c *command) (*answer, error) {
	m := d.crypto.Machine()
	if err := m.VerifyWithRecoveryKey(ctx, c.Key); err != nil {
		return nil, err
	}
	keyID, data, err := m.SSSS.GetDefaultKeyData(ctx)
	if err != nil {
		return nil, err
	}
	secret, err := data.VerifyRecoveryKey(keyID, c.Key)
	if err != nil {
		return nil, err
	}
	raw, err := m.SSSS.GetDecryptedAccountData(ctx, event.AccountDataMegolmBackupKey, secret)
	if err != nil {
		return nil, err
	}
	key, err := backup.MegolmBackupKeyFromBytes(raw)
	if err != nil {
		return nil, err
	}
	_, err = m.DownloadAndStoreLatestKeyBackup(ctx, key)
	return &answer{}, err
}

// trust tells how far the device trusts another, as soon as it knows it to be at
// least cross-signed.
func (d *device) trust(ctx context.Context, c *command) (*answer, error) {
	a := &answer{}
	err := eventually(ctx, "trust", func(ctx context.Context) (bool, error) {
		m := d.crypto.Machine()
		other, err := m.GetOrFetchDevice(ctx, id.UserID(c.User), c.Device)
		if err != nil {
			return false, err
		}
		trust, err := m.ResolveTrustContext(ctx, other)
		a.Trust = trust.String()
		return trust >= id.TrustStateCrossSignedUntrusted, err
	})
	return a, err
}
