package imapd

import (
	"bytes"
	"io"

	"postroad/internal/mime"
)

// prepareBinary reads what BINARY and BINARY.SIZE need. A part in an unknown encoding cannot be given (RFC 3516, 4.3).
func (s *source) prepareBinary(sec section) error {
	err := s.verify()
	if err == nil {
		err = s.decode()
	}
	if err != nil {
		return err
	}
	if p := s.part(sec); p != nil {
		if _, ok := s.decoded(p); !ok {
			return errEncoding
		}
	}
	return nil
}

// part is the part that a section names, or nil. Without numbers it is the message, as it is.
func (s *source) part(sec section) *mime.Part {
	if len(sec.Part) == 0 {
		return &mime.Part{Encoding: "binary", Body: mime.Span{Len: s.item.Size}}
	}
	return s.root.Find(sec.Part)
}

// decoded reads a part without its transfer encoding. A multipart or message has none (RFC 2045, 6.4), whatever it says.
func (s *source) decoded(p *mime.Part) (io.Reader, bool) {
	octets := io.NewSectionReader(s, p.Body.Off, p.Body.Len)
	if p.Multipart() || p.Message != nil {
		return octets, true
	}
	return p.Decoded(octets)
}

// sizeOf is how many octets a part has without its transfer encoding, and whether there is NUL among them. They are
// decoded once to know, and once more to be sent.
func (s *source) sizeOf(p *mime.Part) (size int64, nul bool) {
	if p == nil {
		return 0, false
	}
	r, _ := s.decoded(p)
	for piece := s.f.piece(); ; {
		n, err := r.Read(piece)
		size += int64(n)
		nul = nul || bytes.IndexByte(piece[:n], 0) >= 0
		if err != nil && err != io.EOF {
			s.fail(err)
		}
		if err != nil {
			return size, nul
		}
	}
}

// writeBinary writes a part without its transfer encoding, as a literal8 if there is NUL in it (RFC 3516, 4.3).
func (s *source) writeBinary(sec section) {
	p := s.part(sec)
	if p == nil {
		s.f.out.Nil()
		return
	}
	n, nul := s.sizeOf(p)
	off, size := sec.cut(n)
	if nul {
		s.f.out.Literal8(size)
	} else {
		s.f.out.Literal(size)
	}
	r, _ := s.decoded(p)
	if _, err := io.CopyN(io.Discard, r, off); err != nil {
		s.fail(err)
	}
	s.send(io.LimitReader(r, size))
}
