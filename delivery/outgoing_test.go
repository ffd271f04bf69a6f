package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"postroad/delivery/smtpc"
	"postroad/internal/envelope"
	"postroad/spool"
)

// stamp is a signer whose fields say how often it was asked, and which keeps what it signed.
type stamp struct {
	mu     sync.Mutex
	signed []string
	fails  error
}

func (s *stamp) Fields(_ context.Context, m Outgoing, open func() (io.ReadCloser, error)) ([]byte, error) {
	var texts [2]string
	for i := range texts {
		r, err := open()
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil {
			return nil, err
		}
		texts[i] = string(b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil || texts[0] != texts[1] {
		return nil, errors.Join(s.fails, fmt.Errorf("%d octets at first, and %d then", len(texts[0]), len(texts[1])))
	}
	s.signed = append(s.signed, texts[0])
	return fmt.Appendf(nil, "X-Stamp: %d %s\r\n", len(s.signed), m.Via.Local), nil
}

func (s *stamp) From(m Outgoing) (envelope.Address, error) {
	if m.Via != (envelope.Address{}) {
		return envelope.Address{Local: "srs", Domain: "a.test"}, nil
	}
	return m.Envelope.From, nil
}

func (s *stamp) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.signed)
}

// TestForms: what leaves, in the form that the next hop takes.
func TestForms(t *testing.T) {
	const (
		text   = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nschöne Grüße, und noch viel mehr Worte\r\n"
		quoted = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nsch=C3=B6ne Gr=C3=BC=C3=9Fe, und noch viel mehr Worte\r\n"
		octets = "MIME-Version: 1.0\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\n\r\xff"
		base64 = "MIME-Version: 1.0\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\nAAoN/w==\r\n"
		sealed = "MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\r\n--b--\r\n"
		dkim   = "DKIM-signature: v=1; d=x.test; b=AAAA\r\n"
	)
	binary := envelope.Envelope{Body: envelope.BodyBinary}
	for _, tt := range []struct {
		name       string
		extensions string
		e          envelope.Envelope
		text       string
		want       string // empty: it is refused
		mail       string // what MAIL says besides SIZE; or why it is refused
	}{
		{"8 bits", "8BITMIME", envelope.Envelope{}, text, text, "BODY=8BITMIME"},
		{"8 bits in 7", "", envelope.Envelope{Body: envelope.Body8Bit}, text, quoted, ""},
		{"signed by another, 8 bits in 7", "", envelope.Envelope{Body: envelope.Body8Bit}, dkim + text, dkim + text, ""},
		{"signed by another after long fields", "", envelope.Envelope{}, "A: " + strings.Repeat("x", 3000) + "\r\n b\r\n" + dkim + text, "A: " + strings.Repeat("x", 3000) + "\r\n b\r\n" + dkim + text, ""},
		{"no signature, but its name in the body", "", envelope.Envelope{}, text + dkim, quoted + "DKIM-signature: v=3D1; d=3Dx.test; b=3DAAAA\r\n", ""},
		{"7 bits", "8BITMIME", envelope.Envelope{Body: envelope.Body8Bit}, "A: b\r\n\r\nc\r\n", "A: b\r\n\r\nc\r\n", ""},
		{"octets", "8BITMIME BINARYMIME CHUNKING", binary, octets, octets, "BODY=BINARYMIME"},
		{"octets, pipelined", "PIPELINING 8BITMIME BINARYMIME CHUNKING", binary, octets, octets, "BODY=BINARYMIME"},
		{"octets without CHUNKING", "8BITMIME BINARYMIME", binary, octets, base64, ""},
		{"octets in 8 bits", "8BITMIME", binary, octets, base64, ""},
		{"octets in 7 bits", "", binary, octets, base64, ""},
		{"octets in 7 bits, signed by another", "", binary, dkim + octets, dkim + base64, ""},
		{"octets that must not change", "8BITMIME", binary, sealed, "", "550 5.6.3 a binary message cannot be sent to mx.y.test (203.0.114.1)"},
		{"lines that are called octets", "8BITMIME", binary, strings.Replace(text, "8bit", "binary", 1), text, "BODY=8BITMIME"},
		{"UTF-8 in the header", "8BITMIME SMTPUTF8", envelope.Envelope{UTF8: true}, "Subject: ö\r\n\r\nx\r\n", "Subject: ö\r\n\r\nx\r\n", "BODY=8BITMIME SMTPUTF8"},
		{"UTF-8 in the header, not taken", "8BITMIME", envelope.Envelope{UTF8: true}, "Subject: ö\r\n\r\nx\r\n", "", "550 5.6.7 mx.y.test (203.0.114.1) does not take UTF-8 in addresses and headers (SMTPUTF8)"},
		{"UTF-8 in the body only", "8BITMIME", envelope.Envelope{UTF8: true}, "Subject: x\r\n\r\nö\r\n", "Subject: x\r\n\r\nö\r\n", "BODY=8BITMIME"},
		{"stray CR and LF", "8BITMIME", envelope.Envelope{}, "A: b\n\r\nx\ry\n.\r\r\nz", "A: b\r\n\r\nx\r\ny\r\n.\r\n\r\nz\r\n", ""},
		{"a large one", "", envelope.Envelope{}, text + strings.Repeat("0123456789abcdef\r\n", 10_000), quoted + strings.Repeat("0123456789abcdef\r\n", 10_000), ""},
		{"a large one of octets", "8BITMIME BINARYMIME CHUNKING PIPELINING", binary, octets + strings.Repeat("\x00\r\n", 100_000), octets + strings.Repeat("\x00\r\n", 100_000), "BODY=BINARYMIME"},
		{"nothing", "8BITMIME", envelope.Envelope{}, "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				p := f.site("y.test", public(1), &peer{extensions: append(strings.Fields(tt.extensions), "SIZE 10000000")})
				s := &stamp{}
				f.cfg.Signer = s
				f.start()
				tt.e.From = path("<alice@a.test>")
				id := f.accept(&spool.Message{Envelope: tt.e}, "Return-Path: <>\r\n"+tt.text, f.rcpts("one@y.test")...)
				f.drained()
				if tt.want == "" && tt.mail != "" {
					if all := strings.Join(f.events(id), "; "); !strings.Contains(all, "bounced one@y.test "+tt.mail) || len(p.got()) > 0 {
						t.Errorf("%q", all)
					}
					return
				}
				want := "X-Stamp: 1 \r\n" + tt.want
				got := p.got()
				if len(got) != 1 || got[0].text != want {
					t.Fatalf("%.2000q, want %.2000q", got, want)
				}
				if s.signed[0] != tt.want {
					t.Errorf("signed was %.2000q, and sent %.2000q", s.signed[0], tt.want)
				}
				mail := strings.TrimRight(fmt.Sprintf("MAIL FROM:<alice@a.test> SIZE=%d %s", len(want), tt.mail), " ")
				if all := strings.Join(p.commands(), "\n") + "\n"; !strings.Contains(all, mail+"\n") {
					t.Errorf("it heard %.2000q, and not %q", all, mail)
				}
			})
		})
	}
}

// TestA03SignedAsSent: whatever a body is made of, what is signed is what arrives, has no bare CR or LF, and is as long as it was
// announced.
func TestA03SignedAsSent(t *testing.T) {
	const octets = "\r\n\r\n\r\n..\x00ab\xc3"
	rnd := rand.New(rand.NewPCG(2, 7))
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{extensions: []string{"8BITMIME", "PIPELINING", "SIZE"}})
		s := &stamp{}
		f.cfg.Signer = s
		f.start()
		for n := range 300 {
			body := make([]byte, rnd.IntN(200))
			for i := range body {
				body[i] = octets[rnd.IntN(len(octets))]
			}
			f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>")}}, fmt.Sprintf("Return-Path: <>\r\nX: %d\r\n\r\n%s", n, body), f.rcpts("one@y.test")...)
			f.drained()
			got := p.got()[n].text
			if want := fmt.Sprintf("X-Stamp: %d \r\n%s", n+1, s.signed[n]); got != want {
				t.Fatalf("%q arrived as %q, want %q", body, got, want)
			}
			if strings.ContainsAny(strings.ReplaceAll(got, "\r\n", ""), "\r\n") {
				t.Fatalf("%q has left", got)
			}
			if all := p.commands(); !strings.Contains(strings.Join(all[max(0, len(all)-4):], "\n"), fmt.Sprintf(" SIZE=%d", len(got))) {
				t.Fatalf("%d octets were announced by %q", len(got), all)
			}
		}
	})
}

// TestNotSigned: a message does not go without what shall go before it.
func TestNotSigned(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		p := f.site("y.test", public(1), &peer{})
		s := &stamp{fails: errors.New("the key cannot be read")}
		f.cfg.Signer = s
		f.start()
		id := f.submit("<alice@a.test>", "one@y.test")
		settle()
		if all := strings.Join(f.events(id), "; "); !strings.Contains(all, "the message cannot be signed: the key cannot be read") || len(p.got()) > 0 {
			t.Errorf("%q", all)
		}
		s.mu.Lock()
		s.fails = nil
		s.mu.Unlock()
		f.pass(time.Hour)
		f.drained()
		if got := p.got(); len(got) != 1 || !strings.HasPrefix(got[0].text, "X-Stamp: 1 \r\n") {
			t.Errorf("%q", got)
		}
	})
}

// TestSignedOnce: a message for many domains is signed once for each form, and for each address of ours that forwards it; and
// again after a day.
func TestSignedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		var peers []*peer
		for i, extensions := range [][]string{{"8BITMIME"}, {"8BITMIME"}, nil, {"8BITMIME"}, {"8BITMIME"}} {
			peers = append(peers, f.site(fmt.Sprintf("y%d.test", i), public(i+1), &peer{extensions: extensions}))
		}
		peers[4].say = map[string]string{"RCPT": "450 later"}
		s := &stamp{}
		f.cfg.Signer = s
		f.start()
		rcpts := f.rcpts("a@y0.test", "a@y1.test", "a@y2.test", "a@y3.test", "a@y4.test")
		rcpts[3].Via = path("<bob@a.test>")
		f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>")}}, "Return-Path: <>\r\nA: b\r\n\r\nschön, und so weiter\r\n", rcpts...)
		settle()
		if n := s.count(); n != 3 {
			t.Errorf("it was signed %d times", n)
		}
		if via := peers[3].got(); len(via) != 1 || !strings.HasSuffix(strings.SplitAfter(via[0].text, "\r\n")[0], " bob\r\n") || via[0].from != "FROM:<srs@a.test> BODY=8BITMIME" {
			t.Errorf("forwarded: %q", via)
		}
		f.pass(20 * time.Hour)
		if n := s.count(); n != 3 {
			t.Errorf("it was signed %d times within a day", n)
		}
		f.pass(10 * time.Hour)
		if n := s.count(); n != 4 {
			t.Errorf("it was signed %d times in two days", n)
		}
		peers[4].answers("RCPT", "")
		f.pass(20 * time.Hour)
		f.drained()
	})
}

// TestLeavingIsBounded: of messages long gone nothing is kept.
func TestLeavingIsBounded(t *testing.T) {
	var c leavingCache
	now := time.Now()
	kept := c.get(now, leavingKey{via: envelope.Address{Local: "kept"}})
	for i := range 10 * maxLeaving {
		c.get(now, leavingKey{via: envelope.Address{Local: fmt.Sprint(i)}})
		if again := c.get(now, leavingKey{via: envelope.Address{Local: "kept"}}); again != kept {
			t.Fatalf("what is asked for again and again was forgotten after %d others", i)
		}
	}
	if n := len(c.young) + len(c.old); n > 2*maxLeaving {
		t.Errorf("it keeps %d", n)
	}
	if c.get(now.Add(leavingFor+time.Second), leavingKey{via: envelope.Address{Local: "kept"}}) == kept {
		t.Error("a day is over")
	}
}

// FuzzSurvey: what is found out of a message does not depend on the pieces in which it comes.
func FuzzSurvey(f *testing.F) {
	f.Add([]byte("A: b\r\nDKIM-Signature: x\r\n\r\n\xff"), 3)
	for _, s := range []string{"", "\r", "\n", "\r\n", "\r\n\n\r", "\n\r", "a\r\r\n\n", "\r\nx", "x\r\n\r\ny\r\n"} {
		f.Add([]byte(s), 1)
	}
	f.Add([]byte("ARC-Seal: x\nb: \xc3\xb6\n\nc"), 1)
	f.Fuzz(func(t *testing.T, message []byte, size int) {
		var whole, pieces surveyor
		whole.Write(message)
		for rest := message; len(rest) > 0; {
			n := min(max(size, 1), len(rest))
			pieces.Write(rest[:n])
			rest = rest[n:]
		}
		if whole.survey != pieces.survey || whole.size != int64(len(message)) || whole.eight != bytes.ContainsFunc(message, func(r rune) bool { return r >= 0x80 }) {
			t.Errorf("%q: %+v, in pieces of %d %+v", message, whole.survey, size, pieces.survey)
		}
		even, err := io.ReadAll(smtpc.Lines(bytes.NewReader(message)))
		if err != nil || bytes.ContainsAny(bytes.ReplaceAll(even, []byte("\r\n"), nil), "\r\n") {
			t.Errorf("%q: %q, %v", message, even, err)
		}
		if smtpc.InLines(message) != bytes.Equal(message, even) || !smtpc.InLines(even) {
			t.Errorf("%q is in lines: %v, and reads as %q", message, smtpc.InLines(message), even)
		}
	})
}
