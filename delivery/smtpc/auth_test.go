package smtpc

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"postroad/internal/listen/listentest"
	"postroad/internal/sasl"
)

// guard is a server that lets nobody but "me" with "secret" in. It keeps what it hears.
type guard struct {
	mechanisms string
	silent     bool // it says 235 without the end of the exchange
	heard      []string
}

func (g *guard) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	say := func(s string) { io.WriteString(c, s+"\r\n") }
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		g.heard = append(g.heard, line)
		switch verb, rest, _ := strings.Cut(line, " "); verb {
		case "EHLO":
			say("250-mx.test\r\n250 AUTH " + g.mechanisms)
		case "AUTH":
			mechanism, initial, given := strings.Cut(rest, " ")
			g.exchange(mechanism, initial, given, say, r)
		case "MAIL":
			say("550 no more")
		default:
			say("221 bye")
		}
	}
}

func (g *guard) exchange(mechanism, initial string, given bool, say func(string), r *bufio.Reader) {
	check := func(user, password string) error {
		if user != "me" || password != "secret" {
			return errors.New("wrong")
		}
		return nil
	}
	salt := []byte("0123456789abcdef")
	server := map[string]sasl.Server{
		sasl.Plain: sasl.NewPlain(func(_, user, password string) error { return check(user, password) }),
		sasl.Login: sasl.NewLogin(check),
		sasl.ScramSHA256: sasl.NewScram(sasl.Scram{
			Hash: sasl.SHA256,
			Lookup: func(string) (sasl.Credentials, error) {
				return sasl.Credentials{Salt: salt, Iterations: 4096, Keys: []sasl.Keys{sasl.Derive(sasl.SHA256, "secret", salt, 4096)}}, nil
			},
			Check: func(_, user string, proven *sasl.Keys) error {
				if user != "me" || proven == nil {
					return errors.New("wrong")
				}
				return nil
			},
		}),
	}[mechanism]
	var response []byte
	if given {
		response, _ = base64.StdEncoding.DecodeString(initial)
	}
	for {
		challenge, done, err := server.Next(response)
		switch {
		case err != nil:
			say("535 5.7.8 no")
			return
		case done, g.silent && strings.HasPrefix(string(challenge), "v="):
			say("235 2.7.0 ok")
			return
		}
		say("334 " + base64.StdEncoding.EncodeToString(challenge))
		line, err := r.ReadString('\n')
		if err != nil || line == "*\r\n" {
			say("501 cancelled")
			return
		}
		g.heard = append(g.heard, strings.TrimRight(line, "\r\n"))
		response, _ = base64.StdEncoding.DecodeString(strings.TrimRight(line, "\r\n"))
		if response == nil {
			response = []byte{}
		}
	}
}

func TestLogin(t *testing.T) {
	config, roots := listentest.Certificate(t, "mx.test")
	for _, tt := range []struct {
		mechanisms, password string
		clear, silent        bool
		chosen, want         string
	}{
		{"PLAIN LOGIN", "secret", false, false, "PLAIN", ""},
		{"login", "secret", false, false, "LOGIN", ""},
		{"PLAIN SCRAM-SHA-256 LOGIN", "secret", false, false, "SCRAM-SHA-256", ""},
		{"SCRAM-SHA-256", "secret", true, false, "SCRAM-SHA-256", ""},
		{"PLAIN", "wrong", false, false, "PLAIN", "535"},
		{"LOGIN", "wrong", false, false, "LOGIN", "535"},
		{"SCRAM-SHA-256", "wrong", false, false, "SCRAM-SHA-256", "535"},
		{"SCRAM-SHA-256", "secret", false, true, "SCRAM-SHA-256", "does not show"},
		{"PLAIN LOGIN", "secret", true, false, "", "not sent in the clear"},
		{"XOAUTH2 CRAM-MD5", "secret", false, false, "", "no AUTH that is known"},
		{"", "secret", false, false, "", "no AUTH that is known"},
	} {
		t.Run(fmt.Sprintf("%s %s %v %v", tt.mechanisms, tt.password, tt.clear, tt.silent), func(t *testing.T) {
			g := &guard{mechanisms: tt.mechanisms, silent: tt.silent}
			record := new(Transcript)
			o := Options{TLS: Implicit, Config: config.Clone(), Username: "me", Password: tt.password, Hostname: "us.test", Record: record}
			o.Config.RootCAs = roots
			ours, theirs := net.Pipe()
			over := make(chan bool)
			go func() {
				defer close(over)
				if tt.clear {
					io.WriteString(theirs, "220 mx\r\n")
					g.serve(theirs)
					return
				}
				secured := tlsServer(theirs, config)
				io.WriteString(secured, "220 mx\r\n")
				g.serve(secured)
			}()
			if tt.clear {
				o.TLS = None
			}
			c, err := Open(t.Context(), ours, "mx.test", o)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if err == nil {
				c.Send(message("x\r\n", "a"))
				c.Close()
			}
			ours.Close()
			<-over
			heard := strings.Join(g.heard, "\n")
			if (tt.chosen != "") != strings.Contains(heard, "AUTH "+tt.chosen) || tt.chosen == "" && strings.Contains(heard, "AUTH") {
				t.Errorf("it heard %q", heard)
			}
			if err == nil && !strings.Contains(heard, "MAIL FROM:<s@x.test> AUTH=<>") {
				t.Errorf("after the login it heard %q", heard)
			}
			if said := record.String(); strings.Contains(said, "bWU") || strings.Contains(said, "c2Vj") || strings.Contains(said, tt.password) || strings.Contains(said, ",p=") ||
				tt.chosen != "" && !strings.Contains(said, "> AUTH "+tt.chosen) {
				t.Errorf("the record has what is secret:\n%s", said)
			}
		})
	}
}

// TestLoginWithoutEnd: a server that asks again and again, or for what the mechanism does not have, is left.
// Within this machine, where nobody is on the way, a password needs no TLS.
func TestLoginWithinTheMachine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := &guard{mechanisms: "PLAIN"}
	over := make(chan bool)
	go func() {
		defer close(over)
		theirs, err := l.Accept()
		if err != nil {
			return
		}
		defer theirs.Close()
		io.WriteString(theirs, "220 mx\r\n")
		g.serve(theirs)
	}()
	ours, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), ours, "localhost", Options{TLS: Opportunistic, Username: "me", Password: "secret", Hostname: "us.test"})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	<-over
	if heard := strings.Join(g.heard, "\n"); !strings.Contains(heard, "AUTH PLAIN") {
		t.Errorf("it heard %q", heard)
	}
}

func TestLoginWithoutEnd(t *testing.T) {
	for name, challenge := range map[string]string{"of nothing": "334 ", "of anything": "334 VXNlcm5hbWU6", "not base64": "334 !"} {
		config, roots := listentest.Certificate(t, "mx.test")
		ours, theirs := net.Pipe()
		go func() {
			secured := tlsServer(theirs, config)
			defer secured.Close()
			r := bufio.NewReader(secured)
			io.WriteString(secured, "220 mx\r\n")
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if strings.HasPrefix(line, "EHLO") {
					io.WriteString(secured, "250-mx\r\n250 AUTH LOGIN\r\n")
				} else {
					io.WriteString(secured, challenge+"\r\n")
				}
			}
		}()
		clientConfig := config.Clone()
		clientConfig.RootCAs = roots
		_, err := Open(t.Context(), ours, "mx.test", Options{TLS: Implicit, Config: clientConfig, Username: "me", Password: "secret", Hostname: "us.test"})
		if err == nil {
			t.Errorf("challenges %s: let in", name)
		}
	}
}
