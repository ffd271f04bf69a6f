package account

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

func openDirectory(t testing.TB) (*Directory, *store.Store) {
	t.Helper()
	st, err := store.Open(storetest.MemoryDir(t), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return Open(st, nil), st
}

func addr(s string) envelope.Address {
	if domain, ok := strings.CutPrefix(s, "@"); ok {
		return envelope.Address{Domain: domain}
	}
	a, err := envelope.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

// must makes the domain x.test with the accounts a and b.
func populated(t testing.TB) *Directory {
	t.Helper()
	d, _ := openDirectory(t)
	d.iterations = 4096 // what is tested does not depend on how much work a login is
	if _, err := d.AddDomain("X.test"); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"a@x.test", "b@x.test"} {
		if _, err := d.Add(addr(a), "secret-"+a, nil); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func setAlias(t testing.TB, d *Directory, from string, to ...string) {
	t.Helper()
	var targets []envelope.Address
	for _, s := range to {
		targets = append(targets, addr(s))
	}
	if _, err := d.SetAlias(addr(from), targets); err != nil {
		t.Fatal(err)
	}
}

func TestResolve(t *testing.T) {
	d := populated(t)
	setAlias(t, d, "both@x.test", "a@x.test", "b@x.test", "a@x.test", "out@far.test")
	setAlias(t, d, "chain@x.test", "both@x.test", "a@x.test")
	setAlias(t, d, "loop@x.test", "pool@x.test")
	setAlias(t, d, "self@x.test", "self@x.test", "a@x.test")
	setAlias(t, d, "dangling@x.test", "nobody@x.test")
	setAlias(t, d, "half@x.test", "nobody@x.test", "b@x.test")
	for i := range 15 {
		setAlias(t, d, fmt.Sprintf("deep%d@x.test", i), fmt.Sprintf("deep%d@x.test", i+1))
	}
	if _, err := d.AddDomain("all.test"); err != nil {
		t.Fatal(err)
	}
	setAlias(t, d, "@all.test", "b@x.test")
	setAlias(t, d, "special@all.test", "a@x.test")
	for _, c := range []struct {
		name, addr string
		want       string
		err        error
	}{
		{"an account", "a@x.test", "a@x.test", nil},
		{"in any case", "A@X.TEST", "a@x.test", nil},
		{"unknown", "nobody@x.test", "", ErrUnknown},
		{"a foreign address is itself", "z@far.test", "z@far.test", nil},
		{"several targets, each once", "both@x.test", "a@x.test b@x.test out@far.test", nil},
		{"an alias of an alias", "chain@x.test", "a@x.test b@x.test out@far.test", nil},
		{"an alias of nothing yet", "loop@x.test", "", ErrUnknown},
		{"an alias that keeps a copy", "self@x.test", "a@x.test", nil},
		{"an alias to nowhere", "dangling@x.test", "", ErrUnknown},
		{"one target to nowhere", "half@x.test", "b@x.test", nil},
		{"too deep", "deep0@x.test", "", ErrLoop},
		{"catch-all", "whoever@all.test", "b@x.test", nil},
		{"but an alias first", "special@all.test", "a@x.test", nil},
		{"postmaster is somebody", "postmaster@x.test", "a@x.test", nil},
		{"also under a catch-all", "Postmaster@all.test", "a@x.test", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			targets, err := d.Resolve(addr(c.addr))
			var got []string
			for _, x := range targets {
				got = append(got, x.Address.String())
				if local := x.Address.Domain != "far.test"; local != (x.Account != 0) {
					t.Errorf("%v: account %d", x.Address, x.Account)
				}
			}
			if !errors.Is(err, c.err) || err == nil && strings.Join(got, " ") != c.want {
				t.Errorf("got %q, %v; want %q, %v", got, err, c.want, c.err)
			}
		})
	}
	if got, err := d.Resolve(envelope.Address{Local: "Postmaster"}); err != nil || len(got) != 1 || got[0].Address != addr("a@x.test") {
		t.Errorf("bare postmaster: %v %v", got, err)
	}
}

func TestMaySend(t *testing.T) {
	d := populated(t)
	setAlias(t, d, "sales@x.test", "a@x.test")
	a, _ := d.Get(addr("a@x.test"))
	for address, want := range map[string]bool{
		"a@x.test": true, "A@x.test": true, "sales@x.test": true,
		"b@x.test": false, "nobody@x.test": false, "a@far.test": false,
	} {
		if got, err := d.MaySend(a.ID, addr(address)); got != want || err != nil {
			t.Errorf("%s: %v %v", address, got, err)
		}
	}
	if err := d.SetDisabled(a.Address, true); err != nil {
		t.Fatal(err)
	}
	if may, err := d.MaySend(a.ID, a.Address); may || err != nil {
		t.Errorf("disabled: %v %v", may, err)
	}
	if err := d.Remove(a.Address, nil); err != nil {
		t.Fatal(err)
	}
	if may, err := d.MaySend(a.ID, addr("sales@x.test")); may || err != nil {
		t.Errorf("removed: %v %v", may, err)
	}
}

func TestVerify(t *testing.T) {
	ctx := context.Background()
	d := populated(t)
	now := time.Now()
	d.verifier.now = func() time.Time { return now }
	verify := func(what, user, password string, want error) {
		t.Helper()
		if _, err := d.Verify(ctx, user, password); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	verify("right", "a@x.test", "secret-a@x.test", nil)
	verify("remembered", "A@X.test", "secret-a@x.test", nil)
	verify("wrong", "a@x.test", "secret-b@x.test", ErrCredentials)
	verify("empty", "a@x.test", "", ErrCredentials)
	verify("very long", "a@x.test", strings.Repeat("x", 1<<20), ErrCredentials)
	verify("unknown user", "z@x.test", "secret-a@x.test", ErrCredentials)
	verify("not an address", "a%00@@", "x", ErrCredentials)
	now = now.Add(remembered)
	if d.verifier.knows(hashOf(t, d, "a@x.test"), d.verifier.mac(hashOf(t, d, "a@x.test"), "secret-a@x.test")) {
		t.Error("a password is remembered longer than it should be")
	}
	verify("forgotten and right", "a@x.test", "secret-a@x.test", nil)

	if err := d.SetPassword(addr("a@x.test"), "new"); err != nil {
		t.Fatal(err)
	}
	verify("the old one after a change", "a@x.test", "secret-a@x.test", ErrCredentials)
	verify("the new one", "a@x.test", "new", nil)
	if err := d.SetDisabled(addr("a@x.test"), true); err != nil {
		t.Fatal(err)
	}
	verify("disabled, though remembered", "a@x.test", "new", ErrCredentials)
	if targets, err := d.Resolve(addr("a@x.test")); err != nil || len(targets) != 1 {
		t.Errorf("a disabled account gets no mail: %v %v", targets, err)
	}
}

func hashOf(t *testing.T, d *Directory, user string) string {
	w, _ := d.holder(user)
	if w.record.Hash == "" {
		t.Fatal("no hash")
	}
	return w.record.Hash
}

func TestVerifyIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier(time.Now)
		for range cap(v.slots) {
			v.slots <- struct{}{}
		}
		begin := time.Now()
		if _, err := v.verify(t.Context(), "", "x"); !errors.Is(err, ErrBusy) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begin); took != patience {
			t.Errorf("waited %v", took)
		}
	})
}

// What cannot be read is not a wrong password.
func TestVerifyTellsTrouble(t *testing.T) {
	d, st := openDirectory(t)
	d.AddDomain("x.test")
	a, err := d.Add(addr("a@x.test"), "secret", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Update(func(tx store.Tx) error { tx.Put(accountKey(a.ID), []byte("damaged")); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Verify(t.Context(), "a@x.test", "secret"); err == nil || errors.Is(err, ErrCredentials) {
		t.Errorf("a damaged account: %v", err)
	}
	st.Close()
	if _, err := d.Verify(t.Context(), "b@x.test", "secret"); err == nil || errors.Is(err, ErrCredentials) {
		t.Errorf("a closed store: %v", err)
	}
}

func TestVerifyStopsWaitingWithItsContext(t *testing.T) {
	d := populated(t)
	for range cap(d.verifier.slots) {
		d.verifier.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := d.Verify(ctx, "a@x.test", "secret-a@x.test"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestHashesThatCannotBeReadAreNobodys(t *testing.T) {
	good, err := hashPassword("p")
	if err != nil || !checkPassword(good, "p") {
		t.Fatal("a fresh hash is not right", err)
	}
	for _, bad := range []string{
		"", "$", "p", strings.Replace(good, "m=19456", "m=99999999", 1), strings.Replace(good, "argon2id", "argon2i", 1),
		strings.Replace(good, "t=2", "t=0", 1), strings.Replace(good, "p=1", "p=0", 1), good[:len(good)-30], good + "$",
	} {
		if checkPassword(bad, "p") {
			t.Errorf("%q lets in", bad)
		}
	}
	if _, err := hashPassword(""); !errors.Is(err, ErrPassword) {
		t.Error("an empty password was hashed")
	}
}

func TestAccountsAndDomains(t *testing.T) {
	d := populated(t)
	boom := errors.New("boom")
	for _, c := range []struct {
		name string
		do   func() error
		want error
	}{
		{"a domain twice", func() error { _, err := d.AddDomain("x.TEST"); return err }, ErrExists},
		{"an account twice", func() error { _, err := d.Add(addr("A@x.test"), "p", nil); return err }, ErrExists},
		{"an account of a foreign domain", func() error { _, err := d.Add(addr("a@far.test"), "p", nil); return err }, ErrNoDomain},
		{"an alias over an account", func() error { _, err := d.SetAlias(addr("a@x.test"), []envelope.Address{addr("b@x.test")}); return err }, ErrExists},
		{"an alias of a foreign domain", func() error {
			_, err := d.SetAlias(addr("a@far.test"), []envelope.Address{addr("b@x.test")})
			return err
		}, ErrNoDomain},
		{"a domain in use", func() error { return d.RemoveDomain("x.test") }, ErrNotEmpty},
		{"a domain that is not there", func() error { return d.RemoveDomain("y.test") }, ErrNotFound},
		{"an account that is not there", func() error { return d.Remove(addr("z@x.test"), nil) }, ErrNotFound},
		{"an alias that is not there", func() error { return d.RemoveAlias(addr("z@x.test")) }, ErrNotFound},
		{"an account whose mailboxes fail", func() error {
			_, err := d.Add(addr("c@x.test"), "p", func(store.Tx, Account) error { return boom })
			return err
		}, boom},
		{"and was not made", func() error { _, err := d.Get(addr("c@x.test")); return err }, ErrNotFound},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	before, _ := d.Get(addr("b@x.test"))
	if err := d.Remove(addr("b@x.test"), nil); err != nil {
		t.Fatal(err)
	}
	again, err := d.Add(addr("b@x.test"), "p", nil)
	if err != nil || again.ID == before.ID {
		t.Errorf("an account id was used twice: %v %v", again.ID, err)
	}
	list, err := d.Accounts("")
	if err != nil || len(list) != 2 || list[0].Address != addr("a@x.test") {
		t.Errorf("accounts: %v %v", list, err)
	}
	domains, err := d.Domains()
	if err != nil || len(domains) != 1 || domains[0].Accounts != 2 {
		t.Errorf("domains: %+v %v", domains, err)
	}
}

// Scripts may log in hundreds of times a second: a remembered password costs microseconds.
func BenchmarkVerifyRemembered(b *testing.B) {
	d := populated(b)
	for b.Loop() {
		if _, err := d.Verify(context.Background(), "a@x.test", "secret-a@x.test"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	d := populated(b)
	to := addr("a@x.test")
	for b.Loop() {
		if _, err := d.Resolve(to); err != nil {
			b.Fatal(err)
		}
	}
}
