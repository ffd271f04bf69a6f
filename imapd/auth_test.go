package imapd

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"hash"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/store"
)

// scram is a client's end of SCRAM-SHA-256 (RFC 5802, 5), which writes what it pleases as header.
type scram struct {
	sha1    bool
	header  string // gs2
	binding []byte
	first   string // without the header
	proof   []byte // that the server knows the password, too
}

func (s *scram) begin(user string) string {
	s.first = "n=" + user + ",r=clientnonce"
	return s.header + s.first
}

func (s *scram) prove(password, challenge string) (string, error) {
	var nonce, salt string
	iterations := 0
	for part := range strings.SplitSeq(challenge, ",") {
		switch name, value, _ := strings.Cut(part, "="); name {
		case "r":
			nonce = value
		case "s":
			salt = value
		case "i":
			iterations, _ = strconv.Atoi(value)
		}
	}
	b, err := base64.StdEncoding.DecodeString(salt)
	if err != nil || iterations == 0 || !strings.HasPrefix(nonce, "clientnonce") {
		return "", fmt.Errorf("challenge %q", challenge)
	}
	h := s.hash()
	salted, err := pbkdf2.Key(h, password, b, iterations, h().Size())
	if err != nil {
		return "", err
	}
	key := mac(h, salted, "Client Key")
	stored := h()
	stored.Write(key)
	final := "c=" + base64.StdEncoding.EncodeToString(append([]byte(s.header), s.binding...)) + ",r=" + nonce
	said := s.first + "," + challenge + "," + final
	proof := mac(h, stored.Sum(nil), said)
	for i := range proof {
		proof[i] ^= key[i]
	}
	s.proof = mac(h, mac(h, salted, "Server Key"), said)
	return final + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

func (s *scram) hash() func() hash.Hash {
	if s.sha1 {
		return sha1.New
	}
	return sha256.New
}

func mac(h func() hash.Hash, key []byte, text string) []byte {
	m := hmac.New(h, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// logIn speaks SCRAM and returns the last line of the server.
func (s *scram) logIn(c *raw, mechanism, user, password string) string {
	c.t.Helper()
	c.send("a AUTHENTICATE " + mechanism + " " + base64.StdEncoding.EncodeToString([]byte(s.begin(user))) + "\r\n")
	for line := c.line(); ; line = c.line() {
		text, challenged := strings.CutPrefix(line, "+ ")
		if !challenged {
			return line
		}
		challenge, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			c.t.Fatal(err)
		}
		var answer string
		if !strings.HasPrefix(string(challenge), "v=") {
			if answer, err = s.prove(password, string(challenge)); err != nil {
				c.t.Fatal(err)
			}
		} else if string(challenge) != "v="+base64.StdEncoding.EncodeToString(s.proof) {
			c.t.Errorf("the server does not know the password: %q", challenge)
		}
		c.send(base64.StdEncoding.EncodeToString([]byte(answer)) + "\r\n")
	}
}

func TestScram(t *testing.T) {
	h := newHouse(t, withTLS(t))
	c := h.raw()
	c.expect("* OK [CAPABILITY ... AUTH=SCRAM-SHA-256 AUTH=PLAIN] ...")
	s := &scram{header: "n,,"}
	if got := s.logIn(c, "SCRAM-SHA-256", user, password); !strings.HasPrefix(got, "a OK [CAPABILITY ") {
		t.Errorf("in the clear: %q", got)
	}
	c.dialog("> b SELECT INBOX\n< * FLAGS ...")
	for _, tt := range []struct{ name, password string }{{user, "wrong"}, {"nobody@example.test", password}} {
		c := h.raw()
		c.line()
		s := &scram{header: "n,,"}
		if got := s.logIn(c, "SCRAM-SHA-256", tt.name, tt.password); !strings.HasPrefix(got, "a NO [AUTHENTICATIONFAILED] ") {
			t.Errorf("%s with %q: %q", tt.name, tt.password, got)
		}
	}
}

func TestScramSHA1(t *testing.T) {
	all, _ := withEveryLogin(t)
	h := newHouse(t, all)
	_, addr := h.serve(true)
	for _, tt := range []struct {
		mechanism, header string
		binding           func(*tls.ConnectionState) []byte
		want              string
	}{
		{"SCRAM-SHA-1", "n,,", nil, "a OK "},
		{"SCRAM-SHA-1", "y,,", nil, "a NO [AUTHENTICATIONFAILED] "},
		{"SCRAM-SHA-1-PLUS", "p=tls-exporter,,", exported, "a OK "},
	} {
		conn, err := tls.Dial("tcp", addr, insecureTLS())
		h.must(err)
		c := newRaw(t, conn)
		c.line()
		s := &scram{sha1: true, header: tt.header}
		if tt.binding != nil {
			state := conn.ConnectionState()
			s.binding = tt.binding(&state)
		}
		if got := s.logIn(c, tt.mechanism, user, password); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s with %s: %q, want %q", tt.mechanism, tt.header, got, tt.want)
		}
	}
}

// Under TLS a login can be bound to the connection, and a header that was meddled with is noticed.
func TestScramPlus(t *testing.T) {
	h := newHouse(t, withTLS(t))
	_, addr := h.serve(true)
	for _, tt := range []struct {
		name, mechanism, header string
		binding                 func(*tls.ConnectionState) []byte
		want                    string
	}{
		{"exporter", "SCRAM-SHA-256-PLUS", "p=tls-exporter,,", exported, "a OK "},
		{"end point", "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,", endPoint, "a OK "},
		{"another connection", "SCRAM-SHA-256-PLUS", "p=tls-exporter,,", func(*tls.ConnectionState) []byte { return make([]byte, 32) }, "a NO [AUTHENTICATIONFAILED] "},
		{"the offer was hidden from the client", "SCRAM-SHA-256", "y,,", nil, "a NO [AUTHENTICATIONFAILED] "},
		{"the client cannot bind", "SCRAM-SHA-256", "n,,", nil, "a OK "},
	} {
		conn, err := tls.Dial("tcp", addr, insecureTLS())
		h.must(err)
		c := newRaw(t, net.Conn(conn))
		c.expect("* OK [CAPABILITY ... AUTH=SCRAM-SHA-256-PLUS AUTH=SCRAM-SHA-256 AUTH=PLAIN] ...")
		s := &scram{header: tt.header}
		if tt.binding != nil {
			state := conn.ConnectionState()
			s.binding = tt.binding(&state)
		}
		if got := s.logIn(c, tt.mechanism, user, password); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func exported(state *tls.ConnectionState) []byte {
	b, _ := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
	return b
}

func endPoint(state *tls.ConnectionState) []byte {
	sum := sha256.Sum256(state.PeerCertificates[0].Raw)
	return sum[:]
}

// The sessions of an account end when it is changed, with a word; those of others do not.
func TestEndOfAnAccount(t *testing.T) {
	h := newHouse(t)
	bob := h.addAccount("bob@example.test")
	one, idle := h.loggedIn(), h.loggedIn()
	idle.dialog("> a IDLE\n< + idling")
	other := h.raw()
	other.dialog("< * OK ...\n> a LOGIN bob@example.test \"correct horse\"\n< a OK ...")
	h.srv.End(account.ID(h.owner))
	one.dialog("< * BYE your account was changed, disabled or removed; log in again")
	one.closed()
	idle.dialog("< * BYE your account was ...")
	other.dialog("> b NOOP\n< b OK ...")
	h.srv.End(account.ID(bob))
	other.dialog("< * BYE your account ...")
}

// meanwhile is a guard's memory that has something happen once a login was judged, before its session knows.
type meanwhile func()

func (meanwhile) KnownUntil(string, netip.Prefix) time.Time { return time.Time{} }
func (m meanwhile) Know(string, netip.Prefix, time.Time)    { m() }

// Who is let in while the account changes is sent away at once.
func TestChangedBeforeTheSessionKnows(t *testing.T) {
	alice, err := envelope.ParseAddress(user)
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, withTLS(t), func(c *Config) {
		change := meanwhile(func() {
			if err := c.Accounts.SetPassword(alice, "new"); err != nil {
				t.Error(err)
			}
		})
		c.Logins = account.NewLogins(c.Accounts, account.NewGuard(nil, change))
	})
	c := h.fromAfar()()
	c.dialog("< * OK ...\n> a STARTTLS\n< a OK ...")
	c = newRaw(t, tls.Client(c.conn, insecureTLS()))
	c.dialog(`
		> b LOGIN alice@example.test "correct horse"
		< b OK ...
		< * BYE your account was changed, ...`)
	c.closed()
}

// A session ends with the app password that it was begun by.
func TestLoginExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const within = 10 * time.Second
		h := buildHouse(t, store.Options{})
		alice, err := envelope.ParseAddress(user)
		h.must(err)
		_, phone, err := h.config.Accounts.AddAppPassword(alice,
			account.AppPassword{Name: "phone", Protocols: []string{account.IMAP}, Expires: time.Now().Add(within)})
		h.must(err)
		began := time.Now()
		c := pipe(t, h.config)
		c.patient("* OK ...")
		c.send("a LOGIN " + user + " " + phone + "\r\n")
		c.patient("a OK ...")
		c.send("b IDLE\r\n")
		c.patient("+ idling")
		c.patient("* BYE the password that you logged in with has expired")
		if took := time.Since(began); took != within {
			t.Errorf("it ended after %v", took)
		}
	})
}
