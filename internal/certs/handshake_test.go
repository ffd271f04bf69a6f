package certs

import (
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"

	"postroad/internal/listen"
	"postroad/internal/listen/listentest"
)

// What a handshake that was begun and not ended costs the server: little when it is an honest one, and never more than
// the largest message of a handshake, which Go has at 64 KiB, twice, and a record.
func TestHalfHandshakesCostLittle(t *testing.T) {
	hello := listentest.ClientHello(t)
	large := listentest.LargeHello(65_000)
	for _, tt := range []struct {
		name  string
		sent  []byte
		limit uint64
	}{
		{"nothing", nil, 24 << 10},
		{"half a ClientHello", hello[:len(hello)/2], 32 << 10},
		{"a ClientHello and no more", hello, 48 << 10},
		{"64,000 octets of a large one", large[:64_000], 192 << 10},
	} {
		if got := halfOpen(t, tt.sent, 200); got > tt.limit {
			t.Errorf("%s: %d octets each, the limit is %d", tt.name, got, tt.limit)
		} else {
			t.Logf("%s: %d octets each", tt.name, got)
		}
	}
}

// halfOpen is what each of n connections holds on which a peer has sent so much of a handshake.
func halfOpen(t *testing.T, sent []byte, n int) uint64 {
	c := open(t, Config{Dir: t.TempDir()})
	config := c.UserTLSConfig("imap")
	pipes := listentest.NewPipes()
	l := listen.New(pipes, listen.Options{})
	defer l.Close()
	var ended sync.WaitGroup
	var peers []net.Conn
	before := inUse()
	for range n {
		ended.Go(func() {
			if conn, err := l.Accept(); err == nil {
				tls.Server(conn, config).Handshake()
				conn.Close()
			}
		})
		peer := pipes.Dial()
		peers = append(peers, peer)
		if _, err := peer.Write(sent); err != nil {
			t.Fatal(err)
		}
	}
	runtime.Gosched()
	after := inUse()
	for _, p := range peers {
		go io.Copy(io.Discard, p)
	}
	for _, p := range peers {
		p.Close()
	}
	ended.Wait()
	return (max(after, before) - before) / uint64(n)
}

// inUse is what heap and stacks take.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
