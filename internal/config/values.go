package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Duration is written "90s", "5m", "4h", "1h30m" or "5d".
type Duration time.Duration

// Std is the duration as the standard library knows it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

const day = 24 * time.Hour

// ParseDuration reads a duration that is not negative: what time.ParseDuration
// reads, and days ("5d", "1d12h"). A bare 0 is none.
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a duration; write it as \"90s\", \"5m\", \"4h\" or \"5d\"", s)
	if s == "" {
		return 0, bad
	}
	days, rest, ok := strings.Cut(s, "d")
	if !ok {
		days, rest = "0", s
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, bad
	}
	var d time.Duration
	if rest != "" {
		if d, err = time.ParseDuration(rest); err != nil || d < 0 {
			return 0, bad
		}
	}
	if d > math.MaxInt64-time.Duration(n)*day {
		return 0, bad
	}
	return d + time.Duration(n)*day, nil
}

// String writes the duration in its largest units: "5d", "1h30m".
func (d Duration) String() string {
	std := time.Duration(d)
	if std <= 0 {
		return "0s"
	}
	days, rest := std/day, std%day
	s := rest.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	switch {
	case days == 0:
		return s
	case rest == 0:
		return fmt.Sprintf("%dd", days)
	}
	return fmt.Sprintf("%dd%s", days, s)
}

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// MarshalText writes what String writes.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// A Size is a number of octets, written "50MB" (a million each) or "64MiB".
type Size int64

var sizeUnits = []struct {
	name   string
	octets int64
}{
	{"GiB", 1 << 30}, {"GB", 1e9},
	{"MiB", 1 << 20}, {"MB", 1e6},
	{"KiB", 1 << 10}, {"KB", 1e3},
	{"B", 1}, {"", 1},
}

// ParseSize reads a number of octets with or without a unit; the case of letters
// does not matter.
func ParseSize(s string) (int64, error) {
	bad := fmt.Errorf("%q is not a size; write it as \"50MB\", \"64MiB\" or a number of octets", s)
	for _, u := range sizeUnits {
		cut := len(s) - len(u.name)
		if cut < 0 || !strings.EqualFold(s[cut:], u.name) {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(s[:cut]), 10, 63)
		if err != nil || int64(n) > math.MaxInt64/u.octets {
			return 0, bad
		}
		return int64(n) * u.octets, nil
	}
	return 0, bad
}

// String writes the size in the largest unit that loses nothing.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.octets == 0 {
			return strconv.FormatInt(int64(s)/u.octets, 10) + u.name
		}
	}
	return "0B"
}

// UnmarshalText reads what ParseSize reads.
func (s *Size) UnmarshalText(b []byte) error {
	v, err := ParseSize(string(b))
	*s = Size(v)
	return err
}

// MarshalText writes what String writes.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Network is written "192.0.2.1", "192.0.2.0/24" or "2001:db8::/32".
type Network netip.Prefix

// Std is the network as the standard library knows it.
func (n Network) Std() netip.Prefix { return netip.Prefix(n) }

// String writes what UnmarshalText reads; a single address without its length.
func (n Network) String() string {
	if p := n.Std(); p.IsSingleIP() {
		return p.Addr().String()
	}
	return n.Std().String()
}

// UnmarshalText reads an address or a network, which has no bits set behind its length.
func (n *Network) UnmarshalText(b []byte) error {
	s := string(b)
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		*n = Network(netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
		return nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Masked() != p {
		return fmt.Errorf("%q is not a network; write it as \"192.0.2.1\", \"192.0.2.0/24\" or \"2001:db8::/32\"", s)
	}
	*n = Network(p)
	return nil
}

// Prefixes are networks as the standard library knows them.
func Prefixes(list []Network) (prefixes []netip.Prefix) {
	for _, n := range list {
		prefixes = append(prefixes, n.Std())
	}
	return prefixes
}

// An Addr is where a listener waits: "host:port", "unix:" and the path of a socket,
// or "off". Port 0 picks a free one.
type Addr string

// Off is the address of a listener that is closed.
const Off Addr = "off"

const unixPrefix = "unix:"

// IsOff reports whether the listener is closed.
func (a Addr) IsOff() bool { return a == Off }

// Network returns the two words that net.Listen and net.Dial ask for.
func (a Addr) Network() (network, address string) {
	if path, ok := strings.CutPrefix(string(a), unixPrefix); ok {
		return "unix", path
	}
	return "tcp", string(a)
}

// Check says what is wrong with the address, if anything.
func (a Addr) Check() error {
	network, address := a.Network()
	switch {
	case a.IsOff():
		return nil
	case network == "unix" && address == "":
		return errors.New("unix: wants the path of a socket, as in \"unix:/run/postroad/lmtp.sock\"")
	case network == "unix":
		return printable(address)
	}
	return checkHostPort(address)
}

func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not an address; write it as \"127.0.0.1:2525\", \"[::1]:2525\", \":2525\" or \"off\"", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("port %q of %q is not a number from 0 to 65535", port, s)
	}
	if host != "" && host != "localhost" && net.ParseIP(strings.SplitN(host, "%", 2)[0]) == nil {
		return fmt.Errorf("%q of %q is not an IP address; a listener has no use for a name", host, s)
	}
	return nil
}

// under makes a relative socket path start at dir.
func (a Addr) under(dir string) Addr {
	network, path := a.Network()
	if network != "unix" || filepath.IsAbs(path) {
		return a
	}
	return Addr(unixPrefix + filepath.Join(dir, path))
}

// A TLSMode says how a connection to a route's server is secured.
type TLSMode string

// The ways to secure a connection.
const (
	TLSNone          TLSMode = "none"          // never
	TLSOpportunistic TLSMode = "opportunistic" // STARTTLS when offered, whatever the certificate
	TLSEncrypted     TLSMode = "encrypted"     // STARTTLS, whatever the certificate, or no delivery
	TLSRequired      TLSMode = "starttls"      // STARTTLS with a certificate that is good, or no delivery
	TLSImplicit      TLSMode = "implicit"      // TLS from the first octet, with a good certificate
)

// A Secret is a password. It prints as stars.
type Secret string

// stars stand for a secret wherever a configuration is shown.
const stars = "***"

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return stars
}

// GoString hides the secret from %#v too.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalText hides the secret from JSON and logs.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// printable refuses control characters, which have no business in a path, a name
// or a password.
func printable(s string) error {
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return fmt.Errorf("%q holds a control character", s)
		}
	}
	return nil
}
