package listen

import (
	"net"
	"testing"
	"time"
)

func TestHangup(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	inner, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	c := &Conn{inner: inner}
	until := func(what string, ok func(closed, broken bool) bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !ok(c.Hangup()); {
			if time.Now().After(end) {
				t.Fatalf("%s is not noticed", what)
			}
			time.Sleep(time.Millisecond)
		}
	}
	if closed, broken := c.Hangup(); closed || broken {
		t.Errorf("a connection that is open: %t, %t", closed, broken)
	}
	peer.(*net.TCPConn).CloseWrite()
	until("a side that is closed", func(closed, broken bool) bool { return closed && !broken })
	peer.Close()
	until("a broken connection", func(_, broken bool) bool {
		_, _ = inner.Write([]byte("x")) // which nobody wants
		return broken
	})
	one, other := net.Pipe()
	defer one.Close()
	defer other.Close()
	if closed, broken := (&Conn{inner: one}).Hangup(); closed || broken {
		t.Errorf("what is no socket: %t, %t", closed, broken)
	}
}
