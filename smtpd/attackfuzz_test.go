package smtpd_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/sasl"
	"postroad/smtpd"
)

// FuzzSession plays whole sessions of any commands, in any pieces, with any end, and holds what the server said and
// took against a model that reads the same octets slowly. The model follows the replies: which of them the server
// gives is its affair, what must follow from each is not.
//
//   - Every message that is accepted has the sender and the recipients of the last MAIL and the RCPTs since, as far as those
//     were answered with 250, and the octets that RFC 5321 and RFC 3030 say were sent.
//   - Every 250 to a message is one message, and there is no other.
//   - What an error, RSET, EHLO or a message ends is not there any more: there is no RCPT without MAIL, no DATA without RCPT.
//   - Strangers send to accounts here, whatever they say.
//   - Behind QUIT, 421 and a chunk of unknown size nothing is answered.
func FuzzSession(f *testing.F) {
	servers := quickServers(f)
	for kind, s := range servers {
		for i, script := range scripts(s) {
			f.Add(byte(kind+3*(i%4)), []byte{7, 31, 1, 1, 2, 90}[:i%7], []byte(script))
		}
	}
	f.Fuzz(func(t *testing.T, setup byte, cuts, script []byte) { servers.session(t, setup, cuts, script) })
}

var randomSessions = flag.Int("attack.sessions", 3000, "sessions of TestRandomSessions")

// TestRandomSessions is FuzzSession with phrases in any order, most of which get on.
func TestRandomSessions(t *testing.T) {
	servers := quickServers(t)
	rnd := rand.New(rand.NewPCG(5, uint64(*randomSessions)))
	likely := "\x80\x82\xa3\x84\x84\x85\x8b\x8b\x8b\x8c\x8d\x92\x92\x93\x94\x95\x95\x96\x9e\xa8\xa9"
	taken := 0
	for range *randomSessions {
		script := []byte("\x80\x82\xa3")
		for range rnd.IntN(40) {
			switch rnd.IntN(4) {
			case 0:
				script = append(script, byte(firstPhrase+rnd.IntN(len(phrases))))
			case 1:
				n := rnd.IntN(20)
				script = append(script, aChunk+byte(rnd.IntN(2)), byte(n))
				script = append(script, "From: alice@example.test\r\n\r\n"[:n]...)
			default:
				script = append(script, likely[rnd.IntN(len(likely))])
			}
		}
		cuts := make([]byte, rnd.IntN(20))
		for i := range cuts {
			cuts[i] = byte(rnd.IntN(60))
		}
		taken += servers.session(t, byte(rnd.IntN(12)), cuts, script)
	}
	t.Logf("%d messages in %d sessions", taken, *randomSessions)
	if taken < *randomSessions/10 {
		t.Error("hardly any message gets in")
	}
}

// quickly is a server of each kind, whose logins cost nothing.
type quickly []*server

func quickServers(t testing.TB) (servers quickly) {
	h := newHouse(t)
	h.queue.wet = true
	for _, kind := range kinds {
		servers = append(servers, h.inMemory(kind, false, func(c *smtpd.Config) {
			c.Limits.MessageSize, c.Limits.Recipients = 5000, 5
			c.Logins = quickLogins{h}
			c.Log = slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelError}))
		}))
	}
	return servers
}

// session plays a script, holds what comes of it against the model, and returns how many messages were taken. setup
// chooses the server, the peer and the end.
func (servers quickly) session(t *testing.T, setup byte, cuts, script []byte) (taken int) {
	s := servers[setup%3]
	from := []net.IP{nil, stranger}[setup/3%2]
	stream := write(s, script)
	said, fault := s.converse(from, setup/6%2 == 1, pieces(stream, cuts))
	m := model{s: s, said: said, broken: fault}
	m.follow(stream)
	got := s.queue.take()
	if fault := m.judge(t, s.house, got); fault != "" {
		t.Fatalf("%s\nof\n%q\nwhich was answered\n%s", fault, stream, outcome{replies: said}.said())
	}
	if log := s.log.String(); log != "" {
		t.Fatalf("the log has an error:\n%s\nof\n%q", log, stream)
	}
	return len(got)
}

// quickLogins lets in who has the right password, without the time that it should take.
type quickLogins struct{ h *house }

func (l quickLogins) Mechanisms(account.Client) []string { return []string{sasl.Plain} }

func (l quickLogins) Begin(_ context.Context, _ account.Client, mechanism string) (account.Exchange, error) {
	x := &quickExchange{h: l.h}
	if mechanism != sasl.Plain {
		return nil, account.ErrMechanism
	}
	x.Server = sasl.NewPlain(func(identity, user, password string) error {
		x.user = user
		if identity != "" || user != "alice@example.test" || password != alicesPassword {
			return account.ErrCredentials
		}
		return nil
	})
	return x, nil
}

type quickExchange struct {
	sasl.Server
	h    *house
	user string
}

func (x *quickExchange) User() string { return x.user }

func (x *quickExchange) Login() account.Login {
	a, err := x.h.accounts.Get(address("alice@example.test"))
	if err != nil {
		panic(err)
	}
	return account.Login{Account: a}
}

// phrases are what octets from 0x80 stand for in a script. Two more, chunk and last chunk, take the next octet for a
// length and as many octets as content; 0xff takes the next octet as it is.
var phrases = []string{
	"EHLO client.test\r\n", "HELO client.test\r\n", "LHLO client.test\r\n", "EHLO (bad)\r\n",
	"MAIL FROM:<sender@far.test>\r\n", "MAIL FROM:<alice@example.test>\r\n", "MAIL FROM:<>\r\n", "MAIL FROM:<evil@far.test> BODY=BINARYMIME\r\n", "MAIL FROM:<evil@far.test> SIZE=99999\r\n", "MAIL FROM:<bob@example.test>\r\n", "MAIL FROM:<x@far.test> FOO=BAR\r\n",
	"RCPT TO:<alice@example.test>\r\n", "RCPT TO:<bob@example.test>\r\n", "RCPT TO:<away@example.test>\r\n", "RCPT TO:<nobody@example.test>\r\n", "RCPT TO:<user@elsewhere.test>\r\n", "RCPT TO:<postmaster>\r\n", "RCPT TO:<\"user@elsewhere.test\"@example.test>\r\n",
	"DATA\r\n", "From: alice@example.test\r\n\r\n", "body\r\n", ".\r\n", "\r\n.\r\n", "..\r\n", "\n.\r\n", "\r\n.\n", "\r.\r\n", "\n", "\r", "\x00",
	"RSET\r\n", "NOOP\r\n", "QUIT\r\n", "VRFY alice\r\n", "STARTTLS\r\n", "AUTH PLAIN {login}\r\n", "AUTH PLAIN\r\n", "{login}\r\n", "AUTH PLAIN AAAA\r\n", "*\r\n",
	"BDAT 0 LAST\r\n", "BDAT 0\r\n", "BDAT 10\r\n", "BDAT 10 LAST\r\n", "BDAT x LAST\r\n", "BDAT 5 FIRST\r\n", "BDAT -1 LAST\r\n", "BDAT 18446744073709551617 LAST\r\n", "BDAT 10001\r\n", "Received: x\r\n", "GET / HTTP/1.1\r\n",
	strings.Repeat("0123456789abcd\r\n", 100), strings.Repeat("x", 3000), "XCLIENT ADDR=192.0.2.1\r\n", "ETRN example.test\r\n", "HELP\r\n",
	"MAIL FROM:<sender@far.test> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb\r\n", "MAIL FROM:<alice@example.test> HOLDFOR=600 BY=3600;R MT-PRIORITY=3\r\n", "MAIL FROM:<alice@example.test> REQUIRETLS\r\n",
	"RCPT TO:<alice@example.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@b\r\n", "RCPT TO:<bob@example.test> RRVS=2026-01-01T00:00:00Z\r\n", "RCPT TO:<alice+detail@example.test>\r\n", "RCPT TO:<jörg@example.test>\r\n",
}

const (
	firstPhrase = 0x80
	aChunk      = 0xfd
	lastChunk   = 0xfe
	asItIs      = 0xff
)

// write makes of a script what the client sends.
func write(s *server, script []byte) string {
	var b strings.Builder
	for len(script) > 0 {
		c := script[0]
		script = script[1:]
		switch {
		case c == aChunk || c == lastChunk:
			n := 0
			if len(script) > 0 {
				n, script = min(int(script[0]), len(script)-1), script[1:]
			}
			fmt.Fprintf(&b, "BDAT %d%s\r\n%s", n, map[bool]string{true: " LAST"}[c == lastChunk], script[:n])
			script = script[n:]
		case c == asItIs && len(script) > 0:
			b.WriteByte(script[0])
			script = script[1:]
		case c >= firstPhrase && int(c-firstPhrase) < len(phrases):
			b.WriteString(strings.ReplaceAll(phrases[c-firstPhrase], "{login}", plain("", "alice@example.test", alicesPassword)))
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// literally is a script for octets as they are.
func literally(stream string) string {
	var b strings.Builder
	for i := range len(stream) {
		if stream[i] >= firstPhrase {
			b.WriteByte(asItIs)
		}
		b.WriteByte(stream[i])
	}
	return b.String()
}

// pieces cuts a stream. What no cut is left for is one piece.
func pieces(stream string, cuts []byte) (list []string) {
	for _, n := range cuts {
		at := min(int(n)+1, len(stream))
		list, stream = append(list, stream[:at]), stream[at:]
	}
	return append(list, stream)
}

// scripts are to begin with: what the other attacks are made of.
func scripts(s *server) (list []string) {
	body := "From: " + s.from() + "\r\n\r\nbody"
	chunk := func(body, word string) string { return fmt.Sprintf("BDAT %d%s\r\n%s", len(body), word, body) }
	for _, end := range falseEnds {
		list = append(list, literally(s.opening()+"DATA\r\n"+body+end+smuggled+"\r\n.\r\nQUIT\r\n"), literally(s.opening()+chunk(body+end+smuggled, " LAST")+s.toAlice()))
	}
	for _, rest := range []string{
		chunk(body, "") + chunk("\r\n", " LAST") + "QUIT\r\n", chunk(body, "") + "RSET\r\n" + s.toAlice() + chunk(body, " LAST"), chunk(body, "") + "DATA\r\n" + smuggled, chunk(body, "") + "MAIL FROM:<>\r\nRCPT TO:<bob@example.test>\r\n" + chunk("", " LAST"),
		"BDAT 1000 LAST\r\n" + smuggled, "BDAT x\r\n" + smuggled, chunk("a\nb", "") + chunk(smuggled, " LAST") + s.toAlice() + chunk(body, " LAST"), chunk(body+"\r", "") + chunk("\n", " LAST"), chunk(smuggled, " FIRST") + chunk(body, " LAST"), chunk(body, "") + chunk("x", " FIRST") + chunk("y", " LAST"),
		"RCPT TO:<bob@example.test>\r\nDATA\r\n" + body + "\r\n.\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n" + smuggled, "DATA\r\na\nb\r\n.\r\n" + s.toAlice() + "DATA\r\n" + body + "\r\n.\r\n", "DATA\r\n" + strings.Repeat("Received: x\r\n", 101) + ".\r\nDATA\r\n" + smuggled,
		"EHLO again\r\nDATA\r\nRCPT TO:<alice@example.test>\r\n", "RSET\r\nDATA\r\nRCPT TO:<alice@example.test>\r\n", "QUIT\r\nDATA\r\n" + body + "\r\n.\r\n", "STARTTLS\r\n" + s.toAlice(), "NOOP\nDATA\r\n", "NOOP\x00\r\nNOOP\x00\r\nNOOP\x00\r\nDATA\r\n" + body,
		"MAIL FROM:<b@far.test>\r\nDATA\r\n" + body + "\r\n.\r\n", "RCPT TO:<user%elsewhere.test@example.test>\r\nRCPT TO:<@example.test:user@elsewhere.test>\r\nRCPT TO:<\"user@elsewhere.test\"@example.test>\r\nDATA\r\n" + body + "\r\n.\r\n",
		strings.Repeat("RCPT TO:<bob@example.test>\r\n", 10) + "DATA\r\n" + body + "\r\n.\r\n", strings.Repeat("RCPT TO:<nobody@example.test>\r\n", 25) + "DATA\r\n", strings.Repeat("NOOP\r\n", 120) + "DATA\r\n", "DATA\r\n" + strings.Repeat("0123456789abcd\r\n", 700) + ".\r\n" + s.toAlice(),
		"VRFY j\xc3\xb6rg\r\nDATA\r\n" + body + "\r\n.\r\n", "AUTH PLAIN\r\n" + s.toAlice(), strings.Repeat("x", 3000) + "\r\nDATA\r\n", "XCLIENT ADDR=192.0.2.1\r\nRCPT TO:<user@elsewhere.test>\r\n", "BDAT 0 LAST\r\n", "BDAT 0\r\nBDAT 0 LAST\r\n",
	} {
		list = append(list, literally(s.opening()+rest))
	}
	var every strings.Builder
	for i := range phrases {
		every.WriteByte(byte(firstPhrase + i))
		list = append(list, "\x80\x82\xa3\x84\x8b"+string([]byte{byte(firstPhrase + i)})+"\x84\x8b\xfd\x03abc"+string([]byte{byte(firstPhrase + i)})+"\xfe\x03def\x85\x8b\x92body\r\n\x95")
	}
	return append(list, every.String())
}

// converse sends pieces and returns what was said; what is no reply is a fault. The connection ends, or breaks.
func (s *server) converse(from net.IP, breaks bool, pieces []string) (said []reply, fault string) {
	c := s.pipes.dial(from)
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReaderSize(c, 512)
	handshake := false
	for {
		got, fault, err := readReply(r)
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return said, "the session does not end: " + err.Error()
		case handshake: // what follows is TLS
			io.Copy(io.Discard, r)
			return said, ""
		case fault != "" || err != nil:
			return said, fault
		}
		said = append(said, got)
		handshake = got.code == 220 && len(said) > 1
		if len(said) == 1 {
			for _, piece := range pieces {
				io.WriteString(c, piece)
			}
			if breaks {
				c.out.end(io.ErrUnexpectedEOF, false)
			} else {
				c.CloseWrite()
			}
		}
	}
}

// A model reads what a client sent, and the replies to it.
type model struct {
	s      *server
	said   []reply // the replies that are not used up
	broken string  // the first thing that must not be

	greeted, loggedIn bool
	tx                *modelTx
	over              bool // what is left is not for the model to follow
	silent            bool // there may be no further reply
	accepted          []modelTx
}

// modelTx is a transaction, or the message that came of it.
type modelTx struct {
	id, from string
	given    int
	to       []string
	binary   bool
	chunked  bool // its message has begun
	content  string
}

func (m *model) fail(format string, args ...any) {
	if m.broken == "" {
		m.broken = fmt.Sprintf(format, args...)
	}
	m.over = true
}

// next takes a reply. Without one the session has ended.
func (m *model) next() (reply, bool) {
	if len(m.said) == 0 {
		m.over = true
		return reply{}, false
	}
	r := m.said[0]
	m.said = m.said[1:]
	if m.silent {
		m.fail("after the end there is %s", r)
	}
	m.silent = m.silent || r.code == 421
	return r, true
}

// follow reads the whole stream.
func (m *model) follow(stream string) {
	m.next() // the greeting
	for !m.over {
		line, rest, whole := strings.Cut(stream, "\r\n")
		if !whole {
			return
		}
		stream = m.command(line, rest)
	}
}

var oddOctets = regexp.MustCompile(`[\x00-\x08\x0a-\x1f\x7f]`)

// command follows one command and returns what is behind it, and behind its content.
func (m *model) command(line, rest string) string {
	if bad := oddOctets.MatchString(line) || !utf8.ValidString(line); bad && len(line) >= 4 && strings.EqualFold(line[:4], "BDAT") {
		return m.uncounted(line)
	} else if bad {
		if r, ok := m.next(); ok && r.code < 500 && r.code != 421 {
			m.fail("%q is answered %s", line, r)
		}
		return rest
	}
	verb, arg, _ := strings.Cut(strings.TrimRight(line, " \t"), " ")
	arg = strings.TrimLeft(arg, " ")
	if strings.EqualFold(verb, "BDAT") {
		return m.chunk(arg, rest)
	}
	r, ok := m.next()
	if !ok {
		return ""
	}
	switch strings.ToUpper(verb) + " " + strconv.Itoa(r.code) {
	case "EHLO 250", "HELO 250", "LHLO 250":
		m.tx, m.greeted = nil, true
	case "MAIL 250":
		m.mail(arg)
	case "RCPT 250":
		m.rcpt(arg)
	case "DATA 354":
		return m.data(rest)
	case "RSET 250":
		m.tx = nil
	case "QUIT 221":
		m.silent = true
	case "STARTTLS 220":
		m.over = true
	case "AUTH 334":
		return m.response(rest)
	case "AUTH 235":
		if m.loggedIn = true; !m.greeted {
			m.fail("AUTH is taken before EHLO")
		}
	case "NOOP 250", "VRFY 252", "HELP 214", "ETRN 250", "ETRN 253":
	default:
		if r.code < 400 {
			m.fail("%q is answered %s", line, r)
		}
	}
	return rest
}

// response follows the lines of a login.
func (m *model) response(rest string) string {
	for {
		_, behind, whole := strings.Cut(rest, "\r\n")
		if !whole {
			m.over = true
			return ""
		}
		r, _ := m.next()
		m.loggedIn = m.loggedIn || r.code == 235
		if rest = behind; r.code != 334 {
			return rest
		}
	}
}

func (m *model) mail(arg string) {
	path, params := pathOf(arg, "FROM:")
	from, err := envelope.ParsePath(path)
	switch {
	case m.tx != nil || !m.greeted || err != nil:
		m.fail("MAIL %s is taken: greeted %v, open %v, %v", arg, m.greeted, m.tx != nil, err)
	case m.s.kind == smtpd.Submission && !m.loggedIn:
		m.fail("MAIL is taken without a login")
	}
	m.tx = &modelTx{from: from.String(), binary: strings.Contains(strings.ToUpper(params), "BODY=BINARYMIME")}
}

func (m *model) rcpt(arg string) {
	path, _ := pathOf(arg, "TO:")
	addr, err := envelope.ParsePath(path)
	if m.tx == nil || m.tx.chunked || err != nil {
		m.fail("RCPT %s is taken: open %v, %v", arg, m.tx != nil, err)
		return
	}
	targets, err := m.s.accounts.Resolve(addr)
	if err != nil {
		m.fail("RCPT %s is taken: %v", arg, err)
	}
	if m.s.kind != smtpd.Submission && !strings.EqualFold(addr.Domain, "example.test") && addr.Domain != "" {
		m.fail("RCPT %s is taken", arg)
	}
	m.tx.given++
	for _, t := range targets {
		m.tx.to = append(m.tx.to, t.Address.Canonical().String())
	}
	slices.Sort(m.tx.to)
	m.tx.to = slices.Compact(m.tx.to)
}

// pathOf takes an argument apart by the simplest means: the path ends at the first > outside of quotes, or at a space.
func pathOf(arg, prefix string) (path, rest string) {
	if len(arg) < len(prefix) {
		return arg, ""
	}
	arg = strings.TrimLeft(arg[len(prefix):], " ")
	quoted := false
	for i := 0; i < len(arg); i++ {
		switch {
		case arg[i] == '\\' && quoted:
			i++
		case arg[i] == '"':
			quoted = !quoted
		case arg[i] == '>' && !quoted:
			return arg[:i+1], arg[i+1:]
		case arg[i] == ' ' && !quoted && arg[0] != '<':
			return arg[:i], arg[i:]
		}
	}
	return arg, ""
}

// data follows DATA: content up to the one end that there is.
func (m *model) data(rest string) string {
	if m.tx == nil || m.tx.given == 0 || m.tx.chunked {
		m.fail("DATA is taken without recipients, or in the middle of a message")
		return ""
	}
	if !strings.Contains("\r\n"+rest, "\r\n.\r\n") {
		m.over = true
		return ""
	}
	content, rest, good := standard(rest)
	m.tx.content = content
	m.finish(good)
	return rest
}

var chunkSize = regexp.MustCompile(`^([0-9]{1,19})(?: (.*))?$`)

// chunk follows BDAT: as many octets as it says, whatever is wrong with it.
func (m *model) chunk(arg, rest string) string {
	parts := chunkSize.FindStringSubmatch(arg)
	size := -1
	if parts != nil {
		size, _ = strconv.Atoi(parts[1])
	}
	if size < 0 || size > len(rest) {
		return m.uncounted("BDAT " + arg)
	}
	word := strings.Trim(parts[2], " ")
	last, proper := strings.EqualFold(word, "LAST"), word == "" || strings.EqualFold(word, "LAST")
	ready := proper && m.tx != nil && m.tx.given > 0
	switch {
	case ready && last:
		m.tx.content += rest[:size]
		m.tx.chunked = true
		m.finish(clean(m.tx.content) || m.tx.binary)
	case ready:
		m.tx.content += rest[:size]
		m.tx.chunked = true
		if r, ok := m.next(); ok && r.code >= 400 {
			m.tx = nil
		}
	default:
		if r, ok := m.next(); ok && r.code < 400 {
			m.fail("BDAT %s is taken: %s", arg, r)
		}
		if m.tx != nil && m.tx.chunked {
			m.tx = nil
		}
	}
	return rest[size:]
}

// uncounted follows a BDAT of which nobody knows where it ends, or which does not: nothing behind it is read.
func (m *model) uncounted(line string) string {
	if r, ok := m.next(); ok && r.code < 400 {
		m.fail("%q is answered %s", line, r)
	}
	m.silent = true
	m.next()
	m.over = true
	return ""
}

// finish follows the end of a message: one reply, or in LMTP one for each recipient, all of one kind.
func (m *model) finish(good bool) {
	replies := 1
	if m.s.kind == smtpd.LMTP {
		replies = m.tx.given
	}
	for i := range replies {
		r, ok := m.next()
		id := queuedAs.FindStringSubmatch(strings.Join(r.text, " "))
		switch {
		case !ok:
			if i > 0 {
				m.fail("%d replies of %d", i, replies)
			}
			return
		case r.code >= 400 && i > 0 && m.tx.id != "":
			m.fail("accepted for some: %s", r)
		case r.code >= 400:
		case r.code != 250 || id == nil || !good || i > 0 && m.tx.id != id[1]:
			m.fail("a message of which good is %v is answered %s", good, r)
		default:
			m.tx.id = id[1]
		}
	}
	if m.tx.id != "" {
		m.accepted = append(m.accepted, *m.tx)
	}
	m.tx = nil
}

// judge holds what the spool was given against the model.
func (m *model) judge(t testing.TB, h *house, got []accepted) string {
	if m.broken != "" {
		return m.broken
	}
	for _, r := range m.said {
		if r.code < 400 && len(m.said) > 0 && !(r.code == 220 && m.over) {
			return "nobody asked for " + r.String()
		}
	}
	if len(got) != len(m.accepted) {
		return fmt.Sprintf("%d messages, want %d", len(got), len(m.accepted))
	}
	for i, want := range m.accepted {
		var to []string
		for _, r := range got[i].rcpts {
			to = append(to, r.To.Canonical().String())
		}
		slices.Sort(to)
		body := h.body(t, got[i].ID)
		if got[i].ID.String() != want.id || got[i].Envelope.From.String() != want.from || !slices.Equal(to, want.to) || !strings.HasSuffix(body, want.content) {
			return fmt.Sprintf("accepted from %s for %q:\n%q\nwant %+v", got[i].Envelope.From, to, body, want)
		}
	}
	return ""
}
