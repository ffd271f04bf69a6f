package sasl

import (
	"errors"
	"strings"
	"testing"
)

// exchange lets a client log in at a server.
func exchange(c Client, s Server) error {
	var challenge []byte
	for range 10 {
		response, err := c.Next(challenge)
		if err != nil {
			return err
		}
		var done bool
		if challenge, done, err = s.Next(response); err != nil {
			return err
		}
		if done {
			return c.Proven()
		}
	}
	return errors.New("it has no end")
}

func scramServer(user, password string) Server {
	salt := []byte("0123456789abcdef")
	return NewScram(Scram{
		Hash: SHA256,
		Lookup: func(name string) (Credentials, error) {
			return Credentials{Salt: salt, Iterations: 4096, Keys: []Keys{Derive(SHA256, password, salt, 4096)}}, nil
		},
		Check: func(_, name string, proven *Keys) error {
			if name != user || proven == nil {
				return errors.New("wrong")
			}
			return nil
		},
	})
}

func TestClients(t *testing.T) {
	check := func(user, password string) error {
		if user != "a=b,c" || password != "geheim ö" {
			return errors.New("wrong")
		}
		return nil
	}
	for _, password := range []string{"geheim ö", "falsch"} {
		for name, err := range map[string]error{
			"PLAIN": exchange(NewPlainClient("a=b,c", password), NewPlain(func(_, user, password string) error { return check(user, password) })),
			"LOGIN": exchange(NewLoginClient("a=b,c", password), NewLogin(check)),
			"SCRAM": exchange(NewScramClient(SHA256, "a=b,c", password), scramServer("a=b,c", "geheim ö")),
		} {
			if (err == nil) != (password == "geheim ö") {
				t.Errorf("%s with %q: %v", name, password, err)
			}
		}
	}
}

// TestScramClientExample is the exchange of RFC 7677, 3.
func TestScramClientExample(t *testing.T) {
	c := &scramClient{hash: SHA256, user: "user", password: "pencil", nonce: "rOprNGfwEbeRWgbNEkqO"}
	for _, step := range [][2]string{
		{"", "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"},
		{"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
			"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="},
		{"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", ""},
	} {
		if got, err := c.Next([]byte(step[0])); string(got) != step[1] || err != nil {
			t.Fatalf("%q is answered by %q, %v", step[0], got, err)
		}
	}
	if err := c.Proven(); err != nil {
		t.Error(err)
	}
}

// TestScramClientTrustsNobody: a server that wants too little or too much, or does not know the password, is left.
func TestScramClientTrustsNobody(t *testing.T) {
	for _, first := range []string{
		"", "r=us,s=c2FsdA==,i=4096", "r=usx,s=c2FsdA==,i=1", "r=usx,s=c2FsdA==,i=4095", "r=usx,s=c2FsdA==,i=1000001", "r=usx,s=,i=4096", "r=usx,s=!,i=4096",
		"r=other,s=c2FsdA==,i=4096", "m=x,r=usx,s=c2FsdA==,i=4096", "r=usx,s=c2FsdA==,i=4096,m=x", "r=usx,s=c2FsdA==", "e=unknown-user",
		"r=us" + strings.Repeat("x", 600) + ",s=c2FsdA==,i=4096",
	} {
		c := &scramClient{hash: SHA256, user: "u", password: "p", nonce: "us"}
		c.Next(nil)
		if got, err := c.Next([]byte(first)); err == nil {
			t.Errorf("%q is answered by %q", first, got)
		}
	}
	for _, final := range []string{"", "v=", "v=AAAA", "e=invalid-proof", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="} {
		c := &scramClient{hash: SHA256, user: "u", password: "p", nonce: "us"}
		c.Next(nil)
		if _, err := c.Next([]byte("r=usx,s=c2FsdA==,i=4096")); err != nil {
			t.Fatal(err)
		}
		if err := c.Proven(); err == nil {
			t.Error("taken before it has shown anything")
		}
		if _, err := c.Next([]byte(final)); err == nil || c.Proven() == nil {
			t.Errorf("%q is taken", final)
		}
	}
}
