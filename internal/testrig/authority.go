package testrig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// lifetime is how far certificates reach into the past and the future, so that
// clocks can be moved.
const lifetime = 10 * 365 * 24 * time.Hour

// authority is a network's certificate authority.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Authority writes the certificate of the network's authority to a PEM file in
// dir and returns its path.
func (n *Network) Authority(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "authority.pem")
	writePEM(t, path, "CERTIFICATE", n.certifier(t).cert.Raw)
	return path
}

// Certificate writes a certificate for names and IP addresses, and its key, to
// PEM files in dir and returns their paths.
func (n *Network) Certificate(t testing.TB, dir string, names ...string) (cert, key string) {
	t.Helper()
	a := n.certifier(t)
	private := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), KeyUsage: x509.KeyUsageDigitalSignature}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	raw := sign(t, template, a.cert, private, a.key)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "tls.pem"), filepath.Join(dir, "tls.key")
	writePEM(t, cert, "CERTIFICATE", raw)
	writePEM(t, key, "PRIVATE KEY", encoded)
	return cert, key
}

// certifier is the network's authority, made when it is first asked for.
func (n *Network) certifier(t testing.TB) *authority {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.authority != nil {
		return n.authority
	}
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "testrig"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	cert, err := x509.ParseCertificate(sign(t, template, template, key, key))
	if err != nil {
		t.Fatal(err)
	}
	n.authority = &authority{cert, key}
	return n.authority
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, template, parent *x509.Certificate, subject, issuer *ecdsa.PrivateKey) []byte {
	t.Helper()
	template.NotBefore, template.NotAfter = time.Now().Add(-lifetime), time.Now().Add(lifetime)
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &subject.PublicKey, issuer)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func writePEM(t testing.TB, path, kind string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
}
