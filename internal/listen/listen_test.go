package listen

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// script is a listener whose accepts are written down beforehand.
type script struct {
	steps chan any // net.Conn or error
	done  chan struct{}
}

func newScript(steps ...any) *script {
	s := &script{make(chan any, 100), make(chan struct{})}
	for _, x := range steps {
		s.steps <- x
	}
	return s
}

func (s *script) Accept() (net.Conn, error) {
	select {
	case x := <-s.steps:
		if err, ok := x.(error); ok {
			return nil, err
		}
		return x.(net.Conn), nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

func (s *script) Close() error   { close(s.done); return nil }
func (s *script) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }

// end is one end of a pipe with an address, that counts its writes.
type end struct {
	net.Conn
	from   net.Addr
	mu     sync.Mutex
	writes int
}

func (e *end) RemoteAddr() net.Addr { return e.from }

func (e *end) Write(p []byte) (int, error) {
	e.mu.Lock()
	e.writes++
	e.mu.Unlock()
	return e.Conn.Write(p)
}

func (e *end) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.writes
}

func pipe(from string) (ours *end, theirs net.Conn) {
	a, b := net.Pipe()
	return &end{Conn: a, from: &net.TCPAddr{IP: net.ParseIP(from), Port: 1}}, b
}

// pair is an accepted Conn, its inner end and the peer's.
func pair(t *testing.T, o Options) (*Conn, *end, net.Conn) {
	ours, theirs := pipe("192.0.2.1")
	c, err := New(newScript(ours), o).AcceptConn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close(); c.Close() })
	return c, ours, theirs
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(newScript(), Options{Total: 4, PerAddress: 2, Full: "421 full\r\n", TooMany: "421 many\r\n"})
		defer l.Close()
		accepted := make(chan *Conn, 10)
		go func() {
			for {
				c, err := l.AcceptConn()
				if err != nil {
					return
				}
				accepted <- c
			}
		}()
		dial := func(from string) string {
			ours, theirs := pipe(from)
			l.inner.(*script).steps <- ours
			synctest.Wait()
			theirs.SetReadDeadline(time.Now().Add(time.Millisecond))
			b, _ := io.ReadAll(theirs)
			return string(b)
		}
		steps := []struct{ from, want string }{
			{"192.0.2.1", ""},
			{"192.0.2.1", ""},
			{"192.0.2.1", "421 many\r\n"},
			{"2001:db8::1", ""},
			{"2001:db8::2", ""},
			{"192.0.2.9", "421 full\r\n"},
		}
		for i, s := range steps {
			if got := dial(s.from); got != s.want {
				t.Errorf("connection %d from %s was told %q, want %q", i, s.from, got, s.want)
			}
		}
		if got := l.Counts(); got != (Counts{Open: 4, Accepted: 4, Refused: 2}) {
			t.Errorf("counts %+v", got)
		}
		(<-accepted).Close()
		if got := dial("2001:db8::3"); got != "421 many\r\n" {
			t.Errorf("third of one /64 was told %q", got)
		}
		if got := dial("192.0.2.1"); got != "" {
			t.Errorf("a freed place was refused: %q", got)
		}
		for range 4 {
			(<-accepted).Close()
		}
		if len(l.from) != 0 || len(l.Conns()) != 0 {
			t.Errorf("left behind: %v %v", l.from, l.Conns())
		}
	})
}

func TestAcceptErrorsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := pipe("192.0.2.1")
		defer theirs.Close()
		var steps []any
		for range 10 {
			steps = append(steps, &net.OpError{Op: "accept", Err: syscall.EMFILE})
		}
		l := New(newScript(append(steps, ours)...), Options{})
		begin := time.Now()
		c, err := l.AcceptConn()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		// 5 ms doubled eight times passes a second: 1.275 s, then twice a second.
		if took := time.Since(begin); took != 3275*time.Millisecond {
			t.Errorf("ten failures took %v", took)
		}
		if n := l.Counts().Errors; n != 10 {
			t.Errorf("%d errors counted", n)
		}
	})
}

func TestCloseEndsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(newScript(syscall.EMFILE, syscall.EMFILE, syscall.EMFILE), Options{})
		end := make(chan error)
		go func() { _, err := l.Accept(); end <- err }()
		synctest.Wait()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-end; !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after close: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
	})
}

func TestRefusedPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, a := pipe("192.0.2.1")
		two, b := pipe("192.0.2.1")
		three, c := pipe("192.0.2.2")
		defer a.Close()
		defer b.Close()
		defer c.Close()
		l := New(newScript(one, two, three), Options{PerAddress: 1, TooMany: "421\r\n"})
		first, _ := l.AcceptConn()
		begin := time.Now()
		third, _ := l.AcceptConn()
		if took := time.Since(begin); took != refuseWithin {
			t.Errorf("a refused peer held the listener for %v", took)
		}
		first.Abort()
		third.Abort()
	})
}

func TestWritesAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, inner, peer := pair(t, Options{})
		var got bytes.Buffer
		go io.Copy(&got, peer)
		for range 100 {
			io.WriteString(c, "250 ok\r\n")
		}
		synctest.Wait()
		if inner.count() != 0 {
			t.Fatalf("%d writes before a read", inner.count())
		}
		reading := make(chan struct{})
		go func() { c.Read(make([]byte, 1)); close(reading) }()
		synctest.Wait()
		if inner.count() != 1 || got.Len() != 800 {
			t.Errorf("%d writes, %d octets after the read began, want 1 and 800", inner.count(), got.Len())
		}
		io.WriteString(c, "* 1 EXISTS\r\n")
		synctest.Wait()
		if inner.count() != 2 || !strings.HasSuffix(got.String(), "EXISTS\r\n") {
			t.Errorf("a write during a read waits: %d writes", inner.count())
		}
		c.Close()
		<-reading
	})
}

func TestManyOctetsAreSentInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, inner, peer := pair(t, Options{})
		got := make(chan []byte)
		go func() { b, _ := io.ReadAll(peer); got <- b }()
		var want []byte
		for i, n := range []int{1, maxBuffered - 1, 1, maxBuffered, maxBuffered + 1, 3, 100000, 5} {
			p := bytes.Repeat([]byte{byte('a' + i)}, n)
			want = append(want, p...)
			if k, err := c.Write(p); k != n || err != nil {
				t.Fatalf("write of %d: %d, %v", n, k, err)
			}
			if len(c.buf) > maxBuffered {
				t.Errorf("%d octets held", len(c.buf))
			}
		}
		c.Close()
		if b := <-got; !bytes.Equal(b, want) {
			t.Errorf("%d octets arrived, want %d in order", len(b), len(want))
		}
		if n := inner.count(); n > 7 {
			t.Errorf("%d writes", n)
		}
	})
}

func TestIdleConnHoldsNoBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, peer := pair(t, Options{})
		go io.Copy(io.Discard, peer)
		io.WriteString(c, "220 hello\r\n")
		if c.buf == nil {
			t.Fatal("not gathered")
		}
		go c.Read(make([]byte, 1))
		synctest.Wait()
		c.wmu.Lock()
		defer c.wmu.Unlock()
		if c.buf != nil {
			t.Error("the buffer stayed")
		}
	})
}

func TestPace(t *testing.T) {
	type step struct {
		after  time.Duration
		octets int
	}
	tests := []struct {
		name  string
		pace  Pace
		steps []step
		lasts time.Duration
	}{
		{"silence ends after Idle", Pace{Idle: time.Minute}, nil, time.Minute},
		{"octets do not renew a command's time", Pace{Idle: time.Minute},
			[]step{{20 * time.Second, 1}, {20 * time.Second, 1}, {19 * time.Second, 1}}, time.Minute},
		{"fast enough lives on, then Idle", Pace{Idle: time.Minute, Rate: 10},
			[]step{{50 * time.Second, 1000}, {50 * time.Second, 1000}, {50 * time.Second, 1000}}, 210 * time.Second},
		{"one octet a time earns a tenth of a second", Pace{Idle: time.Minute, Rate: 10},
			[]step{{30 * time.Second, 1}, {30 * time.Second, 1}}, 60*time.Second + 200*time.Millisecond},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _, peer := pair(t, Options{Pace: test.pace})
				begin := time.Now()
				go func() {
					for _, s := range test.steps {
						time.Sleep(s.after)
						if _, err := peer.Write(make([]byte, s.octets)); err != nil {
							return
						}
					}
				}()
				_, err := io.Copy(io.Discard, c)
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("ended with %v", err)
				}
				if took := time.Since(begin); took.Round(time.Millisecond) != test.lasts {
					t.Errorf("lasted %v, want %v", took, test.lasts)
				}
			})
		})
	}
}

func TestOurWriteRenewsThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, peer := pair(t, Options{Pace: Pace{Idle: time.Minute}})
		go io.Copy(io.Discard, peer)
		time.Sleep(50 * time.Second)
		io.WriteString(c, "250 ok\r\n")
		begin := time.Now()
		_, err := c.Read(make([]byte, 1))
		if took := time.Since(begin); took != time.Minute || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestDeadlinesReachAWaitingRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, set := range []func(*Conn){
			func(c *Conn) { c.SetReadDeadline(time.Now().Add(-1)) },
			func(c *Conn) { c.SetDeadline(time.Now().Add(-1)) },
			func(c *Conn) { c.SetPace(Pace{Idle: 1}) },
		} {
			c, _, _ := pair(t, Options{Pace: Pace{Idle: time.Hour}})
			end := make(chan error)
			go func() { _, err := c.Read(make([]byte, 1)); end <- err }()
			synctest.Wait()
			if waited, ok := c.Waiting(); !ok || waited != 0 {
				t.Errorf("waiting %v %v", waited, ok)
			}
			begin := time.Now()
			set(c)
			if err := <-end; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) > time.Millisecond {
				t.Errorf("%v after %v", err, time.Since(begin))
			}
			if _, ok := c.Waiting(); ok {
				t.Error("still said to wait")
			}
		}
	})
}

func TestCloseSendsWhatWasGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, peer := pair(t, Options{})
		got := make(chan []byte)
		go func() { b, _ := io.ReadAll(peer); got <- b }()
		io.WriteString(c, "221 bye\r\n")
		c.SetWriteDeadline(time.Now()) // as crypto/tls does after its last alert
		c.Close()
		if b := <-got; string(b) != "221 bye\r\n" {
			t.Errorf("the peer saw %q", b)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after close: %v", err)
		}
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second close: %v", err)
		}
	})
}

// deaf is a connection whose Write is stuck until a later write deadline is set, and
// then fails as if that had passed.
type deaf struct {
	net.Conn
	stuck  chan struct{}
	limits chan time.Time
}

func (d *deaf) SetWriteDeadline(t time.Time) error { d.limits <- t; return nil }

func (d *deaf) Write([]byte) (int, error) {
	<-d.limits // set for this write
	close(d.stuck)
	d.limits <- <-d.limits
	return 0, os.ErrDeadlineExceeded
}

func TestCloseCutsAStuckWriteShort(t *testing.T) {
	ours, _ := pipe("192.0.2.1")
	inner := &deaf{ours, make(chan struct{}), make(chan time.Time, 2)}
	c, err := New(newScript(inner), Options{}).AcceptConn()
	if err != nil {
		t.Fatal(err)
	}
	go c.Write(make([]byte, 2*maxBuffered))
	<-inner.stuck
	c.Close() // returns: it does not wait behind the write's own minute
	if left := time.Until(<-inner.limits); left > closeWithin {
		t.Errorf("the stuck write was left %v", left)
	}
}

func TestWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _ := pair(t, Options{WriteTimeout: 3 * time.Second})
		begin := time.Now()
		io.WriteString(c, "250 ok\r\n")
		_, err := c.Read(make([]byte, 1))
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if _, again := c.Write([]byte("x")); !errors.Is(again, os.ErrDeadlineExceeded) {
			t.Errorf("a later write: %v", again)
		}
	})
}

// One goroutine reads, two write, one closes in the end; for the race detector, and
// nothing that was written may be lost or torn.
func TestReadersAndWriters(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := New(l, Options{Pace: Pace{Idle: time.Minute}})
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := ln.AcceptConn()
	if err != nil {
		t.Fatal(err)
	}
	const lines = 2000
	var writers, reader sync.WaitGroup
	for _, line := range []string{"aaaaaaa\n", "bbbbbbb\n"} {
		writers.Go(func() {
			for i := range lines {
				io.WriteString(c, line)
				if i%500 == 0 {
					c.SetPace(Pace{Idle: time.Minute, Rate: 1 + i})
					c.Waiting()
				}
			}
		})
	}
	reader.Go(func() { io.Copy(io.Discard, c) })
	go func() { writers.Wait(); c.Close() }()
	go func() {
		for range 100 {
			client.Write([]byte("DONE\r\n"))
		}
	}()
	all, _ := io.ReadAll(client)
	reader.Wait()
	if a, b := bytes.Count(all, []byte("aaaaaaa\n")), bytes.Count(all, []byte("bbbbbbb\n")); a != lines || b != lines {
		t.Errorf("%d and %d lines of %d arrived whole", a, b, lines)
	}
}
