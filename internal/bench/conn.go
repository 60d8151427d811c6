package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// answerTimeout bounds every request. A long poll is shorter.
const answerTimeout = 60 * time.Second

// conn is one HTTP/1.1 connection that one goroutine uses. It does far less
// than http.Client, since what the client costs is missing to the server.
type conn struct {
	address string
	c       net.Conn
	r       *bufio.Reader
	out     []byte
	answer  bytes.Buffer
}

// do sends a request and reads its answer, which is valid until the next call.
// An answer other than 200 is an error.
func (c *conn) do(method, path, token string, body []byte) ([]byte, error) {
	if _, err := c.dial(); err != nil {
		return nil, err
	}
	b := append(c.out[:0], method...)
	b = append(append(append(b, ' '), path...), " HTTP/1.1\r\nHost: localhost\r\n"...)
	if token != "" {
		b = append(append(append(b, "Authorization: Bearer "...), token...), "\r\n"...)
	}
	if method != "GET" {
		b = append(b, "Content-Type: application/json\r\nContent-Length: "...)
		b = append(strconv.AppendInt(b, int64(len(body)), 10), "\r\n"...)
	}
	b = append(append(b, "\r\n"...), body...)
	c.out = b
	answer, err := c.exchange(method, path)
	if err != nil {
		c.close()
	}
	return answer, err
}

// dial connects if there is no connection.
func (c *conn) dial() (net.Conn, error) {
	if c.c == nil {
		n, err := net.Dial("tcp", c.address)
		if err != nil {
			return nil, err
		}
		c.c, c.r = n, bufio.NewReaderSize(n, 32<<10)
	}
	return c.c, nil
}

func (c *conn) exchange(method, path string) ([]byte, error) {
	if err := c.c.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, err
	}
	if _, err := c.c.Write(c.out); err != nil {
		return nil, err
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil, err
	}
	c.answer.Reset()
	if _, err := c.answer.ReadFrom(res.Body); err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s: %.300s", method, path, res.Status, c.answer.Bytes())
	}
	return c.answer.Bytes(), nil
}

func (c *conn) close() {
	if c.c != nil {
		_ = c.c.Close()
		c.c = nil
	}
}

// text finds the value of a string field of a JSON answer without escapes: the
// first with that name. It is there because decoding would cost more than the
// server took to answer.
func text(answer []byte, field string) string {
	mark := append(append([]byte(`"`), field...), `":"`...)
	i := bytes.Index(answer, mark)
	if i < 0 {
		return ""
	}
	rest := answer[i+len(mark):]
	return string(rest[:max(0, bytes.IndexByte(rest, '"'))])
}
