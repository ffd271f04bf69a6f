package imapd

import (
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postroad/internal/imaptest"
	"postroad/internal/store"
)

// What a hostile client can try; with what is hidden from it in rights_test.go, with compression in compress_test.go.

// overBoth runs a test over TCP and over TLS.
func overBoth(t *testing.T, test func(t *testing.T, h *house, dial func() *raw), options ...option) {
	for name, implicit := range map[string]bool{"TCP": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			all := slices.Clone(options)
			if implicit {
				all = append(all, withTLS(t))
			}
			h := buildHouse(t, store.Options{}, all...)
			_, addr := h.serve(implicit)
			test(t, h, func() *raw {
				conn, err := net.Dial("tcp", addr)
				h.must(err)
				if implicit {
					conn = tls.Client(conn, insecureTLS())
				}
				c := newRaw(t, conn)
				c.expect("* OK [...")
				return c
			})
		})
	}
}

func (c *raw) login() *raw {
	c.t.Helper()
	c.dialog(`
		> l LOGIN alice@example.test "correct horse"
		< l OK ...`)
	return c
}

// answer returns the tagged answer to a command, or the BAD or BYE that stands for it.
func (c *raw) answer(tag string) string {
	c.t.Helper()
	for {
		line := c.line()
		if strings.HasPrefix(line, tag+" ") || strings.HasPrefix(line, "* BYE ") || strings.HasPrefix(line, "* BAD ") {
			return line
		}
	}
}

// refused wants NO or BAD, and a session that goes on.
func (c *raw) refused(command string) {
	c.t.Helper()
	c.send(command + "\r\n")
	tag, _, _ := strings.Cut(command, " ")
	if line := c.answer(tag); !strings.HasPrefix(line, tag+" NO ") && !strings.HasPrefix(line, tag+" BAD ") && !strings.HasPrefix(line, "* BAD ") {
		c.t.Errorf("%.100q was answered %q", command, line)
	}
	c.lives()
}

func (c *raw) lives() {
	c.t.Helper()
	c.send("z NOOP\r\n")
	if line := c.answer("z"); !strings.HasPrefix(line, "z OK ") {
		c.t.Errorf("NOOP was answered %q", line)
	}
}

// push sends more than the server may want to read, and does not mind when it hangs up meanwhile.
func (c *raw) push(text string) {
	c.conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c.conn, text)
}

// takes fails when fn allocates more than a number of MiB in all.
func takes(t *testing.T, most uint64, fn func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > most {
		t.Errorf("%d MiB were allocated", used)
	}
}

// Literals of any size are refused before anything is allocated for them.
func TestLiteralsOfAnySize(t *testing.T) {
	overBoth(t, func(t *testing.T, h *house, dial func() *raw) {
		takes(t, 32, func() {
			sizes := []string{"4294967295", "9223372036854775807", "18446744073709551616", "-1", "99999999999999999999999999", "1x", ""}
			c := dial().login()
			for _, size := range sizes {
				c.refused("a SELECT {" + size + "}")
				c.refused("a LOGIN x {" + size + "}")
			}
			for _, size := range sizes[:3] {
				c.refused("a APPEND INBOX {" + size + "}")
			}
			for _, size := range []int{8193, 65536, 4294967295} {
				c := dial()
				c.refused(fmt.Sprintf("a LOGIN {%d}", size))
				c = dial()
				go c.push(fmt.Sprintf("a LOGIN {%d+}\r\n%s\r\n", size, strings.Repeat("x", min(size, 100_000))))
				if line := c.answer("a"); strings.HasPrefix(line, "a OK") {
					t.Errorf("a stranger's literal of %d octets is taken: %q", size, line)
				}
			}
		})
	})
}

// A stranger's commands are small, and few.
func TestStrangersBudget(t *testing.T) {
	overBoth(t, func(t *testing.T, h *house, dial func() *raw) {
		for _, command := range []string{"a NOOP", "a CAPABILITY", "a ID (\"name\" \"" + strings.Repeat("x", 500) + "\")"} {
			c := dial()
			go c.push(strings.Repeat(command+"\r\n", 1<<20/len(command)))
			c.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			read, err := io.ReadAll(c.r)
			if timedOut(err) {
				t.Errorf("a stranger may give any number of %.10s; the last answers were %q", command, read[max(0, len(read)-200):])
			}
		}
	})
}

// The literals and words of one command are bounded in their sum.
func TestManyArguments(t *testing.T) {
	overBoth(t, func(t *testing.T, h *house, dial func() *raw) {
		h.deliver("INBOX", hello)
		takes(t, 300, func() {
			c := dial().login()
			c.open("INBOX")
			for _, command := range []string{
				"a SEARCH" + strings.Repeat(" SUBJECT {1+}\r\nx", 100_000),
				"a FETCH 1 BODY.PEEK[HEADER.FIELDS (" + strings.Repeat("x ", 400_000) + "y)]",
				"a FETCH 1 (" + strings.Repeat("BODY.PEEK[TEXT] ", 50_000) + "UID)",
				"a STORE 1 +FLAGS (" + strings.Repeat("x ", 400_000) + "y)",
				`a LIST "" (` + strings.Repeat("x ", 400_000) + "y)",
				`a STATUS INBOX (` + strings.Repeat("MESSAGES ", 100_000) + "UNSEEN)",
				`a ID (` + strings.Repeat(`"a" "b" `, 100_000) + `"c" "d")`,
				"a SEARCH" + strings.Repeat(" {2000+}\r\n"+strings.Repeat("x", 2000), 1000),
			} {
				go c.push(command + "\r\n")
				line := c.answer("a")
				if strings.HasPrefix(line, "* BYE ") {
					c = dial().login()
					c.open("INBOX")
					continue
				}
				c.lives()
			}
		})
	})
}

// What is never closed, and lines without an end, cost little.
func TestNesting(t *testing.T) {
	overBoth(t, func(t *testing.T, h *house, dial func() *raw) {
		takes(t, 2000, func() { // of 150 connections
			for _, loggedIn := range []bool{false, true} {
				for _, text := range []string{"(", ")", "[", "]", "{", "}", `"`, `\`, "<", "*", "x", " ", "\x00", "\xff", "~"} {
					for _, before := range []string{"", "a ", "a SEARCH ", "a FETCH 1 ", "a LIST "} {
						c := dial()
						end := ""
						if loggedIn {
							c.login()
							end = "\r\n" // an account's client has a minute to send it
						}
						go func() {
							c.push(before)
							for piece, n := strings.Repeat(text, 100_000), 0; n < 20; n++ {
								c.push(piece)
							}
							c.push(end)
						}()
						c.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
						line, err := c.r.ReadString('\n')
						switch {
						case timedOut(err):
							t.Errorf("%q and %q for ever: nothing is said", before, text)
						case err == nil && !strings.Contains(line, " BAD ") && !strings.Contains(line, " BYE "):
							t.Errorf("%q and %q for ever: %q", before, text, line)
						}
						c.conn.Close()
					}
					if testing.Short() {
						break
					}
				}
			}
		})
	})
}

// Depth and sets of SEARCH are bounded; odd numbers are answered in words.
func TestDepthAndSets(t *testing.T) {
	overBoth(t, func(t *testing.T, h *house, dial func() *raw) {
		c := dial().login()
		c.open("INBOX")
		c.dialog(`
			> e SEARCH 1:*
			< * SEARCH
			< e OK ...
			> f UID FETCH 1:* FLAGS
			< f OK ...
			> g UID SEARCH UID 4294967295:1
			< * SEARCH
			< g OK ...`)
		for _, command := range []string{
			"a SEARCH " + strings.Repeat("NOT ", 100_000) + "SEEN",
			"a SEARCH " + strings.Repeat("OR SEEN ", 100_000) + "SEEN",
			"a SEARCH " + strings.Repeat("(", 100_000) + "SEEN" + strings.Repeat(")", 100_000),
			"a SEARCH " + strings.Repeat("FUZZY ", 100_000) + "SUBJECT x",
			"a SEARCH MODSEQ 18446744073709551616",
			"a SEARCH 0", "a SEARCH 1:0", "a FETCH 0 UID", "a UID FETCH 4294967296 FLAGS", "a SEARCH UID 99999999999", "a SEARCH LARGER 99999999999999999999",
			"a SEARCH OLDER 0", "a SEARCH SINCE 99-Jan-2020", "a SEARCH SINCE 1-Jan-99999999999",
		} {
			c.refused(command)
		}
		var odd strings.Builder
		for n := 1; odd.Len() < 900_000; n += 2 {
			fmt.Fprintf(&odd, "%d,", n)
		}
		c.send("a UID SEARCH UID " + odd.String() + "1\r\n")
		if line := c.answer("a"); strings.HasPrefix(line, "* BYE") {
			t.Errorf("a large set ends the session: %q", line)
		}
		c.lives()
	})
}

// A pattern of many wildcards is matched in linear time against many mailboxes.
func TestPatterns(t *testing.T) {
	h := newHouse(t)
	var all sync.WaitGroup
	for w := range 50 { // together, so that one commit takes many
		all.Go(func() {
			for i := range 20 {
				if _, err := h.config.Mailboxes.Create(h.owner, fmt.Sprintf("%s/%d-%d", strings.Repeat("a", 60), w, i), ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	c := h.loggedIn()
	began := time.Now()
	c.dialog(`
		> a LIST "" "` + strings.Repeat("*%a", 100) + `b"
		< a OK ...`)
	if took := time.Since(began); took > 2*time.Second { // one that tries all ways takes ages
		t.Errorf("LIST took %v", took)
	}
	c.refused(`a LIST "" ` + strings.Repeat("*", 100_000))
}

// Names are never paths, and no name can forge a response.
func TestNames(t *testing.T) {
	overBoth(t, func(t *testing.T, h *house, dial func() *raw) {
		before := filesOf(t, h.dir)
		c := dial().login()
		names := []string{
			"..", "../..", "../../etc/passwd", "/", "//", "/etc/passwd", "a/../b", `\`, `..\..`, "~", "~root", "~root/x", ".", "./a", "a/", "a//b", "#news", "&",
			"a\r\n* 5 EXISTS", "a\nb", "a\x00b", "a\tb", `"`, `"quoted"`, "%", "*", "a*b", "{5}", "(", ")", "[x]", "]", "NIL", "a b", " ", "a ", " a",
			"inbox", "Inbox/x", "INBOX/../x", strings.Repeat("x", 64<<10), strings.Repeat("x/", 1000), strings.Repeat("é", 300), "\u202e\u200b", "a\u0301", "\u00e1",
		}
		for i, name := range names {
			for _, verb := range []string{"CREATE", "SUBSCRIBE", "SELECT", "STATUS", "DELETE", "UNSUBSCRIBE"} {
				if i%3 == 0 && verb == "DELETE" {
					continue // so that LIST has some
				}
				rest := ""
				if verb == "STATUS" {
					rest = " (MESSAGES)"
				}
				c.send(fmt.Sprintf("a %s {%d+}\r\n%s%s\r\n", verb, len(name), name, rest))
				if line := c.wellFormed("a"); strings.HasPrefix(line, "* BYE") {
					t.Fatalf("%s %.50q ends the session: %s", verb, name, line)
				}
			}
		}
		for _, command := range []string{`a LIST "" *`, `a LSUB "" *`, `a LIST (SUBSCRIBED) "" * RETURN (STATUS (MESSAGES))`, "a ENABLE IMAP4rev2 UTF8=ACCEPT", `a LIST "" *`} {
			c.send(command + "\r\n")
			if line := c.wellFormed("a"); !strings.HasPrefix(line, "a OK") {
				t.Errorf("%s: %s", command, line)
			}
		}
		if after := filesOf(t, h.dir); !slices.Equal(before, after) {
			t.Errorf("the files were %q and are %q", before, after)
		}
	})
}

// wellFormed reads responses up to the tagged one with a reader that takes nothing else.
func (c *raw) wellFormed(tag string) string {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if c.strict == nil {
		r := imaptest.NewReader(c.r)
		c.strict = &r
	}
	for {
		response, err := c.strict.Response()
		if err != nil {
			c.t.Fatalf("%v after %v", err, response)
		}
		if len(response) > 1 && (response[0].Is(tag) || response[1].Is("BYE")) {
			words := make([]string, len(response))
			for i, w := range response {
				words[i] = w.String()
			}
			return strings.Join(words, " ")
		}
	}
}

func filesOf(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// A name in modified UTF-7 has one form; what is none names nothing.
func TestModifiedUTF7(t *testing.T) {
	h := newHouse(t)
	c := h.loggedIn()
	for _, name := range []string{
		"&AGE-", "&AGEAYg-", "x&AGE-y", "&2AA-", "&3AA-", "&AOk", "&AOk-&AOk", "&AO-", "&AOl-", "&AOkA-", "&AO!-", "&-&", "&AOk-&AOk-", "&/+8-/", "&AAA-", "&AA0ACg-", "a&",
		"&AOk=-", "&,,8A-",
	} {
		c.refused(`a CREATE "` + name + `"`)
		c.dialog(`
			> l LIST "" "` + name + `"
			< l ...`)
	}
	c.dialog(`
		> a CREATE &AOkA6Q-
		< a OK ...
		> b CREATE e&AwE-e&AwE-
		< b NO ...
		> c STATUS e&AwE-e&AwE- (MESSAGES)
		< * STATUS ... (MESSAGES 0)
		< c OK ...
		> d LIST "" &AOkA6Q-
		< * LIST (\HasNoChildren) "/" &AOkA6Q-
		< d OK ...`)
}

// The quota holds against many at once, by no more than one message; a flood of small messages, dates and keywords is no harm.
func TestAppend(t *testing.T) {
	overBoth(t, func(t *testing.T, h *house, dial func() *raw) {
		const size, quota = 100_000, 1_000_000
		h.setQuota(quota)
		message := "Subject: x\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", size/16)
		var all sync.WaitGroup
		for range 20 {
			c := dial().login()
			all.Go(func() {
				for range 3 {
					c.push(fmt.Sprintf("a APPEND INBOX {%d+}\r\n%s\r\n", len(message), message))
					if line := c.answer("a"); !strings.HasPrefix(line, "a OK") && !strings.HasPrefix(line, "a NO [OVERQUOTA]") {
						t.Errorf("answered %q", line)
					}
				}
			})
		}
		all.Wait()
		if octets, _, err := h.config.Mailboxes.Usage(h.owner); err != nil || octets > quota+int64(len(message)) {
			t.Errorf("%d octets with a quota of %d, %v", octets, quota, err)
		}
		c := dial().login()
		c.dialog(`
			> a APPEND INBOX " 1-Jan-99999 00:00:00 +0000" {3+}
			> abc
			< a BAD ...
			> b APPEND INBOX "31-Feb-2020 00:00:00 +0000" {3+}
			> abc
			< b BAD ...
			> c APPEND INBOX "01-Jan-2020 25:61:00 +9999" {3+}
			> abc
			< c BAD ...`)
		var flood strings.Builder
		for i := range 2000 {
			fmt.Fprintf(&flood, " k%d", i)
		}
		c.dialog(`
			> d APPEND Archive (x` + flood.String() + `) {3+}
			> abc
			< d OK ...
			> e APPEND Archive {3+}
			> abc (\Seen) {3+}
			> def
			< e OK ...
			> f SELECT Archive`)
		for line := ""; !strings.HasPrefix(line, "f OK"); line = c.line() {
			if n := len(strings.Fields(line)); strings.HasPrefix(line, "* FLAGS") && n > 510 {
				t.Errorf("a mailbox has %d flags", n)
			}
		}
	})
}

// A message that is a bomb is answered from what was worked out at delivery, within bounds.
func TestBombs(t *testing.T) {
	h := newHouse(t)
	bombs := map[string]string{
		"nested multiparts": nest(2000, func(i int) string {
			return fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
		}),
		"nested messages": strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 5000),
		"many parts":      "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nx\r\n", 100_000),
		"many addresses":  "To: " + strings.Repeat("a@b.c, ", 100_000) + "d@e.f\r\n\r\nx\r\n",
		"many parameters": "Content-Type: text/plain" + strings.Repeat("; a=b", 100_000) + "\r\n\r\nx\r\n",
		"many fields":     strings.Repeat("X: y\r\n", 100_000) + "\r\nx\r\n",
		"one long field":  "Subject: " + strings.Repeat("x", 1<<20) + "\r\n\r\nx\r\n",
		"nested comments": "From: " + strings.Repeat("(", 100_000) + "a@b.c\r\n\r\nx\r\n",
		"nested groups":   "To: " + strings.Repeat("a:", 100_000) + "\r\n\r\nx\r\n",
	}
	for _, bomb := range bombs {
		h.deliver("INBOX", bomb)
	}
	c := h.loggedIn()
	c.open("INBOX")
	takes(t, 200, func() {
		for _, item := range []string{"ENVELOPE", "BODY", "BODYSTRUCTURE", "PREVIEW", "BODY.PEEK[1]", "BODY.PEEK[1.1.1.MIME]", "BODY.PEEK[HEADER.FIELDS (TO)]", "BINARY.SIZE[1]"} {
			c.send("a FETCH 1:* " + item + "\r\n")
			if line := c.wellFormed("a"); !strings.HasPrefix(line, "a OK") && !strings.HasPrefix(line, "a NO") {
				t.Errorf("%s: %s", item, line)
			}
		}
		for _, command := range []string{"a SEARCH TEXT nothing", "a SEARCH TO nobody", "a SORT (SUBJECT FROM TO) UTF-8 ALL", "a THREAD REFERENCES UTF-8 ALL"} {
			c.send(command + "\r\n")
			if line := c.wellFormed("a"); !strings.HasPrefix(line, "a OK") {
				t.Errorf("%s: %s", command, line)
			}
		}
	})
}

func nest(n int, level func(int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(level(i))
	}
	return b.String()
}

// Sections of any depth and partials of any size are answered.
func TestSectionsAndPartials(t *testing.T) {
	overBoth(t, func(t *testing.T, h *house, dial func() *raw) {
		h.deliver("INBOX", hello)
		c := dial().login()
		c.open("INBOX")
		for _, item := range []string{
			"BODY.PEEK[" + strings.Repeat("1.", 5000) + "1]", "BODY.PEEK[4294967295]", "BODY.PEEK[1.4294967296]", "BODY.PEEK[0]", "BODY.PEEK[1.0]",
			"BODY.PEEK[]<0.9223372036854775808>", "BODY.PEEK[]<9223372036854775807.9223372036854775807>", "BODY.PEEK[]<0.0>", "BODY.PEEK[]<-1.5>",
			"BODY.PEEK[]<4294967295.4294967295>", "BODY.PEEK[]<4294967296.1>", "BINARY.PEEK[1]<4294967295.4294967295>", "BODY.PEEK[1]<1>", "BODY.PEEK[TEXT]<5.99999999999>",
		} {
			c.send("a FETCH 1 " + item + "\r\n")
			line := c.wellFormed("a")
			if strings.HasPrefix(line, "* BYE") {
				t.Fatalf("%.60s ends the session: %s", item, line)
			}
		}
		c.send("b FETCH 1 (BODY.PEEK[]<5.3> BODY.PEEK[]<5000.3>)\r\n")
		if line := c.wellFormed("b"); !strings.HasPrefix(line, "b OK") {
			t.Error(line)
		}
	})
}

// Sessions on one mailbox expunge, fetch, close and idle at once; each is answered, and numbers mean what they should.
func TestManySessions(t *testing.T) {
	overBoth(t, func(t *testing.T, h *house, dial func() *raw) {
		h.deliverMany("INBOX", 300)
		sessions := 60
		if testing.Short() {
			sessions = 12
		}
		var all sync.WaitGroup
		for n := range sessions {
			c := dial().login()
			all.Go(func() { c.busy(n) })
		}
		all.Wait()
		c := dial().login()
		c.send("a SELECT INBOX\r\n")
		c.answer("a")
		c.send("b UID SEARCH ALL\r\n")
		line := c.line()
		count := len(strings.Fields(line)) - 2
		c.answer("b")
		m, err := h.config.Mailboxes.Get(h.owner, "INBOX")
		if err != nil || int(m.Messages) != count {
			t.Errorf("%d messages, and SEARCH finds %d, %v", m.Messages, count, err)
		}
	})
}

// busy is one of many sessions.
func (c *raw) busy(n int) {
	commands := []string{
		"SELECT INBOX", fmt.Sprintf("STORE %d:%d +FLAGS (\\Deleted)", 1+n, 2+n), "EXPUNGE", "FETCH 1:* (UID FLAGS)", "UNSELECT", "SELECT INBOX",
		"IDLE", "DONE", fmt.Sprintf("UID COPY %d INBOX", 10+n), "FETCH 1:* BODY.PEEK[]", "NOOP", "CLOSE", "EXAMINE INBOX", "SEARCH ALL", "SELECT Archive",
		"IDLE", "DONE", "SELECT INBOX", "UID EXPUNGE 1:*", "CLOSE",
	}
	for i, command := range commands {
		if command == "DONE" {
			c.send("DONE\r\n")
		} else {
			c.send(fmt.Sprintf("t%d %s\r\n", i, command))
		}
		if command == "IDLE" {
			continue
		}
		tag := fmt.Sprintf("t%d", i)
		if command == "DONE" {
			tag = fmt.Sprintf("t%d", i-1)
		}
		if line := c.answer(tag); !strings.HasPrefix(line, tag+" OK") && !strings.HasPrefix(line, tag+" NO") {
			c.t.Errorf("%s was answered %q", command, line)
		}
	}
}

// A client that goes away in IDLE without DONE, or floods with IDLE, leaves nothing behind.
func TestIdleLeavesNothing(t *testing.T) {
	overBoth(t, func(t *testing.T, h *house, dial func() *raw) {
		c := dial().login()
		c.open("INBOX")
		go c.push(strings.Repeat("i IDLE\r\nDONE\r\n", 5000))
		for range 5000 {
			if line := c.answer("i"); !strings.HasPrefix(line, "i OK") {
				t.Fatalf("answered %q", line)
			}
		}
		for range 20 {
			gone := dial().login()
			gone.open("INBOX")
			gone.dialog("> i IDLE\n< + ...")
			gone.conn.Close()
		}
		h.deliver("INBOX", hello)
		c.dialog("> n NOOP\n< * 1 EXISTS")
		c.answer("n")
	})
}

// Who does not read a large FETCH holds up nobody: others go on, also with what is being sent.
func TestSlowReader(t *testing.T) {
	overBoth(t, func(t *testing.T, h *house, dial func() *raw) {
		large := "Subject: x\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", 64<<10)
		for range 30 {
			h.deliver("INBOX", large)
		}
		slow := dial().login()
		slow.open("INBOX")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		slow.send("a FETCH 1:* (BODY.PEEK[])\r\n")
		c := dial().login()
		c.open("INBOX")
		for i := range 20 {
			c.send(fmt.Sprintf("s STORE %d +FLAGS.SILENT (\\Deleted)\r\n", i+1))
			c.answer("s")
		}
		c.send("e EXPUNGE\r\n")
		if line := c.answer("e"); !strings.HasPrefix(line, "e OK") {
			t.Error(line)
		}
		runtime.ReadMemStats(&after)
		if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 16 {
			t.Errorf("%d MiB were allocated for one who does not read", used)
		}
		slow.conn.Close()
		c.lives()
	}, func(c *Config) { c.Limits.Write = time.Minute })
}

// A login that is refused changes nothing, and commands behind a login run once.
func TestLoginState(t *testing.T) {
	overBoth(t, func(t *testing.T, h *house, dial func() *raw) {
		c := dial()
		c.dialog(`
			> a LOGIN alice@example.test wrong
			> b CREATE NotYet
			> c LIST "" *
			< a NO ...
			< b BAD ...
			< c BAD ...`)
		c = dial()
		c.dialog(`
			> a LOGIN alice@example.test "correct horse"
			> b CREATE Once
			> c CREATE Once
			> d APPEND Once {3+}
			> abc
			> e STATUS Once (MESSAGES)
			< a OK ...
			< b OK ...
			< c NO [ALREADYEXISTS] ...
			< d OK ...
			< * STATUS Once (MESSAGES 1)
			< e OK ...
			> f LOGIN bob@example.test x
			< f BAD ...
			> g LIST "" NotYet
			< g OK ...
			> h STATUS Once (MESSAGES)
			< * STATUS Once (MESSAGES 1)
			< h OK ...`)
		c = dial()
		c.send("a AUTHENTICATE PLAIN\r\n")
		c.expect("+ ...")
		c.dialog(`
			> b CREATE Within
			< a BAD ...
			> d LIST "" *
			< d BAD ...`)
	})
}
