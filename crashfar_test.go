package postroad_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"

	"postroad/internal/dns/dnstest"
)

// The far site of TestCrash is the rest of the world: names, mail servers, a store behind LMTP, and applications. What a
// server there does with a message goes by the recipient's domain, which says its name.
const (
	farTakes = "far.test"  // everything
	farDrops = "drop.test" // breaks off: mostly after the end of a message, which it keeps or not
	farGreys = "grey.test" // "later" to every other recipient
	farBusy  = "busy.test" // "later" to every other message
	farGone  = "gone.test" // there is nobody
	farPark  = "park.test" // as farTakes; administrators suspend it
	farHold  = "hold.test" // as farTakes; administrators hold its mail
	farSup   = "sup.test"  // as farTakes; administrators suppress its addresses
	farLMTP  = "lmtp.test" // a store: says of each recipient what it wants, or breaks off
	farApp   = "app.test"  // an application: takes it, says "later", or breaks off
	farHost  = "mx.sink.test"
	farSpare = "spare" // a route that is only used by order
)

// crashRoutes are the routes to the far site: %s are ports of mail, the URL of applications, and the DNS server.
const crashRoutes = `[[route]]
domain = "*"
host = "` + farHost + `"
port = %[1]s
tls = "none"
[[route]]
domain = "` + farDrops + `"
host = "` + farHost + `"
port = %[1]s
tls = "none"
[[route]]
domain = "` + farBusy + `"
host = "127.0.0.1"
port = %[1]s
tls = "none"
[[route]]
domain = "` + farLMTP + `"
transport = "lmtp"
host = "127.0.0.1"
port = %[1]s
tls = "none"
[[route]]
name = "` + farSpare + `"
host = "127.0.0.1"
port = %[2]s
tls = "none"
[[route]]
domain = "` + farApp + `"
transport = "http"
url = "%[3]s/mail"
[[webhook]]
name = "crash"
url = "%[3]s/events"
secret = "known to crash campaigns"
[dns]
servers = [%[4]q]
[retry]
first = "1s"
max = "1s"
jitter = 0.0
`

// A farSite keeps what comes to it, and in which life of the server here.
type farSite struct {
	t     testing.TB
	names *dnstest.Server
	mail  string // ports
	spare string
	apps  string // URL

	mu     sync.Mutex
	rnd    *rand.Rand
	life   int
	open   map[int]int // connections by life
	got    []farMail
	dialed map[string]int // recipients that were named in RCPT: in which life last
	events map[string]farEvent
	took   map[string]int    // how many of them were taken, by message, recipient and type
	posts  map[string]string // of events, by their ids
}

// farMail is one message for one recipient.
type farMail struct {
	by, from, to string // by is the way: "mail", farSpare, "lmtp" or "http"
	text         string
}

// farEvent is what was posted as one event.
type farEvent struct {
	ID, Type, Message, Recipient string

	text  string
	taken bool // the post was answered by 200
}

func newFarSite(t *testing.T, seed uint64) *farSite {
	f := &farSite{
		t: t, names: dnstest.NewServer(t), rnd: rand.New(rand.NewPCG(seed, 2)), open: map[int]int{},
		dialed: map[string]int{}, events: map[string]farEvent{}, took: map[string]int{}, posts: map[string]string{},
	}
	f.names.Add(farHost + ". 0 IN A 127.0.0.1")
	f.mail, f.spare = f.listen("mail"), f.listen(farSpare)
	mux := http.NewServeMux()
	mux.HandleFunc("/mail", f.application(f.takeMail))
	mux.HandleFunc("/events", f.application(f.takeEvents))
	apps := httptest.NewServer(mux)
	t.Cleanup(apps.Close)
	f.apps = apps.URL
	return f
}

func (f *farSite) listen(by string) (port string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			life := f.begin()
			go func() {
				defer f.end(life)
				defer conn.Close()
				s := &farSession{f: f, Conn: textproto.NewConn(conn), life: life, by: by}
				s.run()
			}()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func (f *farSite) begin() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open[f.life]++
	return f.life
}

func (f *farSite) end(life int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open[life]--
}

// died says that the server here has ended, and waits until nothing more comes from it.
func (f *farSite) died() {
	f.mu.Lock()
	f.life++
	f.mu.Unlock()
	eventually(f.t, "the far site idle", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for life, n := range f.open {
			if life < f.life && n > 0 {
				return false
			}
		}
		return true
	})
}

// draw draws a number below n.
func (f *farSite) draw(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rnd.IntN(n)
}

func (f *farSite) keep(by, from string, to []string, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, addr := range to {
		f.got = append(f.got, farMail{by, from, addr, text})
	}
}

// take returns the mail that has come so far, and forgets it.
func (f *farSite) take() []farMail {
	f.mu.Lock()
	defer f.mu.Unlock()
	got := f.got
	f.got = nil
	return got
}

// lastDialed is the life in which somebody was last named in RCPT; -1 when that never was.
func (f *farSite) lastDialed(addr string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if life, ok := f.dialed[addr]; ok {
		return life
	}
	return -1
}

// now is the life that there is now.
func (f *farSite) now() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.life
}

// A farSession is one connection to a mail server of the far site.
type farSession struct {
	*textproto.Conn
	f    *farSite
	life int
	by   string
	from string
	to   []string
}

// errFarCut means that the far site cuts the connection.
var errFarCut = io.ErrClosedPipe

func (s *farSession) run() {
	s.PrintfLine("220 far.test")
	for {
		line, err := s.ReadLine()
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(line, " ")
		_, rest, _ = strings.Cut(rest, "<")
		addr, _, _ := strings.Cut(rest, ">")
		switch strings.ToUpper(verb) {
		case "LHLO":
			s.by = "lmtp"
			err = s.hello()
		case "EHLO":
			err = s.hello()
		case "MAIL", "RSET":
			s.from, s.to = addr, nil
			err = s.PrintfLine("250 ok")
		case "RCPT":
			err = s.recipient(addr)
		case "DATA":
			err = s.data()
		case "QUIT":
			s.PrintfLine("221 bye")
			return
		default:
			err = s.PrintfLine("500 what")
		}
		if err != nil {
			return
		}
	}
}

func (s *farSession) hello() error {
	return s.PrintfLine("250-far.test\r\n250-8BITMIME\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE")
}

func farDomain(addr string) string { return addr[strings.LastIndexByte(addr, '@')+1:] }

func (s *farSession) recipient(addr string) error {
	s.f.mu.Lock()
	s.f.dialed[addr] = s.life
	s.f.mu.Unlock()
	domain, luck := farDomain(addr), s.f.draw(2)
	switch {
	case domain == farGone:
		return s.PrintfLine("550 5.1.1 nobody of this name")
	case domain == farGreys && luck == 0:
		return s.PrintfLine("450 4.7.1 come again")
	}
	s.to = append(s.to, addr)
	return s.PrintfLine("250 2.1.5 ok")
}

// data takes a message, or does not.
func (s *farSession) data() error {
	if len(s.to) == 0 {
		return s.PrintfLine("503 5.5.1 for whom")
	}
	s.PrintfLine("354 go on")
	text, err := crashDot(s.R)
	if err != nil {
		return err
	}
	if s.by == "lmtp" {
		return s.store(string(text))
	}
	domain, luck := farDomain(s.to[0]), s.f.draw(8)
	switch {
	case domain == farDrops && luck == 0:
		return errFarCut
	case domain == farBusy && luck == 0:
		s.PrintfLine("421 4.3.2 good night")
		return errFarCut
	case domain == farBusy && luck < 4:
		return s.PrintfLine("451 4.3.0 later")
	}
	s.f.keep(s.by, s.from, s.to, string(text))
	s.to = nil
	if domain == farDrops && luck < 3 {
		return errFarCut
	}
	return s.PrintfLine("250 2.0.0 ok")
}

// store is the end of a message in LMTP (RFC 2033, 4.2).
func (s *farSession) store(text string) error {
	for _, addr := range s.to {
		switch s.f.draw(8) {
		case 0:
			return errFarCut
		case 1:
			s.PrintfLine("451 4.2.0 <%s> later", addr)
		case 2:
			s.f.keep(s.by, s.from, []string{addr}, text)
			return errFarCut
		default:
			s.f.keep(s.by, s.from, []string{addr}, text)
			if err := s.PrintfLine("250 2.1.5 <%s> ok", addr); err != nil {
				return err
			}
		}
	}
	return nil
}

// crashDot reads to the end of DATA.
func crashDot(r *bufio.Reader) (text []byte, err error) {
	for {
		line, err := r.ReadBytes('\n')
		switch {
		case err != nil:
			return nil, err
		case string(line) == ".\r\n":
			return text, nil
		case line[0] == '.':
			line = line[1:]
		}
		text = append(text, line...)
	}
}

// application takes what is posted, says "later", or breaks off.
func (f *farSite) application(take func(r *http.Request, body []byte, good bool)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		life := f.begin()
		defer f.end(life)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		switch f.draw(8) {
		case 0:
			w.WriteHeader(http.StatusInternalServerError)
		case 1:
			panic(http.ErrAbortHandler)
		case 2:
			take(r, body, false)
			panic(http.ErrAbortHandler)
		default:
			take(r, body, true)
		}
	}
}

// takeMail takes a post of an HTTP route.
func (f *farSite) takeMail(r *http.Request, body []byte, _ bool) {
	var e struct {
		From string
		To   []string
	}
	if err := json.Unmarshal([]byte(r.Header.Get("Postroad-Envelope")), &e); err != nil {
		f.t.Errorf("a post of mail has the envelope %q: %v", r.Header.Get("Postroad-Envelope"), err)
	}
	f.keep("http", e.From, e.To, string(body))
}

// takeEvents takes a post of a webhook: what comes again must be what it was.
func (f *farSite) takeEvents(r *http.Request, body []byte, good bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := r.Header.Get("Webhook-Id")
	if was, again := f.posts[id]; again && was != string(body) {
		f.t.Errorf("the post %s came again with other octets: %.500q after %.500q", id, body, was)
	}
	f.posts[id] = string(body)
	var posted struct{ Events []json.RawMessage }
	if err := json.Unmarshal(body, &posted); err != nil {
		f.t.Errorf("a post of events is %.500q: %v", body, err)
	}
	for _, raw := range posted.Events {
		e := farEvent{text: string(bytes.TrimSpace(raw))}
		if err := json.Unmarshal(raw, &e); err != nil || e.ID == "" {
			f.t.Errorf("an event is %q: %v", raw, err)
		}
		if was := f.events[e.ID]; was.text != "" && was.text != e.text {
			f.t.Errorf("event %s came as %s and as %s", e.ID, was.text, e.text)
		}
		e.taken = f.events[e.ID].taken
		if good && !e.taken {
			e.taken = true
			f.took[e.Message+" "+e.Recipient+" "+e.Type]++
		}
		f.events[e.ID] = e
	}
}

// told is how many events of a type there are that applications have taken, about a recipient of a message.
func (f *farSite) told(message, recipient, kind string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.took[message+" "+recipient+" "+kind]
}

// forget forgets the events of before.
func (f *farSite) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events, f.took, f.posts, f.dialed = map[string]farEvent{}, map[string]int{}, map[string]string{}, map[string]int{}
}

// farAddress draws an address for which there is something special about mail to it.
func farAddress(rnd *rand.Rand) string {
	switch d := []string{farDrops, farDrops, farGreys, farBusy, farGone, farPark, farHold, farHold, farSup, farLMTP, farApp}[rnd.IntN(11)]; d {
	case farGone:
		return "u" + strconv.Itoa(rnd.IntN(40)) + "@" + d
	case farSup:
		return supAddress(rnd.IntN(crashSups))
	case farLMTP:
		return "u" + strconv.Itoa(rnd.IntN(3)) + "@" + d
	default:
		return "u@" + d
	}
}
