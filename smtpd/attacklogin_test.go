package smtpd_test

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/account"
	"postroad/smtpd"
)

// E: logging in. What the directory and the mechanisms do by themselves is tested where they are.

// inBubble runs a test with a submission server in memory, where waiting costs nothing.
func inBubble(t *testing.T, test func(t *testing.T, s *server)) {
	synctest.Test(t, func(t *testing.T) { test(t, newHouse(t).inMemory(smtpd.Submission, true)) })
}

// hello is a peer from an address that was greeted, over TLS.
func (s *server) helloFrom(t *testing.T, ip net.IP) *peer {
	t.Helper()
	return s.pipe(t, ip).talk("< 220\n> EHLO x\n< 250")
}

// mayNotSend wants that nobody is logged in, or that the connection is over.
func (p *peer) mayNotSend() {
	p.t.Helper()
	p.send("MAIL FROM:<alice@example.test>\r\n")
	if got, err := p.reply(); err == nil && got.code < 400 {
		p.t.Errorf("somebody is logged in: %s", got)
	}
}

// plainly logs in with an initial response and returns the reply.
func (p *peer) plainly(identity, user, password string) reply {
	p.t.Helper()
	p.send("AUTH PLAIN " + plain(identity, user, password) + "\r\n")
	got, err := p.reply()
	if err != nil {
		p.t.Fatal(err)
	}
	return got
}

// fresh is an address in a network of its own.
func fresh(i int) net.IP { return net.IPv4(198, 18, byte(i), 7).To4() }

// TestE01ActingForOthers: a password opens its own account and no other.
func TestE01ActingForOthers(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *server) {
		for i, who := range []struct {
			identity, user, password string
			code                     int
		}{
			{"", "alice@example.test", alicesPassword, 235},
			{"alice@example.test", "alice@example.test", alicesPassword, 235},
			{"ALICE@Example.test", "alice@example.test", alicesPassword, 235},
			{"bob@example.test", "alice@example.test", alicesPassword, 535},
			{"root", "alice@example.test", alicesPassword, 535},
			{"postmaster@example.test", "alice@example.test", alicesPassword, 535},
			{"alice@example.test", "bob@example.test", alicesPassword, 535},
			{"alice@example.test ", "alice@example.test", alicesPassword, 535},
			{"alice@example.test", "", alicesPassword, 535},
		} {
			p := s.helloFrom(t, fresh(i))
			if got := p.plainly(who.identity, who.user, who.password); got.code != who.code && !(who.code == 535 && got.code == 501) {
				t.Errorf("%q as %q: %s", who.user, who.identity, got)
			}
			if who.code != 235 {
				p.mayNotSend()
			}
			p.Close()
		}
		p := s.helloFrom(t, fresh(99))
		p.plainly("", "alice@example.test", alicesPassword)
		p.talk("> MAIL FROM:<bob@example.test>\n< 553 5.7.1|550 5.7.1\n> AUTH PLAIN AAAA\n< 503\n> MAIL FROM:<alice@example.test>\n< 250\n> AUTH PLAIN AAAA\n< 503")
	})
}

// TestE02BrokenResponses: whatever a response is, nobody is logged in by it, and others log in as before.
func TestE02BrokenResponses(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *server) {
		raw := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
		responses := []string{
			"*", "=", "", " ", "====", "A", "AA", "AAA", "A===", "!!!!", "AAAA AAAA", "AAAA=AAAA", "\x00", "\xff\xff", "AGFsaWNl\x00", raw("\x00"), raw("\x00\x00"), raw("\x00\x00\x00"), raw(strings.Repeat("\x00", 1000)),
			raw("alice@example.test"), raw("alice@example.test\x00" + alicesPassword), raw("\x00alice@example.test\x00" + alicesPassword + "\x00"), raw("\x00alice@example.test\x00" + alicesPassword + "\n"),
			raw("\x00alice@example.test\x00"), raw("\x00\x00" + alicesPassword), raw("\x00alice@example.test\x00" + strings.Repeat("x", 9000)), raw("\x00" + strings.Repeat("x", 9000) + "\x00y"),
			strings.TrimRight(plain("", "alice@example.test", alicesPassword+"x"), "=") + "\r", raw("n,,n=alice,r=\x00"), raw("p=tls-exporter,,n=alice,r=abc"), raw("n,,m=x,n=alice,r=abc"), raw("y,a=bob,n=alice,r=abc"),
			strings.Repeat("A", 12_000), strings.Repeat("A", 12_289), strings.Repeat("A", 1<<20),
		}
		n := 0
		for _, mechanism := range []string{"PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "OAUTHBEARER", "XOAUTH2", "EXTERNAL", "CRAM-MD5", "NTLM", "plain", "", "PLAIN PLAIN", "\x00"} {
			for _, response := range responses {
				n++
				for i, initial := range []bool{true, false} {
					if testing.Short() && n%4 != i {
						continue
					}
					p := s.helloFrom(t, fresh(n))
					begin := "AUTH " + mechanism + "\r\n"
					if initial {
						begin = "AUTH " + mechanism + " " + response + "\r\n"
					}
					p.send(begin)
					got, err := p.reply()
					for range 5 {
						if err != nil || got.code != 334 {
							break
						}
						p.send(response + "\r\n")
						got, err = p.reply()
					}
					if err == nil && got.code < 400 {
						t.Errorf("AUTH %s with %.30q: %s", mechanism, response, got)
					}
					p.mayNotSend()
					p.Close()
				}
			}
		}
		p := s.helloFrom(t, net.IPv4(203, 0, 113, 77))
		p.talk("> AUTH PLAIN\n< 334\n> *\n< 501\n> MAIL FROM:<alice@example.test>\n< 530\n> AUTH LOGIN\n< 334\n> *\n< 501")
		if got := p.plainly("", "alice@example.test", alicesPassword); got.code != 235 {
			t.Errorf("after two that were given up: %s", got)
		}
	})
}

// TestE03UnknownUsers: who does not exist is answered as who does, in words and in time.
func TestE03UnknownUsers(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *server) {
		type answer struct {
			said string
			took time.Duration
		}
		answers := map[string][]answer{}
		for i, user := range []string{"alice@example.test", "nobody@example.test", "alice@elsewhere.test", "postmaster@example.test", "away@example.test", "@", strings.Repeat("x", 200) + "@example.test"} {
			p := s.helloFrom(t, fresh(i))
			for try := range 3 {
				began := time.Now()
				got := p.plainly("", user, fmt.Sprintf("wrong-%d", try))
				answers[user] = append(answers[user], answer{got.String(), time.Since(began)})
			}
			p.Close()
		}
		for user, got := range answers {
			if !slices.Equal(got, answers["alice@example.test"]) {
				t.Errorf("%.30s: %v\nand alice: %v", user, got, answers["alice@example.test"])
			}
		}
		var scram []string
		for i, user := range []string{"alice@example.test", "nobody@example.test"} {
			p := s.helloFrom(t, fresh(100+i))
			challenge, _ := p.scram(t, "n,,", user, "wrong", nil)
			parts := strings.Split(challenge, ",")
			scram = append(scram, fmt.Sprint(len(parts[0]), len(parts[1]), parts[2]))
			p.Close()
		}
		if scram[0] != scram[1] {
			t.Errorf("challenges %q", scram)
		}
	})
}

// TestE04Guessing: a network that guesses is refused; the account's own people log in all the while, at once.
func TestE04Guessing(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *server) {
		home := net.IPv4(192, 0, 2, 200)
		if got := s.helloFrom(t, home).plainly("", "alice@example.test", alicesPassword); got.code != 235 {
			t.Fatal(got)
		}
		refused, judged := 0, 0
		for i := range 60 {
			c := s.pipe(t, net.IPv4(203, 0, 113, byte(5+i%2))) // one /24
			if got, err := c.reply(); err != nil || got.code != 220 {
				refused++
				continue
			}
			c.talk("> EHLO x\n< 250")
			for try := range 3 {
				c.send("AUTH PLAIN " + plain("", "alice@example.test", fmt.Sprintf("guess-%d-%d", i, try)) + "\r\n")
				got, err := c.reply()
				if err != nil || got.code == 235 {
					t.Fatal(got, err)
				}
				if strings.Contains(got.String(), "try again later") || got.code == 454 {
					refused++
				} else {
					judged++
				}
				if got.code == 421 {
					break
				}
			}
			c.Close()
		}
		if judged > 60 || refused == 0 {
			t.Errorf("%d guesses were judged, %d refused", judged, refused)
		}
		began := time.Now()
		if got := s.helloFrom(t, home).plainly("", "alice@example.test", alicesPassword); got.code != 235 || time.Since(began) > 2*time.Second {
			t.Errorf("alice at home: %s, after %v", got, time.Since(began))
		}
	})
}

// TestE05Secrets: no password is in the log or in a reply, whatever the name beside it is made of.
func TestE05Secrets(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *server) {
		var said strings.Builder
		const secret = "correct-horse-3141"
		names := []string{"%", "*", ")(", "*)(uid=*))(|(uid=*", `"`, `'; drop table aa; --`, "a\nb", "a\rb", "a\x1b[2Jb", "ä@example.test", "\xff\xfe", "../../etc/passwd", "$(id)", "`id`", "%s%n", "alice@example.test%00", "{{.}}", "alice@example.test\u202e", secret[:0]}
		for i, name := range names {
			p := s.helloFrom(t, fresh(i))
			said.WriteString(p.plainly("", name, secret).String())
			p.send("AUTH LOGIN\r\n")
			p.expect("334")
			p.send(base64.StdEncoding.EncodeToString([]byte(name)) + "\r\n")
			if got, err := p.reply(); err == nil && got.code == 334 {
				p.send(base64.StdEncoding.EncodeToString([]byte(secret)) + "\r\n")
				got, _ = p.reply()
				said.WriteString(got.String())
			}
			p.send(secret + "\r\nAUTH PLAIN " + secret + "\r\nAUTH " + secret + "\r\nVRFY " + secret + "x\r\n")
			p.Close()
		}
		p := s.helloFrom(t, fresh(200))
		said.WriteString(p.plainly("", "alice@example.test", alicesPassword).String())
		text := s.log.String() + said.String()
		for _, leaked := range []string{"correct-horse", alicesPassword, plain("", "alice@example.test", alicesPassword), base64.StdEncoding.EncodeToString([]byte(secret))} {
			if i := strings.Index(text, leaked); i >= 0 {
				t.Errorf("%q is told: %.200q", leaked, text[max(0, i-100):])
			}
		}
		if strings.ContainsFunc(strings.ReplaceAll(text, "\n", ""), control) {
			t.Error("a name brings control octets into the log or a reply")
		}
	})
}

// scram begins SCRAM-SHA-256, or the PLUS form when the header asks for a binding, and answers the challenge, which it returns with the last reply. change may change the
// last message before its proof is made.
func (p *peer) scram(t *testing.T, header, user, password string, change func(string) string) (string, reply) {
	t.Helper()
	first := "n=" + user + ",r=fyko+d2lbbFgONRv9qkxdawL"
	mechanism := "SCRAM-SHA-256 "
	if strings.HasPrefix(header, "p=") {
		mechanism = "SCRAM-SHA-256-PLUS "
	}
	p.send("AUTH " + mechanism + base64.StdEncoding.EncodeToString([]byte(header+first)) + "\r\n")
	got, err := p.reply()
	if err != nil || got.code != 334 {
		return "", got
	}
	challenge, err := base64.StdEncoding.DecodeString(got.text[0])
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(challenge), ",")
	salt, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(parts[1], "s="))
	iterations, _ := strconv.Atoi(strings.TrimPrefix(parts[2], "i="))
	last := "c=" + base64.StdEncoding.EncodeToString([]byte(header)) + "," + parts[0]
	if change != nil {
		last = change(last)
	}
	p.send(base64.StdEncoding.EncodeToString([]byte(last+",p="+proof(password, salt, iterations, first+","+string(challenge)+","+last))) + "\r\n")
	got, err = p.reply()
	if err == nil && got.code == 334 {
		p.send("\r\n")
		got, _ = p.reply()
	}
	return string(challenge), got
}

// proof is ClientProof of RFC 5802, 3.
func proof(password string, salt []byte, iterations int, message string) string {
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	salted, _ := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	key := mac(salted, "Client Key")
	stored := sha256.Sum256(key)
	signature := mac(stored[:], message)
	for i := range key {
		key[i] ^= signature[i]
	}
	return base64.StdEncoding.EncodeToString(key)
}

// TestE06Scram: a proof is good once, for its own exchange, with the binding that the client could have.
func TestE06Scram(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *server) {
		if _, got := s.helloFrom(t, fresh(0)).scram(t, "n,,", "alice@example.test", alicesPassword, nil); got.code != 235 {
			t.Fatalf("a good one: %s", got)
		}
		other := base64.StdEncoding.EncodeToString([]byte("y,,"))
		for i, test := range []struct {
			name, header, password string
			change                 func(string) string
		}{
			{"a wrong password", "n,,", "wrong", nil},
			{"another's name", "n,a=bob@example.test,", alicesPassword, nil},
			{"only our part of the nonce", "n,,", alicesPassword, func(s string) string { return s[:strings.Index(s, ",r=")+3] + "fyko+d2lbbFgONRv9qkxdawL" }},
			{"a nonce of before", "n,,", alicesPassword, func(s string) string { return s + "x" }},
			{"another binding than it said", "n,,", alicesPassword, func(s string) string { return "c=" + other + s[strings.IndexByte(s, ','):] }},
			{"a binding that is none", "p=tls-unique,,", alicesPassword, nil},
			{"an extension that must be known", "n,,", alicesPassword, func(s string) string { return "m=x," + s }},
		} {
			p := s.helloFrom(t, fresh(1+i))
			if _, got := p.scram(t, test.header, "alice@example.test", test.password, test.change); got.code < 400 {
				t.Errorf("%s: %s", test.name, got)
			}
			p.mayNotSend()
		}
		plus := s.pipe(t, fresh(50)).talk("< 220\n> EHLO x").expect("250")
		if strings.Contains(plus.String(), "SCRAM-SHA-256-PLUS") {
			// Who says that we offer no binding did not see our list: somebody stands in between.
			p := s.helloFrom(t, fresh(51))
			if _, got := p.scram(t, "y,,", "alice@example.test", alicesPassword, nil); got.code < 400 {
				t.Errorf("the binding was stripped: %s", got)
			}
		}
	})
}

// TestE07RememberedPasswords: that a password was right for one does not make it right for another, nor any other right.
func TestE07RememberedPasswords(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *server) {
		for i, who := range []struct {
			identity, user, password string
			good                     bool
		}{
			{"", "alice@example.test", alicesPassword, true}, {"", "alice@example.test", alicesPassword, true}, {"", "ALICE@example.test", alicesPassword, true},
			{"", "bob@example.test", alicesPassword, false}, {"", "alice@example.test", bobsPassword, false}, {"", "alice@example.test", alicesPassword + "\u200b", false},
			{"", "alice@example.test" + alicesPassword, "", false}, {"", "alice@example.test", strings.ToUpper(alicesPassword), false}, {"", "alice@example.test", alicesPassword + " ", false},
			{"bob@example.test", "alice@example.test", alicesPassword, false}, {"", "bob@example.test", bobsPassword, true}, {"alice@example.test", "bob@example.test", bobsPassword, false},
			{"", "", alicesPassword, false}, {"", "alice@example.test", "", false}, {"", "away@example.test", alicesPassword, false}, {"", "alice@example.test", alicesPassword, true},
		} {
			p := s.helloFrom(t, fresh(i))
			if got := p.plainly(who.identity, who.user, who.password); (got.code == 235) != who.good {
				t.Errorf("%d: %q as %q: %s", i, who.user, who.identity, got)
			}
			p.Close()
		}
		h := s.house
		h.must(h.accounts.SetPassword(address("alice@example.test"), "another-one-22"))
		if got := s.helloFrom(t, fresh(90)).plainly("", "alice@example.test", alicesPassword); got.code == 235 {
			t.Error("the old password is remembered")
		}
		h.must(h.accounts.SetDisabled(address("alice@example.test"), true))
		if got := s.helloFrom(t, fresh(91)).plainly("", "alice@example.test", "another-one-22"); got.code == 235 {
			t.Error("one who is disabled is let in")
		}
	})
}

// TestE08LoginsAtOnce: forty logins at once take no more memory than a few.
func TestE08LoginsAtOnce(t *testing.T) {
	s := newHouse(t).serve(smtpd.Submission, false)
	before := heap()
	var peers []*peer
	for range 40 {
		peers = append(peers, s.dial(t).talk("< 220\n> EHLO x\n< 250"))
	}
	var all sync.WaitGroup
	for i, p := range peers {
		all.Go(func() {
			fmt.Fprintf(p, "AUTH PLAIN %s\r\n", plain("", fmt.Sprintf("name%d@example.test", i), "wrong"))
			p.SetDeadline(time.Now().Add(1500 * time.Millisecond)) // failures are told late; that is not waited for
			readReply(p.r)
		})
	}
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	most := int64(0)
	for running := true; running; {
		select {
		case <-ended:
			running = false
		case <-time.After(5 * time.Millisecond):
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, int64(m.HeapInuse)-before)
		}
	}
	if most > 160<<20 { // two hashes of 19 MiB, as many that were not collected, and their copies
		t.Errorf("%d MiB", most>>20)
	}
}

// meanwhile is a guard's memory that has something happen once a login was judged, before its session knows.
type meanwhile func()

func (meanwhile) KnownUntil(string, netip.Prefix) time.Time { return time.Time{} }
func (m meanwhile) Know(string, netip.Prefix, time.Time)    { m() }

// TestChangedBeforeTheSessionKnows: who is let in while the account changes is sent away at once.
func TestChangedBeforeTheSessionKnows(t *testing.T) {
	alice := address("alice@example.test")
	for name, change := range map[string]func(h *house) error{
		"disabled":     func(h *house) error { return h.accounts.SetDisabled(alice, true) },
		"new password": func(h *house) error { return h.accounts.SetPassword(alice, "new") },
		"removed":      func(h *house) error { return h.accounts.Remove(alice, nil) },
		"revoked":      func(h *house) error { return h.accounts.RevokeAppPassword(alice, "phone") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				_, phone, err := h.accounts.AddAppPassword(alice, account.AppPassword{Name: "phone", Protocols: []string{account.SMTP}})
				h.must(err)
				s := h.inMemory(smtpd.Submission, true, func(c *smtpd.Config) {
					now := meanwhile(func() { h.must(change(h)) })
					c.Logins = account.NewLogins(h.accounts, account.NewGuard(nil, now))
				})
				p := s.helloFrom(t, fresh(1))
				if got := p.plainly("", alice.String(), phone); got.code != 235 {
					t.Fatal(got)
				}
				p.talk("< 421 4.7.0\n<-")
			})
		})
	}
}

// TestLoginExpires: a session ends with the app password that it was begun by.
func TestLoginExpires(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server) {
		const within = 10 * time.Second
		_, phone, err := s.accounts.AddAppPassword(address("alice@example.test"),
			account.AppPassword{Name: "phone", Protocols: []string{account.SMTP}, Expires: time.Now().Add(within)})
		s.must(err)
		began := time.Now()
		p, other := s.helloFrom(t, fresh(1)), s.helloFrom(t, fresh(2))
		p.plainly("", "alice@example.test", phone)
		other.plainly("", "alice@example.test", alicesPassword)
		p.talk("> MAIL FROM:<alice@example.test>\n< 250\n< 421 4.7.0 the password that you logged in with has expired\n<-")
		if took := time.Since(began); took != within {
			t.Errorf("it ended after %v", took)
		}
		other.talk("> NOOP\n< 250")
	})
}
