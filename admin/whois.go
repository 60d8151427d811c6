package admin

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

type whoisRequest struct {
	User matrix.UserID `path:"userId"`
}

type whoisAnswer struct {
	User    matrix.UserID                   `json:"user_id"`
	Devices map[matrix.DeviceID]whoisDevice `json:"devices"`
}

type whoisDevice struct {
	Sessions []whoisSession `json:"sessions"`
}

type whoisSession struct {
	Connections []whoisConnection `json:"connections"`
}

type whoisConnection struct {
	IP        string `json:"ip,omitempty"`
	LastSeen  int64  `json:"last_seen,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
}

// whois is for users who ask about themselves, and for administrators.
// spec: client-server#get_matrixclientv3adminwhoisuserid
func (a *Admin) whois(ctx context.Context, c *httpx.Caller, q *whoisRequest) (*whoisAnswer, error) {
	if c.User != q.User && !c.Admin {
		return nil, matrix.Forbidden("Only administrators may look up others")
	}
	if q.User.Server() != a.server {
		return nil, matrix.InvalidParam("This user does not belong to this server")
	}
	exists, err := a.users.Exists(ctx, q.User)
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, matrix.NotFound("There is no such user")
	}
	sessions, err := a.users.Sessions(ctx, q.User)
	if err != nil {
		return nil, err
	}
	answer := &whoisAnswer{User: q.User, Devices: make(map[matrix.DeviceID]whoisDevice, len(sessions))}
	for _, s := range sessions {
		d := answer.Devices[s.Device]
		d.Sessions = append(d.Sessions, whoisSession{Connections: []whoisConnection{
			{IP: s.Addr, LastSeen: s.LastSeen, UserAgent: s.UserAgent},
		}})
		answer.Devices[s.Device] = d
	}
	return answer, nil
}
