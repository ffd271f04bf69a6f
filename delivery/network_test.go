package delivery

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// network is an Internet in memory, for bubbles.
type network struct {
	mu    sync.Mutex
	peers map[string]*peer // by "address:port"
	dials []string
}

// Dial is Config.Dial's.
func (n *network) Dial(ctx context.Context, _ netip.Addr, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	p := n.peers[addr]
	n.dials = append(n.dials, addr)
	n.mu.Unlock()
	switch {
	case p == nil:
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	case p.blackhole:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	ours, theirs := net.Pipe()
	reset := new(atomic.Bool)
	far := &farConn{simConn: simConn{theirs, addr, reset}, out: make(chan []byte, 4096)}
	go far.pump()
	go p.serve(far)
	return &simConn{ours, addr, reset}, nil
}

// dialled returns the addresses that were dialled so far.
func (n *network) dialled() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.dials...)
}

func (n *network) peer(addr string, p *peer) *peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.peers == nil {
		n.peers = make(map[string]*peer)
	}
	n.peers[addr] = p
	return p
}

// simConn is a pipe with an address that can be reset.
type simConn struct {
	net.Conn
	addr  string
	reset *atomic.Bool
}

func (c *simConn) RemoteAddr() net.Addr { return simAddr(c.addr) }

func (c *simConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	return n, c.fault(err)
}

func (c *simConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, c.fault(err)
}

func (c *simConn) fault(err error) error {
	if err != nil && c.reset.Load() {
		return &net.OpError{Op: "read", Err: syscall.ECONNRESET}
	}
	return err
}

// farConn is the peer's end. What it writes waits in a buffer, as in a real network:
// an unbuffered pipe would lock up when both sides write.
type farConn struct {
	simConn
	out    chan []byte
	closed sync.Once
}

func (c *farConn) pump() {
	defer c.Conn.Close()
	for b := range c.out {
		if c.reset.Load() {
			return
		}
		if _, err := c.Conn.Write(b); err != nil {
			return
		}
	}
}

func (c *farConn) Write(b []byte) (int, error) {
	c.out <- bytes.Clone(b)
	return len(b), nil
}

func (c *farConn) Close() error {
	c.closed.Do(func() { close(c.out) })
	return nil
}

type simAddr string

func (a simAddr) String() string { return string(a) }

func (a simAddr) Network() string {
	if strings.HasPrefix(string(a), "/") {
		return "unix"
	}
	return "tcp"
}

// peer is another mail server, which does what a test wants.
type peer struct {
	extensions []string
	noEHLO     bool
	blackhole  bool
	tls        *tls.Config // with it, STARTTLS is offered and done
	user       string      // "name password" of AUTH PLAIN

	// what is said at a phase instead of a good reply: "greeting", "EHLO", "STARTTLS",
	// "MAIL", "RCPT", "RCPT <address>", "DATA", "dot", "RSET"; of LMTP "dot <address>". A line, or FIN, RST,
	// silence. before is called first, if it is not nil.
	say    map[string]string
	before func(phase string)
	script func(s *session, phase string) string // asked where say has nothing; the same for the same session and phase

	mu     sync.Mutex
	conns  int
	lines  []string // all commands
	mails  []mailed
	secure int // connections that went over to TLS
}

// mailed is a message that the peer has taken.
type mailed struct {
	from, text string
	to         []string
	doubt      string // what was said instead of a good reply, or done
}

// got returns what the peer has taken so far.
func (p *peer) got() []mailed {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]mailed(nil), p.mails...)
}

func (p *peer) commands() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.lines...)
}

// answers sets what is said at a phase from now on; "" is a good reply again.
func (p *peer) answers(phase, reply string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.say == nil {
		p.say = make(map[string]string)
	}
	p.say[phase] = reply
}

func (p *peer) serve(c *farConn) {
	s := &session{peer: p, conn: c, r: bufio.NewReader(c), raw: c}
	defer func() { s.conn.Close() }()
	p.mu.Lock()
	p.conns++
	s.number = p.conns
	p.mu.Unlock()
	if !s.reply("greeting", "220 peer.test") {
		return
	}
	for s.command() {
	}
}

type session struct {
	peer *peer
	conn net.Conn
	raw  *farConn
	r    *bufio.Reader
	mail mailed
	lmtp bool

	chunks string
	number int // among the peer's, from 1
}

// good reports whether what is said for a good reply is one, if a strange one.
func good(said string) bool {
	return said == "" || strings.HasPrefix(said, "250") && !strings.HasPrefix(said, "250-")
}

// said is what the test wants at this phase; "" is a good reply.
func (s *session) said(phase string) string {
	s.peer.mu.Lock()
	said := s.peer.say[phase]
	s.peer.mu.Unlock()
	if said == "" && s.peer.script != nil {
		said = s.peer.script(s, phase)
	}
	return said
}

// reply says what the test wants at this phase, and reports whether to go on.
func (s *session) reply(phase, good string) bool {
	if s.peer.before != nil {
		s.peer.before(phase)
	}
	said := s.said(phase)
	switch said {
	case "":
		said = good
	case "FIN":
		return false
	case "RST":
		s.raw.reset.Store(true)
		return false
	case "silence":
		io.Copy(io.Discard, s.conn)
		return false
	}
	_, err := io.WriteString(s.conn, said+"\r\n")
	return err == nil && !strings.HasPrefix(said, "421")
}

func (s *session) command() bool {
	line, err := s.r.ReadString('\n')
	if err != nil {
		return false
	}
	line = strings.TrimRight(line, "\r\n")
	s.peer.mu.Lock()
	s.peer.lines = append(s.peer.lines, line)
	s.peer.mu.Unlock()
	verb, arg, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "LHLO":
		s.lmtp = true
		return s.reply("EHLO", s.hello())
	case "EHLO":
		if s.peer.noEHLO {
			return s.reply("EHLO", "502 what?")
		}
		return s.reply("EHLO", s.hello())
	case "HELO":
		return s.reply("HELO", "250 peer.test")
	case "STARTTLS":
		return s.starttls()
	case "AUTH":
		return s.auth(arg)
	case "MAIL":
		s.mail, s.chunks = mailed{from: arg}, ""
		return s.reply("MAIL", "250 2.1.0 ok")
	case "RCPT":
		return s.rcpt(arg)
	case "DATA":
		return s.data()
	case "BDAT":
		return s.bdat(arg)
	case "RSET":
		s.mail = mailed{}
		return s.reply("RSET", "250 ok")
	case "QUIT":
		s.reply("QUIT", "221 bye")
		return false
	}
	return s.reply("unknown", "500 what?")
}

func (s *session) hello() string {
	ext := append([]string{"peer.test"}, s.peer.extensions...)
	if _, done := s.conn.(*tls.Conn); s.peer.tls != nil && !done {
		ext = append(ext, "starttls")
	}
	if s.peer.user != "" {
		ext = append(ext, "AUTH LOGIN plain")
	}
	for i := range ext {
		ext[i] = "250-" + ext[i]
	}
	ext[len(ext)-1] = "250 " + ext[len(ext)-1][4:]
	return strings.Join(ext, "\r\n")
}

func (s *session) starttls() bool {
	refused := s.said("STARTTLS") != ""
	return s.reply("STARTTLS", "220 go on") && (refused || s.handshake())
}

func (s *session) handshake() bool {
	c := tls.Server(s.raw, s.peer.tls)
	if c.Handshake() != nil {
		return false
	}
	s.conn, s.r = c, bufio.NewReader(c)
	s.peer.mu.Lock()
	s.peer.secure++
	s.peer.mu.Unlock()
	return true
}

func (s *session) auth(arg string) bool {
	_, blob, _ := strings.Cut(arg, " ")
	b, _ := base64.StdEncoding.DecodeString(blob)
	if strings.TrimLeft(strings.ReplaceAll(string(b), "\x00", " "), " ") != s.peer.user {
		return s.reply("AUTH", "535 5.7.8 no")
	}
	return s.reply("AUTH", "235 2.7.0 ok")
}

func (s *session) rcpt(arg string) bool {
	to, _, _ := strings.Cut(strings.TrimPrefix(arg, "TO:<"), ">")
	own, all := s.said("RCPT "+to), s.said("RCPT")
	if good(own) && good(all) {
		s.mail.to = append(s.mail.to, to)
	}
	if own != "" {
		return s.reply("RCPT "+to, "")
	}
	return s.reply("RCPT", "250 2.1.5 ok")
}

func (s *session) data() bool {
	if len(s.mail.to) == 0 {
		return s.reply("DATA", "554 5.5.1 no recipients")
	}
	refused := s.said("DATA") != ""
	if !s.reply("DATA", "354 go on") {
		return false
	}
	if refused {
		return true
	}
	var text strings.Builder
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		text.WriteString(strings.TrimPrefix(line, "."))
	}
	return s.end(text.String())
}

// bdat takes a chunk, and with the last one the message.
func (s *session) bdat(arg string) bool {
	size, last, _ := strings.Cut(arg, " ")
	n, _ := strconv.Atoi(size)
	chunk := make([]byte, n)
	if _, err := io.ReadFull(s.r, chunk); err != nil {
		return false
	}
	s.chunks += string(chunk)
	switch {
	case len(s.mail.to) == 0:
		return s.reply("BDAT", "503 5.5.1 no recipients")
	case last == "":
		return s.reply("BDAT", "250 2.0.0 go on")
	}
	return s.end(s.chunks)
}

// end is what comes of a whole message.
func (s *session) end(text string) bool {
	s.mail.text = text
	s.mail.doubt = s.said("dot")
	s.peer.mu.Lock()
	if said := s.mail.doubt; said == "" || said[0] != '4' && said[0] != '5' {
		s.peer.mails = append(s.peer.mails, s.mail)
	}
	n := len(s.peer.mails)
	s.peer.mu.Unlock()
	if s.lmtp { // RFC 2033, 4.2
		for _, to := range s.mail.to {
			if !s.reply("dot "+to, "250 2.1.5 "+to+" ok") {
				return false
			}
		}
		return true
	}
	return s.reply("dot", fmt.Sprintf("250 2.0.0 queued as %d", n))
}
