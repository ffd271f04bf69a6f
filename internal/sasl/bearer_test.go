package sasl

import (
	"errors"
	"strings"
	"testing"
)

// holder lets one token in, and refuses others with words.
func holder(token string) (*Bearer, *string) {
	seen := new(string)
	return &Bearer{
		Check: func(identity, got string) error {
			*seen = identity + " " + got
			switch {
			case got == token && (identity == "" || identity == "user@example.com"):
				return nil
			case got == "trouble":
				return errors.New("trouble")
			}
			return errWrong
		},
		Refusal: func(err error) []byte {
			if !errors.Is(err, errWrong) {
				return nil
			}
			return []byte(`{"status":"invalid_token"}`)
		},
	}, seen
}

// The examples of RFC 7628, 4, and what is not in its grammar.
func TestOAuthBearer(t *testing.T) {
	const token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
	for _, c := range []struct{ name, message, want, saw string }{
		{"the first example", "n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer " + token + "\x01\x01", "done", "user@example.com " + token},
		{"no identity", "n,,\x01auth=Bearer " + token + "\x01\x01", "done", " " + token},
		{"that would be bound", "y,,\x01auth=Bearer " + token + "\x01\x01", "done", " " + token},
		{"in any case, with more spaces", "n,,\x01auth=bEaReR   " + token + "\x01\x01", "done", " " + token},
		{"another's", "n,a=other@example.com,\x01auth=Bearer " + token + "\x01\x01", "refused wrong", "other@example.com " + token},
		{"a name with a comma", "n,a=a=2Cb=3D,\x01auth=Bearer " + token + "\x01\x01", "refused wrong", "a,b= " + token},
		{"another token", "n,,\x01auth=Bearer x\x01\x01", "refused wrong", " x"},
		{"what is there to know?", "n,,\x01auth=\x01\x01", "refused wrong", " "},
		{"not even that", "n,,\x01\x01", "refused wrong", " "},
		{"trouble", "n,,\x01auth=Bearer trouble\x01\x01", "trouble", " trouble"},
		{"nothing", "", "syntax", ""},
		{"a dummy", "\x01", "syntax", ""},
		{"a binding", "p=tls-exporter,,\x01auth=Bearer x\x01\x01", "syntax", ""},
		{"no header", "\x01auth=Bearer x\x01\x01", "syntax", ""},
		{"half a header", "n,\x01auth=Bearer x\x01\x01", "syntax", ""},
		{"an identity of another kind", "n,b=x,\x01auth=Bearer x\x01\x01", "syntax", ""},
		{"a bad identity", "n,a=x=y,\x01auth=Bearer x\x01\x01", "syntax", ""},
		{"no end", "n,,\x01auth=Bearer x", "syntax", ""},
		{"half an end", "n,,\x01auth=Bearer x\x01", "syntax", ""},
		{"two tokens", "n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01", "syntax", ""},
		{"another scheme", "n,,\x01auth=Basic x\x01\x01", "syntax", ""},
		{"no scheme", "n,,\x01auth=x\x01\x01", "syntax", ""},
		{"no token", "n,,\x01auth=Bearer \x01\x01", "syntax", ""},
		{"two words", "n,,\x01auth=Bearer x y\x01\x01", "syntax", ""},
		{"a header in it", "n,,\x01auth=Bearer x\r\nHost: y\x01\x01", "syntax", ""},
		{"padding alone", "n,,\x01auth=Bearer ==\x01\x01", "syntax", ""},
		{"padding within", "n,,\x01auth=Bearer a=b\x01\x01", "syntax", ""},
		{"no key", "n,,\x01=x\x01auth=Bearer x\x01\x01", "syntax", ""},
		{"a key of digits", "n,,\x011=x\x01auth=Bearer x\x01\x01", "syntax", ""},
		{"an empty pair", "n,,\x01\x01auth=Bearer x\x01\x01", "syntax", ""},
		{"NUL", "n,,\x01auth=Bearer x\x00\x01\x01", "syntax", ""},
		{"a control character", "n,,\x01host=\x02\x01auth=Bearer x\x01\x01", "syntax", ""},
		{"not UTF-8", "n,,\x01host=\xff\x01auth=Bearer x\x01\x01", "syntax", ""},
		{"very long", "n,,\x01auth=Bearer " + strings.Repeat("x", maxBearer) + "\x01\x01", "syntax", ""},
	} {
		b, saw := holder(token)
		s := NewOAuthBearer(*b)
		if got := talkBearer(s, c.message, "\x01"); got != c.want || *saw != c.saw {
			t.Errorf("%s: %s, saw %q; want %s, %q", c.name, got, *saw, c.want, c.saw)
		}
		if _, done, err := s.Next([]byte(c.message)); done || err != ErrSyntax {
			t.Errorf("%s: once more: %v, %v", c.name, done, err)
		}
	}
}

func TestXOAuth2(t *testing.T) {
	const token = "ya29.vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg"
	for _, c := range []struct{ name, message, want, saw string }{
		{"right", "user=user@example.com\x01auth=Bearer " + token + "\x01\x01", "done", "user@example.com " + token},
		{"another's", "user=other@example.com\x01auth=Bearer " + token + "\x01\x01", "refused wrong", "other@example.com " + token},
		{"another token", "user=user@example.com\x01auth=Bearer x\x01\x01", "refused wrong", "user@example.com x"},
		{"no name", "auth=Bearer " + token + "\x01\x01", "syntax", ""},
		{"an empty name", "user=\x01auth=Bearer " + token + "\x01\x01", "syntax", ""},
		{"no end", "user=user@example.com\x01auth=Bearer " + token + "\x01", "syntax", ""},
		{"nothing", "", "syntax", ""},
		{"the ends alone", "\x01\x01", "syntax", ""},
	} {
		b, saw := holder(token)
		if got := talkBearer(NewXOAuth2(*b), c.message, ""); got != c.want || *saw != c.saw {
			t.Errorf("%s: %s, saw %q; want %s, %q", c.name, got, *saw, c.want, c.saw)
		}
	}
}

// talkBearer has a client say its message when it is asked, and then that it has heard the refusal.
func talkBearer(s Server, message, heard string) string {
	if challenge, done, err := s.Next(nil); len(challenge) != 0 || done || err != nil {
		return "asked wrongly"
	}
	challenge, done, err := s.Next([]byte(message))
	if err != nil || done {
		return outcome(string(challenge), done, err)
	}
	if string(challenge) != `{"status":"invalid_token"}` {
		return string(challenge)
	}
	challenge, done, err = s.Next([]byte(heard))
	return "refused " + outcome(string(challenge), done, err)
}

func TestExternal(t *testing.T) {
	for _, c := range []struct {
		name      string
		responses []string // "-" is none
		want      string
	}{
		{"as who it is", []string{""}, "done"},
		{"when asked", []string{"-", ""}, " done"},
		{"by its name", []string{"me"}, "done"},
		{"as another", []string{"you"}, "wrong"},
		{"NUL", []string{"me\x00"}, "syntax"},
		{"not UTF-8", []string{"\xff"}, "syntax"},
		{"none where one must be", []string{"-", "-"}, " syntax"},
		{"once more", []string{"", ""}, "done syntax"},
		{"asked after the end", []string{"", "-"}, "done syntax"},
	} {
		s := NewExternal(func(identity string) error {
			if identity != "" && identity != "me" {
				return errWrong
			}
			return nil
		})
		var got []string
		for _, r := range c.responses {
			response := []byte(r)
			if r == "-" {
				response = nil
			}
			challenge, done, err := s.Next(response)
			got = append(got, outcome(string(challenge), done, err))
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%s: %q, want %q", c.name, g, c.want)
		}
	}
}

// E02: whatever comes as a response, one of NUL octets, long, or none, ends the exchange with an error, lets nobody in
// and asks for nothing that it holds.
func TestE02BrokenResponses(t *testing.T) {
	responses := []string{
		"", "=", "*", "\x00", "\x00\x00", "\x00\x00\x00", "a\x00b", "a\x00b\x00", "\x00a\x00", "\x00\x00a", strings.Repeat("\x00", 1000),
		strings.Repeat("A", 1<<20), strings.Repeat("\x00", 1<<20), "\xff\xfe", "n,,n=", "n,,n=a,r=", "n,,n=a", "p=,,n=a,r=b", ",,,,,,", "n,,m=x,n=a,r=b", "\x01\x01", "n,,\x01",
	}
	nobody := errors.New("nobody is let in")
	mechanisms := map[string]func() Server{
		Plain: func() Server { return NewPlain(func(string, string, string) error { return nobody }) },
		Login: func() Server { return NewLogin(func(string, string) error { return nobody }) },
		ScramSHA256: func() Server {
			return NewScram(house(func(s *Scram) { s.Check = func(string, string, *Keys) error { return nobody } }))
		},
		ScramSHA1: func() Server {
			return NewScram(house(func(s *Scram) { s.Hash, s.Check = SHA1, func(string, string, *Keys) error { return nobody } }))
		},
		OAuthBearer: func() Server {
			return NewOAuthBearer(Bearer{func(string, string) error { return nobody }, func(error) []byte { return nil }})
		},
		XOAuth2: func() Server {
			return NewXOAuth2(Bearer{func(string, string) error { return nobody }, func(error) []byte { return nil }})
		},
		External: func() Server { return NewExternal(func(string) error { return nobody }) },
	}
	for name, begin := range mechanisms {
		for _, first := range responses {
			for _, second := range responses {
				s := begin()
				for _, r := range []string{first, second, ""} {
					challenge, done, err := s.Next([]byte(r))
					if done {
						t.Errorf("%s: let in by %.20q", name, r)
					}
					if err == nil {
						continue
					}
					if len(challenge) > 0 {
						t.Errorf("%s: a challenge with an error", name)
					}
					if _, done, again := s.Next([]byte(first)); done || again == nil {
						t.Errorf("%s: it goes on after %v", name, err)
					}
					break
				}
			}
		}
	}
}

// E06: a nonce is used once, so what was said on one connection proves nothing on another; what was bound to a
// connection is; and a binding that somebody has taken out of the offer is missed.
func TestE06ReplayedAndStripped(t *testing.T) {
	var finals []string
	for range 2 {
		s := NewScram(house(func(s *Scram) { s.nonce = "" }))
		c := client{header: "n,,", user: "user", password: "pencil"}
		challenge, _, err := s.Next([]byte(c.first()))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(string(challenge), ",i=4096") {
			t.Errorf("the count that the server was given is not the one it tells: %s", challenge)
		}
		for _, old := range finals {
			if _, done, err := s.Next([]byte(old)); done || err != ErrSyntax {
				t.Errorf("replayed: %v, %v", done, err)
			}
		}
		finals = append(finals, c.final(string(challenge)))
	}
	here, there := Bindings{Exporter: []byte("here")}, Bindings{Exporter: []byte("there")}
	for _, c := range []struct {
		name   string
		client client
		offer  Bindings
		plus   bool
		want   string
	}{
		{"bound here", client{header: "p=tls-exporter,,", binding: here[Exporter]}, here, true, "done"},
		{"carried to another connection", client{header: "p=tls-exporter,,", binding: there[Exporter]}, here, true, "wrong"},
		{"PLUS taken out of the list", client{header: "y,,"}, here, false, "first: binding"},
		{"the flag changed on the way", client{header: "y,,", binding: here[Exporter]}, here, true, "first: syntax"},
		{"the header changed on the way back", client{header: "n,,", binding: here[Exporter]}, here, false, "wrong"},
	} {
		c.client.user, c.client.password = "user", "pencil"
		got := c.client.talk(NewScram(house(func(s *Scram) { s.Bindings, s.Plus = c.offer, c.plus })))
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func FuzzBearer(f *testing.F) {
	f.Add("n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01", "\x01")
	f.Add("user=user@example.com\x01auth=Bearer ya29.v\x01\x01", "")
	f.Add("n,,\x01auth=\x01\x01", "")
	f.Fuzz(func(t *testing.T, message, heard string) {
		for name, begin := range map[string]func(Bearer) Server{OAuthBearer: NewOAuthBearer, XOAuth2: NewXOAuth2} {
			asked := 0
			s := begin(Bearer{
				Check: func(identity, token string) error {
					asked++
					if strings.ContainsAny(token, "\x00\x01\r\n ,") {
						t.Errorf("a token of %q", token)
					}
					return errWrong
				},
				Refusal: func(error) []byte { return []byte("{}") },
			})
			for _, in := range []string{message, heard, message} {
				if _, done, _ := s.Next([]byte(in)); done {
					t.Errorf("%s: let in by %q", name, in)
				}
			}
			if asked > 1 {
				t.Errorf("%s: asked %d times", name, asked)
			}
		}
	})
}

func FuzzLogin(f *testing.F) {
	f.Add([]byte("tim"), []byte("tanstaaf"), true)
	f.Add([]byte(""), []byte("\x00"), false)
	f.Fuzz(func(t *testing.T, user, password []byte, named bool) {
		asked := 0
		s := NewLogin(func(u, p string) error {
			asked++
			if u == "" || p == "" || strings.Contains(u+p, "\x00") {
				t.Errorf("asked for %q %q", u, p)
			}
			return errWrong
		})
		if !named {
			s.Next(nil)
		}
		for _, in := range [][]byte{user, password, password} {
			if _, done, _ := s.Next(in); done {
				t.Error("let in")
			}
		}
		if asked > 1 {
			t.Errorf("asked %d times", asked)
		}
	})
}

func FuzzExternal(f *testing.F) {
	f.Add([]byte("user@example.com"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, response []byte) {
		asked := 0
		s := NewExternal(func(identity string) error { asked++; return nil })
		_, done, err := s.Next(append([]byte{}, response...))
		if done != (asked == 1) || done == (err != nil) {
			t.Errorf("done %v, asked %d, %v", done, asked, err)
		}
		if _, done, _ := s.Next(response); done {
			t.Error("let in twice")
		}
	})
}
