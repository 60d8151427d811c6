package discovery

import (
	"testing"
	"time"
)

func TestTURN(t *testing.T) {
	uris := []string{"turn:turn.example.org?transport=udp", "turns:turn.example.org"}
	for _, c := range []struct {
		name string
		turn TURN
		want string
	}{
		{"none", TURN{Lifetime: time.Hour}, `{}`},
		{"everybody's", TURN{URIs: uris, Username: "tea", Password: "pot", Lifetime: time.Hour},
			`{"username":"tea","password":"pot","uris":["turn:turn.example.org?transport=udp","turns:turn.example.org"],"ttl":3600}`},
		// printf 1600003600:@alice:x | openssl dgst -sha1 -hmac hush -binary | base64
		{"by user and time", TURN{URIs: uris[1:], SharedSecret: "hush", Lifetime: time.Hour},
			`{"username":"1600003600:@alice:x","password":"SsSOMA4rLp0NPMQ8pUzcvnSVtYc=","uris":["turns:turn.example.org"],"ttl":3600}`},
	} {
		h := handler(t, Deps{TURN: c.turn, Now: func() time.Time { return time.Unix(1_600_000_000, 0) }})
		if code, body := ask(h, "alice", "GET", "/_matrix/client/v3/voip/turnServer", ""); code != 200 || body != c.want {
			t.Errorf("%s: %d %s", c.name, code, body)
		}
	}
}
