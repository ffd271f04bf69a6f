package listen

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"
)

// The header of the PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt): how a proxy in front tells whom it
// speaks for. A peer in Options.ProxyFrom must begin with one; from anyone else it is no header but what the peer says.

const (
	proxyWithin = 5 * time.Second // for the whole header; the proxy has it ready
	maxProxyV1  = 107             // octets, the line's end included
	proxyPrefix = 16              // octets of version 2 that say how many follow
	maxProxyV2  = 4096            // octets in all; certificates among the TLVs have up to two thousand
)

var errProxyHeader = errors.New("what came first is no header of the PROXY protocol")

// proxied reports whether a peer speaks for others.
func (l *Listener) proxied(a net.Addr) bool {
	ip := IP(a)
	for _, p := range l.opts.ProxyFrom {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// meet reads the header that a proxy begins with, and makes the connection that of whom it names.
func (c *Conn) meet() error {
	c.inner.SetReadDeadline(time.Now().Add(proxyWithin))
	header, rest, err := readProxyHeader(c.inner)
	if err != nil {
		return fmt.Errorf("read the PROXY header: %w", err)
	}
	if c.remote, err = named(header, c.inner.RemoteAddr()); err != nil {
		return err
	}
	c.source, c.ahead = source(c.remote), rest
	return nil
}

// readProxyHeader reads a header, in however many pieces it comes, and what came with its last piece.
func readProxyHeader(r interface{ Read([]byte) (int, error) }) (header, rest []byte, err error) {
	var buf []byte
	var piece [512]byte
	for {
		n, err := r.Read(piece[:])
		buf = append(buf, piece[:n]...)
		size, bad := proxyHeaderSize(buf)
		switch {
		case bad != nil:
			return nil, nil, bad
		case size > 0 && size <= len(buf):
			return buf[:size:size], bytes.Clone(buf[size:]), nil
		case err != nil:
			return nil, nil, err
		}
	}
}

// proxyHeaderSize returns the size of the header that buf begins with, or 0 when more octets must tell.
func proxyHeaderSize(buf []byte) (int, error) {
	switch {
	case begins(buf, proxyproto.SIGV1):
		line, _, ok := bytes.Cut(buf, []byte("\n"))
		switch {
		case ok && len(line)+1 <= maxProxyV1:
			return len(line) + 1, nil
		case len(line) >= maxProxyV1:
			return 0, errProxyHeader
		}
		return 0, nil
	case begins(buf, proxyproto.SIGV2):
		if len(buf) < proxyPrefix {
			return 0, nil
		}
		size := proxyPrefix + int(binary.BigEndian.Uint16(buf[proxyPrefix-2:]))
		if size > maxProxyV2 {
			return 0, errProxyHeader
		}
		return size, nil
	}
	return 0, errProxyHeader
}

// begins reports whether buf is, as far as it goes, what a signature says.
func begins(buf, signature []byte) bool {
	n := min(len(buf), len(signature))
	return bytes.Equal(buf[:n], signature[:n])
}

// named returns the address that a header names, with that of the proxy where it names none: a check of the proxy's own
// (LOCAL), a client of a kind that it does not know (UNKNOWN).
func named(header []byte, proxy net.Addr) (net.Addr, error) {
	in := bytes.NewReader(header)
	h, err := proxyproto.Read(bufio.NewReaderSize(in, len(header)))
	if err != nil {
		return nil, fmt.Errorf("read the PROXY header: %w", err)
	}
	if from, _, ok := h.TCPAddrs(); ok && h.Command.IsProxy() {
		return elsewhere(from), nil
	}
	return elsewhere(proxy), nil
}

// elsewhere returns an address that is not this machine's: whoever comes through a proxy is not trusted as one who
// comes from here, whatever the proxy says and wherever it runs. 0.0.0.0 stands for those of whom nothing else is known.
func elsewhere(a net.Addr) net.Addr {
	ip := IP(a)
	if ip.IsValid() && !ip.IsLoopback() && !ip.IsUnspecified() && !ip.IsMulticast() {
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, a.(*net.TCPAddr).AddrPort().Port()))
	}
	return &net.TCPAddr{IP: net.IPv4zero}
}
