package data

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// openIDLifetime is how long an OpenID token can be redeemed.
const openIDLifetime = time.Hour

// IssueOpenID makes a token that proves to third parties who user is. It is
// good for nothing else.
// spec: client-server#post_matrixclientv3useruseridopenidrequest_token
func (d *Data) IssueOpenID(ctx context.Context, user matrix.UserID) (token string, lifetime time.Duration, err error) {
	token = rand.Text()
	now := d.now()
	err = d.db.Write(ctx, func(tx *db.Tx) error {
		if err := tx.Exec(deleteExpired, now.UnixMilli()); err != nil {
			return err
		}
		return tx.Exec(insertOpenID, hashToken(token), user, now.Add(openIDLifetime).UnixMilli())
	})
	return token, openIDLifetime, err
}

// RedeemOpenID returns whom a token was issued to; false if it is unknown or
// has expired. A token may be redeemed more than once.
// spec: server-server#get_matrixfederationv1openiduserinfo
func (d *Data) RedeemOpenID(ctx context.Context, token string) (matrix.UserID, bool, error) {
	return db.One(ctx, d.db, selectOpenID, func(row db.Scanner) (matrix.UserID, error) {
		var user string
		err := row.Scan(&user)
		return matrix.UserID(user), err
	}, hashToken(token), d.now().UnixMilli())
}

func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
