package hook

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// body is what is sent. Its last octet waits for the caller's word. The transport may read it on after it has the
// answer, until end.
type body struct {
	// Set when it is made, never changed.
	before func() error
	timer  *time.Timer // breaks the request off

	mu   sync.Mutex // guards what follows
	in   io.ReadCloser
	left int64 // octets
	err  error // of our own side
	over bool  // nothing is to be read any more
}

// body opens what is sent.
func newBody(r *Request, breakOff context.CancelCauseFunc) (*body, error) {
	in, err := r.Open()
	if err != nil {
		return nil, err
	}
	b := &body{before: r.Before, in: in, left: r.Size}
	b.timer = time.AfterFunc(2*connectWithin+blockWithin+answerWithin, func() { breakOff(errSlow) })
	if r.Size == 0 && r.Before != nil {
		if err := r.Before(); err != nil {
			b.end()
			return nil, err
		}
	}
	return b, nil
}

// Read gives all but the last octet, and that once the caller has agreed.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.over || b.err != nil:
		return 0, io.ErrUnexpectedEOF
	case b.left == 0:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	b.timer.Reset(blockWithin)
	if b.left == 1 {
		return b.last(p)
	}
	n, err := b.in.Read(p[:min(int64(len(p)), b.left-1)])
	if b.left -= int64(n); err != nil {
		b.err = short(err)
	}
	return n, b.err
}

// last gives the last octet. Behind it there must be an end: readers of the store tell there of damage.
func (b *body) last(p []byte) (int, error) {
	var octets [2]byte
	n, err := io.ReadFull(b.in, octets[:])
	switch {
	case n == 1 && err == io.ErrUnexpectedEOF && b.before != nil:
		b.err = b.before()
	case n == 2:
		b.err = errLong
	case n == 0 || err != io.ErrUnexpectedEOF:
		b.err = short(err)
	}
	if b.err != nil {
		return 0, b.err
	}
	p[0], b.left = octets[0], 0
	b.timer.Reset(blockWithin + answerWithin)
	return 1, nil
}

var errLong = errors.New("there are more octets than there should be")

// short makes an error of an end that comes too soon.
func short(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Close is the transport's: it needs no more.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.close()
}

func (b *body) close() error {
	if b.over {
		return nil
	}
	b.over = true
	return b.in.Close()
}

// end stops all, whoever still reads.
func (b *body) end() {
	b.timer.Stop()
	_ = b.Close()
}

// answered reports whether everything had been handed over by now; from here on nothing is.
func (b *body) answered() (whole bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.close()
	return b.left == 0
}

// failed is what went wrong on our own side.
func (b *body) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}
