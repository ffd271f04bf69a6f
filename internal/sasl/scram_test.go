package sasl

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"strconv"
	"strings"
	"testing"

	"postroad/internal/listen/listentest"
)

var b64 = base64.StdEncoding

// The example of RFC 7677, 3.
const (
	exampleFirst  = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
	exampleServer = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
	exampleFinal  = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	exampleEnd    = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
	exampleNonce  = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
)

// house knows "user" with the password "pencil", and "a,b=ü" with "pencil".
func house(change ...func(*Scram)) Scram {
	salt, _ := b64.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	s := Scram{
		Hash: SHA256,
		Lookup: func(user string) (Credentials, error) {
			if user == "user" || user == "a,b=ü" {
				return Credentials{salt, 4096, []Keys{Derive(SHA256, "pencil", salt, 4096)}}, nil
			}
			return Credentials{salt, 4096, []Keys{{make([]byte, 32), make([]byte, 32)}}}, nil
		},
		Check: func(identity, user string, proven *Keys) error {
			if proven == nil || identity != "" && identity != user {
				return errWrong
			}
			return nil
		},
		nonce: exampleNonce,
	}
	for _, f := range change {
		f(&s)
	}
	return s
}

func TestScramExample(t *testing.T) {
	s := NewScram(house())
	for i, c := range []struct {
		in, out string
		done    bool
	}{{exampleFirst, exampleServer, false}, {exampleFinal, exampleEnd, false}, {"", "", true}} {
		out, done, err := s.Next([]byte(c.in))
		if string(out) != c.out || done != c.done || err != nil {
			t.Fatalf("step %d: %q, %v, %v", i, out, done, err)
		}
	}
	if _, done, err := s.Next([]byte("")); done || err != ErrSyntax {
		t.Errorf("once more: %v, %v", done, err)
	}
}

// The example of RFC 5802, 5.
func TestScramSHA1Example(t *testing.T) {
	salt, _ := b64.DecodeString("QSXCR+Q6sek8bf92")
	s := NewScram(house(func(s *Scram) {
		s.Hash, s.nonce = SHA1, "3rfcNHYJY1ZVvWVs7j"
		s.Lookup = func(string) (Credentials, error) {
			return Credentials{salt, 4096, []Keys{Derive(SHA1, "pen", salt, 4096), Derive(SHA1, "pencil", salt, 4096)}}, nil
		}
	}))
	for i, c := range []struct {
		in, out string
		done    bool
	}{
		{"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL", "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096", false},
		{"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=", false},
		{"", "", true},
	} {
		out, done, err := s.Next([]byte(c.in))
		if string(out) != c.out || done != c.done || err != nil {
			t.Fatalf("step %d: %q, %v, %v", i, out, done, err)
		}
	}
}

// client is the other end, as RFC 5802 has it.
type client struct {
	header, user, password string
	binding                []byte
	bare                   string
}

func (c *client) first() string {
	c.bare = "n=" + c.user + ",r=clientnonce"
	return c.header + c.bare
}

func (c *client) final(server string) string {
	var nonce, salt string
	var iterations int
	for _, f := range strings.Split(server, ",") {
		switch f[:2] {
		case "r=":
			nonce = f[2:]
		case "s=":
			salt = f[2:]
		case "i=":
			iterations, _ = strconv.Atoi(f[2:])
		}
	}
	raw, _ := b64.DecodeString(salt)
	without := "c=" + b64.EncodeToString(append([]byte(c.header), c.binding...)) + ",r=" + nonce
	salted, _ := pbkdf2.Key(sha256.New, c.password, raw, iterations, sha256.Size)
	key := sum(salted, "Client Key")
	stored := sha256.Sum256(key)
	proof := make([]byte, sha256.Size)
	subtle.XORBytes(proof, key, sum(stored[:], c.bare+","+server+","+without))
	return without + ",p=" + b64.EncodeToString(proof)
}

func sum(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// talk is the outcome of a whole exchange.
func (c *client) talk(s Server) string {
	challenge, done, err := s.Next([]byte(c.first()))
	if err != nil || done {
		return "first: " + outcome(string(challenge), done, err)
	}
	challenge, done, err = s.Next([]byte(c.final(string(challenge))))
	if err != nil || done {
		return outcome(string(challenge), done, err)
	}
	challenge, done, err = s.Next([]byte{})
	return outcome(string(challenge), done, err)
}

func TestScramBinding(t *testing.T) {
	exporter, endPoint := []byte("0123456789abcdef"), []byte("endpoint")
	both := func(s *Scram) { s.Bindings = Bindings{Exporter: exporter, EndPoint: endPoint} }
	plus := func(s *Scram) { both(s); s.Plus = true }
	for _, c := range []struct {
		name   string
		client client
		server []func(*Scram)
		want   string
	}{
		{"none", client{header: "n,,"}, nil, "done"},
		{"the client knows of none, the server does", client{header: "n,,"}, list(both), "done"},
		{"the client would, the server knows none", client{header: "y,,"}, nil, "done"},
		{"the offer was hidden from the client", client{header: "y,,"}, list(both), "first: binding"},
		{"tls-exporter", client{header: "p=tls-exporter,,", binding: exporter}, list(plus), "done"},
		{"tls-server-end-point", client{header: "p=tls-server-end-point,,", binding: endPoint}, list(plus), "done"},
		{"another connection's", client{header: "p=tls-exporter,,", binding: endPoint}, list(plus), "wrong"},
		{"a shorter one", client{header: "p=tls-exporter,,", binding: exporter[:8]}, list(plus), "wrong"},
		{"no octets of it", client{header: "p=tls-exporter,,"}, list(plus), "wrong"},
		{"octets where none belong", client{header: "n,,", binding: exporter}, nil, "wrong"},
		{"tls-unique is not known", client{header: "p=tls-unique,,", binding: exporter}, list(plus), "first: binding"},
		{"PLUS without binding", client{header: "n,,"}, list(plus), "first: syntax"},
		{"PLUS that would not", client{header: "y,,"}, list(plus), "first: syntax"},
		{"binding without PLUS", client{header: "p=tls-exporter,,", binding: exporter}, list(both), "first: syntax"},
		{"as itself", client{header: "n,a=user,"}, nil, "done"},
		{"as another", client{header: "n,a=root,"}, nil, "wrong"},
		{"a name with commas", client{header: "n,,", user: "a=2Cb=3Dü"}, nil, "done"},
		{"a name to prepare", client{header: "n,,", user: "us\u00ader"}, nil, "done"},
		{"a name with a stray =", client{header: "n,,", user: "us=er"}, nil, "first: syntax"},
		{"lower case hex is not a form", client{header: "n,,", user: "us=2cer"}, nil, "first: syntax"},
		{"unknown", client{header: "n,,", user: "nobody"}, nil, "wrong"},
		{"a false password", client{header: "n,,", password: "Pencil"}, nil, "wrong"},
		{"a bad header", client{header: "z,,"}, nil, "first: syntax"},
		{"half a header", client{header: "n,"}, nil, "first: syntax"},
		{"an identity of another kind", client{header: "n,b=user,"}, nil, "first: syntax"},
		{"an empty identity", client{header: "n,a=,"}, nil, "first: syntax"},
		{"a mandatory extension", client{header: "n,,m=x,"}, nil, "first: syntax"},
		{"an empty name", client{header: "n,,", user: "="}, nil, "first: syntax"},
		{"NUL", client{header: "n,,", user: "us\x00er"}, nil, "first: syntax"},
		{"a long message", client{header: "n,,", user: strings.Repeat("x", 9000)}, nil, "first: syntax"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.client.user == "" {
				c.client.user = "user"
			}
			if c.client.password == "" {
				c.client.password = "pencil"
			}
			if got := c.client.talk(NewScram(house(c.server...))); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func list(f ...func(*Scram)) []func(*Scram) { return f }

// What a client changes in its last message, nobody takes.
func TestScramFinalMessage(t *testing.T) {
	for _, c := range []struct {
		name     string
		old, new string
		want     string
	}{
		{"another nonce", "r=rOpr", "r=rOps", "syntax"},
		{"the client's nonce alone", exampleNonce, "", "syntax"},
		{"another header", "c=biws", "c=eSws", "syntax"},
		{"a proof of other octets", "p=dHz", "p=dHy", "wrong"},
		{"a short proof", "p=dHzb", "p=", "syntax"},
		{"no proof", ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "", "syntax"},
		{"not base64", "p=dHzb", "p=***b", "syntax"},
		{"an extension, which is not in what was proven", ",p=", ",x=1,p=", "wrong"},
		{"a mandatory extension", ",p=", ",m=1,p=", "syntax"},
		{"no extension at all", ",p=", ",1,p=", "syntax"},
	} {
		s := NewScram(house())
		if _, _, err := s.Next([]byte(exampleFirst)); err != nil {
			t.Fatal(err)
		}
		changed := strings.Replace(exampleFinal, c.old, c.new, 1)
		if changed == exampleFinal {
			t.Fatalf("%s: nothing changed", c.name)
		}
		challenge, done, err := s.Next([]byte(changed))
		if got := outcome(string(challenge), done, err); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if _, done, err := s.Next([]byte(exampleFinal)); done || err != ErrSyntax {
			t.Errorf("%s: a second try: %v, %v", c.name, done, err)
		}
	}
}

func TestScramWithoutInitialResponse(t *testing.T) {
	s := NewScram(house())
	if challenge, done, err := s.Next(nil); len(challenge) > 0 || done || err != nil {
		t.Fatal(challenge, done, err)
	}
	c := client{header: "n,,", user: "user", password: "pencil"}
	if got := c.talk(s); got != "done" {
		t.Error(got)
	}
}

// Whatever Check says, nobody comes in without a proof.
func TestScramDoesNotRelyOnCheck(t *testing.T) {
	s := NewScram(house(func(s *Scram) { s.Check = func(string, string, *Keys) error { return nil } }))
	c := client{header: "n,,", user: "user", password: "wrong"}
	if got := c.talk(s); got != "binding" {
		t.Error(got)
	}
}

func TestNoncesDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		s := NewScram(house(func(s *Scram) { s.nonce = "" }))
		out, _, err := s.Next([]byte("n,,n=user,r=x"))
		nonce, _, _ := strings.Cut(string(out), ",")
		if err != nil || len(nonce) < len("r=x")+20 || seen[nonce] {
			t.Fatalf("%q, %v", out, err)
		}
		seen[nonce] = true
	}
}

// Both ends of a TLS connection see the same bindings, other connections others.
func TestBindingsOf(t *testing.T) {
	config, _ := listentest.Certificate(t, "mx.example.test")
	config.MinVersion = tls.VersionTLS12
	seen := map[string]bool{}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13, tls.VersionTLS13} {
		server, clientState := shake(t, config, version)
		b := BindingsOf(&server, clientState.PeerCertificates[0])
		want, err := clientState.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
		if err != nil || string(b[Exporter]) != string(want) || seen[string(want)] {
			t.Errorf("%s: exporter %x, want %x (%v)", tls.VersionName(version), b[Exporter], want, err)
		}
		seen[string(want)] = true
		hash := sha256.Sum256(clientState.PeerCertificates[0].Raw)
		if clientState.PeerCertificates[0].SignatureAlgorithm != x509.ECDSAWithSHA256 || string(b[EndPoint]) != string(hash[:]) {
			t.Errorf("end point %x, want %x", b[EndPoint], hash)
		}
		if b := BindingsOf(&server, nil); b[EndPoint] != nil || b[Exporter] == nil {
			t.Errorf("with a certificate that is not known: %v", b)
		}
	}
	if b := BindingsOf(nil, nil); len(b) != 0 {
		t.Errorf("in the clear: %v", b)
	}
}

// shake makes one TLS connection and returns what both ends know of it.
func shake(t *testing.T, config *tls.Config, version uint16) (server, client tls.ConnectionState) {
	t.Helper()
	pipes := listentest.NewPipes()
	states := make(chan tls.ConnectionState, 1)
	go func() {
		nc, err := pipes.Accept()
		if err != nil {
			return
		}
		tc := tls.Server(nc, config)
		tc.Handshake()
		states <- tc.ConnectionState()
	}()
	nc := pipes.Dial()
	tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true, MaxVersion: version, MinVersion: version})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	return <-states, tc.ConnectionState()
}

func FuzzScram(f *testing.F) {
	f.Add(exampleFirst, exampleFinal, "")
	f.Add("p=tls-exporter,a=user,n=us=2Cer,r=x,x=1", "c=,r=,p=", "x")
	f.Add("y,,n=user,r=rOpr", "c=biws,r=rOpr,m=1,p=AAAA", "")
	f.Fuzz(func(t *testing.T, first, final, last string) {
		for _, plus := range []bool{false, true} {
			s := NewScram(house(func(s *Scram) {
				s.Plus = plus
				s.Bindings = map[bool]Bindings{true: {Exporter: []byte("x")}}[plus]
				s.Lookup = func(string) (Credentials, error) {
					return Credentials{[]byte("salt"), 1, []Keys{{make([]byte, 32), make([]byte, 32)}}}, nil
				}
			}))
			for i, in := range []string{first, final, last} {
				out, done, err := s.Next([]byte(in))
				if done {
					t.Fatalf("let in with step %d", i)
				}
				if err == nil && strings.ContainsAny(string(out), "\x00\r\n") {
					t.Fatalf("a challenge of %q", out)
				}
			}
		}
	})
}

func FuzzPlain(f *testing.F) {
	f.Add([]byte("\x00tim\x00tanstaaf"))
	f.Add([]byte("a\x00b\x00c\x00d"))
	f.Fuzz(func(t *testing.T, response []byte) {
		asked := false
		_, done, err := NewPlain(func(identity, user, password string) error {
			asked = true
			if user == "" || password == "" || strings.Contains(identity+user+password, "\x00") {
				t.Errorf("asked for %q %q %q", identity, user, password)
			}
			return nil
		}).Next(response)
		if done != asked || done == (err != nil) && response != nil {
			t.Errorf("done %v, asked %v, %v", done, asked, err)
		}
		NewLogin(func(user, password string) error { return errWrong }).Next(response)
	})
}

func FuzzPrepare(f *testing.F) {
	f.Add("I\u00adX")
	f.Add("\u0627\u0031")
	f.Fuzz(func(t *testing.T, s string) {
		p := Prepare(s)
		if again := Prepare(p); again != p {
			t.Errorf("%+q, prepared %+q, prepared again %+q", s, p, again)
		}
		if isASCII(s) && p != s {
			t.Errorf("ASCII %+q changed to %+q", s, p)
		}
	})
}

func BenchmarkDerive(b *testing.B) {
	for b.Loop() {
		Derive(SHA256, "a password", []byte("0123456789abcdef"), 100_000)
	}
}
