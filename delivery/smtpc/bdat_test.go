package smtpc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

var chunking = dialogue{"S: 220 mx.test", "C: EHLO us.test", "S: 250-mx.test", "S: 250-PIPELINING", "S: 250-BINARYMIME", "S: 250 CHUNKING"}

// begun is a binary message for a and b up to its first chunk.
var begun = after(chunking, "C: MAIL FROM:<s@x.test> BODY=BINARYMIME", "C: RCPT TO:<a@y.test>", "C: RCPT TO:<b@y.test>")

func binaryMessage(text string) Message {
	m := message(text, "a", "b")
	m.Binary, m.Envelope.Body = true, "BINARYMIME"
	return m
}

func TestBDAT(t *testing.T) {
	for _, size := range []int{0, 1, 100, maxChunk - 1, maxChunk, maxChunk + 1, 2 * maxChunk, 5*maxChunk + 7} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			text := strings.Repeat("\x00\r\n.\r\n\n\r\xff", size/9+1)[:size]
			d := after(begun, "S: 250 ok", "S: 250 ok", "S: 250 ok")
			asked := 0 // replies that are still to be said: one chunk may be ahead
			for rest := size; ; rest -= maxChunk {
				if rest < maxChunk || rest == maxChunk && size < maxChunk {
					for range asked {
						d = after(d, "S: 250 chunk")
					}
					d = after(d, fmt.Sprintf("C: BDAT %d LAST", rest), fmt.Sprintf("C: #%d", rest), "S: 250 all")
					break
				}
				if asked == 2 {
					d, asked = after(d, "S: 250 chunk"), 1
				}
				d = after(d, fmt.Sprintf("C: BDAT %d", maxChunk), fmt.Sprintf("C: #%d", maxChunk))
				asked++
			}
			heard, err := converse(t, after(d, "C: QUIT", "S: 221 bye"), Options{}, func(c *Conn) {
				calls := 0
				m := binaryMessage(text)
				m.Before = func() error { calls++; return nil }
				if r := c.Send(m); codes(r) != "250 250" || r.Doubtful || c.Broken() || calls != 1 {
					t.Errorf("%+v, Before was called %d times", r, calls)
				}
			})
			if err != nil || heard != text {
				t.Errorf("%v; %d octets came, want %d", err, len(heard), size)
			}
		})
	}
}

// TestBDATRefused: after a chunk that was not taken nothing more is said: the server may not have read it.
func TestBDATRefused(t *testing.T) {
	long := strings.Repeat("x", 3*maxChunk)
	first := after(begun, "S: 250 ok", "S: 250 ok", "S: 250 ok", fmt.Sprintf("C: BDAT %d", maxChunk), fmt.Sprintf("C: #%d", maxChunk),
		fmt.Sprintf("C: BDAT %d", maxChunk), fmt.Sprintf("C: #%d", maxChunk))
	for name, tt := range map[string]struct {
		d        dialogue
		text     string
		want     string
		doubtful bool
	}{
		"all recipients":     {after(begun, "S: 250 ok", "S: 550 a", "S: 450 b", "C: QUIT", "S: 221 bye"), long, "550 450", false},
		"the sender":         {after(begun, "S: 550 no", "S: 503 a", "S: 503 b", "C: QUIT", "S: 221 bye"), long, "550 550", false},
		"the first chunk":    {after(first, "S: 552 too large"), long, "552 552", false},
		"the second":         {after(first, "S: 250 ok", fmt.Sprintf("C: BDAT %d", maxChunk), fmt.Sprintf("C: #%d", maxChunk), "S: 452 full"), long, "452 452", false},
		"354 for a chunk":    {after(first, "S: 354 go"), long, "0 0", false},
		"421":                {after(first, "S: 421 bye"), long, "421 421", false},
		"silence":            {first, long, "0 0", false},
		"the last":           {after(begun, "S: 250 ok", "S: 250 ok", "S: 250 ok", "C: BDAT 1 LAST", "C: #1", "S: 554 no"), "x", "554 554", false},
		"no reply to it":     {after(begun, "S: 250 ok", "S: 250 ok", "S: 250 ok", "C: BDAT 1 LAST", "C: #1"), "x", "0 0", true},
		"a reply too many":   {after(begun, "S: 250 ok", "S: 250 ok", "S: 250 ok\r\n250 ok"), "x", "0 0", false},
		"one chunk too many": {after(first, "S: 250 ok", "S: 250 ok\r\n250 ok"), long[:2*maxChunk+1], "0 0", false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := converse(t, tt.d, Options{}, func(c *Conn) {
				r := c.Send(binaryMessage(tt.text))
				if codes(r) != tt.want || r.Doubtful != tt.doubtful || !c.Broken() && !strings.Contains(tt.d[len(tt.d)-1], "221") {
					t.Errorf("%+v, broken %v", r, c.Broken())
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestBDATBrokenBody: a message that cannot be read to its end, or that must not go, never has a last chunk.
func TestBDATBrokenBody(t *testing.T) {
	damaged := errors.New("damaged")
	for name, tt := range map[string]struct {
		body            io.Reader
		before          error
		bodyErr, stored error
	}{
		"damaged":   {io.MultiReader(strings.NewReader("A: b\r\n"), iotest.ErrReader(damaged)), nil, damaged, nil},
		"cut off":   {io.MultiReader(strings.NewReader("A: b\r\n"), iotest.ErrReader(io.ErrUnexpectedEOF)), nil, io.ErrUnexpectedEOF, nil},
		"not to go": {strings.NewReader("A: b\r\n"), damaged, nil, damaged},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := converse(t, after(begun, "S: 250 ok", "S: 250 ok", "S: 250 ok"), Options{}, func(c *Conn) {
				m := binaryMessage("A: b\r\n")
				m.Body = tt.body
				m.Before = func() error { return tt.before }
				r := c.Send(m)
				if codes(r) != "0 0" || r.Doubtful || !c.Broken() || !errors.Is(r.BodyErr, tt.bodyErr) || !errors.Is(r.Stopped, tt.stored) {
					t.Errorf("%+v", r)
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestBeforeTheDot: what must be durable before anybody can have the message is, and if it cannot be, nobody has it.
func TestBeforeTheDot(t *testing.T) {
	d := dialogue{"S: 220 mx.test", "C: EHLO us.test", "S: 250 mx.test", "C: MAIL FROM:<s@x.test>", "S: 250 ok", "C: RCPT TO:<a@y.test>", "S: 250 ok", "C: DATA", "S: 354 go", "C: until it closes"}
	no := errors.New("the disk is full")
	_, err := converse(t, d, Options{}, func(c *Conn) {
		m := message("x\r\n", "a")
		m.Before = func() error { return no }
		if r := c.Send(m); codes(r) != "0" || r.Doubtful || r.Stopped != no || r.BodyErr != nil || !c.Broken() {
			t.Errorf("%+v", r)
		}
	})
	if err != nil {
		t.Error(err)
	}
	var order bytes.Buffer
	_, err = converse(t, after(d[:6], "S: 550 no", "C: QUIT", "S: 221 bye"), Options{}, func(c *Conn) {
		m := message("x\r\n", "a")
		m.Before = func() error { order.WriteString("before"); return nil }
		if r := c.Send(m); codes(r) != "550" {
			t.Errorf("%+v", r)
		}
	})
	if err != nil || order.Len() > 0 {
		t.Errorf("%v; nobody was accepted, and yet: %s", err, order.String())
	}
}
