package delivery

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/listen/listentest"
	"postroad/internal/store"
	"postroad/internal/tlsrpt"
	"postroad/internal/trace"
	"postroad/spool"
)

// app is an application in memory that takes posts, until the fixture's network is gone.
type app struct {
	pipes *listentest.Pipes
	srv   http.Server

	mu     sync.Mutex
	say    func(http.ResponseWriter, *http.Request, []byte) // nil is 200
	posts  []post
	refuse bool // connections
}

// post is what the application got as a whole.
type post struct {
	header http.Header
	body   string
	code   int
}

// app begins an application at an address such as "app.test:80".
func (f *fixture) app(addr string) *app {
	a := &app{pipes: listentest.NewPipes()}
	a.srv.Handler = a
	var served sync.WaitGroup
	served.Go(func() { a.srv.Serve(a.pipes) })
	f.t.Cleanup(func() { a.srv.Close(); served.Wait() })
	next := f.cfg.Dial
	if next == nil {
		next = f.net.Dial
	}
	f.cfg.Dial = func(ctx context.Context, from netip.Addr, network, to string) (net.Conn, error) {
		switch {
		case to != addr:
			return next(ctx, from, network, to)
		case a.refusing():
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		}
		return a.pipes.Dial(), nil
	}
	return a
}

func (a *app) refusing() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refuse
}

func (a *app) set(fn func(*app)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fn(a)
}

// answers makes the application answer so from now on.
func (a *app) answers(code int, text string, header ...string) {
	a.set(func(a *app) {
		a.say = func(w http.ResponseWriter, _ *http.Request, _ []byte) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			io.WriteString(w, text)
		}
	})
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || int64(len(body)) != r.ContentLength {
		return
	}
	a.mu.Lock()
	say := a.say
	a.mu.Unlock()
	rec := &recorder{ResponseWriter: w, code: 200}
	if say != nil {
		say(rec, r, body)
	}
	a.set(func(a *app) { a.posts = append(a.posts, post{r.Header.Clone(), string(body), rec.code}) })
}

type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) { r.code = code; r.ResponseWriter.WriteHeader(code) }

// got returns what came so far.
func (a *app) got() []post {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.posts)
}

const secret = "a secret of sixteen octets and more"

// check verifies the signature of a post.
func (p *post) check(t *testing.T) {
	t.Helper()
	m := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(m, "%s.%s.", p.header.Get("Webhook-Id"), p.header.Get("Webhook-Timestamp"))
	if e := p.header.Get("Postroad-Envelope"); e != "" {
		io.WriteString(m, e+".")
	}
	io.WriteString(m, p.body)
	if want := "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil)); p.header.Get("Webhook-Signature") != want {
		t.Errorf("the signature of %s is wrong", p.header.Get("Webhook-Id"))
	}
}

type postEnvelope struct {
	Message, From, Account, Arrived string
	EnvelopeID                      string `json:"envelope_id"`
	To                              []string
}

func (p *post) envelope(t *testing.T) (e postEnvelope) {
	t.Helper()
	if err := json.Unmarshal([]byte(p.header.Get("Postroad-Envelope")), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// httpRoute sends mail for app.test to an application.
func (f *fixture) httpRoute() *app {
	f.cfg.Routes = append(f.cfg.Routes, Route{Domain: "app.test", Kind: HTTP, URL: "http://app.test/in?key=hidden", Secret: secret})
	return f.app("app.test:80")
}

func TestHTTPRoute(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		a := f.httpRoute()
		f.start()
		m := &spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>"), ID: "order \x01 7"}, Origin: spool.Origin{Account: "alice@a.test"}}
		id := f.accept(m, letter, f.rcpts("one@app.test", `"t\"wo, x"@app.test`, "gr\u00fcn@app.test")...)
		f.drained()
		posts := a.got()
		if len(posts) != 1 {
			t.Fatalf("%d posts came", len(posts))
		}
		p := posts[0]
		p.check(t)
		if want := strings.TrimPrefix(letter, "Return-Path: <>\r\n"); p.body != want {
			t.Errorf("%q came", p.body)
		}
		e := p.envelope(t)
		want := []string{"one@app.test", `"t\"wo, x"@app.test`, "gr\u00fcn@app.test"}
		if e.Message != id.String() || e.From != "alice@a.test" || e.Account != "alice@a.test" || e.EnvelopeID != "order \x01 7" || !slices.Equal(e.To, want) {
			t.Errorf("the envelope is %+v", e)
		}
		if p.header.Get("Content-Type") != "message/rfc822" || p.header.Get("Webhook-Id") != id.String()+"-0-1-2" {
			t.Errorf("the header is %q", p.header)
		}
		list, err := trace.New(f.st, trace.Limits{}).Message(id)
		if last := list[len(list)-1]; err != nil || !strings.Contains(last.Dialogue, "= POST to app.test:") || strings.Contains(last.Dialogue, "hidden") {
			t.Errorf("the dialogue is %q, %v", last.Dialogue, err)
		}
		if all := strings.Join(f.events(id), "\n"); strings.Count(all, "relayed") != 1 || !strings.Contains(all, "250 2.0.0 HTTP 200") || strings.Contains(all, "hidden") {
			t.Errorf("the trace says\n%s", all)
		}
	})
}

// Each answer means what the page says, and the sender hears of a refusal only.
func TestHTTPAnswers(t *testing.T) {
	for _, tt := range []struct {
		code  int
		text  string
		event string // at the end of the trace
		left  bool   // in the queue
	}{
		{200, "", "relayed one@app.test 250 2.0.0 HTTP 200 OK", false},
		{202, "kept\r\nas 7", "relayed one@app.test 250 2.0.0 HTTP 202 kept as 7", false},
		{204, "", "relayed one@app.test 250 2.0.0 HTTP 204 No Content", false},
		{302, "", "attempt one@app.test 451 4.3.0 redirects are not followed, so the url is to be where they lead: HTTP 302 Found", true},
		{400, "", "attempt one@app.test 451 4.3.0 HTTP 400 Bad Request", true},
		{401, "", "attempt one@app.test 451 4.3.0 HTTP 401 Unauthorized", true},
		{404, "", "attempt one@app.test 451 4.3.0 HTTP 404 Not Found", true},
		{408, "", "attempt one@app.test 451 4.3.0 HTTP 408 Request Timeout", true},
		{425, "", "attempt one@app.test 451 4.3.0 HTTP 425 Too Early", true},
		{429, "", "attempt one@app.test 451 4.3.0 HTTP 429 Too Many Requests", true},
		{500, "trouble \x1b[31m", "attempt one@app.test 451 4.3.0 HTTP 500 trouble ?[31m", true},
		{503, "", "attempt one@app.test 451 4.3.0 HTTP 503 Service Unavailable", true},
		{406, "", "bounced one@app.test 554 5.6.0 HTTP 406 Not Acceptable", false},
		{410, "", "bounced one@app.test 550 5.1.6 HTTP 410 Gone", false},
		{413, "", "bounced one@app.test 552 5.3.4 HTTP 413 Request Entity Too Large", false},
		{422, "no such order", "bounced one@app.test 554 5.6.0 HTTP 422 no such order", false},
	} {
		t.Run(fmt.Sprint(tt.code), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				a := f.httpRoute()
				a.answers(tt.code, tt.text)
				f.start()
				id := f.submit("<alice@a.test>", "one@app.test")
				settle()
				events := f.events(id)
				if got := events[len(events)-1]; got != tt.event {
					t.Errorf("the trace ends with\n%q, not\n%q", got, tt.event)
				}
				if left := len(f.queue()) > 0; left != tt.left {
					t.Errorf("the queue holds %q", f.queue())
				}
				if bounced := len(f.mail("alice")) > 0; bounced != (tt.code/100 == 4 && !tt.left) {
					t.Errorf("the sender has %q", f.mail("alice"))
				}
			})
		})
	}
}

// Retry-After is the least wait.
func TestHTTPRetryAfter(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		a := f.httpRoute()
		a.answers(429, "", "Retry-After", "7200")
		f.start()
		f.submit("<alice@a.test>", "one@app.test")
		f.pass(2*time.Hour - time.Minute)
		if n := len(a.got()); n != 1 {
			t.Errorf("%d posts within the two hours", n)
		}
		a.answers(200, "")
		f.pass(2 * time.Minute)
		f.drained()
	})
}

// What many recipients need goes in posts whose header every server takes, and each recipient is in one.
func TestHTTPManyRecipients(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		a := f.httpRoute()
		f.start()
		var to []string
		for i := range 250 {
			to = append(to, fmt.Sprintf("%s%d@app.test", strings.Repeat("x", 50), i))
		}
		f.submit("<alice@a.test>", to...)
		f.pass(time.Minute)
		f.drained()
		seen := map[string]int{}
		ids := map[string]bool{}
		for _, p := range a.got() {
			p.check(t)
			if n := len(p.header.Get("Postroad-Envelope")); n > maxEnvelope {
				t.Errorf("an envelope has %d octets", n)
			}
			ids[p.header.Get("Webhook-Id")] = true
			for _, x := range p.envelope(t).To {
				seen[x]++
			}
		}
		if len(seen) != len(to) || slices.Max(slices.Collect(maps.Values(seen))) != 1 || len(ids) != len(a.got()) {
			t.Errorf("%d recipients were named in %d posts with %d ids", len(seen), len(a.got()), len(ids))
		}
	})
}

// When nobody answers, mail waits, and none of it waits longer for being many.
func TestHTTPUnreachable(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		a := f.httpRoute()
		a.set(func(a *app) { a.refuse = true })
		f.start()
		for range 5 {
			f.submit("<alice@a.test>", "one@app.test")
		}
		f.pass(time.Minute)
		if q := f.queue(); len(q) != 5 || slices.ContainsFunc(q, func(s string) bool { return !strings.HasSuffix(s, "deferred") }) {
			t.Errorf("the queue holds %q", q)
		}
		a.set(func(a *app) { a.refuse = false })
		f.pass(time.Hour)
		f.drained()
		if n := len(a.got()); n != 5 {
			t.Errorf("%d messages came", n)
		}
	})
}

// An application that hangs up in the middle, before or after it has the whole: tried again, with the same id.
func TestHTTPHangsUp(t *testing.T) {
	for _, tt := range []struct {
		name     string
		read     int64
		doubtful bool
	}{{"in the middle", 10_000, false}, {"before the answer", 1 << 30, true}} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				a := f.httpRoute()
				var first string
				a.srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if first == "" {
						first = r.Header.Get("Webhook-Id")
						io.CopyN(io.Discard, r.Body, tt.read)
						panic(http.ErrAbortHandler)
					}
					a.ServeHTTP(w, r)
				})
				f.start()
				text := letter + strings.Repeat("a line\r\n", 100_000)
				id := f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>")}}, text, f.rcpts("one@app.test")...)
				f.pass(time.Hour)
				f.drained()
				posts := a.got()
				if len(posts) != 1 || posts[0].header.Get("Webhook-Id") != first {
					t.Errorf("%d posts came; the first had the id %s", len(posts), first)
				}
				if doubtful := strings.Contains(strings.Join(f.events(id), "\n"), "possibly delivered"); doubtful != tt.doubtful {
					t.Errorf("the trace says %q", f.events(id))
				}
			})
		})
	}
}

// A crash between the answer and its record: posted again with the same id, and the trace says that it may be twice.
func TestHTTPCrash(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		a := f.httpRoute()
		var dir string
		a.set(func(a *app) {
			a.say = func(http.ResponseWriter, *http.Request, []byte) {
				if dir == "" {
					dir = f.crashed()
				}
			}
		})
		f.start()
		id := f.submit("<alice@a.test>", "one@app.test")
		f.drained()
		f.restart(dir)
		f.start()
		f.pass(time.Minute)
		f.drained()
		posts := a.got()
		if len(posts) != 2 || posts[0].header.Get("Webhook-Id") != posts[1].header.Get("Webhook-Id") {
			t.Errorf("the posts are %v", posts)
		}
		if all := strings.Join(f.events(id), "\n"); !strings.Contains(all, "possibly delivered: the server stopped") {
			t.Errorf("the trace says\n%s", all)
		}
	})
}

// Whatever an application and a crash do, each message is settled once, and comes a second time only where the first
// answer was lost. The seed replays a failure.
func TestHTTPAudit(t *testing.T) {
	for seed := range uint64(5) {
		bubble(t, func(t *testing.T, f *fixture) { testHTTPAudit(t, f, seed) })
	}
}

func testHTTPAudit(t *testing.T, f *fixture, seed uint64) {
	random, fates := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
	a := f.httpRoute()
	var mu sync.Mutex
	took, lost := map[string]int{}, map[string]int{} // by Webhook-Id: the answers that took it, and of these those that were lost
	crash, dir, again := 5+random.IntN(20), "", false
	a.srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		id := r.Header.Get("Webhook-Id")
		fate := fates.IntN(6)
		if fate == 0 {
			io.CopyN(io.Discard, r.Body, 1000)
			panic(http.ErrAbortHandler)
		}
		body, err := io.ReadAll(r.Body)
		switch {
		case err != nil || int64(len(body)) != r.ContentLength:
			return
		case fate == 1:
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		took[id]++
		if crash--; crash == 0 {
			dir = f.crashed()
		}
		if fate == 2 || dir != "" && !again { // after the copy was made, all that is learned is lost
			lost[id]++
		}
		if fate == 2 {
			panic(http.ErrAbortHandler)
		}
	})
	f.start()
	ids := map[string]store.ID{}
	for i := range 30 {
		text := letter + strings.Repeat("a line\r\n", random.IntN(3000))
		m := &spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>")}}
		id := f.accept(m, text, f.rcpts(fmt.Sprintf("n%d@app.test", i))...)
		ids[id.String()+"-0"] = id
		f.pass(time.Duration(random.IntN(60)) * time.Second)
		mu.Lock()
		now, over := dir, again
		mu.Unlock()
		if now != "" && !over {
			f.restart(now)
			mu.Lock()
			again = true
			mu.Unlock()
			f.start()
		}
	}
	f.pass(5 * 24 * time.Hour)
	f.drained()
	mu.Lock()
	defer mu.Unlock()
	for hookID, id := range ids {
		events := f.events(id)
		if len(events) == 0 {
			continue // accepted after the copy of the crash was made
		}
		relayed := 0
		for _, e := range events {
			if strings.HasPrefix(e, "relayed ") {
				relayed++
			}
		}
		if relayed != 1 || took[hookID] != 1+lost[hookID] {
			t.Errorf("seed %d: %s was taken %d times, and %d of the answers were lost: %q", seed, hookID, took[hookID], lost[hookID], events)
		}
	}
	for hookID := range took {
		if _, ok := ids[hookID]; !ok {
			t.Errorf("seed %d: %s is no message of ours", seed, hookID)
		}
	}
}

// A message that is damaged is not handed over, and waits for a person.
func TestHTTPDamaged(t *testing.T) {
	for _, key := range []string{secret, ""} { // without one, it is found when all but the end is sent
		bubble(t, func(t *testing.T, f *fixture) {
			a := f.httpRoute()
			f.cfg.Routes[0].Secret = key
			f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>")}}, strings.Replace(letter, "body", "UNIQUE-MARK", 1), f.rcpts("one@app.test")...)
			flip(t, f.dir, "UNIQUE-MARK")
			f.start()
			f.pass(time.Minute)
			if q := f.queue(); len(q) != 1 || q[0] != "one@app.test hold" || len(a.got()) != 0 {
				t.Errorf("the queue holds %q, and %d posts came", q, len(a.got()))
			}
			flip(t, f.dir, "uNIQUE-MARK")
		})
	}
}

// What needs TLS does not go where there is none.
func TestHTTPRequireTLS(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		a := f.httpRoute()
		f.start()
		id := f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>"), RequireTLS: true}}, letter, f.rcpts("one@app.test")...)
		f.drained()
		if len(a.got()) != 0 || !strings.Contains(strings.Join(f.events(id), "\n"), "550 5.7.30") {
			t.Errorf("%d posts; %q", len(a.got()), f.events(id))
		}
	})
}

// A stranger's address leads nowhere inside.
func TestReportNeverGoesInside(t *testing.T) {
	for _, url := range []string{"https://127.0.0.1/", "https://inside.test/", "https://[::1]:8443/x", "https://10.0.0.1/"} {
		bubble(t, func(t *testing.T, f *fixture) {
			f.dns.Host("inside.test", "192.168.1.1", "::1")
			f.start()
			f.accept(&spool.Message{}, "gzip", spool.Recipient{
				Recipient: envelope.Recipient{To: path("<tlsrpt@y.test>")}, Transport: tlsrpt.Transport(url),
			})
			f.pass(time.Minute)
			if d := f.net.dialled(); len(d) != 0 {
				t.Errorf("%s: dialled %q", url, d)
			}
			if q := f.queue(); len(q) != 1 || !strings.HasSuffix(q[0], "deferred") {
				t.Errorf("the queue holds %q", q)
			}
		})
	}
}

func TestASCII(t *testing.T) {
	text, _ := json.Marshal([]string{"gr\u00fcn", "\U0001f600", "\x7f\r\n\t\"", "<a>"})
	got := ascii(text)
	if i := bytes.IndexFunc([]byte(got), func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
		t.Errorf("%q has %q", got, got[i])
	}
	var back []string
	if err := json.Unmarshal([]byte(got), &back); err != nil || back[1] != "\U0001f600" || back[2] != "\x7f\r\n\t\"" {
		t.Errorf("%q, %v", back, err)
	}
}
