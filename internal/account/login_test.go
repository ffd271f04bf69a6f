package account

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/sasl"
	"postroad/internal/store"
)

func newLogins(t *testing.T) *Logins {
	d := populated(t)
	return NewLogins(d, NewGuard(nil, d))
}

func (l *Logins) change(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// scramLogin plays a client of SCRAM; between is called before the proof is sent.
func scramLogin(t *testing.T, l *Logins, mechanism string, c Client, header, user, password string, between func()) (Exchange, error) {
	t.Helper()
	x, err := l.Begin(t.Context(), c, mechanism)
	if err != nil {
		return nil, err
	}
	bare := "n=" + user + ",r=client"
	first, _, err := x.Next([]byte(header + bare))
	if err != nil {
		return x, err
	}
	if between != nil {
		between()
	}
	h := sha256.New
	if strings.HasPrefix(mechanism, sasl.ScramSHA1) {
		h = sha1.New
	}
	last, _, err := x.Next([]byte(proof(h, string(first), bare, header, password, c.Bindings[sasl.Exporter])))
	if err != nil {
		return x, err
	}
	if !strings.HasPrefix(string(last), "v=") {
		t.Errorf("the last message is %q", last)
	}
	if _, done, err := x.Next([]byte{}); !done || err != nil {
		t.Errorf("in the end: %v, %v", done, err)
	}
	return x, nil
}

// challenged reads what a server-first-message says.
func challenged(first string) (nonce string, salt []byte, iterations int) {
	f := strings.SplitN(first, ",", 3)
	salt, _ = base64.StdEncoding.DecodeString(f[1][2:])
	fmt.Sscanf(f[2], "i=%d", &iterations)
	return f[0][2:], salt, iterations
}

func proof(h func() hash.Hash, first, bare, header, password string, binding []byte) string {
	nonce, salt, iterations := challenged(first)
	if !strings.HasPrefix(header, "p=") {
		binding = nil
	}
	without := "c=" + base64.StdEncoding.EncodeToString(append([]byte(header), binding...)) + ",r=" + nonce
	salted, _ := pbkdf2.Key(h, password, salt, iterations, h().Size())
	key := macOf(h, salted, "Client Key")
	stored := h()
	stored.Write(key)
	p := make([]byte, len(key))
	subtle.XORBytes(p, key, macOf(h, stored.Sum(nil), bare+","+first+","+without))
	return without + ",p=" + base64.StdEncoding.EncodeToString(p)
}

func macOf(h func() hash.Hash, key []byte, text string) []byte {
	m := hmac.New(h, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

var overTLS = Client{Protocol: IMAP, From: honest, Bindings: sasl.Bindings{sasl.Exporter: []byte("of this connection")}}

func TestScramLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(t)
		d := l.dir
		for _, c := range []struct {
			name, mechanism, header, user, password string
			between                                 func()
			err                                     error
		}{
			{"right", sasl.ScramSHA256, "n,,", alice, secret, nil, nil},
			{"bound to the connection", sasl.ScramSHA256Plus, "p=tls-exporter,,", alice, secret, nil, nil},
			{"in any case", sasl.ScramSHA256, "n,,", "A@X.Test", secret, nil, nil},
			{"as itself", sasl.ScramSHA256, "n,a=A@x.test,", alice, secret, nil, nil},
			{"as another", sasl.ScramSHA256, "n,a=b@x.test,", alice, secret, nil, ErrCredentials},
			{"wrong", sasl.ScramSHA256, "n,,", alice, "x", nil, ErrCredentials},
			{"another's password", sasl.ScramSHA256, "n,,", "b@x.test", secret, nil, ErrCredentials},
			{"unknown", sasl.ScramSHA256, "n,,", "z@x.test", secret, nil, ErrCredentials},
			{"no address", sasl.ScramSHA256, "n,,", "z", secret, nil, ErrCredentials},
			{"the offer was hidden", sasl.ScramSHA256, "y,,", alice, secret, nil, sasl.ErrBinding},
			{"another mechanism", "SCRAM-SHA-1", "n,,", alice, secret, nil, ErrMechanism},
			{"disabled meanwhile", sasl.ScramSHA256, "n,,", alice, secret, func() { l.change(t, d.SetDisabled(addr(alice), true)) }, ErrCredentials},
			{"disabled", sasl.ScramSHA256, "n,,", alice, secret, nil, ErrCredentials},
			{"enabled meanwhile", sasl.ScramSHA256, "n,,", alice, secret, func() { l.change(t, d.SetDisabled(addr(alice), false)) }, ErrCredentials},
			{"enabled again", sasl.ScramSHA256, "n,,", alice, secret, nil, nil},
			{"a new password meanwhile", sasl.ScramSHA256, "n,,", alice, secret, func() { l.change(t, d.SetPassword(addr(alice), "new")) }, ErrCredentials},
			{"the old password", sasl.ScramSHA256, "n,,", alice, secret, nil, ErrCredentials},
			{"the new password", sasl.ScramSHA256, "n,,", alice, "new", nil, nil},
			{"removed meanwhile", sasl.ScramSHA256, "n,,", alice, "new", func() { l.change(t, d.Remove(addr(alice), nil)) }, ErrCredentials},
		} {
			l.guard = NewGuard(nil, nil)
			began := time.Now()
			x, err := scramLogin(t, l, c.mechanism, overTLS, c.header, c.user, c.password, c.between)
			if !errors.Is(err, c.err) {
				t.Errorf("%s: %v, want %v", c.name, err, c.err)
			}
			if err == nil && (x.Login().Address.String() != alice || x.User() != c.user) {
				t.Errorf("%s: %v logged in as %s", c.name, x.Login().Address, x.User())
			}
			if errors.Is(err, ErrCredentials) && time.Since(began) < failureDelay {
				t.Errorf("%s: answered at once", c.name)
			}
		}
	})
}

func TestPlainAndLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(t)
		for _, c := range []struct {
			mechanism string
			responses []string
			err       error
		}{
			{sasl.Plain, []string{"\x00a@x.test\x00secret-a@x.test"}, nil},
			{sasl.Plain, []string{"A@x.test\x00a@x.test\x00secret-a@x.test"}, nil},
			{sasl.Plain, []string{"b@x.test\x00a@x.test\x00secret-a@x.test"}, ErrCredentials},
			{sasl.Plain, []string{"\x00a@x.test\x00wrong"}, ErrCredentials},
			{sasl.Plain, []string{"a@x.test"}, sasl.ErrSyntax},
			{sasl.Login, []string{"a@x.test", "secret-a@x.test"}, nil},
			{sasl.Login, []string{"a@x.test", "wrong"}, ErrCredentials},
		} {
			x, err := l.Begin(t.Context(), Client{From: honest}, c.mechanism)
			if err != nil {
				t.Fatal(err)
			}
			done := false
			for _, r := range c.responses {
				_, done, err = x.Next([]byte(r))
			}
			if !errors.Is(err, c.err) || done != (c.err == nil) || done && x.Login().Address != addr("a@x.test") {
				t.Errorf("%s %q: %v, %v", c.mechanism, c.responses, done, err)
			}
		}
	})
}

func TestMechanisms(t *testing.T) {
	l := newLogins(t)
	if got := l.Mechanisms(Client{}); slices.Contains(got, sasl.ScramSHA256Plus) {
		t.Errorf("in the clear %q", got)
	}
	if _, err := l.Begin(t.Context(), Client{}, sasl.ScramSHA256Plus); err != ErrMechanism {
		t.Errorf("PLUS in the clear: %v", err)
	}
	for _, m := range l.Mechanisms(overTLS) {
		if _, err := l.Begin(t.Context(), overTLS, m); err != nil {
			t.Errorf("%s is offered: %v", m, err)
		}
	}
}

// Nobody can tell by a salt who has an account: it is always the same for a name, also after a restart.
func TestSaltsOfUnknownUsers(t *testing.T) {
	d, st := openDirectory(t)
	d.AddDomain("x.test")
	if _, err := d.Add(addr("a@x.test"), "secret", nil); err != nil {
		t.Fatal(err)
	}
	salts := map[string]string{}
	for _, dir := range []*Directory{d, Open(st, nil)} {
		l := NewLogins(dir, NewGuard(nil, nil))
		for _, user := range []string{"a@x.test", "z@x.test", "Z@X.TEST", "zz@x.test", "nothing"} {
			x, _ := l.Begin(t.Context(), Client{}, sasl.ScramSHA256)
			first, _, err := x.Next([]byte("n,,n=" + user + ",r=client"))
			if err != nil {
				t.Fatal(err)
			}
			_, salt, iterations := challenged(string(first))
			if len(salt) != 16 || iterations != scramIterations {
				t.Errorf("%s: %q", user, first)
			}
			name := strings.ToLower(user)
			if old, ok := salts[name]; ok && old != string(salt) {
				t.Errorf("%s has another salt each time", user)
			}
			for other, s := range salts {
				if other != name && s == string(salt) {
					t.Errorf("%s has the salt of %s", user, other)
				}
			}
			salts[name] = string(salt)
		}
	}
}

// What SCRAM-SHA-1 needs is kept while it is on, and of older passwords learned with the next that is seen.
func TestScramSHA1(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(t)
		_, app, err := l.dir.AddAppPassword(addr(alice), AppPassword{Name: "phone", Protocols: []string{IMAP}})
		l.change(t, err)
		login := func(what, mechanism, header, password string, want error) {
			t.Helper()
			l.guard = NewGuard(nil, nil)
			if _, err := scramLogin(t, l, mechanism, overTLS, header, alice, password, nil); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
		}
		shown := func(password string, want error) {
			t.Helper()
			if _, err := l.LogIn(t.Context(), overTLS, alice, password); !errors.Is(err, want) {
				t.Errorf("%q: %v, want %v", password, err, want)
			}
		}
		login("off", sasl.ScramSHA1, "n,,", secret, ErrMechanism)
		if slices.Contains(l.Mechanisms(overTLS), sasl.ScramSHA1) {
			t.Error("offered when off")
		}
		l.dir.KeepSHA1()
		if !slices.Contains(l.Mechanisms(overTLS), sasl.ScramSHA1) || slices.Contains(l.Mechanisms(Client{}), sasl.ScramSHA1Plus) {
			t.Error("not offered when on, or bound to nothing")
		}
		login("not known yet", sasl.ScramSHA1, "n,,", secret, ErrCredentials)
		login("nor of the app password", sasl.ScramSHA1, "n,,", app, ErrCredentials)
		shown("wrong", ErrCredentials)
		login("a false password teaches nothing", sasl.ScramSHA1, "n,,", "wrong", ErrCredentials)
		shown(secret, nil)
		login("learned", sasl.ScramSHA1, "n,,", secret, nil)
		login("bound", sasl.ScramSHA1Plus, "p=tls-exporter,,", secret, nil)
		login("the offer was hidden", sasl.ScramSHA1, "y,,", secret, sasl.ErrBinding)
		shown(strings.ToUpper(app), nil)
		login("learned of the app password", sasl.ScramSHA1, "n,,", app, nil)
		login("without separators", sasl.ScramSHA1, "n,,", strings.ReplaceAll(app, "-", ""), nil)
		login("SHA-256 as before", sasl.ScramSHA256, "n,,", app, nil)
		l.change(t, l.dir.SetPassword(addr(alice), "new"))
		login("a new password", sasl.ScramSHA1, "n,,", "new", nil)
		login("the old one", sasl.ScramSHA1, "n,,", secret, ErrCredentials)
	})
}

// The guard holds for all ways to log in together, and an answer that is waited for ends with its context.
func TestLoginsAreGuarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(t)
		from := Client{From: attacker}
		for i := range netFailures / 2 {
			if _, err := l.LogIn(t.Context(), from, "a@x.test", fmt.Sprint("guess", i)); !errors.Is(err, ErrCredentials) {
				t.Fatal(err)
			}
			if _, err := scramLogin(t, l, sasl.ScramSHA256, from, "n,,", "z@x.test", fmt.Sprint("guess", i), nil); !errors.Is(err, ErrCredentials) {
				t.Fatal(err)
			}
		}
		if _, err := l.LogIn(t.Context(), from, "a@x.test", "secret-a@x.test"); !errors.Is(err, ErrGuessing) {
			t.Errorf("password: %v", err)
		}
		if _, err := scramLogin(t, l, sasl.ScramSHA256, from, "n,,", "a@x.test", "secret-a@x.test", nil); !errors.Is(err, ErrGuessing) {
			t.Errorf("SCRAM: %v", err)
		}
		if _, err := l.LogIn(t.Context(), Client{From: honest}, "a@x.test", "secret-a@x.test"); err != nil {
			t.Errorf("from elsewhere: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { time.Sleep(time.Millisecond); cancel() }()
		began := time.Now()
		if _, err := l.LogIn(ctx, Client{From: honest}, "b@x.test", "x"); err == nil || time.Since(began) != time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestWatch(t *testing.T) {
	d := populated(t)
	a, _ := d.Get(addr("a@x.test"))
	var told []ID
	stop := d.Watch(func(id ID) {
		if now, err := d.ByID(id); err == nil && !now.Disabled && len(told) == 0 {
			t.Error("told before the commit")
		}
		told = append(told, id)
	})
	one := int64(1)
	steps := []func() error{
		func() error { return d.SetDisabled(a.Address, true) },
		func() error { return d.SetPassword(a.Address, "new") },
		func() error { return d.Remove(a.Address, nil) },
	}
	quiet := []func() error{
		func() error { return d.SetDisabled(a.Address, false) },
		func() error { _, err := d.Set(a.Address, Settings{Octets: &one}); return err },
		func() error { return ignore(d.SetPassword(a.Address, "")) },
		func() error { return ignore(d.SetDisabled(addr("z@x.test"), true)) },
		func() error {
			return ignore(d.Remove(a.Address, func(store.Tx, Account) error { return errors.New("no") }))
		},
	}
	for i, step := range steps {
		before, _ := d.Get(a.Address)
		for _, q := range quiet {
			if err := q(); err != nil {
				t.Fatal(err)
			}
		}
		if len(told) != i || !d.Stands(before) {
			t.Fatalf("told %v before step %d", told, i)
		}
		if err := step(); err != nil {
			t.Fatal(err)
		}
		if d.Stands(before) {
			t.Errorf("step %d is not seen of who asks", i)
		}
		if len(told) != i+1 || told[i] != a.ID {
			t.Fatalf("told %v after step %d", told, i)
		}
	}
	stop()
	if err := d.SetDisabled(addr("b@x.test"), true); err != nil || len(told) != len(steps) {
		t.Errorf("told %v after the end: %v", told, err)
	}
}

func ignore(error) error { return nil }

// A login is judged by the account as it was before the password is looked at, which takes its time.
func TestChangedWhileJudged(t *testing.T) {
	l := newLogins(t)
	l.dir.verifier.check = func(hash, password string) bool {
		l.change(t, l.dir.SetPassword(addr(alice), "new"))
		return checkPassword(hash, password)
	}
	in, err := l.LogIn(t.Context(), overTLS, alice, secret)
	if err != nil {
		t.Fatal(err)
	}
	if l.dir.Stands(in.Account) {
		t.Error("the login stands by a password that is no more")
	}
}

func TestSettings(t *testing.T) {
	d := populated(t)
	n, none, yes := int64(7), int64(0), true
	negative := int64(-1)
	for _, c := range []struct {
		name string
		set  Settings
		want Account
		err  error
	}{
		{"a quota", Settings{Octets: &n, Messages: &n}, Account{Quota: Quota{7, 7}}, nil},
		{"of messages only", Settings{Octets: &none}, Account{Quota: Quota{0, 7}}, nil},
		{"an administrator", Settings{Admin: &yes}, Account{Quota: Quota{0, 7}, Admin: true}, nil},
		{"hidden", Settings{Hide: []string{"sort", "CONDSTORE", "Sort"}}, Account{Quota: Quota{0, 7}, Admin: true, Hidden: []string{"CONDSTORE", "SORT"}}, nil},
		{"shown", Settings{Hide: []string{"ACL"}, Show: []string{"Condstore", "X"}}, Account{Quota: Quota{0, 7}, Admin: true, Hidden: []string{"ACL", "SORT"}}, nil},
		{"negative", Settings{Messages: &negative}, Account{}, ErrSetting},
		{"no name", Settings{Hide: []string{""}}, Account{}, ErrSetting},
		{"two words", Settings{Show: []string{"A B"}}, Account{}, ErrSetting},
		{"not ASCII", Settings{Hide: []string{"Ä"}}, Account{}, ErrSetting},
		{"very long", Settings{Hide: []string{strings.Repeat("x", 65)}}, Account{}, ErrSetting},
		{"very many", Settings{Hide: make([]string, 101)}, Account{}, ErrSetting},
	} {
		got, err := d.Set(addr("a@x.test"), c.set)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
		if err != nil {
			continue
		}
		stored, _ := d.Get(addr("a@x.test"))
		for _, a := range []Account{got, stored} {
			if a.Quota != c.want.Quota || a.Admin != c.want.Admin || !slices.Equal(a.Hidden, c.want.Hidden) {
				t.Errorf("%s: %+v", c.name, a)
			}
		}
	}
	if _, err := d.Set(addr("z@x.test"), Settings{Admin: &yes}); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
}

// What is kept of a password is in the store alone.
func TestNoSecretsInAccounts(t *testing.T) {
	d := populated(t)
	a, _ := d.Get(addr("a@x.test"))
	b, _ := json.Marshal(a)
	text := strings.ToLower(string(b) + fmt.Sprintf("%+v", a))
	for _, word := range []string{"hash", "scram", "salt", "argon", "stored"} {
		if strings.Contains(text, word) {
			t.Errorf("an account tells its %s: %s", word, text)
		}
	}
}
