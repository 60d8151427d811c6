package dialer

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// literals are what an attacker writes where a host name is expected, with what
// a resolver of the C library makes of those that are no addresses to Go.
var literals = []struct {
	host     string
	resolved string // "": host itself
	why      string // "": may be connected to
	private  string // the same with AllowPrivate
}{
	{"8.8.8.8", "", "", ""},
	{"1.1.1.1", "", "", ""},
	{"100.63.255.255", "", "", ""},
	{"100.128.0.0", "", "", ""},
	{"172.15.255.255", "", "", ""},
	{"172.32.0.0", "", "", ""},
	{"192.0.1.0", "", "", ""},
	{"198.17.255.255", "", "", ""},
	{"198.20.0.0", "", "", ""},
	{"223.255.255.255", "", "", ""},
	{"2606:4700:4700::1111", "", "", ""},
	{"2001:200::1", "", "", ""},
	{"2a00:1450:4001::5e", "", "", ""},
	{"64:ff9b::8.8.8.8", "", "", ""},
	{"::ffff:8.8.8.8", "", "", ""},
	{"example.org", "93.184.216.34", "", ""},

	{"0.0.0.0", "", "unspecified", "unspecified"},
	{"0.1.2.3", "", "unspecified", "unspecified"},
	{"0", "0.0.0.0", "unspecified", "unspecified"},
	{"127.0.0.1", "", "loopback", ""},
	{"127.255.255.254", "", "loopback", ""},
	{"127.1", "127.0.0.1", "loopback", ""},
	{"0x7f000001", "127.0.0.1", "loopback", ""},
	{"0x7f.1", "127.0.0.1", "loopback", ""},
	{"017700000001", "127.0.0.1", "loopback", ""},
	{"0177.0.0.1", "127.0.0.1", "loopback", ""},
	{"2130706433", "127.0.0.1", "loopback", ""},
	{"localhost", "::1", "loopback", ""},
	{"localtest.me", "127.0.0.1", "loopback", ""},
	{"127.0.0.1.nip.io", "127.0.0.1", "loopback", ""},
	{"①②⑦.⓪.⓪.①", "127.0.0.1", "loopback", ""},
	{"10.0.0.0", "", "private", ""},
	{"10.255.255.255", "", "private", ""},
	{"172.16.0.1", "", "private", ""},
	{"172.31.255.255", "", "private", ""},
	{"192.168.1.1", "", "private", ""},
	{"192.168.257", "192.168.1.1", "private", ""},
	{"100.64.0.1", "", "shared address space", ""},
	{"100.127.255.255", "", "shared address space", ""},
	{"169.254.0.1", "", "link-local", "link-local"},
	{"169.254.169.254", "", "link-local", "link-local"},
	{"2852039166", "169.254.169.254", "link-local", "link-local"},
	{"metadata.google.internal", "169.254.169.254", "link-local", "link-local"},
	{"192.0.0.170", "", "protocol assignments", "protocol assignments"},
	{"192.0.2.1", "", "documentation", "documentation"},
	{"198.51.100.7", "", "documentation", "documentation"},
	{"203.0.113.9", "", "documentation", "documentation"},
	{"192.88.99.1", "", "6to4 relay", "6to4 relay"},
	{"198.18.0.1", "", "benchmarking", "benchmarking"},
	{"198.19.255.255", "", "benchmarking", "benchmarking"},
	{"224.0.0.1", "", "multicast", "multicast"},
	{"239.255.255.250", "", "multicast", "multicast"},
	{"240.0.0.1", "", "reserved", "reserved"},
	{"255.255.255.255", "", "reserved", "reserved"},

	{"::", "", "unspecified", "unspecified"},
	{"::1", "", "loopback", ""},
	{"0:0:0:0:0:0:0:1", "", "loopback", ""},
	{"::2", "", "IPv4-compatible", "IPv4-compatible"},
	{"::127.0.0.1", "", "IPv4-compatible", "IPv4-compatible"},
	{"::ffff:127.0.0.1", "", "loopback", ""},
	{"::ffff:7f00:1", "", "loopback", ""},
	{"::FFFF:10.0.0.1", "", "private", ""},
	{"::ffff:169.254.169.254", "", "link-local", "link-local"},
	{"::ffff:0.0.0.0", "", "unspecified", "unspecified"},
	{"::ffff:0:127.0.0.1", "", "reserved", "reserved"},
	{"64:ff9b::127.0.0.1", "", "loopback", ""},
	{"64:ff9b::a9fe:a9fe", "", "link-local", "link-local"},
	{"64:ff9b::10.1.2.3", "", "private", ""},
	{"64:ff9b:1::8.8.8.8", "", "local translation", "local translation"},
	{"2001::1", "", "Teredo", "Teredo"},
	{"2001:0:4136:e378:8000:63bf:3fff:fdd2", "", "Teredo", "Teredo"},
	{"2001:2::1", "", "protocol assignments", "protocol assignments"},
	{"2001:10::1", "", "protocol assignments", "protocol assignments"},
	{"2001:db8::1", "", "documentation", "documentation"},
	{"2002:7f00:1::", "", "6to4", "6to4"},
	{"2002:808:808::1", "", "6to4", "6to4"},
	{"3fff::1", "", "documentation", "documentation"},
	{"4000::1", "", "reserved", "reserved"},
	{"5f00::1", "", "reserved", "reserved"},
	{"100::1", "", "reserved", "reserved"},
	{"fc00::1", "", "private", ""},
	{"fd12:3456:789a::1", "", "private", ""},
	{"fe80::1", "", "link-local", "link-local"},
	{"fe80::1%eth0", "", "link-local", "link-local"},
	{"::1%lo", "", "loopback", ""},
	{"fec0::1", "", "site-local", "site-local"},
	{"ff02::1", "", "multicast", "multicast"},
	{"2a00:1450::5efe:127.0.0.1", "", "loopback", ""},
	{"2a00:1450::200:5efe:10.0.0.1", "", "private", ""},
	{"2a00:1450::5efe:8.8.8.8", "", "", ""},
}

func TestLiterals(t *testing.T) {
	if len(literals) < 60 {
		t.Fatal("too few literals")
	}
	for _, l := range literals {
		for _, private := range []bool{false, true} {
			want := l.why
			if private {
				want = l.private
			}
			var dialled string
			d := New(Options{
				AllowPrivate: private,
				Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
					if host != l.host || l.resolved == "" {
						return nil, errors.New("asked to resolve " + host)
					}
					return []netip.Addr{netip.MustParseAddr(l.resolved)}, nil
				},
				Dial: func(_ context.Context, _, address string) (net.Conn, error) {
					dialled = address
					conn, _ := net.Pipe()
					return conn, nil
				},
			})
			_, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(l.host, "443"))
			var denied *DeniedError
			switch {
			case want == "" && (err != nil || dialled == ""):
				t.Errorf("%s (private %v): not dialled: %v", l.host, private, err)
			case want != "" && (!errors.As(err, &denied) || denied.Why != want || dialled != ""):
				t.Errorf("%s (private %v): dialled %q, %v, want %q", l.host, private, dialled, err, want)
			}
			if dialled != "" {
				host, _, _ := net.SplitHostPort(dialled)
				if a, err := netip.ParseAddr(host); err != nil || a.Is4In6() || a.Zone() != "" {
					t.Errorf("%s: dialled %q, which is not the address that was checked", l.host, dialled)
				}
			}
		}
	}
}

func TestAllowAndDeny(t *testing.T) {
	d := New(Options{
		Allow: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("169.254.169.254/32"), netip.MustParsePrefix("::ffff:10.9.0.0/112")},
		Deny:  []netip.Prefix{netip.MustParsePrefix("8.8.0.0/16"), netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("2a00::/16")},
	})
	for addr, want := range map[string]bool{
		"10.1.0.1": true, "10.2.0.1": false, "10.1.2.3": true, "169.254.169.254": true, "::ffff:10.1.0.1": true, "10.9.0.7": true,
		"8.8.8.8": false, "::ffff:8.8.8.8": false, "64:ff9b::8.8.8.8": false, "9.9.9.9": true, "2a00::1": false, "2a01::1": true,
	} {
		if err := d.Check(netip.MustParseAddr(addr)); (err == nil) != want {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if err := d.Check(netip.Addr{}); err == nil {
		t.Error("no address passes")
	}
}

// The second look-up of a rebinding name leads inside; there must not be one.
func TestNoRebinding(t *testing.T) {
	lookups := 0
	var dialled []string
	d := New(Options{
		Resolve: func(context.Context, string) ([]netip.Addr, error) {
			lookups++
			if lookups == 1 {
				return []netip.Addr{netip.MustParseAddr("8.8.8.8")}, nil
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		},
		Dial: func(_ context.Context, _, address string) (net.Conn, error) {
			dialled = append(dialled, address)
			conn, _ := net.Pipe()
			return conn, nil
		},
	})
	if _, err := d.DialContext(t.Context(), "tcp", "rebind.example:80"); err != nil {
		t.Fatal(err)
	}
	var denied *DeniedError
	if _, err := d.DialContext(t.Context(), "tcp", "rebind.example:80"); !errors.As(err, &denied) {
		t.Fatalf("the second answer was dialled: %v", err)
	}
	if strings.Join(dialled, " ") != "8.8.8.8:80" || lookups != 2 {
		t.Fatalf("%d look-ups, dialled %q", lookups, dialled)
	}
}

// Of a name with public and inner addresses only the public ones are dialled.
func TestMixedAddresses(t *testing.T) {
	var mu sync.Mutex
	var dialled []string
	d := New(Options{
		Resolve: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("2606::1")}, nil
		},
		Dial: func(_ context.Context, _, address string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			dialled = append(dialled, address)
			return nil, errors.New("refused")
		},
	})
	if _, err := d.DialContext(t.Context(), "tcp", "mixed.example:443"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Fatal(err)
	}
	if strings.Join(dialled, " ") != "9.9.9.9:443 [2606::1]:443" {
		t.Fatalf("dialled %q", dialled)
	}
	dialled = nil
	if _, err := d.DialContext(t.Context(), "tcp6", "mixed.example:443"); err == nil || strings.Join(dialled, " ") != "[2606::1]:443" {
		t.Fatalf("dialled %q: %v", dialled, err)
	}
	for _, network := range []string{"udp", "unix", "ip"} {
		if _, err := d.DialContext(t.Context(), network, "mixed.example:443"); err == nil {
			t.Errorf("%s was dialled", network)
		}
	}
}

// A dead address costs a moment, not its whole time limit, and the connection
// that comes too late is closed.
func TestDeadAddressIsOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := make(chan struct{})
		d := New(Options{
			Resolve: func(context.Context, string) ([]netip.Addr, error) {
				return []netip.Addr{netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("8.8.8.8")}, nil
			},
			Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
				conn, _ := net.Pipe()
				if address == "9.9.9.9:443" {
					time.Sleep(5 * time.Second)
					return noted{conn, closed}, nil
				}
				return conn, nil
			},
		})
		start := time.Now()
		if _, err := d.DialContext(t.Context(), "tcp", "half.example:443"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != stagger {
			t.Errorf("took %v", took)
		}
		<-closed
	})
}

type noted struct {
	net.Conn
	closed chan struct{}
}

func (n noted) Close() error { close(n.closed); return n.Conn.Close() }

func TestSlowLookupEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{Resolve: func(ctx context.Context, _ string) ([]netip.Addr, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		start := time.Now()
		if _, err := d.DialContext(t.Context(), "tcp", "slow.example:443"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if took := time.Since(start); took != connectTimeout {
			t.Errorf("took %v", took)
		}
	})
}
