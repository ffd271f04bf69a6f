package listen

import (
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"
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
	if closed, broken := c.Hangup(); closed || broken {
		t.Errorf("a connection that is open: %t, %t", closed, broken)
	}
	peer.(*net.TCPConn).CloseWrite()
	io.ReadAll(inner) // returns when the end has come
	if closed, broken := c.Hangup(); !closed || broken {
		t.Errorf("a side that is closed: %t, %t", closed, broken)
	}
	peer.Close()
	inner.Write([]byte("x"))       // which nobody wants: the answer to it breaks the connection
	err = c.control(func(fd int) { // until it has come
		for again := unix.EINTR; again == unix.EINTR; {
			_, failed := unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, 10_000)
			again, _ = failed.(unix.Errno)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, broken := c.Hangup(); !broken {
		t.Error("a broken connection is not noticed")
	}
	one, other := net.Pipe()
	defer one.Close()
	defer other.Close()
	if closed, broken := (&Conn{inner: one}).Hangup(); closed || broken {
		t.Errorf("what is no socket: %t, %t", closed, broken)
	}
}
