package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"
)

// The keys of one upload, and the devices that a client talks to at once.
const (
	oneTimeKeys = 50
	circle      = 20
)

const keysPath = "/_matrix/client/v3/keys/"

// keyring is what a device publishes.
type keyring struct {
	user    user
	device  string
	private ed25519.PrivateKey
}

// keyrings makes keys for the devices of users.
func (b *bench) keyrings(ctx context.Context, users []user) ([]keyring, error) {
	rings := make([]keyring, len(users))
	_, err := b.all(ctx, len(users), func(c *conn, i int) error {
		answer, err := c.do("GET", "/_matrix/client/v3/account/whoami", users[i].token, nil)
		if err != nil {
			return err
		}
		_, private, err := ed25519.GenerateKey(rand.Reader)
		rings[i] = keyring{users[i], text(answer, "device_id"), private}
		return err
	})
	return rings, err
}

// unpadded is base64 as keys are written.
func unpadded(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

func randomKey() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return unpadded(b)
}

// signed is an object with a signature. Its values are such that Marshal writes
// the canonical form.
func signed(content map[string]any, u user, keyID string, private ed25519.PrivateKey) map[string]any {
	raw, err := json.Marshal(content)
	if err != nil {
		panic(err) // strings and lists of strings
	}
	content["signatures"] = map[string]any{u.id: map[string]string{keyID: unpadded(ed25519.Sign(private, raw))}}
	return content
}

// upload is the body of a device's first upload.
func (k *keyring) upload() []byte {
	id := "ed25519:" + k.device
	oneTime := map[string]any{}
	for i := range oneTimeKeys {
		oneTime[fmt.Sprintf("signed_curve25519:AAAA%02d", i)] = signed(map[string]any{"key": randomKey()}, k.user, id, k.private)
	}
	body, err := json.Marshal(map[string]any{
		"device_keys": signed(map[string]any{
			"user_id": k.user.id, "device_id": k.device, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"},
			"keys": map[string]string{id: unpadded(k.private.Public().(ed25519.PublicKey)), "curve25519:" + k.device: randomKey()},
		}, k.user, id, k.private),
		"one_time_keys": oneTime,
	})
	if err != nil {
		panic(err) // as above
	}
	return body
}

// identity is the body that publishes a user's cross-signing keys.
func (k *keyring) identity() []byte {
	key := func(usage, public string) map[string]any {
		return map[string]any{"user_id": k.user.id, "usage": []string{usage}, "keys": map[string]string{"ed25519:" + public: public}}
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // the system has no randomness
	}
	master := unpadded(public)
	body, err := json.Marshal(map[string]any{
		"master_key":       signed(key("master", master), k.user, "ed25519:"+k.device, k.private),
		"self_signing_key": signed(key("self_signing", randomKey()), k.user, "ed25519:"+master, private),
		"user_signing_key": signed(key("user_signing", randomKey()), k.user, "ed25519:"+master, private),
	})
	if err != nil {
		panic(err) // as above
	}
	return body
}

// keys publishes devices' keys, claims one-time keys, and asks for the keys of
// some users.
func keys(ctx context.Context, b *bench) error {
	users, err := b.people(ctx, b.n(1000, 60))
	if err != nil {
		return err
	}
	rings, err := b.keyrings(ctx, users)
	if err != nil {
		return err
	}
	bodies := make([][]byte, len(rings))
	for i := range rings {
		bodies[i] = rings[i].upload()
	}
	uploads, err := b.all(ctx, len(rings), func(c *conn, i int) error {
		_, err := c.do("POST", keysPath+"upload", users[i].token, bodies[i])
		return err
	})
	if err != nil {
		return err
	}
	claims, err := b.all(ctx, b.n(1500, 50), func(c *conn, i int) error {
		var list []string
		for n := range circle {
			k := &rings[(i*circle+n)%len(rings)]
			list = append(list, fmt.Sprintf(`%q:{%q:"signed_curve25519"}`, k.user.id, k.device))
		}
		answer, err := c.do("POST", keysPath+"claim", users[i%len(users)].token, []byte(`{"one_time_keys":{`+strings.Join(list, ",")+`}}`))
		if n := strings.Count(string(answer), `"key":`); err == nil && n != circle {
			err = fmt.Errorf("%d keys of %d were claimed", n, circle)
		}
		return err
	})
	if err != nil {
		return err
	}
	var list []string
	for i := range circle {
		if _, err := b.conns[0].do("POST", keysPath+"device_signing/upload", users[i].token, rings[i].identity()); err != nil {
			return err
		}
		list = append(list, fmt.Sprintf("%q:[]", users[i].id))
	}
	body := []byte(`{"device_keys":{` + strings.Join(list, ",") + `}}`)
	queries, err := b.all(ctx, b.n(10000, 200), func(c *conn, i int) error {
		answer, err := c.do("POST", keysPath+"query", users[i%len(users)].token, body)
		if err == nil && len(answer) < circle*1000 {
			err = fmt.Errorf("an answer is too short: %.300s", answer)
		}
		return err
	})
	if err != nil {
		return err
	}
	b.rate("uploads of 50 one-time keys", uploads.rate(), "/s", 500)
	b.note("server CPU an upload", uploads.cpuMS(), "ms")
	b.rate("keys claimed, 20 at a time", claims.rate()*circle, "/s", 5000)
	b.note("server CPU a key", claims.cpuMS()/circle, "ms")
	b.rate("queries of 20 users", queries.rate(), "/s", 2000)
	b.note("server CPU a query", queries.cpuMS(), "ms")
	return nil
}

// toDevice sends messages to 20 devices that wait for them, one by one, and then
// many while they are away, who fetch them later.
func toDevice(ctx context.Context, b *bench) error {
	senders, err := b.people(ctx, b.n(400, 50))
	if err != nil {
		return err
	}
	receivers, err := b.people(ctx, circle)
	if err != nil {
		return err
	}
	filling := strings.Repeat("A", 800)
	send := func(c *conn, i int, mark string) error {
		var list []string
		for _, u := range receivers {
			list = append(list, fmt.Sprintf(`%q:{"*":{"algorithm":"m.olm.v1.curve25519-aes-sha2","ciphertext":"%s:%s"}}`, u.id, mark, filling))
		}
		path := "/_matrix/client/v3/sendToDevice/m.room.encrypted/" + mark
		_, err := c.do("PUT", path, senders[i%len(senders)].token, []byte(`{"messages":{`+strings.Join(list, ",")+`}}`))
		return err
	}
	paced, err := b.paced(ctx, receivers, send)
	if err != nil {
		return err
	}
	since := make([]string, len(receivers))
	if _, err := b.all(ctx, len(receivers), func(c *conn, i int) (err error) {
		since[i], _, err = syncOnce(c, receivers[i], "")
		return err
	}); err != nil {
		return err
	}
	// Few of each sender, as it is when room keys are handed out.
	burst, err := b.all(ctx, b.n(4000, 100), func(c *conn, i int) error { return send(c, i, fmt.Sprintf("todevice-b%d", i)) })
	if err != nil {
		return err
	}
	pages := (burst.count+99)/100 + 1 // the last one acknowledges
	var turns [circle]sync.Mutex
	fetched := make([]int, circle)
	fetch, err := b.spread(ctx, 4, circle*pages, func(c *conn, i int) error {
		i %= circle
		turns[i].Lock()
		defer turns[i].Unlock()
		next, count, err := syncOnce(c, receivers[i], since[i])
		since[i], fetched[i] = next, fetched[i]+count
		return err
	})
	if err != nil {
		return err
	}
	for i, n := range fetched {
		if n != burst.count {
			return fmt.Errorf("%s got %d messages of %d", receivers[i].id, n, burst.count)
		}
	}
	b.note("until all 20 devices have a message, median", paced.p(50), "ms")
	b.cost("until all 20 devices have a message, p95", paced.p(95), "ms", 20)
	b.note("server CPU a message, deliveries included", paced.cpuMS(), "ms")
	b.rate("messages to 20 devices in a burst", burst.rate(), "/s", 1000)
	b.note("server CPU a message", burst.cpuMS(), "ms")
	b.cost("/sync with 100 messages, p95", fetch.p(95), "ms", 20)
	b.note("server CPU", fetch.cpuMS(), "ms")
	return b.emptied(ctx)
}

// paced sends messages one after the other to devices that wait for them.
func (b *bench) paced(ctx context.Context, receivers []user, send func(c *conn, i int, mark string) error) (run, error) {
	l, err := b.listen(ctx, receivers, "todevice-")
	if err != nil {
		return run{}, err
	}
	defer l.close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	context.AfterFunc(ctx, l.changed.Broadcast)
	return b.one(ctx, b.n(200, 10), func(c *conn, i int) error {
		mark := fmt.Sprintf("todevice-p%d", i)
		if err := send(c, i, mark); err != nil {
			return err
		}
		_, err := l.wait(ctx, mark, len(receivers))
		return err
	})
}

// syncOnce asks what there is and counts the messages among it.
func syncOnce(c *conn, u user, since string) (next string, count int, err error) {
	path := "/_matrix/client/v3/sync?timeout=0"
	if since != "" {
		path += "&since=" + since
	}
	answer, err := c.do("GET", path, u.token, nil)
	return text(answer, "next_batch"), bytes.Count(answer, []byte(`"todevice-b`)), err
}

// emptied waits until no message to a device is kept any more. All have been
// acknowledged, or are about to be.
func (b *bench) emptied(ctx context.Context) error {
	const count = `SELECT (SELECT count(*) FROM to_device) + (SELECT count(*) FROM to_device_waiting)`
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		n, err := b.ask(ctx, count, count)
		if err != nil {
			return err
		}
		if n == 0 {
			b.note("until nothing is stored of them", ms(time.Since(began)), "ms")
			return nil
		}
	}
}
