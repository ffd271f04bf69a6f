package imapd

import (
	"bytes"
	"compress/flate"
	"io"
	"sync"
	"sync/atomic"

	"postroad/imapd/wire"
	"postroad/internal/inflate"
)

const codeCompressionActive = "COMPRESSIONACTIVE" // RFC 4978

// compress is COMPRESS (RFC 4978). What a client compresses is bounded as it is without: the limits of commands
// and messages count what it has become.
func (s *session) compress(c *wire.Compress) reply {
	switch {
	case c.Algorithm != "DEFLATE":
		return no(codeCannot, "there is no compression but DEFLATE")
	case s.conn.packed != nil:
		return no(codeCompressionActive, "the connection is compressed already")
	case !s.srv.compressors.enter(s.srv.Limits.Compressed):
		return no(codeLimit, "too many connections are compressed; go on without")
	}
	s.answer(ok("", "what follows is compressed"))
	err := s.flush()
	s.conn.compress(s.dec.Rest())
	if err != nil {
		s.left = true
	}
	s.dec.Reset(s.conn)
	return reply{status: answered}
}

// compressors counts the connections that are compressed, and lends them what costs much memory.
type compressors struct {
	count   atomic.Int64
	writers sync.Pool
}

// enter counts one more, unless there are most of them.
func (c *compressors) enter(most int) bool {
	if c.count.Add(1) <= int64(most) {
		return true
	}
	c.leave()
	return false
}

func (c *compressors) leave() { c.count.Add(-1) }

// A packed is the compressed layer of a connection. Between two flushes it borrows a compressor, with some 300 KiB; what
// a client compresses needs its window, 32 KiB at most.
type packed struct {
	*inflate.Reader
	from io.Reader     // what it reads
	to   io.ReadWriter // the layer below
	srv  *Server
	w    *flate.Writer // nil when nothing is to be flushed
}

// compress puts DEFLATE on the connection; rest is what was read from it already.
func (c *conn) compress(rest []byte) {
	p := &packed{from: c.top, to: c.top, srv: c.srv}
	if len(rest) > 0 {
		p.from = io.MultiReader(bytes.NewReader(rest), c.top)
	}
	p.Reader = inflate.NewReader(p.from)
	c.packed, c.top = p, p
}

// decompress takes DEFLATE off again. Everything written must have been flushed.
func (c *conn) decompress() {
	c.top = &unpacked{Writer: c.packed.to, z: c.packed.Reader, from: c.packed.from}
	c.packed = nil
	c.srv.compressors.leave()
}

// An unpacked is a connection that was compressed: what the client says begins where its compressed stream ends.
type unpacked struct {
	io.Writer
	z    *inflate.Reader // nil once it has ended
	from io.Reader
}

func (u *unpacked) Read(p []byte) (int, error) {
	if u.z != nil {
		rest, err := u.z.End()
		if err != nil {
			return 0, err
		}
		u.z, u.from = nil, io.MultiReader(bytes.NewReader(rest), u.from)
	}
	return u.from.Read(p)
}

// Write compresses. It may keep the result back until Flush.
func (p *packed) Write(b []byte) (int, error) {
	if p.w == nil {
		p.w = p.srv.compressors.borrow(p.to)
	}
	return p.w.Write(b)
}

// Flush sends what was written, to the last octet, and gives the compressor back: the next begins without a memory
// of what was sent, which costs little room and saves much.
func (p *packed) Flush() error {
	if p.w == nil {
		return nil
	}
	err := p.w.Flush()
	p.srv.compressors.writers.Put(p.w)
	p.w = nil
	return err
}

// borrow lends a compressor that writes to w.
func (c *compressors) borrow(to io.Writer) *flate.Writer {
	if w, ok := c.writers.Get().(*flate.Writer); ok {
		w.Reset(to)
		return w
	}
	w, err := flate.NewWriter(to, flate.BestSpeed)
	if err != nil {
		panic(err) // the level is one that there is
	}
	return w
}
