package imapd

import (
	"errors"
	"strings"

	"postroad/imapd/wire"
)

// idle is IDLE (RFC 2177; RFC 9051, 6.3.13): what happens is told at once, until the client says DONE.
func (s *session) idle() reply {
	s.out.Raw("+ idling").CRLF()
	s.idling = true
	s.pushes.Store(true) // before tell: what comes after that is pushed
	s.tell(true)
	return reply{status: answered}
}

// endIdle reads the line that ends IDLE, and answers the command.
func (s *session) endIdle() {
	s.idling = false
	s.pushes.Store(s.pushesAlways())
	line, err := s.dec.Line()
	if syntax, ok := errors.AsType[*wire.SyntaxError](err); ok {
		s.finish(syntaxReply(syntax), true)
	} else if err != nil {
		s.lost(err, slow)
	} else if !strings.EqualFold(string(line), "DONE") {
		s.finish(bad(codeClientBug, "IDLE ends with DONE"), true)
	} else {
		s.finish(reply{}, true)
	}
}

// changed is told of each change of the selected mailbox, by any goroutine.
func (s *session) changed() {
	s.stale.Store(true)
	if s.pushes.Load() && !s.pushing.Swap(true) {
		go s.push()
	}
}

// maxPushes is how many pushes run at once: each has a stack that has grown, and a page of what is to be sent.
const maxPushes = 64

// push tells the client what happened, while it waits for it.
func (s *session) push() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pushing.Store(false)
	s.tellNow()
	if s.left || s.flush() != nil {
		s.conn.raw.Abort() // and with that ends the wait
	}
}

func (s *session) tellNow() {
	defer s.recover()
	s.srv.pushes <- struct{}{}
	defer func() { <-s.srv.pushes }()
	if s.pushes.Load() {
		s.tell(s.idling || s.expungesAlways())
	}
}
