package listen

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const signature2 = "\r\n\r\n\x00\r\nQUIT\n"

// v2 is a header of version 2.
func v2(command, family byte, body string) string {
	return signature2 + string([]byte{0x20 | command, family, byte(len(body) >> 8), byte(len(body))}) + body
}

// addresses4 and addresses6 are bodies of such a header: source, destination, ports 4711 and 25.
var (
	addresses4 = "\xc0\x00\x02\x07" + "\xc6\x33\x64\x01" + "\x12\x67\x00\x19"
	addresses6 = "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x07" + "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 12) + "\x12\x67\x00\x19"
	local4     = "\x7f\x00\x00\x01" + "\xc6\x33\x64\x01" + "\x12\x67\x00\x19"
	mapped     = strings.Repeat("\x00", 10) + "\xff\xff\x7f\x00\x00\x01" + strings.Repeat("\x00", 16) + "\x12\x67\x00\x19"
)

// headers that are good, with the address of the peer from then on; the proxy is 198.51.100.1.
var headers = []struct{ name, header, peer string }{
	{"v1 TCP4", "PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n", "192.0.2.7"},
	{"v1 TCP6", "PROXY TCP6 2001:db8::7 2001:db8::1 4711 25\r\n", "2001:db8::7"},
	{"v1 UNKNOWN", "PROXY UNKNOWN\r\n", "198.51.100.1"},
	{"v1 UNKNOWN with more", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", "198.51.100.1"},
	{"v1 this machine", "PROXY TCP4 127.0.0.1 127.0.0.1 4711 25\r\n", "0.0.0.0"},
	{"v1 this machine in IPv6", "PROXY TCP6 ::1 ::1 4711 25\r\n", "0.0.0.0"},
	{"v1 this machine, mapped", "PROXY TCP6 ::ffff:127.0.0.1 ::1 4711 25\r\n", "0.0.0.0"},
	{"v1 nobody", "PROXY TCP4 0.0.0.0 127.0.0.1 4711 25\r\n", "0.0.0.0"},
	{"v2 TCP4", v2(1, 0x11, addresses4), "192.0.2.7"},
	{"v2 TCP4 with TLVs", v2(1, 0x11, addresses4+"\x01\x00\x02h2\xee\x00\x01x"), "192.0.2.7"},
	{"v2 TCP4 with 4,000 octets of TLVs", v2(1, 0x11, addresses4+strings.Repeat("x", 4000)), "192.0.2.7"},
	{"v2 TCP6", v2(1, 0x21, addresses6), "2001:db8::7"},
	{"v2 this machine", v2(1, 0x11, local4), "0.0.0.0"},
	{"v2 this machine, mapped", v2(1, 0x21, mapped), "0.0.0.0"},
	{"v2 LOCAL", v2(0, 0x00, ""), "198.51.100.1"},
	{"v2 LOCAL with addresses", v2(0, 0x11, addresses4), "198.51.100.1"},
	{"v2 LOCAL with less", v2(0, 0x11, "xx"), "198.51.100.1"},
	{"v2 unix", v2(1, 0x31, strings.Repeat("x", 216)), "198.51.100.1"},
	{"v2 UDP", v2(1, 0x12, addresses4), "198.51.100.1"},
}

// garbage is what is no header, or none that may be.
var garbage = []struct{ name, octets string }{
	{"SMTP", "EHLO me\r\n"},
	{"nearly v1", "PROXI TCP4 192.0.2.7 198.51.100.1 4711 25\r\n"},
	{"v1 glued", "PROXYTCP4 192.0.2.7 198.51.100.1 4711 25\r\n"},
	{"v1 lower case", "proxy TCP4 192.0.2.7 198.51.100.1 4711 25\r\n"},
	{"v1 LF alone", "PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\n"},
	{"v1 of another kind", "PROXY UDP4 192.0.2.7 198.51.100.1 4711 25\r\n"},
	{"v1 a family that does not fit", "PROXY TCP4 2001:db8::7 2001:db8::1 4711 25\r\n"},
	{"v1 a zone", "PROXY TCP6 fe80::1%lo 2001:db8::1 4711 25\r\n"},
	{"v1 two blanks", "PROXY TCP4  192.0.2.7 198.51.100.1 4711 25\r\n"},
	{"v1 a port too large", "PROXY TCP4 192.0.2.7 198.51.100.1 65536 25\r\n"},
	{"v1 a port with a zero", "PROXY TCP4 192.0.2.7 198.51.100.1 04711 25\r\n"},
	{"v1 one too few", "PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n"},
	{"v1 one too many", "PROXY TCP4 192.0.2.7 198.51.100.1 4711 25 1\r\n"},
	{"v1 of 108 octets", "PROXY UNKNOWN " + strings.Repeat("x", 108-16) + "\r\n"},
	{"v1 without end", "PROXY UNKNOWN " + strings.Repeat("x", 10_000)},
	{"nearly v2", "\r\n\r\n\x00\r\nQUIT\r\x21\x11\x00\x0c" + addresses4},
	{"v2 of version 3", signature2 + "\x31\x11\x00\x0c" + addresses4},
	{"v2 of another command", v2(2, 0x11, addresses4)},
	{"v2 of another family", v2(1, 0x41, addresses4)},
	{"v2 of another transport", v2(1, 0x13, addresses4)},
	{"v2 PROXY for nobody", v2(1, 0x00, "")},
	{"v2 too short", v2(1, 0x11, addresses4[:11])},
	{"v2 too short for IPv6", v2(1, 0x21, addresses4)},
	{"v2 of 64 KiB", v2(1, 0x11, strings.Repeat("x", 65535))},
	{"v2 of one octet too many", v2(1, 0x11, strings.Repeat("x", maxProxyV2-proxyPrefix+1))},
	{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"},
	{"nothing", ""},
}

// met is what a server that begins connections of proxies sees of one.
type met struct {
	remote net.Addr
	said   string
	early  bool
}

// serveProxied serves a connection from an address, to which send writes and which it closes, and returns what the owner
// met: nothing when it never got the connection.
func serveProxied(t *testing.T, from string, o Options, send func(net.Conn)) (seen []met, told string) {
	t.Helper()
	ours, theirs := pipe(from)
	if o.ProxyFrom == nil {
		o.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("127.0.0.1/32")}
	}
	var g Group
	served := make(chan error)
	go func() {
		served <- g.Serve(newScript(ours), o, func(c *Conn) {
			defer g.Ended()
			defer c.Close()
			early := c.Early(time.Second)
			b, _ := io.ReadAll(c)
			seen = append(seen, met{c.RemoteAddr(), string(b), early})
		})
	}()
	sent := make(chan struct{})
	go func() { send(theirs); theirs.Close(); close(sent) }()
	b, _ := io.ReadAll(theirs)
	<-sent
	synctest.Wait()
	if err := g.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	return seen, string(b)
}

// say writes a text in two pieces.
func say(text string, cut int) func(net.Conn) {
	return func(c net.Conn) {
		io.WriteString(c, text[:cut])
		time.Sleep(time.Second)
		io.WriteString(c, text[cut:])
	}
}

// However a header is split, the connection is that of whom it names, and not an octet behind it is lost.
func TestProxyHeaders(t *testing.T) {
	for _, tt := range headers {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := tt.header + "EHLO me\r\n"
				for cut := range len(all) {
					if cut > 64 && cut < len(tt.header)-16 {
						continue // within TLVs
					}
					seen, _ := serveProxied(t, "198.51.100.1", Options{}, say(all, cut))
					if len(seen) != 1 || seen[0].said != "EHLO me\r\n" || IP(seen[0].remote).String() != tt.peer || IsLocal(seen[0].remote) {
						t.Fatalf("cut at %d: %v", cut, seen)
					}
				}
			})
		})
	}
}

// A proxy on this machine does not make of its clients those of this machine.
func TestProxyOnThisMachine(t *testing.T) {
	for _, tt := range headers {
		synctest.Test(t, func(t *testing.T) {
			seen, _ := serveProxied(t, "127.0.0.1", Options{}, say(tt.header, 0))
			if len(seen) != 1 || IsLocal(seen[0].remote) || !IP(seen[0].remote).IsValid() {
				t.Errorf("%s: %v", tt.name, seen)
			}
		})
	}
}

// What is no header ends the connection of a peer that must send one, without a word.
func TestProxyGarbage(t *testing.T) {
	for _, tt := range garbage {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, cut := range []int{0, len(tt.octets) / 2, len(tt.octets) * 9 / 10} {
					seen, told := serveProxied(t, "198.51.100.1", Options{}, say(tt.octets, cut))
					if len(seen) != 0 || told != "" {
						t.Errorf("cut at %d: %v, %q", cut, seen, told)
					}
				}
			})
		})
	}
}

// A header that does not come in time, in whole, ends the connection, too.
func TestProxyHeaderThatDawdles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, header := range []string{"", headers[0].header, v2(1, 0x11, addresses4)} {
			begin := time.Now()
			seen, _ := serveProxied(t, "198.51.100.1", Options{}, func(c net.Conn) {
				for i := range len(header) {
					if _, err := io.WriteString(c, header[i:i+1]); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
				io.ReadAll(c)
			})
			if took := time.Since(begin); len(seen) != 0 || took > proxyWithin+time.Second {
				t.Errorf("%q: %v after %v", header, seen, took)
			}
		}
	})
}

// From anyone else it is no header, but what the peer says.
func TestProxyHeaderFromAnyoneElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, from := range []string{"192.0.2.99", "::1", "127.0.0.2"} {
			for _, tt := range headers {
				seen, _ := serveProxied(t, from, Options{}, say(tt.header, 3))
				if len(seen) != 1 || seen[0].said != tt.header || IP(seen[0].remote).String() != from || !seen[0].early {
					t.Errorf("%s from %s: %v", tt.name, from, seen)
				}
			}
		}
	})
}

// The bounds count the address that the header names, and so does who is let in.
func TestProxiedAddressCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		banned := netip.MustParseAddr("192.0.2.66")
		var entered []string
		o := Options{
			Total: 10, PerAddress: 2, TooMany: "421 many\r\n",
			ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
			Enter: func(a netip.Addr) (Pass, string, bool) {
				entered = append(entered, a.String())
				return leave(func() {}), "554 banned\r\n", a != banned
			},
		}
		var g Group
		ln := newScript()
		go g.Serve(ln, o, func(c *Conn) {
			defer g.Ended()
			defer c.Close()
			io.WriteString(c, "220 hello\r\n")
			c.Read(make([]byte, 1))
		})
		dial := func(client string) string {
			ours, theirs := pipe("127.0.0.1")
			ln.steps <- ours
			fmt.Fprintf(theirs, "PROXY TCP4 %s 198.51.100.1 4711 25\r\n", client)
			line := make([]byte, 100)
			n, _ := theirs.Read(line)
			t.Cleanup(func() { theirs.Close() })
			return string(line[:n])
		}
		for i, tt := range []struct{ client, told string }{
			{"192.0.2.1", "220 hello\r\n"},
			{"192.0.2.1", "220 hello\r\n"},
			{"192.0.2.1", "421 many\r\n"},
			{"192.0.2.2", "220 hello\r\n"},
			{"192.0.2.66", "554 banned\r\n"},
		} {
			if told := dial(tt.client); told != tt.told {
				t.Errorf("%d: %s is told %q", i, tt.client, told)
			}
		}
		synctest.Wait()
		if want := "[192.0.2.1 192.0.2.1 192.0.2.2 192.0.2.66]"; fmt.Sprint(entered) != want {
			t.Errorf("asked to enter: %v", entered)
		}
		if g.Open() != 3 {
			t.Errorf("%d are open", g.Open())
		}
		g.Drop(func(a netip.Addr) bool { return a == netip.MustParseAddr("192.0.2.1") })
		synctest.Wait()
		if g.Open() != 1 {
			t.Errorf("%d are open when two were dropped", g.Open())
		}
		g.Drop(func(netip.Addr) bool { return true })
		if err := g.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Any octets at all: a header that is found is one by its form, its end is where it says, and no address that it gives
// is this machine's; in pieces it is the same.
func FuzzProxyHeader(f *testing.F) {
	for _, tt := range headers {
		f.Add([]byte(tt.header+"EHLO me\r\n"), 3)
	}
	for _, tt := range garbage {
		f.Add([]byte(tt.octets), 5)
	}
	proxy := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	f.Fuzz(func(t *testing.T, octets []byte, cut int) {
		header, rest, err := readProxyHeader(bytes.NewReader(octets))
		if cut = min(max(cut, 0), len(octets)); cut > 0 {
			h, r, e := readProxyHeader(io.MultiReader(bytes.NewReader(octets[:cut]), bytes.NewReader(octets[cut:])))
			if !bytes.Equal(h, header) || (e == nil) != (err == nil) || err == nil && !bytes.HasPrefix(octets[len(h):], r) {
				t.Fatalf("cut at %d: %q and %q, %v and %v", cut, h, header, e, err)
			}
		}
		if err != nil {
			return
		}
		if !bytes.HasPrefix(octets, append(bytes.Clone(header), rest...)) || len(header) > maxProxyV2 {
			t.Fatalf("%s and %s of %s", hex.EncodeToString(header), hex.EncodeToString(rest), hex.EncodeToString(octets))
		}
		from, err := named(header, proxy)
		if err == nil && (IsLocal(from) || !IP(from).IsValid()) {
			t.Fatalf("%q names %v", header, from)
		}
	})
}

type leave func()

func (l leave) Leave() { l() }

// Who is let in leaves once, however the connection ends; who is not is told why.
func TestEnterAndLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var in, out int
		l := New(newScript(), Options{Enter: func(a netip.Addr) (Pass, string, bool) {
			if a == netip.MustParseAddr("192.0.2.66") {
				return nil, "554 banned\r\n", false
			}
			in++
			return leave(func() { out++ }), "", true
		}})
		go func() {
			for i := 0; ; i++ {
				c, err := l.AcceptConn()
				if err != nil {
					return
				}
				if c.Pass() == nil {
					t.Error("no pass")
				}
				if i%2 == 0 {
					c.Close()
				}
				c.Abort()
			}
		}()
		for _, from := range []string{"192.0.2.1", "192.0.2.66", "::1", "192.0.2.1"} {
			ours, theirs := pipe(from)
			l.inner.(*script).steps <- ours
			b, _ := io.ReadAll(theirs)
			if told := string(b); (told == "554 banned\r\n") != (from == "192.0.2.66") {
				t.Errorf("%s is told %q", from, told)
			}
		}
		synctest.Wait()
		if in != 3 || out != 3 {
			t.Errorf("%d in, %d out", in, out)
		}
		l.Close()
	})
}

// Early sees who talks before its turn, loses nothing of it, and waits for no longer than it was told.
func TestEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			after, within time.Duration
			early         bool
		}{
			{time.Second, 2 * time.Second, true},
			{3 * time.Second, 2 * time.Second, false},
			{0, 2 * time.Second, true},
		} {
			c, _, peer := pair(t, Options{Pace: Pace{Idle: time.Minute}})
			go func() { time.Sleep(tt.after); io.WriteString(peer, "EHLO me\r\n") }()
			begin := time.Now()
			if got := c.Early(tt.within); got != tt.early || time.Since(begin) > tt.within {
				t.Errorf("%v: %v after %v", tt, got, time.Since(begin))
			}
			line := make([]byte, 9)
			if _, err := io.ReadFull(c, line); err != nil || string(line) != "EHLO me\r\n" {
				t.Errorf("%v: %q, %v", tt, line, err)
			}
		}
	})
}

// On a socket it is known without waiting.
func TestEarlyWithoutWaiting(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := New(l, Options{})
	defer ln.Close()
	for _, talks := range []bool{false, true} {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		c, err := ln.AcceptConn()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if talks {
			io.WriteString(client, "EHLO me\r\n")
			if _, err := io.ReadFull(c.inner, make([]byte, 1)); err != nil { // when it has come, so has the rest
				t.Fatal(err)
			}
		}
		if !talks && c.Early(0) {
			t.Error("a silent peer talks")
		}
		if talks && !c.Early(0) {
			t.Error("a talker is silent")
		}
	}
}
