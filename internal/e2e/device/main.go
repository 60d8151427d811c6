//go:build goolm

// Command device is a user's device with end-to-end encryption, for the tests of
// the real binary. It is a program of its own as what it is made of needs a build
// tag. It does what it is told by lines of JSON on its input, one after the other,
// and answers each by a line on its output; beside that it syncs.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"maunium.net/go/mautrix/id"
)

// command is what is to be done; which of the values are needed depends on what
// it is.
type command struct {
	Do       string      `json:"do"`
	Server   string      `json:"server"` // URL
	User     string      `json:"user"`
	Password string      `json:"password"`
	Dir      string      `json:"dir"` // for what the device keeps
	Room     id.RoomID   `json:"room"`
	Text     string      `json:"text"`
	Number   int         `json:"number"`
	Key      string      `json:"key"`
	Device   id.DeviceID `json:"device"`
}

// answer is how it went.
type answer struct {
	Error  string      `json:"error,omitempty"`
	User   id.UserID   `json:"user,omitempty"`
	Device id.DeviceID `json:"device,omitempty"`
	Texts  []string    `json:"texts,omitempty"`  // that could be decrypted
	Failed []string    `json:"failed,omitempty"` // events that could not, and why
	Key    string      `json:"key,omitempty"`
	Emojis string      `json:"emojis,omitempty"`
	Trust  string      `json:"trust,omitempty"`
}

func main() {
	d := &device{}
	actions := map[string]func(context.Context, *command) (*answer, error){
		"login": d.login, "wait": d.wait, "send": d.send, "seen": d.seen, "history": d.history,
		"identify": d.identify, "backup": d.backup, "restore": d.restore, "trust": d.trust,
		"verify": d.verify, "compare": d.compare, "confirm": d.confirm,
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		a := &answer{}
		c := &command{}
		err := json.Unmarshal(lines.Bytes(), c)
		if err == nil && actions[c.Do] == nil {
			err = fmt.Errorf("there is nothing like %q to do", c.Do)
		}
		if err == nil {
			a, err = actions[c.Do](ctx, c)
		}
		if err != nil {
			a = &answer{Error: err.Error()}
		}
		if err := out.Encode(a); err != nil {
			return
		}
	}
}
