package imapd

import (
	"context"
	"strings"
	"sync"
	"time"
)

const (
	// lookEvery is how often it is looked whether the client of a long command is still there.
	lookEvery = time.Second
	// progressEvery is how often a client is told that its command is under way (RFC 9585, 3: no more than that).
	progressEvery = 10 * time.Second
)

// during does work that may take long and writes nothing. The client is told now and then that it goes on
// (RFC 9585), and when the client is gone the work's context ends.
func (s *session) during(work func(context.Context) error) error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	p := &progress{session: s, cancel: cancel, began: time.Now()}
	p.begin()
	defer p.end()
	return work(ctx)
}

// A progress watches over one command.
type progress struct {
	*session
	cancel context.CancelFunc
	began  time.Time

	mu     sync.Mutex // guards what follows, and the session's Encoder while the work goes on
	timer  *time.Timer
	ended  bool
	told   time.Duration // when the client was last told, from the beginning
	closed bool          // the client has said that it will say no more
}

func (p *progress) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(lookEvery, p.look)
}

// look tells the client that the command goes on when it is time for it. One that has closed its side may still
// listen: that it does not shows when it is told something.
func (p *progress) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	closed, broken := p.conn.raw.Hangup()
	if broken || p.ctx.Err() != nil {
		p.cancel()
		return
	}
	now := time.Since(p.began)
	if now-p.told >= progressEvery || closed && !p.closed {
		p.told, p.closed = now, closed
		if p.tell() != nil {
			p.cancel()
			return
		}
	}
	p.timer.Reset(lookEvery)
}

func (p *progress) tell() error {
	p.out.Raw(`* OK [INPROGRESS (`)
	if strings.Contains(p.tag, "]") { // it would end the code (RFC 9585, 4)
		p.out.Raw("NIL")
	} else {
		p.out.Quoted(p.tag)
	}
	p.out.Raw(" NIL NIL)] still at it").CRLF()
	if err := p.flush(); err != nil {
		return err
	}
	return p.conn.raw.Flush()
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.timer.Stop()
}
