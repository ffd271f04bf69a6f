package bench

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A Sink is a mail server that takes everything and keeps nothing, to be the next hop of a server that is measured. It
// does as little as it can. It speaks SMTP with PIPELINING, no TLS, and believes whatever it is told.
type Sink struct {
	delay time.Duration // before the reply to each message

	messages, recipients, bytes, conns atomic.Int64
	first, last                        atomic.Int64 // when a message came, in Unix nanoseconds

	mu     sync.Mutex
	open   map[net.Conn]bool
	wanted int64
	enough chan struct{} // closed when wanted messages have come
}

// NewSink returns a sink that lets each message wait for a while before it is answered; 0 does not.
func NewSink(delay time.Duration) *Sink {
	return &Sink{delay: delay, open: map[net.Conn]bool{}}
}

// Serve answers connections until ctx is done, and returns when all have ended. It closes l.
func (s *Sink) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var all sync.WaitGroup
	for {
		c, err := l.Accept()
		if err != nil {
			s.closeAll()
			all.Wait()
			if ctx.Err() != nil {
				err = nil
			}
			return err
		}
		s.mu.Lock()
		s.open[c] = true
		s.mu.Unlock()
		s.conns.Add(1)
		all.Go(func() {
			s.converse(c)
			s.mu.Lock()
			delete(s.open, c)
			s.mu.Unlock()
		})
	}
}

func (s *Sink) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		_ = c.Close()
	}
}

// Wait returns when n messages have come since the sink was made, or with ctx's error. One at a time.
func (s *Sink) Wait(ctx context.Context, n int64) error {
	enough := make(chan struct{})
	s.mu.Lock()
	s.wanted, s.enough = n, enough
	if s.messages.Load() >= n {
		s.wanted = 0
		close(enough)
	}
	s.mu.Unlock()
	select {
	case <-enough:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Messages is how many messages have come.
func (s *Sink) Messages() int64 { return s.messages.Load() }

// Conns is how many connections have come.
func (s *Sink) Conns() int64 { return s.conns.Load() }

// report adds what came, since began or, if that is zero, since the first message.
func (s *Sink) report(r *Report, name string, began time.Time, before int64) {
	if began.IsZero() {
		began = time.Unix(0, s.first.Load())
	}
	n := s.messages.Load() - before
	took := time.Unix(0, s.last.Load()).Sub(began)
	r.Rows = append(r.Rows, Row{Name: name, Count: n, PerSecond: perSecond(n, took)})
	r.Counts = append(r.Counts, Count{"recipients taken", s.recipients.Load()}, Count{"octets taken", s.bytes.Load()},
		Count{"connections taken", s.conns.Load()})
}

// took counts a message.
func (s *Sink) took() {
	now := time.Now().UnixNano()
	s.first.CompareAndSwap(0, now)
	s.last.Store(now)
	s.messages.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted > 0 && s.messages.Load() >= s.wanted {
		s.wanted = 0
		close(s.enough)
	}
}

const sinkHello = "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 1000000000\r\n"

// converse answers one connection. Replies leave together when there is nothing more to read.
func (s *Sink) converse(c net.Conn) {
	defer func() { _ = c.Close() }()
	in, out := bufio.NewReaderSize(c, 16<<10), bufio.NewWriter(c)
	out.WriteString("220 sink.test ESMTP\r\n")
	for out.Flush() == nil {
		for more := true; more; more = in.Buffered() > 0 {
			line, err := in.ReadSlice('\n')
			if err != nil || !s.command(line, in, out) {
				out.Flush()
				return
			}
		}
	}
}

// command answers one command; false ends the connection.
func (s *Sink) command(line []byte, in *bufio.Reader, out *bufio.Writer) bool {
	verb := bytes.ToUpper(line[:min(4, len(line))])
	switch string(verb) {
	case "EHLO":
		out.WriteString(sinkHello)
	case "DATA":
		out.WriteString("354 go ahead\r\n")
		if out.Flush() != nil || !s.body(in) {
			return false
		}
		time.Sleep(s.delay)
		s.took()
		out.WriteString("250 2.0.0 gone\r\n")
	case "QUIT":
		out.WriteString("221 2.0.0 bye\r\n")
		return false
	case "RCPT":
		s.recipients.Add(1)
		fallthrough
	default:
		out.WriteString("250 2.0.0 ok\r\n")
	}
	return true
}

// body reads up to the final dot.
func (s *Sink) body(in *bufio.Reader) bool {
	start := true // of a line
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return false
		}
		if start && len(line) == 3 && line[0] == '.' && line[1] == '\r' {
			return true
		}
		s.bytes.Add(int64(len(line)))
		start = err == nil
	}
}
