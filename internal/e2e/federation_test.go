package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/testca"
)

// federate runs a server at each of the addresses, which find each other by
// their names over TLS.
func federate(t *testing.T, kind string, hosts ...string) []*process {
	t.Helper()
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	servers := make([]*process, len(hosts))
	for i, host := range hosts {
		dir := t.TempDir()
		authority, err := ca.Write(dir)
		if err != nil {
			t.Fatal(err)
		}
		cert, key, err := ca.Issue(dir, host)
		if err != nil {
			t.Fatal(err)
		}
		name := freeAddress(t, host)
		servers[i] = startAs(t, kind, dir, name,
			fmt.Sprintf(`, {address: %q, serves: [federation], tls: {cert: %q, key: %q}}`, name, cert, key),
			fmt.Sprintf("federation: {allow_private_addresses: true, ca_file: %q}\n", authority))
	}
	return servers
}

// person is a user who talks to their server in plain HTTP.
type person struct {
	t     *testing.T
	p     *process
	token string
	id    string
}

func (p *process) person(t *testing.T, name string) *person {
	t.Helper()
	u := &person{t: t, p: p}
	answer, err := u.do("POST", "/v3/register", map[string]any{"username": name, "password": "password", "auth": map[string]any{"type": "m.login.dummy"}})
	if err != nil {
		t.Fatal(err)
	}
	u.token, u.id = answer["access_token"].(string), answer["user_id"].(string)
	return u
}

func (u *person) do(method, path string, body any) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var send io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		send = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.p.url+"/_matrix/client"+path, send)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+u.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer := map[string]any{}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %d %v", method, path, res.StatusCode, answer)
	}
	return answer, nil
}

func (u *person) must(method, path string, body any) map[string]any {
	u.t.Helper()
	answer, err := u.do(method, path, body)
	if err != nil {
		u.t.Fatal(err)
	}
	return answer
}

// say sends a message, again and again until the server has taken it: it may be
// killed meanwhile.
func (u *person) say(room, text string) error {
	for until := time.Now().Add(time.Minute); ; {
		_, err := u.do("PUT", "/v3/rooms/"+url.PathEscape(room)+"/send/m.room.message/"+text, map[string]any{"msgtype": "m.text", "body": text})
		if err == nil || time.Now().After(until) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// texts pages back through the whole room.
func (u *person) texts(room string) (list []string) {
	u.t.Helper()
	for from := ""; ; {
		answer := u.must("GET", "/v3/rooms/"+url.PathEscape(room)+"/messages?dir=b&limit=200"+from, nil)
		for _, ev := range answer["chunk"].([]any) {
			content, _ := ev.(map[string]any)["content"].(map[string]any)
			if text, ok := content["body"].(string); ok {
				list = append(list, text)
			}
		}
		end, ok := answer["end"].(string)
		if !ok {
			slices.Reverse(list)
			return list
		}
		from = "&from=" + url.QueryEscape(end)
	}
}

// Three servers talk; one of them is killed under load and started again. In the
// end every message that was taken is everywhere, once.
func TestThreeServersSurviveAKill(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			servers := federate(t, kind, "127.0.0.2", "127.0.0.3", "127.0.0.4")
			people := make([]*person, len(servers))
			for i, p := range servers {
				people[i] = p.person(t, "user")
			}
			room := people[0].must("POST", "/v3/createRoom", map[string]any{"preset": "public_chat"})["room_id"].(string)
			for _, u := range people[1:] {
				u.must("POST", "/v3/join/"+url.PathEscape(room)+"?via="+url.QueryEscape(servers[0].name), map[string]any{})
			}
			const each = 60
			var want []string
			var talking sync.WaitGroup
			for i, u := range people {
				for n := range each {
					want = append(want, fmt.Sprintf("s%d-%d", i, n))
				}
				talking.Go(func() {
					for n := range each {
						if err := u.say(room, fmt.Sprintf("s%d-%d", i, n)); err != nil {
							t.Error(err)
						}
					}
				})
			}
			time.Sleep(300 * time.Millisecond) // in the middle of it
			servers[1].kill()
			servers[1].run()
			talking.Wait()
			slices.Sort(want)
			for i, u := range people {
				var got []string
				for until := time.Now().Add(90 * time.Second); ; {
					if got = u.texts(room); len(got) >= len(want) || time.Now().After(until) {
						break
					}
					// A sign of life shortens what the others wait before they try again.
					u.must("PUT", "/v3/rooms/"+url.PathEscape(room)+"/typing/"+url.PathEscape(u.id), map[string]any{"typing": true, "timeout": 1000})
					time.Sleep(200 * time.Millisecond)
				}
				slices.Sort(got)
				if !slices.Equal(got, want) {
					t.Errorf("server %d has %d messages of %d: %v", i, len(got), len(want), got)
				}
			}
		})
	}
}
