package postroad_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"postroad/internal/control"
)

// In TestCrash mail comes in at every listener in every way that there is, for every kind of recipient, and hostile peers are
// at work beside it.
const (
	crashMailers = 5
	crashHostile = 2
	crashDomain  = "@example.test"
	crashForward = "fw" + crashDomain   // gets a copy, and sends it on
	crashVictim  = "hurt" + crashDomain // what hostile peers may get accepted is for this one
	crashHold    = 2 * time.Second      // how long messages are held at most
	crashProxy   = "127.0.0.2"          // speaks for others
	crashDetails = 3
	crashOut     = "out@" + farTakes    // where crashForward sends it
	crashReader  = "reader@" + farTakes // is on the list
)

// crashConfig is what the server is run with, beside crashRoutes: %q is the data directory. Strangers are not slowed
// down, and may send as much as they like.
const crashConfig = `hostname = "mx.example.test"
data_dir = %q
[listen]
smtp = "127.0.0.1:0"
submission = "127.0.0.1:0"
submissions = "127.0.0.1:0"
lmtp = "127.0.0.1:0"
imap = "127.0.0.1:0"
imaps = "off"
[log]
level = "warn"
[recipients]
detail_mailbox = "create"
[submission]
save_sent = true
daily_messages = 1000000000
daily_recipients = 1000000000
daily_new_recipients = 1000000000
[policy]
greet_delay = "0s"
connections_per_minute = 1000000
messages_per_hour = 1000000000
recipients_per_hour = 1000000000
account_messages_per_hour = 1000000000
account_recipients_per_hour = 1000000000
[trust]
proxies = ["` + crashProxy + `/32"]
`

// crashSettle makes what the server of a new data directory needs.
func (c *campaign) crashSettle(p *process) {
	c.t.Helper()
	admin, ctx := p.admin(), c.t.Context()
	defer admin.Close()
	must := func(_ any, err error) {
		c.t.Helper()
		if err != nil {
			c.t.Fatal(err)
		}
	}
	must(admin.AddDomain(ctx, crashDomain[1:]))
	for _, a := range crashAccounts {
		must(admin.AddAccount(ctx, control.NewAccount{Address: a, Password: crashPassword}))
	}
	keep := true
	must(admin.AddForward(ctx, control.Forward{Account: crashForward, Targets: []string{receiver(0), crashOut}, Keep: &keep}))
	must(admin.AddAlias(ctx, control.Alias{Address: "both" + crashDomain, Targets: []string{receiver(0), receiver(2)}}))
	must(admin.AddList(ctx, control.NewList{
		Address: "all" + crashDomain, Owners: []string{receiver(0)}, Post: "anyone",
		Members: []string{receiver(0), receiver(1), "both" + crashDomain, crashReader},
	}))
	c.apps, c.appUsed = map[string]string{}, false
	for _, a := range crashAccounts {
		app, err := admin.AddAppPassword(ctx, control.NewAppPassword{AppPasswordName: control.AppPasswordName{Address: a, Name: "crash"}})
		must(nil, err)
		c.apps[a] = app.Password
	}
	c.bans = map[string]bool{}
	c.today, c.known = control.SentToday{}, map[string]bool{}
}

const crashSent = "r0" + crashDomain + " Sent"

// crashAccounts are those whose mailboxes are read.
var crashAccounts = []string{receiver(0), receiver(1), receiver(2), crashForward, crashVictim}

// crashTo draws recipients, and returns which copies of a message for them there must be, by mailbox.
func crashTo(rnd *rand.Rand, submission bool) (to []string, copies map[string]int) {
	kinds := []struct {
		name   string
		direct []string // one copy, however many of the message's recipients lead there
		listed []string // one more
	}{
		{name: receiver(0), direct: []string{receiver(0) + " INBOX"}},
		{name: receiver(1), direct: []string{receiver(1) + " INBOX"}},
		{name: receiver(2), direct: []string{receiver(2) + " INBOX"}},
		{name: "both" + crashDomain, direct: []string{receiver(0) + " INBOX", receiver(2) + " INBOX"}},
		{name: crashForward, direct: []string{crashForward + " INBOX", receiver(0) + " INBOX", farBox(crashOut)}},
		{name: "all" + crashDomain, listed: []string{receiver(0) + " INBOX", receiver(1) + " INBOX", receiver(2) + " INBOX", farBox(crashReader)}},
		{name: crashDetail(rnd.IntN(crashDetails))},
		{name: "far@far.test", direct: []string{farBox("far@far.test")}},
	}
	local, detail, _ := strings.Cut(strings.TrimSuffix(kinds[6].name, crashDomain), "+")
	kinds[6].direct = []string{local + crashDomain + " " + detail}
	if !submission {
		kinds = kinds[:7]
	}
	copies = map[string]int{}
	var listed []string
	for _, i := range rnd.Perm(len(kinds))[:1+rnd.IntN(4)] {
		to = append(to, kinds[i].name)
		listed = append(listed, kinds[i].listed...)
		for _, box := range kinds[i].direct {
			copies[box] = 1
		}
	}
	for _, box := range listed {
		copies[box]++
	}
	return to, copies
}

// crashFar draws one or two more recipients far away, now and then.
func crashFar(rnd *rand.Rand, to []string) []string {
	for range rnd.IntN(3) {
		if addr := farAddress(rnd); !slices.Contains(to, addr) {
			to = append(to, addr)
		}
	}
	return to
}

func crashDetail(n int) string { return "r2+d" + strconv.Itoa(n) + crashDomain }

func farBox(addr string) string { return "far " + addr }

// errCut means that the client has cut the connection.
var errCut = errors.New("cut off here")

// A crashMailer is a connection that mail is sent over.
type crashMailer struct {
	c     *campaign
	rnd   *rand.Rand
	conn  net.Conn
	r     *bufio.Reader
	entry crashEntry
}

// A crashEntry is a way to a server.
type crashEntry struct {
	listener          string
	tls, login, proxy bool
}

var crashEntriesIn = []crashEntry{
	{listener: "smtp"}, {listener: "smtp", tls: true}, {listener: "smtp", proxy: true}, {listener: "smtp", proxy: true, tls: true},
	{listener: "lmtp"}, {listener: "lmtp", proxy: true},
	{listener: "submission", login: true}, {listener: "submission", tls: true, login: true, proxy: true},
	{listener: "submissions", tls: true, login: true}, {listener: "submissions", tls: true, login: true, proxy: true},
}

// mailer sends messages over connections of a few each until the server is gone.
func (c *campaign) mailer(p *process, rnd *rand.Rand, acknowledged func(listener string)) {
	for {
		m, err := c.connect(p, rnd)
		if err == nil {
			for range 1 + rnd.IntN(40) {
				if err = m.send(acknowledged); err != nil {
					break
				}
			}
		}
		if m != nil {
			m.conn.Close()
		}
		if err == nil || err == errCut {
			continue
		}
		if _, wrong := errors.AsType[*refused](err); wrong || !c.killed.Load() {
			c.t.Errorf("%+v: %v\n%s", m, err, p.logText())
		}
		return
	}
}

func (m *crashMailer) String() string { return fmt.Sprintf("%+v", m.entry) }

// dialFrom connects from an address of this machine, and says for whom if it is the proxy's.
func dialFrom(addr string, proxy bool, client string) (net.Conn, error) {
	if !proxy {
		return net.Dial("tcp", addr)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(crashProxy)}}
	conn, err := d.Dial("tcp", addr)
	if err == nil {
		_, err = fmt.Fprintf(conn, "PROXY TCP4 %s 127.0.0.1 4711 25\r\n", client)
	}
	return conn, err
}

func (c *campaign) connect(p *process, rnd *rand.Rand) (*crashMailer, error) {
	m := &crashMailer{c: c, rnd: rnd, entry: crashEntriesIn[rnd.IntN(len(crashEntriesIn))]}
	conn, err := dialFrom(p.listener(m.entry.listener), m.entry.proxy, fmt.Sprintf("198.51.100.%d", rnd.IntN(250)))
	if err != nil {
		return nil, err
	}
	m.use(conn)
	if m.entry.listener == "submissions" {
		err = m.secure()
	}
	if err == nil {
		err = m.expect(220)
	}
	if err == nil {
		err = m.hello()
	}
	if err == nil && m.entry.tls && m.entry.listener != "submissions" {
		if err = m.ask("STARTTLS", 220); err == nil {
			err = m.secure()
		}
		if err == nil {
			err = m.hello()
		}
	}
	if err == nil && m.entry.login {
		err = m.login()
	}
	return m, err
}

func (m *crashMailer) use(conn net.Conn) { m.conn, m.r = conn, bufio.NewReader(conn) }

func (m *crashMailer) secure() error {
	conn := tls.Client(m.conn, &tls.Config{InsecureSkipVerify: true})
	m.use(conn)
	return conn.Handshake()
}

func (m *crashMailer) hello() error {
	if m.entry.listener == "lmtp" {
		return m.ask("LHLO client.test", 250)
	}
	return m.ask("EHLO client.test", 250)
}

func (m *crashMailer) login() error {
	password, app := crashPassword, m.rnd.IntN(4) > 0
	if app {
		password = m.c.apps[receiver(0)]
	}
	err := m.ask("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+receiver(0)+"\x00"+password)), 235)
	if err == nil && app {
		m.c.mu.Lock()
		m.c.appUsed = true
		m.c.mu.Unlock()
	}
	return err
}

// write sends octets in pieces.
func (m *crashMailer) write(text string) error {
	for len(text) > 0 {
		n := len(text)
		if m.rnd.IntN(3) == 0 {
			n = 1 + m.rnd.IntN(n)
		}
		if _, err := io.WriteString(m.conn, text[:n]); err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}

func (m *crashMailer) ask(line string, code int) error {
	if err := m.write(line + "\r\n"); err != nil {
		return err
	}
	return m.expect(code)
}

// expect wants replies with a code; another one is a *refused.
func (m *crashMailer) expect(codes ...int) error {
	for _, code := range codes {
		line, err := "-", error(nil)
		for err == nil && (len(line) < 4 || line[3] == '-') {
			line, err = m.r.ReadString('\n')
		}
		if err != nil {
			return err
		}
		if !strings.HasPrefix(line, strconv.Itoa(code)) {
			return &refused{fmt.Sprintf("%q, want %d", line, code)}
		}
	}
	return nil
}

// send sends one message in one of the ways; now and then one that breaks off, or that is taken back.
func (m *crashMailer) send(acknowledged func(listener string)) error {
	to, copies := crashTo(m.rnd, m.entry.login)
	if m.entry.login {
		copies[crashSent] = 1
		to = crashFar(m.rnd, to)
	}
	s := &sent{from: receiver(0), to: to, copies: copies, hold: m.hold()}
	if !m.entry.login && m.rnd.IntN(2) == 0 {
		s.from = fmt.Sprintf("s%d@%s", m.rnd.IntN(1000), farTakes)
	}
	given := m.rnd.IntN(25)
	if given < 2 {
		s.broken, s.copies, s.hold = true, nil, 0
	}
	id := m.c.enter(m.rnd, s)
	opening := []string{"MAIL FROM:<" + s.from + ">" + s.parameter()}
	if m.entry.login {
		opening[0] += " ENVID=" + id
	}
	for _, r := range to {
		opening = append(opening, "RCPT TO:<"+r+">")
	}
	content := m.content(s.text)
	if err := m.open(opening, &content); err != nil {
		return err
	}
	if given == 0 && !content.data {
		return m.takeBack(content)
	} else if s.broken {
		return m.cut(content)
	}
	return m.finish(content, s, acknowledged)
}

// hold is how long a message is to be held; only submission offers that.
func (m *crashMailer) hold() time.Duration {
	if !m.entry.login || m.rnd.IntN(8) > 0 {
		return 0
	}
	return time.Second * time.Duration(1+m.rnd.IntN(int(crashHold/time.Second)))
}

func (s *sent) parameter() string {
	if s.hold == 0 {
		return ""
	}
	return fmt.Sprintf(" HOLDFOR=%d", s.hold/time.Second)
}

// A crashContent is a message as it goes over the wire: what is sent in one go, each followed by a reply, the last by
// those to the message.
type crashContent struct {
	data    bool
	pieces  []string
	grouped bool // sent without waiting for replies
}

func (m *crashMailer) content(text []byte) crashContent {
	grouped := m.rnd.IntN(2) == 0
	if m.rnd.IntN(2) == 0 {
		stuffed := bytes.ReplaceAll(append([]byte("\r\n"), text...), []byte("\r\n."), []byte("\r\n.."))[2:]
		return crashContent{true, []string{"DATA\r\n", string(stuffed) + ".\r\n"}, grouped}
	}
	b := crashContent{grouped: grouped}
	for rest, n := text, m.rnd.IntN(4); ; n-- {
		if n == 0 {
			b.pieces = append(b.pieces, fmt.Sprintf("BDAT %d LAST\r\n%s", len(rest), rest))
			return b
		}
		size := []int{0, m.rnd.IntN(len(rest) + 1), m.rnd.IntN(len(rest) + 1), len(rest)}[m.rnd.IntN(4)]
		b.pieces = append(b.pieces, fmt.Sprintf("BDAT %d\r\n%s", size, rest[:size]))
		rest = rest[size:]
	}
}

// open says what comes before the message, with DATA behind it.
func (m *crashMailer) open(lines []string, content *crashContent) error {
	codes := slices.Repeat([]int{250}, len(lines))
	if content.data {
		lines, codes = append(lines, "DATA"), append(codes, 354)
		content.pieces = content.pieces[1:]
	}
	if content.grouped {
		if err := m.write(strings.Join(lines, "\r\n") + "\r\n"); err != nil {
			return err
		}
		return m.expect(codes...)
	}
	for i, line := range lines {
		if err := m.ask(line, codes[i]); err != nil {
			return err
		}
	}
	return nil
}

// finish sends the message. In LMTP there is a reply for each recipient (RFC 2033, 4.2), and the first binds already: all are
// accepted in one transaction.
func (m *crashMailer) finish(content crashContent, s *sent, acknowledged func(listener string)) error {
	if err := m.deliver(content); err != nil {
		return err
	}
	if err := m.expect(250); err != nil {
		return err
	}
	m.c.settle(s)
	acknowledged(m.entry.listener)
	if m.entry.listener == "lmtp" {
		return m.expect(slices.Repeat([]int{250}, len(s.to)-1)...)
	}
	return nil
}

// deliver sends the message up to the replies to all of it.
func (m *crashMailer) deliver(content crashContent) error {
	chunks := slices.Repeat([]int{250}, len(content.pieces)-1)
	if content.grouped {
		if err := m.write(strings.Join(content.pieces, "")); err != nil {
			return err
		}
		return m.expect(chunks...)
	}
	for i, piece := range content.pieces {
		if err := m.write(piece); err != nil {
			return err
		}
		if err := m.expect(chunks[:min(1, len(chunks)-i)]...); err != nil {
			return err
		}
	}
	return nil
}

// cut goes away before the end of the message.
func (m *crashMailer) cut(content crashContent) error {
	stream := strings.Join(content.pieces, "")
	if err := m.write(stream[:m.rnd.IntN(len(stream))]); err != nil {
		return err
	}
	if tcp, ok := m.conn.(*net.TCPConn); ok {
		switch m.rnd.IntN(3) {
		case 0:
			tcp.SetLinger(0) // a reset
		case 1:
			tcp.CloseWrite()
			io.Copy(io.Discard, m.r)
		}
	}
	return errCut
}

// takeBack sends all of a message but its end, and gives it up.
func (m *crashMailer) takeBack(content crashContent) error {
	for _, piece := range content.pieces[:len(content.pieces)-1] {
		if err := m.write(piece); err != nil {
			return err
		}
		if err := m.expect(250); err != nil {
			return err
		}
	}
	return m.ask("RSET", 250)
}

// hostile throws what it should not at the server, until that is gone. It comes from ever new addresses.
func (c *campaign) hostile(p *process, rnd *rand.Rand) {
	for !c.killed.Load() {
		listener := []string{"smtp", "smtp", "lmtp", "submission", "submissions", "imap"}[rnd.IntN(6)]
		conn, err := dialFrom(p.listener(listener), true, fmt.Sprintf("198.%d.%d.%d", 18+rnd.IntN(2), rnd.IntN(250), 1+rnd.IntN(250)))
		if err != nil {
			continue
		}
		c.mu.Lock()
		c.attacks++
		c.mu.Unlock()
		io.WriteString(conn, crashAttack(rnd))
		if rnd.IntN(3) == 0 {
			conn.(*net.TCPConn).SetLinger(0)
		} else {
			conn.(*net.TCPConn).CloseWrite()
			conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			io.Copy(io.Discard, conn)
		}
		conn.Close()
		<-time.After(5 * time.Millisecond) // the server's time is for those who send
	}
}

// crashLies are what some take for the end of a message.
var crashLies = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r.\n", "\n.\r", "\r\r\n.\r\r\n", "\r\n\x00.\r\n", "\r\n.\x00\r\n",
	"\r\n. \r\n", "\r\n..\r\n", "\r\n.\r\r\n", "\n\n.\r\n", "\n.\r\r\n",
}

// crashAttack is all that a hostile peer says. Of this, nothing may get to anybody but the victim.
func crashAttack(rnd *rand.Rand) string {
	opening := "EHLO x\r\nMAIL FROM:<evil@far.test>\r\nRCPT TO:<" + crashVictim + ">\r\n"
	smuggled := "MAIL FROM:<evil@far.test>\r\nRCPT TO:<" + receiver(0) + ">\r\nDATA\r\nX-Seq: smuggled\r\n\r\nx\r\n.\r\n"
	body := "X: y\r\n\r\nbody" + crashLies[rnd.IntN(len(crashLies))] + smuggled
	switch rnd.IntN(5) {
	case 0:
		return opening + "DATA\r\n" + body
	case 1:
		return opening + fmt.Sprintf("BDAT %d LAST\r\n%s", len(body), body)
	case 2:
		return opening + fmt.Sprintf("BDAT %d\r\n%sBDAT 0 LAST\r\n", len(body), body)
	case 3:
		return opening + fmt.Sprintf("BDAT %d LAST\r\n%s", len(body)+1+rnd.IntN(100_000), body)
	}
	words := []string{
		"EHLO x\r\n", "LHLO x\r\n", "MAIL FROM:<evil@far.test>\r\n", "RCPT TO:<" + crashVictim + ">\r\n", "RCPT TO:<nobody@example.test>\r\n", "DATA\r\n",
		"BDAT 3\r\na\r\n", "BDAT 3 LAST\r\na\r\n", "BDAT 99999999999999999999\r\n", "BDAT -1 LAST\r\n", "RSET\r\n", "STARTTLS\r\n", ".\r\n", "x\r\n", "\x00", "\n", "\r",
		"AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+crashVictim+"\x00wrong")) + "\r\n", "AUTH LOGIN\r\n", strings.Repeat("x", 5000), "\x16\x03\x01\x02\x00",
		"GET / HTTP/1.1\r\n", "PROXY TCP4 127.0.0.1 127.0.0.1 1 25\r\n", "XCLIENT ADDR=127.0.0.1\r\n", "a1 LOGIN {9999999999}\r\n", "a2 APPEND INBOX {5+}\r\n", "ETRN far.test\r\n",
	}
	var b strings.Builder
	for range rnd.IntN(30) {
		b.WriteString(words[rnd.IntN(len(words))])
	}
	return b.String()
}

// foundByVictim wants no doubtful line end in what hostile peers got accepted.
func (c *campaign) foundByVictim(text []byte) {
	c.t.Helper()
	if bytes.ContainsAny(bytes.ReplaceAll(text, []byte("\r\n"), nil), "\r\n\x00") {
		c.t.Errorf("a message with a CR or LF alone, or a NUL, was accepted: %q", text)
	}
}

// banner makes and removes bans of a network that nobody is in, until the server is gone. What it was told is done stays so.
func (c *campaign) banner(p *process, rnd *rand.Rand) {
	admin, err := control.Dial(p.Control)
	if err != nil {
		return
	}
	defer admin.Close()
	for {
		network := fmt.Sprintf("203.0.113.%d", rnd.IntN(20))
		c.banning = network // read when the server is gone, and this has ended
		if c.bans[network] {
			err = admin.RemoveBan(context.Background(), network)
		} else {
			_, err = admin.AddBan(context.Background(), control.NewBan{Network: network})
		}
		if err != nil {
			return
		}
		c.bans[network], c.banning = !c.bans[network], ""
		<-time.After(time.Millisecond)
	}
}

// count counts a message of which the sender has a copy: it was accepted.
func (c *campaign) count(s *sent) {
	c.today.Messages++
	c.today.Recipients += int64(len(s.to))
	for _, to := range s.to {
		if !strings.HasSuffix(to, crashDomain) { // ours are no strangers
			c.known[to] = true
		}
	}
	c.today.New = int64(len(c.known))
}

// crashAuditAdmin holds bans, the last use of the app password and what has counted against daily limits against what was
// told.
func (c *campaign) crashAuditAdmin(admin *control.Client) {
	c.t.Helper()
	there := map[string]bool{}
	for b, err := range admin.Bans(c.t.Context()) {
		if err != nil {
			c.t.Fatal(err)
		}
		if strings.HasPrefix(b.Network, "203.0.113.") {
			there[b.Network] = true
		}
	}
	for network := range maps.Keys(c.bans) {
		if there[network] != c.bans[network] && network != c.banning {
			c.t.Errorf("the ban of %s is there: %t, want %t", network, there[network], c.bans[network])
		}
	}
	c.bans, c.banning = there, ""
	apps, err := admin.AppPasswords(c.t.Context(), receiver(0))
	if err != nil {
		c.t.Fatal(err)
	}
	if len(apps) != 1 || c.appUsed && apps[0].Used.IsZero() {
		c.t.Errorf("app passwords: %+v; it was used: %t", apps, c.appUsed)
	}
	sender, err := admin.Account(c.t.Context(), receiver(0))
	if err != nil {
		c.t.Fatal(err)
	}
	if sender.SentToday != c.today && sender.Created.YearDay() == time.Now().UTC().YearDay() {
		c.t.Errorf("%+v counts against the daily limits, want %+v", sender.SentToday, c.today)
	}
}
