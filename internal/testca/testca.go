// Package testca is a certificate authority for tests and measurements.
package testca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// lifetime is how far certificates reach into the past and the future, so that
// clocks can be moved.
const lifetime = 10 * 365 * 24 * time.Hour

// CA is an authority that nobody trusts who was not told to.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New makes an authority.
func New() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "testca"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := sign(template, template, key, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	return &CA{cert, key}, err
}

// Write puts the authority's certificate into a PEM file in dir and returns its
// path.
func (a *CA) Write(dir string) (string, error) {
	path := filepath.Join(dir, "authority.pem")
	return path, writePEM(path, "CERTIFICATE", a.cert.Raw)
}

// Issue puts a certificate for names and IP addresses, and its key, into PEM
// files in dir and returns their paths.
func (a *CA) Issue(dir string, names ...string) (cert, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), KeyUsage: x509.KeyUsageDigitalSignature}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	raw, err := sign(template, a.cert, private, a.key)
	if err != nil {
		return "", "", err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", err
	}
	cert, key = filepath.Join(dir, "tls.pem"), filepath.Join(dir, "tls.key")
	return cert, key, errors.Join(writePEM(cert, "CERTIFICATE", raw), writePEM(key, "PRIVATE KEY", encoded))
}

func sign(template, parent *x509.Certificate, subject, issuer *ecdsa.PrivateKey) ([]byte, error) {
	template.NotBefore, template.NotAfter = time.Now().Add(-lifetime), time.Now().Add(lifetime)
	return x509.CreateCertificate(rand.Reader, template, parent, &subject.PublicKey, issuer)
}

func writePEM(path, kind string, raw []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600)
}
