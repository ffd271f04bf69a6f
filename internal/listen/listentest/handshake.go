package listentest

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// A BadHandshake is how a peer may begin TLS that never means to end it.
type BadHandshake struct {
	Name   string
	Octets func() []byte // the next ones; after nil the peer is silent
	Pause  time.Duration // between them
	Slow   bool          // nothing is wrong but the time it takes: else the server knows at once
}

// Kinds of TLS records (RFC 8446, 5.1).
const (
	recordChange    = 20
	recordAlert     = 21
	recordHandshake = 22
	recordData      = 23
)

// BadHandshakes are those that every server has to survive, in time and memory.
func BadHandshakes(t testing.TB) []BadHandshake {
	hello := ClientHello(t)
	return []BadHandshake{
		{Name: "nothing", Octets: once(), Slow: true},
		{Name: "half a ClientHello", Octets: once(hello[:len(hello)/2]), Slow: true},
		{Name: "a ClientHello and no more", Octets: once(hello), Slow: true},
		{Name: "an octet a second", Octets: octets(hello), Pause: time.Second, Slow: true},
		{Name: "a fragment of one octet a second", Octets: fragments(hello), Pause: time.Second, Slow: true},
		{Name: "a ClientHello of 100,000 octets", Octets: once(LargeHello(100_000))},
		{Name: "a ClientHello that says it has 16 MiB", Octets: once(record(recordHandshake, []byte{1, 0xff, 0xff, 0xff}))},
		{Name: "empty records", Octets: again(record(recordHandshake, nil))},
		{Name: "warnings", Octets: again(record(recordAlert, []byte{1, 90}))},
		{Name: "changes of cipher", Octets: again(record(recordChange, []byte{1}))},
		{Name: "data before the handshake", Octets: again(record(recordData, make([]byte, 100)))},
		{Name: "warnings behind a ClientHello", Octets: after(hello, again(record(recordAlert, []byte{1, 90})))},
		{Name: "changes of cipher behind a ClientHello", Octets: after(hello, again(record(recordChange, []byte{1})))},
		{Name: "ClientHellos", Octets: again(hello)},
		{Name: "a record that is too large", Octets: again(record(recordHandshake, make([]byte, 0xffff)))},
		{Name: "another protocol", Octets: again([]byte("GET / HTTP/1.1\r\n"))},
	}
}

// ClientHello is how a client begins TLS.
func ClientHello(t testing.TB) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	go tls.Client(theirs, &tls.Config{ServerName: "mx.example.test"}).Handshake()
	head := make([]byte, 5)
	if _, err := io.ReadFull(ours, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(ours, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

func record(kind byte, body []byte) []byte {
	return append([]byte{kind, 3, 3, byte(len(body) >> 8), byte(len(body))}, body...)
}

// LargeHello is a ClientHello of n octets, in records, none of which is anything.
func LargeHello(n int) (list []byte) {
	message := append([]byte{1, byte(n >> 16), byte(n >> 8), byte(n)}, bytes.Repeat([]byte{3}, n)...)
	for len(message) > 0 {
		piece := message[:min(len(message), 16<<10)]
		list, message = append(list, record(recordHandshake, piece)...), message[len(piece):]
	}
	return list
}

func once(pieces ...[]byte) func() []byte {
	return func() (next []byte) {
		if len(pieces) > 0 {
			next, pieces = pieces[0], pieces[1:]
		}
		return next
	}
}

func again(piece []byte) func() []byte { return func() []byte { return piece } }

func after(first []byte, rest func() []byte) func() []byte {
	return func() []byte {
		if next := first; next != nil {
			first = nil
			return next
		}
		return rest()
	}
}

func octets(text []byte) func() []byte {
	var pieces [][]byte
	for i := range text {
		pieces = append(pieces, text[i:i+1])
	}
	return once(pieces...)
}

// fragments is a handshake message in records of one octet.
func fragments(hello []byte) func() []byte {
	var pieces [][]byte
	for _, b := range hello[5:] {
		pieces = append(pieces, record(recordHandshake, []byte{b}))
	}
	return once(pieces...)
}

// Run sends the handshake over conn, which it closes, until the server has enough of it, and returns how long that
// took and how many octets were sent.
func (h BadHandshake) Run(conn net.Conn) (took time.Duration, sent int) {
	began := time.Now()
	closed := make(chan time.Duration, 1)
	go func() {
		io.Copy(io.Discard, conn)
		closed <- time.Since(began)
	}()
	defer conn.Close()
	for next := h.Octets(); next != nil; next = h.Octets() {
		n, err := conn.Write(next)
		if sent += n; err != nil {
			break
		}
		time.Sleep(h.Pause)
	}
	return <-closed, sent
}
