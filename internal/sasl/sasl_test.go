package sasl

import (
	"errors"
	"strings"
	"testing"
)

var errWrong = errors.New("wrong")

// only lets one pair of name and password in.
func only(user, password string) func(identity, u, p string) error {
	return func(identity, u, p string) error {
		if identity != "" && identity != u || u != user || p != password {
			return errWrong
		}
		return nil
	}
}

func TestPlain(t *testing.T) {
	for _, c := range []struct {
		name, response string
		err            error
	}{
		{"right", "\x00tim\x00tanstaaftanstaaf", nil},
		{"as itself", "tim\x00tim\x00tanstaaftanstaaf", nil},
		{"as another", "kurt\x00tim\x00tanstaaftanstaaf", errWrong},
		{"wrong", "\x00tim\x00x", errWrong},
		{"two parts", "tim\x00tanstaaftanstaaf", ErrSyntax},
		{"four parts", "\x00tim\x00tanstaaftanstaaf\x00", ErrSyntax},
		{"nothing", "", ErrSyntax},
		{"no name", "\x00\x00x", ErrSyntax},
		{"no password", "\x00tim\x00", ErrSyntax},
		{"a name that is not UTF-8", "\x00t\xffm\x00x", ErrSyntax},
		{"a password that is not UTF-8 is only wrong", "\x00tim\x00\xff", errWrong},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := NewPlain(only("tim", "tanstaaftanstaaf"))
			if _, done, err := s.Next([]byte(c.response)); !errors.Is(err, c.err) || done != (c.err == nil) {
				t.Errorf("at once: %v, %v", done, err)
			}
			if _, done, err := s.Next([]byte("\x00tim\x00tanstaaftanstaaf")); c.err != ErrSyntax && (done || err != ErrSyntax) {
				t.Errorf("once more: %v, %v", done, err)
			}
			s = NewPlain(only("tim", "tanstaaftanstaaf"))
			if challenge, done, err := s.Next(nil); len(challenge) != 0 || done || err != nil {
				t.Fatalf("the first challenge: %q, %v, %v", challenge, done, err)
			}
			if _, done, err := s.Next([]byte(c.response)); !errors.Is(err, c.err) || done != (c.err == nil) {
				t.Errorf("when asked: %v, %v", done, err)
			}
		})
	}
	s := NewPlain(only("a", "b"))
	s.Next(nil)
	if _, done, err := s.Next(nil); done || err != ErrSyntax {
		t.Errorf("asked twice: %v, %v", done, err)
	}
}

func TestLogin(t *testing.T) {
	for _, c := range []struct {
		name      string
		responses []string // "-" is none
		want      string
	}{
		{"asked for both", []string{"-", "tim", "x"}, "Username: Password: done"},
		{"the name at once", []string{"tim", "x"}, "Password: done"},
		{"wrong", []string{"-", "tim", "y"}, "Username: Password: wrong"},
		{"no name", []string{"-", ""}, "Username: syntax"},
		{"no password", []string{"tim", ""}, "Password: syntax"},
		{"NUL", []string{"tim", "x\x00"}, "Password: syntax"},
		{"none where one must be", []string{"-", "-"}, "Username: syntax"},
		{"a name that is not UTF-8", []string{"\xff"}, "syntax"},
		{"once more", []string{"tim", "x", "x"}, "Password: done syntax"},
	} {
		s := NewLogin(func(user, password string) error { return only("tim", "x")("", user, password) })
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
			t.Errorf("%s: %s, want %s", c.name, g, c.want)
		}
	}
}

func outcome(challenge string, done bool, err error) string {
	switch {
	case errors.Is(err, ErrSyntax):
		return "syntax"
	case errors.Is(err, ErrBinding):
		return "binding"
	case err != nil:
		return err.Error()
	case done:
		return "done"
	}
	return challenge
}

// The examples of RFC 4013, 3, and what the tables forbid.
func TestPrepare(t *testing.T) {
	for in, want := range map[string]string{
		"user": "user", "USER": "USER", "": "", "a b": "a b",
		"I\u00adX": "IX", "\u00aa": "a", "\u2168": "IX", "pass\u00a0word": "pass word", "a\u200bb": "a b",
		"\u0007": "\u0007", "\u00e9\u0007": "\u00e9\u0007", "e\u0301": "\u00e9",
		"\u0627\u0031": "\u0627\u0031", // must end as it begins: left as it is
		"\u0627\u0628": "\u0627\u0628", "\u0627a\ufb50": "\u0627a\ufb50", "\ufb50": "\u0671",
		"\u00ad": "\u00ad", "\U000e0001x": "\U000e0001x", "\ue000\u2168": "\ue000\u2168", "\u0378\u2168": "\u0378\u2168",
		"\xff\u2168": "\xff\u2168", "\U0001f600\u00ad": "\U0001f600",
	} {
		if got := Prepare(in); got != want {
			t.Errorf("%+q becomes %+q, want %+q", in, got, want)
		}
		if again := Prepare(want); again != want {
			t.Errorf("%+q does not stay what it is: %+q", want, again)
		}
	}
}
