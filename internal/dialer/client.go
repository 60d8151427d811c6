package dialer

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// ErrTooLarge is read from a body that is longer than it may be.
var ErrTooLarge = errors.New("dialer: the answer is too large")

// ErrRedirected is the failure of a request that was redirected too often or
// away from HTTPS.
var ErrRedirected = errors.New("dialer: the redirect is not followed")

// ClientOptions bound what a client takes.
type ClientOptions struct {
	Timeout      time.Duration // of a request, from dialling to the end of its body; 0 means 30 s
	MaxBody      int64         // of an answer in bytes, decompressed; 0 means 1 MiB
	MaxRedirects int           // 0 follows none: the redirect itself is the answer
	HTTPSOnly    bool          // refuse http:// URLs, redirects included
	TLS          *tls.Config   // nil: verified by the system's authorities
}

// Transport makes an HTTP transport that dials through d. It uses no proxy.
func (d *Dialer) Transport(secure *tls.Config) *http.Transport {
	if secure != nil {
		secure = secure.Clone()
	}
	return &http.Transport{
		DialContext:            d.DialContext,
		TLSClientConfig:        secure,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// Client makes an HTTP client that dials through d and is bounded by o.
func (d *Dialer) Client(o ClientOptions) *http.Client {
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.MaxBody == 0 {
		o.MaxBody = 1 << 20
	}
	return &http.Client{
		Transport:     &bounded{d.Transport(o.TLS), o},
		Timeout:       o.Timeout,
		CheckRedirect: o.redirect,
	}
}

func (o *ClientOptions) redirect(r *http.Request, via []*http.Request) error {
	switch {
	case o.MaxRedirects == 0:
		return http.ErrUseLastResponse
	case len(via) > o.MaxRedirects:
		return fmt.Errorf("%w: there were more than %d", ErrRedirected, o.MaxRedirects)
	case via[0].URL.Scheme == "https" && r.URL.Scheme != "https":
		return fmt.Errorf("%w: it leaves HTTPS", ErrRedirected)
	}
	return nil
}

// bounded caps the bodies of answers.
type bounded struct {
	next *http.Transport
	o    ClientOptions
}

func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.o.HTTPSOnly && r.URL.Scheme != "https" {
		return nil, fmt.Errorf("dialer: %s URLs are not allowed here", r.URL.Scheme)
	}
	answer, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if answer.ContentLength > b.o.MaxBody {
		_ = answer.Body.Close()
		return nil, ErrTooLarge
	}
	answer.Body = Capped(answer.Body, b.o.MaxBody)
	return answer, nil
}

// CloseIdleConnections is found by http.Client.
func (b *bounded) CloseIdleConnections() { b.next.CloseIdleConnections() }

// Capped reads at most limit bytes from body; a body that has more fails with
// ErrTooLarge, so that a cut answer is never taken for a whole one.
func Capped(body io.ReadCloser, limit int64) io.ReadCloser { return &capped{body, limit} }

type capped struct {
	io.ReadCloser
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left < 0 {
		return 0, ErrTooLarge
	}
	if int64(len(p)) > c.left+1 { // one byte more tells a full body from a longer one
		p = p[:c.left+1]
	}
	n, err := c.ReadCloser.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return n - 1, ErrTooLarge
	}
	return n, err
}
