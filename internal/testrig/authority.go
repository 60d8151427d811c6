package testrig

import (
	"testing"

	"github.com/teahouse-chat/teahouse/internal/testca"
)

// Authority writes the certificate of the network's authority to a PEM file in
// dir and returns its path.
func (n *Network) Authority(t testing.TB, dir string) string {
	t.Helper()
	path, err := n.certifier(t).Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Certificate writes a certificate for names and IP addresses, and its key, to
// PEM files in dir and returns their paths.
func (n *Network) Certificate(t testing.TB, dir string, names ...string) (cert, key string) {
	t.Helper()
	cert, key, err := n.certifier(t).Issue(dir, names...)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// certifier is the network's authority, made when it is first asked for.
func (n *Network) certifier(t testing.TB) *testca.CA {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.authority == nil {
		var err error
		if n.authority, err = testca.New(); err != nil {
			t.Fatal(err)
		}
	}
	return n.authority
}
