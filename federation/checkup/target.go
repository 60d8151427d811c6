package checkup

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/teahouse-chat/teahouse/federation/discovery"
	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/internal/dialer"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const (
	stepTime = 15 * time.Second
	maxSkew  = time.Minute
	soon     = 7 * 24 * time.Hour // a certificate that expires within it is mentioned
)

// target looks at one of the ways to reach a server.
func (d Deps) target(ctx context.Context, r *Report, server matrix.ServerName, t discovery.Target, own *Key) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*stepTime)
	defer cancel()
	conn, ok := d.connect(ctx, r, t)
	if !ok {
		return false
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	answer, body, err := ask(ctx, conn, t, "/_matrix/key/v2/server")
	if err != nil {
		r.add(Bad, "let what listens there pass requests below /_matrix/key and /_matrix/federation on to Teahouse", "%s does not answer like a web server: %v", t.Address, err)
		return false
	}
	d.clock(r, answer, t)
	return keysOf(r, server, t, answer, body, own)
}

// connect dials a target and verifies its certificate.
func (d Deps) connect(ctx context.Context, r *Report, t discovery.Target) (*tls.Conn, bool) {
	raw, err := d.Dialer.DialContext(ctx, "tcp", t.Address)
	if denied, ok := errors.AsType[*dialer.DeniedError](err); ok {
		r.add(Bad, "let the host's public DNS records name public addresses; on a machine whose own resolver answers with internal ones, run this elsewhere", "%s leads to %s, which is %s: other servers do not connect there", t.Address, denied.Addr, denied.Why)
		return nil, false
	}
	if err != nil {
		r.add(Bad, "start the server, let it listen there, and open the port in the firewall", "%s cannot be connected to: %v", t.Address, err)
		return nil, false
	}
	conn := tls.Client(raw, &tls.Config{RootCAs: d.RootCAs, ServerName: t.TLSName, Time: d.Now, NextProtos: []string{"http/1.1"}})
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		d.certificate(r, t, err)
		return nil, false
	}
	r.add(Good, "", "%s answers with a valid certificate for %s", t.Address, t.TLSName)
	if until := conn.ConnectionState().PeerCertificates[0].NotAfter; until.Sub(d.Now()) < soon {
		r.add(Note, "renew it", "the certificate expires on %s", until.UTC().Format(time.DateOnly))
	}
	return conn, true
}

// certificate tells what is wrong with one that was not accepted.
func (d Deps) certificate(r *Report, t discovery.Target, err error) {
	var name x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &name):
		r.add(Bad, fmt.Sprintf("get a certificate for %s; that name counts, also behind an SRV record", t.TLSName),
			"the certificate of %s is for %s, not for %s", t.Address, strings.Join(name.Certificate.DNSNames, ", "), t.TLSName)
	case errors.As(err, &unknown):
		r.add(Bad, "let the server send its whole chain of certificates, from an authority that is generally trusted; a private one has to be in federation.ca_file of every server",
			"the certificate of %s is not from a known authority", t.Address)
	case errors.As(err, &invalid):
		r.add(Bad, "renew the certificate", "the certificate of %s is not valid: %v", t.Address, err)
	case errors.As(err, &header):
		r.add(Bad, "give the listener a certificate, or put a proxy with TLS in front of it", "%s does not speak TLS", t.Address)
	default:
		r.add(Bad, "look at what listens there", "TLS with %s fails: %v", t.Address, err)
	}
}

// ask sends one request over the connection.
func ask(ctx context.Context, conn net.Conn, t discovery.Target, path string) (*http.Response, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+t.Host+path, nil)
	if err != nil {
		return nil, nil, err
	}
	if err := request.Write(conn); err != nil {
		return nil, nil, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(dialer.Capped(answer.Body, keys.MaxAnswer))
	return answer, body, err
}

// clock compares the server's clock with ours: signatures depend on both.
func (d Deps) clock(r *Report, answer *http.Response, t discovery.Target) {
	at, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return
	}
	if skew := d.Now().Sub(at).Round(time.Second); skew.Abs() > maxSkew {
		r.add(Bad, "let both machines take their time from NTP", "the clock of %s is %s away from the one of this machine", t.Address, skew.Abs())
	}
}

// keysOf checks what the server tells of its keys.
func keysOf(r *Report, server matrix.ServerName, t discovery.Target, answer *http.Response, body []byte, own *Key) bool {
	if answer.StatusCode != http.StatusOK {
		r.add(Bad, "let the proxy pass /_matrix/key and /_matrix/federation on as they come; a listener of Teahouse must serve federation", "%s answers with status %d when asked for the server's keys", t.Address, answer.StatusCode)
		return false
	}
	var told struct {
		Server matrix.ServerName `json:"server_name"`
		Keys   map[string]struct {
			Key string `json:"key"`
		} `json:"verify_keys"`
	}
	if err := json.Unmarshal(body, &told); err != nil {
		r.add(Bad, "let the proxy pass /_matrix/key on to Teahouse", "%s answers with something else than the server's keys: %v", t.Address, err)
		return false
	}
	if told.Server != server {
		r.add(Bad, "delegate to the right host, or set server_name right", "%s is the server %s, not %s", t.Address, told.Server, server)
		return false
	}
	signed := false
	for id, k := range told.Keys {
		public, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(k.Key, "="))
		signed = signed || err == nil && event.VerifyJSON(body, string(server), id, public) == nil
		if own != nil && id == own.ID && bytes.Equal(public, own.Public) {
			own = nil
		}
	}
	switch {
	case !signed:
		r.add(Bad, "let the proxy pass answers on unchanged", "the keys that %s tells are not signed by one of them", t.Address)
		return false
	case own != nil:
		r.add(Bad, "look whether another server of this name is running, or whether this one was started before its key was changed", "%s publishes other keys than %s, with which this server signs", t.Address, own.ID)
		return false
	}
	r.add(Good, "", "%s publishes the keys of %s", t.Address, server)
	return true
}
