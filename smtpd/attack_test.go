package smtpd_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"
	"unicode/utf8"

	"postroad/internal/account"
	"postroad/internal/certs"
	"postroad/internal/envelope"
	"postroad/internal/listen"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
	"postroad/smtpd"
	"postroad/spool"
)

// The attacks of docs/attacks.md, from outside: a server with the real directory and the real store is reached over
// TCP, over TLS, and in memory, and every reply that it gives is held against RFC 5321, RFC 2034 and RFC 2920.

const hostname = "mx.example.test"

// Passwords are such that no log and no reply has them by chance.
const (
	alicesPassword = "wilted-marmot-71"
	bobsPassword   = "oblique-kettle-38"
)

// stranger is an address that is not this machine's.
var stranger = net.IPv4(203, 0, 113, 9)

// A house is what stands behind servers: example.test is ours, with alice and bob. away leads to somebody elsewhere.
type house struct {
	t        testing.TB
	store    *store.Store
	dir      string // of the store
	accounts *account.Directory
	queue    *queue
	log      *logBook
	tls      *tls.Config
}

func newHouse(t testing.TB) *house {
	t.Helper()
	files, err := household()
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, dir: storetest.MemoryDir(t), log: &logBook{}}
	h.must(os.CopyFS(h.dir, files))
	h.store = storetest.OpenDir(t, h.dir, store.Options{}, new(spool.Spool).References)
	h.accounts = account.Open(h.store, nil)
	h.queue = &queue{Spool: spool.Open(h.store, nil)}
	shown, err := certs.Open(certs.Config{Dir: t.TempDir(), Hostname: hostname})
	h.must(err)
	t.Cleanup(shown.Close)
	h.tls = shown.UserTLSConfig("smtp", "esmtp")
	return h
}

// household is the store of every house as files: made once, since passwords cost time.
var household = sync.OnceValues(func() (fs.FS, error) {
	dir, err := os.MkdirTemp("", "household-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := furnish(dir); err != nil {
		return nil, err
	}
	files := fstest.MapFS{}
	return files, fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		files[name] = &fstest.MapFile{Data: text, Mode: 0o600}
		return err
	})
})

// furnish makes the store of a house.
func furnish(dir string) error {
	st, err := store.Open(dir, store.Options{Reserve: 1})
	if err != nil {
		return err
	}
	defer st.Close()
	accounts := account.Open(st, nil)
	if _, err := accounts.AddDomain("example.test"); err != nil {
		return err
	}
	for name, password := range map[string]string{"alice": alicesPassword, "bob": bobsPassword} {
		if _, err := accounts.Add(address(name+"@example.test"), password, nil); err != nil {
			return err
		}
	}
	_, err = accounts.SetAlias(address("away@example.test"), []envelope.Address{address("someone@elsewhere.test")})
	return err
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func address(s string) envelope.Address {
	a, err := envelope.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

// queue is the spool, watched. When it is dry nothing is stored.
type queue struct {
	*spool.Spool
	mu  sync.Mutex
	wet bool
	got []accepted
}

// accepted is a message that the spool was given.
type accepted struct {
	spool.Message
	rcpts []spool.Recipient
}

func (q *queue) Accept(m *spool.Message, rcpts []spool.Recipient, d *store.Draft, with func(store.Tx) error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	m.ID, m.Size = d.ID(), d.Size()
	if q.wet {
		if err := q.Spool.Accept(m, rcpts, d, with); err != nil {
			return err
		}
	} else {
		d.Discard()
	}
	q.got = append(q.got, accepted{*m, slices.Clone(rcpts)})
	return nil
}

// take returns what was accepted, and forgets it.
func (q *queue) take() []accepted {
	q.mu.Lock()
	defer q.mu.Unlock()
	got := q.got
	q.got = nil
	return got
}

// logBook keeps the log, and what was wrong in it.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() > 8<<20 {
		l.b.Reset()
	}
	return l.b.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A server is one listener's server, on a socket and in memory.
type server struct {
	*house
	*smtpd.Server
	kind   smtpd.Kind
	secure bool // TLS from the first octet
	addr   string
	pipes  *ends
	open   atomic.Int64 // connections over the socket
}

// serve starts a server on a socket and in memory.
func (h *house) serve(kind smtpd.Kind, implicitTLS bool, change ...func(*smtpd.Config)) *server {
	h.t.Helper()
	s := h.inMemory(kind, implicitTLS, change...)
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	s.addr = socket.Addr().String()
	s.on(counted{socket, &s.open})
	return s
}

// inMemory starts a server without a socket, for a bubble in which time is the test's.
func (h *house) inMemory(kind smtpd.Kind, implicitTLS bool, change ...func(*smtpd.Config)) *server {
	h.t.Helper()
	c := smtpd.Config{
		Hostname: hostname, Store: h.store, Spool: h.queue, Accounts: h.accounts,
		Logins: account.NewLogins(h.accounts, account.NewGuard(nil, nil)), TLS: h.tls,
		Log: slog.New(slog.NewTextHandler(h.log, nil)),
	}
	c.Limits.Connections = 20_000
	for _, f := range change {
		f(&c)
	}
	s := &server{house: h, kind: kind, secure: implicitTLS, pipes: newEnds(), Server: smtpd.NewServer(kind, implicitTLS, c)}
	s.on(s.pipes)
	return s
}

// on serves a listener until the test ends. What is open then is cut off.
func (s *server) on(l net.Listener) {
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	s.t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		if err := <-ended; err != nil && !errors.Is(err, listen.ErrShutDown) { // before it had begun
			s.t.Errorf("serve: %v", err)
		}
		s.calm()
	})
}

// counted is a listener that counts its connections.
type counted struct {
	net.Listener
	open *atomic.Int64
}

func (l counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	return &countedConn{Conn: c, ended: func() { l.open.Add(-1) }}, nil
}

type countedConn struct {
	net.Conn
	once  sync.Once
	ended func()
}

func (c *countedConn) Close() error {
	defer c.once.Do(c.ended)
	return c.Conn.Close()
}

// quiet waits until no connection over the socket is served any more.
func (s *server) quiet() {
	for s.open.Load() > 0 {
		runtime.Gosched()
	}
}

// calm fails when the log tells of trouble of ours: a panic, say.
func (s *server) calm() {
	s.t.Helper()
	if log := s.log.String(); strings.Contains(log, "level=ERROR") {
		s.t.Errorf("the log has an error:\n%.5000s", log)
	}
}

// hello is the word with which a session begins.
func (s *server) hello() string {
	if s.kind == smtpd.LMTP {
		return "LHLO"
	}
	return "EHLO"
}

// from is the sender that a test's transactions have, and login what comes before them.
func (s *server) from() string {
	if s.kind == smtpd.Submission {
		return "alice@example.test"
	}
	return "sender@far.test"
}

func (s *server) login() string {
	if s.kind == smtpd.Submission {
		return "AUTH PLAIN " + plain("", "alice@example.test", alicesPassword) + "\r\n"
	}
	return ""
}

// opening is all that comes before the content of a message to alice.
func (s *server) opening() string {
	return s.hello() + " client.test\r\n" + s.login() + s.toAlice()
}

func (s *server) toAlice() string {
	return "MAIL FROM:<" + s.from() + ">\r\nRCPT TO:<alice@example.test>\r\n"
}

func plain(identity, user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(identity + "\x00" + user + "\x00" + password))
}

// A reply is one reply, of any number of lines.
type reply struct {
	code int
	text []string // of each line, with its enhanced code
}

func (r reply) String() string { return fmt.Sprintf("%d %s", r.code, strings.Join(r.text, "\n    ")) }

var (
	replyLine    = regexp.MustCompile(`^([2-5][0-5][0-9])([- ])(.*)$`)
	enhancedCode = regexp.MustCompile(`^([245])\.[0-9]{1,3}\.[0-9]{1,3} `)
	queuedAs     = regexp.MustCompile(`queued as ([0-9a-z]+)`)
)

// readReply reads a reply and holds it against RFC 5321, 4.2. The error is the connection's; what is wrong with the
// reply is told as a fault.
func readReply(r *bufio.Reader) (got reply, fault string, err error) {
	for {
		whole, err := r.ReadString('\n')
		if err != nil {
			if whole != "" {
				fault = fmt.Sprintf("a reply is cut off: %q", whole)
			}
			return got, fault, err
		}
		line, ok := strings.CutSuffix(whole, "\r\n")
		parts := replyLine.FindStringSubmatch(line)
		if !ok || parts == nil || len(whole) > 512 || !utf8.ValidString(line) || strings.ContainsFunc(line, control) {
			return got, fmt.Sprintf("%q is no reply", whole), nil
		}
		code, _ := strconv.Atoi(parts[1])
		if got.code != 0 && code != got.code {
			fault = fmt.Sprintf("%q follows a line with %d", whole, got.code)
		}
		got.code, got.text = code, append(got.text, parts[3])
		if parts[2] == " " {
			return got, cmpOr(fault, got.fault()), nil
		}
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func control(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 || r == utf8.RuneError }

// fault says what RFC 2034 misses in a reply: an enhanced code on each line, but for greetings, the answer to
// EHLO, and what asks for more.
func (r reply) fault() string {
	greeting := strings.HasPrefix(r.text[0], hostname) && (r.code == 220 || r.code == 250)
	badName := r.code == 501 && strings.HasPrefix(r.text[0], "give your host name")
	if greeting || badName || r.code/100 == 3 {
		return ""
	}
	for _, line := range r.text {
		m := enhancedCode.FindStringSubmatch(line + " ")
		if m == nil || m[1] != strconv.Itoa(r.code/100) {
			return fmt.Sprintf("%q has no fitting enhanced code", r)
		}
	}
	return ""
}

// A peer is a client that says what the test wants.
type peer struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func newPeer(t testing.TB, c net.Conn) *peer {
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return &peer{c, t, bufio.NewReader(c)}
}

// dial connects over TCP, with TLS when the server begins with it. It is this machine that connects.
func (s *server) dial(t testing.TB) *peer {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	if s.secure {
		c = tls.Client(c, anyServer())
	}
	return newPeer(t, c)
}

// pipe connects in memory, from an address; nil is this machine.
func (s *server) pipe(t testing.TB, from net.IP) *peer {
	t.Helper()
	var c net.Conn = s.pipes.dial(from)
	if s.secure {
		c = tls.Client(c, anyServer())
	}
	return newPeer(t, c)
}

func anyServer() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// secure begins TLS on the connection.
func (p *peer) secure() {
	p.t.Helper()
	c := tls.Client(p.Conn, anyServer())
	if err := c.Handshake(); err != nil {
		p.t.Fatalf("TLS handshake: %v", err)
	}
	p.Conn, p.r = c, bufio.NewReader(c)
}

func (p *peer) send(s string) { io.WriteString(p.Conn, s) } // when the server has closed, the missing reply tells

// reply reads the next reply, which must be a good one.
func (p *peer) reply() (reply, error) {
	p.t.Helper()
	p.SetDeadline(time.Now().Add(30 * time.Second))
	got, fault, err := readReply(p.r)
	if fault != "" {
		p.t.Errorf("bad reply: %s", fault)
	}
	return got, err
}

// expect reads a reply that begins with one of the codes, with or without enhanced code: "250 2.1.0|251".
func (p *peer) expect(codes string) reply {
	p.t.Helper()
	got, err := p.reply()
	last := ""
	if err == nil {
		last = fmt.Sprintf("%d %s", got.code, got.text[len(got.text)-1])
	}
	for code := range strings.SplitSeq(codes, "|") {
		if err == nil && strings.HasPrefix(last, code) {
			return got
		}
	}
	p.t.Fatalf("got %q (%v), want %s", got, err, codes)
	return got
}

// ended wants the end of the connection, with at most one word of farewell.
func (p *peer) ended() {
	p.t.Helper()
	for range 2 {
		got, err := p.reply()
		if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			p.t.Fatal("the connection stays open, and nothing is said")
		}
		if err != nil {
			return
		}
		if got.code < 400 {
			p.t.Fatalf("the connection goes on: %s", got)
		}
	}
	p.t.Fatal("the connection goes on")
}

// talk plays a script: "> x" sends a line, `>q "x"` octets as a Go string has them, "< x" expects a reply, "<-" the
// end of the connection; "tls" begins TLS.
func (p *peer) talk(script string) *peer {
	p.t.Helper()
	for line := range strings.SplitSeq(script, "\n") {
		line = strings.TrimLeft(line, "\t")
		switch {
		case line == "":
		case line == "tls":
			p.secure()
		case line == "<-":
			p.ended()
		case line == ">":
			p.send("\r\n")
		case strings.HasPrefix(line, "> "):
			p.send(line[2:] + "\r\n")
		case strings.HasPrefix(line, ">q "):
			s, err := strconv.Unquote(line[3:])
			if err != nil {
				p.t.Fatalf("%s: %v", line, err)
			}
			p.send(s)
		case strings.HasPrefix(line, "< "):
			p.expect(line[2:])
		default:
			p.t.Fatalf("a script has the line %q", line)
		}
	}
	return p
}

// greet reads the banner and says EHLO, or LHLO, and logs in where that is needed.
func (p *peer) greet(s *server) *peer {
	p.t.Helper()
	p.talk("< 220\n> " + s.hello() + " client.test\n< 250")
	if s.login() != "" {
		p.send(s.login())
		p.expect("235")
	}
	return p
}

// begin is greet and a transaction to alice.
func (p *peer) begin(s *server) *peer {
	p.t.Helper()
	return p.greet(s).talk("> MAIL FROM:<" + s.from() + ">\n< 250\n> RCPT TO:<alice@example.test>\n< 250")
}

// An outcome is what a whole session came to.
type outcome struct {
	replies []reply
	got     []accepted
}

// said is the codes of all replies, for messages of tests.
func (o outcome) said() string {
	var b strings.Builder
	for _, r := range o.replies {
		fmt.Fprintf(&b, "%s\n", r)
	}
	return b.String()
}

// patience is behind what a stranger waits for a reply: DATA (RFC 2920, 3.1). This machine's clients need not.
func patience(from net.IP) string {
	if from.Equal(stranger) {
		return "DATA\r\n"
	}
	return "\x00 never \x00"
}

// play waits for the banner, sends the pieces, says that no more will come and reads to the end. What holds for any
// session is held against it.
func (s *server) play(t testing.TB, from net.IP, pieces ...string) outcome {
	t.Helper()
	c := s.pipes.dial(from)
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	r := bufio.NewReaderSize(c, 1024)
	var o outcome
	for i := 0; ; i++ {
		got, fault, err := readReply(r)
		if fault != "" {
			t.Fatalf("%s\nafter\n%s", fault, o.said())
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Fatalf("the session does not end: %v\n%s", err, o.said())
			}
			break
		}
		o.replies = append(o.replies, got)
		if i == 0 {
			for _, piece := range pieces {
				for part := range strings.SplitAfterSeq(piece, patience(from)) {
					io.WriteString(c, part)
				}
			}
			c.CloseWrite()
		}
	}
	o.got = s.queue.take()
	if fault := o.fault(s.kind); fault != "" {
		t.Fatalf("%s\n%s", fault, o.said())
	}
	return o
}

// fault says what no session may come to: a message without its 250, a 250 without its message, or mail for
// elsewhere that nobody who logged in has sent.
func (o outcome) fault(kind smtpd.Kind) string {
	promised := map[string]int{}
	loggedIn := false
	for _, r := range o.replies {
		loggedIn = loggedIn || r.code == 235
		if m := queuedAs.FindStringSubmatch(r.text[len(r.text)-1]); m != nil && r.code == 250 {
			promised[m[1]]++
		}
	}
	for _, m := range o.got {
		if n := promised[m.ID.String()]; n == 0 || n > 1 && kind != smtpd.LMTP {
			return fmt.Sprintf("%s was accepted, and promised %d times", m.ID, n)
		}
		delete(promised, m.ID.String())
		for _, r := range m.rcpts {
			if r.Account == 0 && r.To.String() != "someone@elsewhere.test" && (kind != smtpd.Submission || !loggedIn) {
				return fmt.Sprintf("mail is relayed to %s", r.To)
			}
		}
	}
	if len(promised) > 0 {
		return fmt.Sprintf("%v were promised and not accepted", promised)
	}
	return ""
}

// overAll runs a case over TCP, over TLS and over STARTTLS: dial gives a peer that was greeted by the banner only
// where that has not been read for it.
func overAll(t *testing.T, kind smtpd.Kind, test func(t *testing.T, s *server, dial func() *peer), change ...func(*smtpd.Config)) {
	h := newHouse(t)
	open, secured := h.serve(kind, false, change...), h.serve(kind, true, change...)
	t.Run("TCP", func(t *testing.T) {
		test(t, open, func() *peer { return open.dial(t) })
	})
	t.Run("TLS", func(t *testing.T) {
		test(t, secured, func() *peer { return secured.dial(t) })
	})
	t.Run("STARTTLS", func(t *testing.T) {
		test(t, open, func() *peer {
			p := open.dial(t).talk("< 220\n> " + open.hello() + " client.test\n< 250\n> STARTTLS\n< 220\ntls")
			p.r = bufio.NewReader(io.MultiReader(strings.NewReader("220 "+hostname+" again\r\n"), p.Conn))
			return p
		})
	})
}

// kinds are all listeners.
var kinds = []smtpd.Kind{smtpd.MX, smtpd.Submission, smtpd.LMTP}

func limits(f func(*smtpd.Limits)) func(*smtpd.Config) { return func(c *smtpd.Config) { f(&c.Limits) } }

// allAttacks makes the tests that count runs do all of them.
var allAttacks = flag.Bool("attack.all", false, "cut every stream everywhere on every listener, and wrap every form of a recipient in every way")

// splits are the ways to cut a stream: whole, octet by octet, and in two at each point. A short run takes every
// seventh point.
func splits(stream string) func(yield func([]string) bool) { return splitsBy(1, stream) }

// splitsBy is splits at every so manieth point.
func splitsBy(step int, stream string) func(yield func([]string) bool) {
	if testing.Short() {
		step = 7
	}
	return func(yield func([]string) bool) {
		if !yield([]string{stream}) || !yield(strings.Split(stream, "")) {
			return
		}
		for cut := 1; cut < len(stream); cut += step {
			if !yield([]string{stream[:cut], stream[cut:]}) {
				return
			}
		}
	}
}

// heap is what is in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
