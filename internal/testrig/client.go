package testrig

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// JSON is an object in a request or an answer.
type JSON = map[string]any

// Client is a logged-in user's device, or nobody if Token is empty.
type Client struct {
	User   matrix.UserID
	Device matrix.DeviceID
	Token  string

	t    testing.TB
	base string
	http *http.Client
}

// Anonymous is a client without an account.
func (s *Server) Anonymous() *Client {
	return &Client{t: s.t, base: "http://" + string(s.Name), http: s.Network.Client()}
}

// Register makes an account whose password is "password".
func (s *Server) Register(localpart string) *Client {
	s.t.Helper()
	c := s.Anonymous()
	answer := c.Must("POST", "/v3/register", JSON{
		"username": localpart, "password": "password", "auth": JSON{"type": "m.login.dummy"},
	})
	c.take(answer)
	return c
}

// Guest makes a guest's account.
func (s *Server) Guest() *Client {
	s.t.Helper()
	c := s.Anonymous()
	c.take(c.Must("POST", "/v3/register?kind=guest", JSON{}))
	return c
}

// Login logs in on a new device.
func (s *Server) Login(localpart string) *Client {
	s.t.Helper()
	c := s.Anonymous()
	c.take(c.Must("POST", "/v3/login", JSON{
		"type": "m.login.password", "password": "password", "identifier": JSON{"type": "m.id.user", "user": localpart},
	}))
	return c
}

func (c *Client) take(answer JSON) {
	c.User = matrix.UserID(answer["user_id"].(string))
	c.Device = matrix.DeviceID(answer["device_id"].(string))
	c.Token = answer["access_token"].(string)
}

// Path joins segments to a path, percent-encoding each.
func Path(segments ...any) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(fmt.Sprint(s)))
	}
	return b.String()
}

// Do sends a request to the client API: a path below /_matrix/client, or one
// that begins with /_. A nil body sends none.
func (c *Client) Do(ctx context.Context, method, path string, body any) (int, JSON, error) {
	if !strings.HasPrefix(path, "/_") && !strings.HasPrefix(path, "/.") {
		path = "/_matrix/client" + path
	}
	var send io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		send = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return 0, nil, err
		}
		send = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, send)
	if err != nil {
		return 0, nil, err
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, nil, err
	}
	answer := JSON{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &answer); err != nil {
			return res.StatusCode, nil, fmt.Errorf("%s %s: %w in %.200q", method, path, err, raw)
		}
	}
	return res.StatusCode, answer, nil
}

// Must is Do for a request that has to succeed.
func (c *Client) Must(method, path string, body any) JSON {
	c.t.Helper()
	status, answer, err := c.Do(c.t.Context(), method, path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	if status != http.StatusOK {
		c.t.Fatalf("%s %s: %d %v", method, path, status, answer)
	}
	return answer
}

// Fails is Do for a request that has to fail so.
func (c *Client) Fails(status int, code matrix.Code, method, path string, body any) JSON {
	c.t.Helper()
	got, answer, err := c.Do(c.t.Context(), method, path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	if got != status || answer["errcode"] != string(code) {
		c.t.Fatalf("%s %s: %d %v, not %d %s", method, path, got, answer, status, code)
	}
	return answer
}

// CreateRoom makes a room.
func (c *Client) CreateRoom(body JSON) matrix.RoomID {
	c.t.Helper()
	return matrix.RoomID(c.Must("POST", "/v3/createRoom", body)["room_id"].(string))
}

// Join joins a room.
func (c *Client) Join(room matrix.RoomID) {
	c.t.Helper()
	c.Must("POST", "/v3/rooms"+Path(room, "join"), JSON{})
}

// Say sends a text message.
func (c *Client) Say(room matrix.RoomID, txnID, text string) matrix.EventID {
	c.t.Helper()
	answer := c.Must("PUT", "/v3/rooms"+Path(room, "send", "m.room.message", txnID), JSON{"msgtype": "m.text", "body": text})
	return matrix.EventID(answer["event_id"].(string))
}

// Sync asks what is new since a token, "" for everything, and waits up to
// timeout milliseconds.
func (c *Client) Sync(since string, timeout int) JSON {
	c.t.Helper()
	q := url.Values{"timeout": {fmt.Sprint(timeout)}}
	if since != "" {
		q.Set("since", since)
	}
	return c.Must("GET", "/v3/sync?"+q.Encode(), nil)
}
