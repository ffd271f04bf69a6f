package smtpd_test

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// A line is one direction of a connection in memory. What was written in one piece is read in one piece, so that
// a test decides where the network cuts; a write never waits.
type line struct {
	mu     sync.Mutex
	turn   sync.Cond // on mu
	pieces [][]byte
	ended  error // what a read gives when there are no more pieces
	limit  time.Time
	alarm  *time.Timer
}

func newLine() *line {
	l := &line{}
	l.turn.L = &l.mu
	return l
}

func (l *line) write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended != nil {
		return 0, io.ErrClosedPipe
	}
	if len(p) > 0 {
		l.pieces = append(l.pieces, append([]byte(nil), p...))
		l.turn.Broadcast()
	}
	return len(p), nil
}

func (l *line) read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case !l.limit.IsZero() && !time.Now().Before(l.limit):
			return 0, os.ErrDeadlineExceeded
		case len(l.pieces) > 0:
			n := copy(p, l.pieces[0])
			if l.pieces[0] = l.pieces[0][n:]; len(l.pieces[0]) == 0 {
				l.pieces = l.pieces[1:]
			}
			return n, nil
		case l.ended != nil:
			return 0, l.ended
		}
		l.turn.Wait()
	}
}

// end makes reads give err after what is there, or at once when that is lost.
func (l *line) end(err error, lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == nil {
		l.ended = err
	}
	if lost {
		l.pieces = nil
	}
	l.turn.Broadcast()
}

// deadline bounds reads; a waiting one looks again when the time has come.
func (l *line) deadline(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = t
	if l.alarm != nil {
		l.alarm.Stop()
		l.alarm = nil
	}
	if !t.IsZero() {
		l.alarm = time.AfterFunc(time.Until(t), l.turn.Broadcast)
	}
	l.turn.Broadcast()
}

// An end is one end of a connection in memory.
type end struct {
	in, out *line
	peer    net.Addr
}

// connect returns our end and the server's, which sees us at an address; without one it sees a unix socket.
func connect(from net.IP) (ours, theirs *end) {
	up, down := newLine(), newLine()
	var peer net.Addr = &net.UnixAddr{Name: "@", Net: "unix"}
	if from != nil {
		peer = &net.TCPAddr{IP: from, Port: 4711}
	}
	return &end{in: down, out: up, peer: peer}, &end{in: up, out: down, peer: peer}
}

func (e *end) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *end) Write(p []byte) (int, error) { return e.out.write(p) }

// CloseWrite says that no more will come, and goes on reading.
func (e *end) CloseWrite() error { e.out.end(io.EOF, false); return nil }

func (e *end) Close() error {
	e.out.end(io.EOF, false)
	e.in.end(net.ErrClosed, true)
	e.in.deadline(time.Time{})
	return nil
}

func (e *end) LocalAddr() net.Addr                { return e.peer }
func (e *end) RemoteAddr() net.Addr               { return e.peer }
func (e *end) SetDeadline(t time.Time) error      { return e.SetReadDeadline(t) }
func (e *end) SetReadDeadline(t time.Time) error  { e.in.deadline(t); return nil }
func (e *end) SetWriteDeadline(t time.Time) error { return nil }

// ends is a listener for connections in memory. What it listens on is no loopback address: every peer is a stranger
// as far as its own address says so.
type ends struct {
	conns  chan *end
	closed chan struct{}
	once   sync.Once
}

func newEnds() *ends { return &ends{conns: make(chan *end), closed: make(chan struct{})} }

func (l *ends) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *ends) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *ends) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 25), Port: 25} }

func (l *ends) dial(from net.IP) *end {
	ours, theirs := connect(from)
	l.conns <- theirs
	return ours
}
