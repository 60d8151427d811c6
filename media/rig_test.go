package media_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/media"
)

const (
	v1  = "/_matrix/client/v1/media/"
	old = "/_matrix/media/v3/"
)

// person is a user's device on a server.
type person struct {
	*testrig.Client
	s *testrig.Server
	t *testing.T
}

func newPerson(t *testing.T, s *testrig.Server, name string) *person {
	t.Helper()
	return &person{s.Register(name), s, t}
}

// nobody asks without a token.
func nobody(t *testing.T, s *testrig.Server) *person { return &person{s.Anonymous(), s, t} }

// each runs f on both databases, on a server whose media are configured by change.
func each(t *testing.T, change func(*config.Media), f func(t *testing.T, s *testrig.Server)) {
	t.Helper()
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			f(t, testrig.Start(t, testrig.Options{Database: dbtest.URL(t, kind), Change: func(c *config.Config) {
				if change != nil {
					change(&c.Media)
				}
			}}))
		})
	}
}

// reply is an answer with its body read.
type reply struct {
	*http.Response
	body []byte
}

// code is the errcode of an answer.
func (r reply) code() string {
	var e struct {
		Code string `json:"errcode"`
	}
	_ = json.Unmarshal(r.body, &e)
	return e.Code
}

// ask sends a request; pairs are a header's names and values.
func (p *person) ask(method, path string, body io.Reader, pairs ...string) reply {
	p.t.Helper()
	r, err := p.try(p.t.Context(), method, path, body, pairs...)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

// try is ask for a request that may be cut off.
func (p *person) try(ctx context.Context, method, path string, body io.Reader, pairs ...string) (reply, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+string(p.s.Name)+path, body)
	if err != nil {
		return reply{}, err
	}
	if p.Token != "" {
		r.Header.Set("Authorization", "Bearer "+p.Token)
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		r.Header.Set(pairs[i], pairs[i+1])
	}
	answer, err := p.s.Network.Client().Do(r)
	if err != nil {
		return reply{}, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return reply{answer, text}, err
}

// upload uploads bytes and gives their URI.
func (p *person) upload(data []byte, contentType, name string) media.Ref {
	p.t.Helper()
	path := old + "upload"
	if name != "" {
		path += "?filename=" + strings.ReplaceAll(testrig.Path(name)[1:], "+", "%2B")
	}
	r := p.ask("POST", path, bytes.NewReader(data), "Content-Type", contentType)
	if r.StatusCode != http.StatusOK {
		p.t.Fatalf("upload: %d %s", r.StatusCode, r.body)
	}
	return refOf(p.t, r.body)
}

func refOf(t *testing.T, body []byte) media.Ref {
	t.Helper()
	var answer struct {
		URI string `json:"content_uri"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	ref, err := media.ParseRef(answer.URI)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return ref
}

// get downloads a file.
func (p *person) get(ref media.Ref, pairs ...string) reply {
	p.t.Helper()
	return p.ask("GET", v1+"download"+testrig.Path(ref.Server, ref.ID), nil, pairs...)
}

// fails checks that an answer is the error.
func (r reply) fails(t *testing.T, status int, code string) {
	t.Helper()
	if r.StatusCode != status || r.code() != code {
		t.Errorf("%s %s: %d %s, not %d %s", r.Request.Method, r.Request.URL.Path, r.StatusCode, r.body, status, code)
	}
}

// is checks that an answer is a file.
func (r reply) is(t *testing.T, data []byte) {
	t.Helper()
	if r.StatusCode != http.StatusOK || !bytes.Equal(r.body, data) {
		t.Errorf("%s %s: %d with %d bytes, %.200q", r.Request.Method, r.Request.URL.Path, r.StatusCode, len(r.body), r.body)
	}
}
