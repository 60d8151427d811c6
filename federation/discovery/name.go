package discovery

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Name is a server name in parts.
type Name struct {
	Host string     // a DNS name, or an address without brackets
	IP   netip.Addr // of an IP literal
	Port string     // "" if there is none
}

// ParseName takes a server name apart. It refuses names that nothing can be
// connected to although the grammar has them: empty labels, ports out of range,
// and texts that some resolvers take for an IPv4 address.
// spec: appendices#server-name
func ParseName(server matrix.ServerName) (Name, error) {
	if _, err := matrix.ParseServerName(string(server)); err != nil {
		return Name{}, err
	}
	host := server.Host()
	n := Name{Host: host, Port: strings.TrimPrefix(string(server)[len(host):], ":")}
	if n.Port != "" {
		if port, err := strconv.ParseUint(n.Port, 10, 16); err != nil || port == 0 {
			return Name{}, fmt.Errorf("discovery: %s has no port that can be connected to", server)
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		n.Host = strings.TrimSuffix(inner, "]")
	}
	if ip, err := netip.ParseAddr(n.Host); err == nil {
		n.IP = ip
		return n, nil
	}
	return n, checkDNS(n.Host)
}

// checkDNS checks the conventional form of host names. One that ends in a number
// is meant as an IPv4 address, which it isn't.
func checkDNS(host string) error {
	labels := strings.Split(host, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return fmt.Errorf("discovery: %q is no host name", host)
		}
	}
	last := labels[len(labels)-1]
	if _, err := strconv.ParseUint(last, 0, 64); err == nil || strings.Trim(last, "0123456789") == "" {
		return fmt.Errorf("discovery: %q is neither a host name nor an IPv4 address", host)
	}
	return nil
}

const defaultPort = "8448"

// join puts an address together that can be dialled.
func (n Name) join(port string) string {
	if port == "" {
		port = defaultPort
	}
	return net.JoinHostPort(n.Host, port)
}

// header is the name as a Host header: with the port if it has one.
func (n Name) header() string {
	host := n.Host
	if n.IP.Is6() {
		host = "[" + host + "]"
	}
	if n.Port == "" {
		return host
	}
	return host + ":" + n.Port
}
