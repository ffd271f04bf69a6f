package dns

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// setup is whom to ask, and how.
type setup struct {
	servers  []server
	timeout  time.Duration
	attempts int
}

// server is one that does recursion for us.
type server struct {
	addr    netip.AddrPort
	trusted bool // its word on DNSSEC is taken
}

// What resolv.conf may ask for at most, and what it means where it says nothing (resolv.conf(5)).
const (
	maxServers  = 8
	maxTimeout  = 30 * time.Second
	maxAttempts = 5
)

// override applies what o says, and decides whom to trust.
func (o *Options) override(s setup, trustAD bool) setup {
	if o.Timeout > 0 {
		s.timeout = o.Timeout
	}
	if o.Attempts > 0 {
		s.attempts = o.Attempts
	}
	for i := range s.servers {
		local := s.servers[i].addr.Addr().IsLoopback() || trustAD
		s.servers[i].trusted = o.Trust == TrustAll || o.Trust == TrustLocal && local
	}
	return s
}

// parseResolvConf reads resolv.conf(5). Without a server in it, one on this machine is asked.
func (o *Options) parseResolvConf(text []byte) setup {
	s := setup{timeout: 5 * time.Second, attempts: 2}
	trustAD := false
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		switch {
		case len(fields) < 2:
		case fields[0] == "nameserver" && len(s.servers) < maxServers:
			if addr, err := parseServer(fields[1]); err == nil {
				s.servers = append(s.servers, server{addr: addr})
			}
		case fields[0] == "options":
			for _, option := range fields[1:] {
				trustAD = s.option(option) || trustAD
			}
		}
	}
	if len(s.servers) == 0 {
		s.servers = []server{{addr: netip.MustParseAddrPort("127.0.0.1:53")}, {addr: netip.MustParseAddrPort("[::1]:53")}}
	}
	return o.override(s, trustAD)
}

// option applies an option of resolv.conf, and reports whether it is "trust-ad".
func (s *setup) option(option string) (trustAD bool) {
	name, value, _ := strings.Cut(option, ":")
	n, err := strconv.Atoi(value)
	switch {
	case name == "trust-ad":
		return true
	case err != nil || n < 1:
	case name == "timeout":
		s.timeout = min(time.Duration(n)*time.Second, maxTimeout)
	case name == "attempts":
		s.attempts = min(n, maxAttempts)
	}
	return false
}

func parseServer(text string) (netip.AddrPort, error) {
	if ip, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(ip, 53), nil
	}
	addr, err := netip.ParseAddrPort(text)
	if err != nil {
		return addr, fmt.Errorf("DNS server %q: want an address, with a port or without", text)
	}
	return addr, nil
}

// parseHosts reads hosts(5): addresses by names in small letters.
func parseHosts(text []byte) map[string][]netip.Addr {
	hosts := make(map[string][]netip.Addr)
	for line := range bytes.Lines(text) {
		line, _, _ = bytes.Cut(line, []byte("#"))
		fields := strings.Fields(string(line))
		if len(fields) < 2 {
			continue
		}
		ip, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		for _, name := range fields[1:] {
			name = strings.ToLower(relative(name))
			hosts[name] = append(hosts[name], ip.Unmap())
		}
	}
	return hosts
}

// file is a file of the operating system as it is now. Any number of goroutines.
type file[T any] struct {
	path  string // empty: there is no file, and never was
	parse func([]byte) T

	mu    sync.Mutex // guards all below
	seen  os.FileInfo
	value *T
}

// get returns what the file says: the same pointer as long as it says the same. One that cannot be read is empty.
func (f *file[T]) get() *T {
	f.mu.Lock()
	defer f.mu.Unlock()
	var now os.FileInfo
	if f.path != "" {
		now, _ = os.Stat(f.path)
	}
	if f.value == nil || changed(f.seen, now) {
		var text []byte
		if now != nil {
			text, _ = os.ReadFile(f.path)
		}
		value := f.parse(text)
		f.seen, f.value = now, &value
	}
	return f.value
}

func changed(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a != b
	}
	return !os.SameFile(a, b) || a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime())
}
