package account

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/sasl"
)

// E01: who shows a password, token or proof acts as its account and as no other, whoever asks.
func TestE01NobodyActsForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(t)
		l.Tokens = tokens{"of-a": alice}
		admin := true
		_, err := l.dir.Set(addr(alice), Settings{Admin: &admin})
		l.change(t, err)
		app := l.addApp(t, AppPassword{Name: "phone", Protocols: []string{IMAP}})
		c := Client{Protocol: IMAP, From: honest, TLS: true, Certificate: certificateFor(t, []string{alice})}
		say := func(mechanism, message string) (Exchange, error) {
			x, err := l.Begin(t.Context(), c, mechanism)
			if err != nil {
				t.Fatal(err)
			}
			for response := []byte(message); ; response = []byte("\x01") {
				challenge, done, err := x.Next(response)
				if done || err != nil {
					return x, err
				}
				if challenge == nil {
					t.Fatal("neither a challenge nor an end")
				}
			}
		}
		for identity, may := range map[string]bool{
			"": true, alice: true, "A@X.Test": true, "b@x.test": false, "postmaster@x.test": false, "a": false, "root": false,
			"a@x.test ": false, "*": false, "a@x.test,b@x.test": false, "@x.test": false, "a@x.test@x.test": false,
		} {
			header := "n,,"
			if identity != "" {
				header = "n,a=" + strings.ReplaceAll(identity, ",", "=2C") + ","
			}
			for name, login := range map[string]func() (Exchange, error){
				"PLAIN":       func() (Exchange, error) { return say(sasl.Plain, identity+"\x00"+alice+"\x00"+secret) },
				"PLAIN, app":  func() (Exchange, error) { return say(sasl.Plain, identity+"\x00"+alice+"\x00"+app) },
				"SCRAM":       func() (Exchange, error) { return scramLogin(t, l, sasl.ScramSHA256, c, header, alice, secret, nil) },
				"SCRAM, app":  func() (Exchange, error) { return scramLogin(t, l, sasl.ScramSHA256, c, header, alice, app, nil) },
				"OAUTHBEARER": func() (Exchange, error) { return say(sasl.OAuthBearer, header+"\x01auth=Bearer of-a\x01\x01") },
				"EXTERNAL":    func() (Exchange, error) { return say(sasl.External, identity) },
			} {
				l.guard = NewGuard(nil, nil)
				x, err := login()
				if (err == nil) != may || err != nil && !errors.Is(err, ErrCredentials) {
					t.Errorf("%s as %q: %v", name, identity, err)
				}
				if err == nil && x.Login().Address != addr(alice) {
					t.Errorf("%s as %q is %v", name, identity, x.Login().Address)
				}
				if err != nil && x.Login().ID != 0 {
					t.Errorf("%s as %q failed and is %v", name, identity, x.Login().Address)
				}
			}
		}
	})
}

// E03: who does not exist, is disabled, or has no password of its own is hashed for as everybody is, once for each
// false password; and a proof is compared with as many keys.
func TestE03TheSameWorkForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(t)
		only := true
		for _, name := range []string{"off@x.test", "only@x.test", "many@x.test"} {
			if _, err := l.dir.Add(addr(name), "secret", nil); err != nil {
				t.Fatal(err)
			}
		}
		l.change(t, l.dir.SetDisabled(addr("off@x.test"), true))
		_, err := l.dir.Set(addr("only@x.test"), Settings{AppOnly: &only})
		l.change(t, err)
		for i := range 5 {
			if _, _, err := l.dir.AddAppPassword(addr("many@x.test"), AppPassword{Name: fmt.Sprint(i), Protocols: []string{IMAP}}); err != nil {
				t.Fatal(err)
			}
		}
		var hashes []string
		l.dir.verifier.check = func(hash, password string) bool {
			hashes = append(hashes, hash[:strings.LastIndexByte(hash[:strings.LastIndexByte(hash, '$')], '$')])
			return false
		}
		for _, user := range []string{alice, "off@x.test", "only@x.test", "many@x.test", "nobody@x.test", "a@far.test", "nothing", "@", "a%00@@", strings.Repeat("x", 5000)} {
			for _, password := range []string{"wrong", "abcde-fghij-klmno-pqrst-uvwxy", strings.Repeat("x", 5000)} {
				l.guard, hashes = NewGuard(nil, nil), nil
				if _, err := l.LogIn(t.Context(), overTLS, user, password); err != ErrCredentials {
					t.Errorf("%.20s: %v", user, err)
				}
				if want := "$argon2id$v=19$m=19456,t=2,p=1"; len(hashes) != 1 || hashes[0] != want {
					t.Errorf("%.20s with %.20s costs %v, want one of %s", user, password, hashes, want)
				}
			}
			w, err := l.dir.holder(user)
			l.change(t, err)
			for _, sha1 := range []bool{false, true} {
				c, err := l.dir.scramCredentials(w, user, sha1)
				if err != nil || len(c.Keys) != scramKeys || c.Iterations != l.dir.iterations || len(c.Salt) != 16 {
					t.Errorf("%.20s: %d keys, %d iterations, %d octets of salt, %v", user, len(c.Keys), c.Iterations, len(c.Salt), err)
				}
				for _, k := range c.Keys {
					if len(k.Stored) != len(c.Keys[0].Stored) || len(k.Server) != len(k.Stored) {
						t.Errorf("%.20s has keys of several sizes", user)
					}
				}
			}
		}
	})
}

// E07: a password that was right is remembered for its account and hash alone, and with what it opens.
func TestE07RememberedFor(t *testing.T) {
	d := populated(t)
	v := d.verifier
	first, second := hashOf(t, d, alice), hashOf(t, d, "b@x.test")
	computed := 0
	v.check = func(hash, password string) bool { computed++; return checkPassword(hash, password) }
	verify := func(what, hash, password string, right bool, hashes int) {
		t.Helper()
		computed = 0
		if ok, err := v.verify(t.Context(), hash, password); ok != right || err != nil || computed != hashes {
			t.Errorf("%s: %v, %v, %d hashes", what, ok, err, computed)
		}
	}
	verify("new", first, secret, true, 1)
	verify("remembered", first, secret, true, 0)
	verify("another's hash", second, secret, false, 1)
	verify("another password", first, secret+"x", false, 1)
	verify("and still right", first, secret, true, 0)
	verify("what is moved between the two", first+secret[:1], secret[1:], false, 1)
	verify("nobody", "", secret, false, 1)
	if other := newVerifier(time.Now); other.mac(first, secret) == v.mac(first, secret) {
		t.Error("the key is the same each time")
	}
}

// E08: of any number of logins at once, two compute a hash.
func TestE08HashesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLogins(populated(t), NewGuard(nil, nil))
		var now, most atomic.Int32
		l.dir.verifier.check = func(hash, password string) bool {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Millisecond)
			now.Add(-1)
			return true
		}
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				if _, err := l.LogIn(t.Context(), Client{Protocol: IMAP}, alice, fmt.Sprint("p", i)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if int(most.Load()) != cap(l.dir.verifier.slots) {
			t.Errorf("%d hashes were computed at once", most.Load())
		}
	})
}

// The time that a false password takes, by kind of user: by hand, with -benchtime 20000x, to hold one against another.
func BenchmarkFalsePassword(b *testing.B) {
	d := populated(b)
	for _, user := range []string{alice, "nobody@x.test"} {
		b.Run(user, func(b *testing.B) {
			for b.Loop() {
				if _, err := d.Verify(b.Context(), user, "wrong"); err != ErrCredentials {
					b.Fatal(err)
				}
			}
		})
	}
}
