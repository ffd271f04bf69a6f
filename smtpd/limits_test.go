package smtpd

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/account"
	"postroad/internal/listen/listentest"
	"postroad/internal/sasl"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
	"postroad/smtpd/wire"
	"postroad/spool"
)

func TestMessageSize(t *testing.T) {
	const limit = 10_000
	tests := []struct {
		name string
		size int
		want string
	}{
		{"below", limit - 1, "250 2.0.0"},
		{"at the limit", limit, "250 2.0.0"},
		{"one more", limit + 1, "552 5.3.4"},
		{"twice", 2 * limit, "552 5.3.4"},
		{"far more", 20 * limit, "552 5.3.4"},
	}
	for _, test := range tests {
		for _, way := range []string{"DATA", "BDAT"} {
			t.Run(test.name+" in "+way, func(t *testing.T) {
				h := open(t, MX, false, limits(func(l *Limits) { l.MessageSize = limit }))
				c := h.dial(t)
				body := strings.Repeat("0123456789abc\r\n", test.size)[:test.size-2] + "\r\n"
				body = strings.ReplaceAll(body, "\r\r\n", "x\r\n")
				c.talk(toAlice)
				if way == "DATA" {
					c.talk("> DATA\n< 354")
					go c.send(body + ".\r\n")
				} else {
					go c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(body), body))
				}
				c.expect(test.want)
				accepted := len(h.queue.messages()) == 1
				if accepted != (test.want[0] == '2') {
					t.Errorf("accepted: %v", accepted)
				}
				if test.size <= 2*limit {
					c.talk("> NOOP\n< 250")
				} else {
					c.talk("<-")
				}
			})
		}
	}
	h := open(t, MX, false, limits(func(l *Limits) { l.MessageSize = limit }))
	c := h.dial(t)
	c.talk("< 220\n> EHLO x")
	if caps := c.expect("250"); !strings.Contains(caps, "SIZE 10000\n") {
		t.Errorf("offered\n%s", caps)
	}
	c.talk(`
		> MAIL FROM:<> SIZE=10001
		< 552 5.3.4
		> MAIL FROM:<> SIZE=10000
		< 250
		> RSET
		< 250
		> EHLO x`)
	if caps := c.expect("250"); !strings.Contains(caps, "SIZE 10000\n") {
		t.Errorf("offered after a transaction\n%s", caps)
	}
}

func TestRecipientLimit(t *testing.T) {
	h := open(t, MX, false, limits(func(l *Limits) { l.Recipients = 100 }))
	c := h.dial(t)
	c.talk("< 220\n> EHLO x")
	if caps := c.expect("250"); !strings.Contains(caps, "LIMITS RCPTMAX=100") {
		t.Errorf("offered\n%s", caps)
	}
	c.talk("> MAIL FROM:<>\n< 250")
	go c.send(strings.Repeat("RCPT TO:<both@example.test>\r\n", 200))
	for i := range 200 {
		c.expect(map[bool]string{true: "250", false: "452 4.5.3"}[i < 100])
	}
	c.talk("> DATA\n< 354\n> .\n< 250") // a hundred recipients too many are no errors
	if n := len(h.queue.messages()[0].rcpts); n != 2 {
		t.Errorf("%d recipients", n)
	}
}

func TestErrorLimit(t *testing.T) {
	h := open(t, MX, false, limits(func(l *Limits) { l.Errors = 5 }))
	unknown := "> RCPT TO:<nobody@example.test>\n< 550\n"
	c := h.dial(t)
	c.talk(toAlice + strings.Repeat(unknown, 5) + `
		> DATA
		< 354
		> .
		< 250
		> MAIL FROM:<>
		< 250
		` + strings.Repeat(unknown, 5) + `
		> RCPT TO:<nobody@example.test>
		< 421 4.7.0
		<-`)
	// Commands that are neither MAIL nor RCPT count as well.
	c = h.dial(t)
	c.talk(hello + strings.Repeat("> DATA\n< 503\n", 5) + "> EXPN x\n< 421\n<-")
}

func TestCommandRate(t *testing.T) {
	h := open(t, MX, false, limits(func(l *Limits) { l.CommandsPerMinute = 10 }))
	c := h.dial(t)
	c.talk(hello + strings.Repeat("> NOOP\n< 250\n", 9) + "> NOOP\n< 421 4.7.0\n<-")
	c = h.dial(t)
	c.talk(hello)
	for range 5 { // four replies each: those who bring mail may go on
		c.talk("> MAIL FROM:<>\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354\n> .\n< 250")
	}
}

func TestTransactionLimit(t *testing.T) {
	h := open(t, MX, false, limits(func(l *Limits) { l.TransactionsPerConnection = 2 }))
	h.dial(t).talk(hello + strings.Repeat("> MAIL FROM:<>\n< 250\n> RSET\n< 250\n", 2) + "> MAIL FROM:<>\n< 421 4.7.0\n<-")
}

func TestLineLimit(t *testing.T) {
	h := open(t, MX, false)
	h.dial(t).talk(hello + "> NOOP " + strings.Repeat("x", wire.MaxCommand-7) + "\n< 250")
	h.dial(t).talk(hello + "> NOOP " + strings.Repeat("x", wire.MaxCommand-6) + "\n< 500 5.5.6\n<-")
	h.dial(t).talk(hello + "> AUTH " + strings.Repeat("x", wire.MaxAuth-7) + "\n< 502")
	c := h.dial(t)
	c.talk(hello)
	go io.Copy(c.Conn, strings.NewReader(strings.Repeat("x", 1<<20)))
	if got, err := c.reply(); err == nil && !strings.HasPrefix(got, "500 5.5.6") {
		t.Errorf("got %q", got)
	}
	// Lines of a message may have any length.
	c = h.dial(t)
	c.talk(toAlice + "> DATA\n< 354")
	go c.send("\r\n" + strings.Repeat("x", 2<<20) + "\r\n.\r\n")
	c.expect("250")
}

// far is a listener whose peers are elsewhere.
type far struct{ net.Listener }

func (l far) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return listentest.From(c, net.IPv4(192, 0, 2, 2)), nil
}

func TestConnectionLimits(t *testing.T) {
	h := build(t, MX, false, limits(func(l *Limits) { l.PerAddress = 2 }))
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.serve(t, far{inner})
	h.addr = inner.Addr().String()
	h.dial(t).talk("< 220")
	h.dial(t).talk("< 220")
	h.dial(t).talk("< 421 4.7.0\n<-")
	if n := h.group.Open(); n != 2 {
		t.Errorf("%d connections are said to be open", n)
	}
	h = open(t, MX, false, limits(func(l *Limits) { l.PerAddress = 1 }))
	h.dial(t).talk("< 220")
	h.dial(t).talk("< 220") // loopback: all clients have one address
	h = open(t, MX, false, limits(func(l *Limits) { l.Connections = 1 }))
	h.dial(t).talk("< 220")
	h.dial(t).talk("< 421 4.3.2\n<-")
	h = open(t, Submission, true, limits(func(l *Limits) { l.Connections = 1 }))
	c := h.dial(t)
	c.startTLS()
	c.talk("< 220")
	h.dial(t).talk("<-")
}

func TestLoop(t *testing.T) {
	for hops, want := range map[int]string{100: "250", 101: "554 5.4.6"} {
		h := open(t, MX, false)
		c := h.dial(t)
		c.talk(toAlice + "> DATA\n< 354")
		c.send(strings.Repeat("Received: from a by b;\r\n\tfolded\r\n", hops) + "\r\nReceived: in the body\r\n.\r\n")
		c.expect(want)
	}
}

func TestTimeouts(t *testing.T) {
	tests := []struct {
		name, script, want string
		lasts              time.Duration
	}{
		{"silence", "< 220", "421 4.4.2", 5 * time.Minute},
		{"in a transaction", toAlice, "421 4.4.2", 5 * time.Minute},
		{"in a message", toAlice + "> DATA\n< 354\n> x", "", 3 * time.Minute},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, p := bare(t)
				c := p.dialQuietly(t)
				c.talk(test.script)
				begin := time.Now()
				said, _ := io.ReadAll(c.r)
				if took := time.Since(begin); took != test.lasts || !strings.Contains(string(said), test.want) {
					t.Errorf("closed after %v with %q", took, said)
				}
				s.Shutdown(t.Context())
			})
		})
	}
}

// A transaction in which nobody was accepted keeps no server from ending; one that may yet bring a message does.
func TestShutdownInATransaction(t *testing.T) {
	for _, tt := range []struct {
		script string
		waits  time.Duration
	}{
		{"< 220\n> EHLO client.test\n< 250\n> MAIL FROM:<>\n< 250\n> RCPT TO:<nobody@example.test>\n< 550", 0},
		{toAlice, 10 * time.Second},
		{toAlice + "> RCPT TO:<nobody@example.test>\n< 550", 10 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, p := bare(t)
			c := p.dialQuietly(t)
			c.talk(tt.script)
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			begin := time.Now()
			go io.Copy(io.Discard, c.r)
			if err := s.Shutdown(ctx); time.Since(begin) != tt.waits || (err != nil) != (tt.waits > 0) {
				t.Errorf("after %q it took %v: %v", tt.script, time.Since(begin), err)
			}
		})
	}
}

// One octet now and then does not keep a connection, neither of a command nor of a message.
func TestDawdlers(t *testing.T) {
	for name, script := range map[string]string{"command": "< 220", "message": toAlice + "> DATA\n< 354"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, p := bare(t)
				c := p.dialQuietly(t)
				c.talk(script)
				begin := time.Now()
				go io.Copy(io.Discard, c.r)
				for {
					time.Sleep(10 * time.Second)
					if _, err := io.WriteString(c.Conn, "x"); err != nil {
						break
					}
				}
				if took := time.Since(begin); took > 6*time.Minute {
					t.Errorf("kept for %v", took)
				}
				s.Shutdown(t.Context())
			})
		})
	}
}

// bare is a server for a bubble.
func bare(t *testing.T) (*Server, *pipes) {
	st := storetest.Open(t, new(spool.Spool).References)
	s := NewServer(MX, false, Config{Hostname: "mx.example.test", Store: st, Accounts: &directory{}})
	p := &pipes{listentest.NewPipes()}
	go s.Serve(p)
	return s, p
}

func (p *pipes) dialQuietly(t *testing.T) *client {
	c := p.dial(t)
	c.SetDeadline(time.Time{})
	return c
}

// A login that waits, as after a false password, does not keep the server from ending.
func TestShutdownEndsLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := slowLogins{&directory{}}
		s := NewServer(Submission, false, Config{Hostname: "mx.example.test", Accounts: &directory{}, Logins: slow})
		p := &pipes{listentest.NewPipes()}
		go s.Serve(p)
		c := p.dialQuietly(t)
		c.talk(hello + "\n> AUTH PLAIN " + alicePlain)
		synctest.Wait()
		begin := time.Now()
		go s.Shutdown(t.Context())
		c.talk("< 454 4.7.0")
		if took := time.Since(begin); took > 0 {
			t.Errorf("it took %v", took)
		}
		c.Close()
		s.Shutdown(t.Context())
	})
}

// slowLogins answer when their context ends.
type slowLogins struct{ *directory }

func (l slowLogins) Begin(ctx context.Context, _ account.Client, _ string) (account.Exchange, error) {
	x := &exchange{d: l.directory}
	x.Server = sasl.NewPlain(func(string, string, string) error { <-ctx.Done(); return ctx.Err() })
	return x, nil
}

// Who is logged in to an account that is no more, or was changed, is sent away; others are not.
func TestEndOfAnAccount(t *testing.T) {
	h := open(t, Submission, false)
	alice, bob, nobody := h.dial(t), h.dial(t), h.dial(t)
	alice.talk(loggedIn + "> MAIL FROM:<alice@example.test>\n< 250")
	bob.talk(hello + "> AUTH PLAIN " + b64("\x00bob@example.test\x00secret") + "\n< 235")
	nobody.talk(hello)
	h.End(1)
	alice.talk("< 421 4.7.0\n<-")
	bob.talk("> NOOP\n< 250")
	nobody.talk("> NOOP\n< 250")
}

func TestShutdownWhenIdle(t *testing.T) {
	h := open(t, MX, false)
	var idle []*client
	for _, script := range []string{hello, hello + "> STARTTLS\n< 220\ntls\n> EHLO x\n< 250"} {
		c := h.dial(t)
		c.talk(script)
		idle = append(idle, c)
	}
	for i := 0; i < 2; { // until both wait to be asked again
		i = 0
		for _, c := range h.waiting() {
			i += map[bool]int{true: 1}[c]
		}
		runtime.Gosched()
	}
	if err := h.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	for _, c := range idle {
		c.talk("< 421 4.3.2\n<-")
	}
	if err := h.Serve(listentest.NewPipes()); err == nil {
		t.Error("it serves again")
	}
}

// waiting tells of each connection whether the server waits for it.
func (s *Server) waiting() (list []bool) {
	for _, w := range s.group.Sessions() {
		_, waits := w.(*session).raw.Waiting()
		list = append(list, waits)
	}
	return list
}

// A transaction that is open when the server is told to stop is finished; then the
// connection ends. Nothing new begins.
func TestShutdownFinishesTransactions(t *testing.T) {
	h := open(t, MX, false)
	busy, open := h.dial(t), h.dial(t)
	busy.talk(toAlice + "> DATA\n< 354\n> half")
	open.talk(toAlice)
	end := make(chan error)
	go func() { end <- h.Shutdown(context.Background()) }()
	for !h.group.Draining() {
		runtime.Gosched()
	}
	busy.talk("> .\n< 250 2.0.0 queued\n< 421 4.3.2\n<-")
	open.talk("> RSET\n< 250\n< 421 4.3.2\n<-")
	if err := <-end; err != nil {
		t.Error(err)
	}
	if n := len(h.queue.messages()); n != 1 {
		t.Errorf("%d messages", n)
	}
}

func TestShutdownCutsOff(t *testing.T) {
	h := open(t, MX, false)
	c := h.dial(t)
	c.talk(toAlice + "> DATA\n< 354\n> half")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := h.Shutdown(ctx); err != context.Canceled {
		t.Errorf("shutdown: %v", err)
	}
	c.talk("<-")
	if n := len(h.queue.messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// A message streams: 50 MB cost a bounded heap, however long its lines are.
func TestMemoryOfALargeMessage(t *testing.T) {
	const size = 50 << 20
	short := strings.Repeat("0123456789abcde", 5) + "\r\n"
	for name, line := range map[string]string{"short lines": strings.Repeat(short, 100), "one line": strings.Repeat("x", 4096)} {
		for _, way := range []string{"DATA", "BDAT"} {
			t.Run(name+" in "+way, func(t *testing.T) {
				h := open(t, MX, false, limits(func(l *Limits) { l.MessageSize = size + 100 }))
				c := h.dial(t)
				c.SetDeadline(time.Now().Add(2 * time.Minute))
				c.talk(toAlice)
				n := size / len(line)
				if way == "DATA" {
					c.talk("> DATA\n< 354")
				} else {
					c.send(fmt.Sprintf("BDAT %d LAST\r\n", n*len(line)+4))
				}
				peak := watchHeap(func() {
					c.send("\r\n")
					for range n {
						io.WriteString(c.Conn, line)
					}
					c.send("\r\n" + map[string]string{"DATA": ".\r\n"}[way])
					c.expect("250 2.0.0")
				})
				t.Logf("heap grew by %d KiB", peak>>10)
				if peak > 8<<20 {
					t.Errorf("heap grew by %d KiB", peak>>10)
				}
				if m := h.queue.messages()[0]; m.Size < size-int64(len(line)) {
					t.Errorf("%d octets stored", m.Size)
				}
			})
		}
	}
}

// watchHeap returns by how much the heap grew at most while fn ran.
func watchHeap(fn func()) int64 {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(20)) // what is held, not what waits to be swept
	runtime.GC()
	begin, peak := heap(), int64(0)
	stop := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				peak = max(peak, heap()-begin)
			case <-stop:
				return
			}
		}
	})
	fn()
	close(stop)
	watcher.Wait()
	return peak
}

// A full disk is told as such, and mail comes in again when there is room.
func TestFullDisk(t *testing.T) {
	fs := storetest.NewFaultFS()
	st := storetest.OpenDir(t, t.TempDir(), store.Options{FS: fs, Reserve: 1 << 20}, new(spool.Spool).References)
	h := buildOn(t, st, MX, false)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.serve(t, l)
	c := h.dial(t)
	message := "> MAIL FROM:<a@far.test>\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354\n> x\n> .\n"
	c.talk(hello + message + "< 250")
	fs.SetFree(1000)
	c.talk(message + "< 452 4.3.1")
	large := func() {
		c.talk("> MAIL FROM:<a@far.test>\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354")
		c.send("\r\n" + strings.Repeat("0123456789\r\n", 200_000) + ".\r\n")
	}
	large()
	c.expect("452 4.3.1")
	fs.SetFree(1 << 40)
	c.talk(message + "< 250")
	large()
	c.expect("250")
	if n := len(h.queue.messages()); n != 3 {
		t.Errorf("%d messages", n)
	}
}
