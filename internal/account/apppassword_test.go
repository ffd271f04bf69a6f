package account

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"postroad/internal/sasl"
	"postroad/internal/store"
)

const (
	alice  = "a@x.test"
	secret = "secret-a@x.test"
)

// addApp makes an app password and returns it as it is shown.
func (l *Logins) addApp(t *testing.T, p AppPassword) string {
	t.Helper()
	_, text, err := l.dir.AddAppPassword(addr(alice), p)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAppPasswordForm(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		text := newAppPassword()
		bare, ok := bareApp(text)
		if !ok || len(bare) != 25 || len(strings.Split(text, "-")) != 5 || seen[text] {
			t.Fatalf("%q", text)
		}
		seen[text] = true
		for _, typed := range []string{
			strings.ToUpper(text), strings.ReplaceAll(text, "-", " "), " " + bare + "\n", strings.ReplaceAll(text, "-", "\u00a0"),
		} {
			if got, ok := bareApp(sasl.Prepare(typed)); !ok || got != bare {
				t.Errorf("%q is read as %q, %v", typed, got, ok)
			}
		}
	}
	for _, other := range []string{"", "-", "secret", strings.Repeat("a", 24), strings.Repeat("a", 26), strings.Repeat("1", 25),
		strings.Repeat("ä", 25), strings.Repeat("-", 1<<20) + strings.Repeat("a", 25), "\x00" + strings.Repeat("a", 24)} {
		if bare, ok := bareApp(other); ok {
			t.Errorf("%.40q is read as %q", other, bare)
		}
	}
}

// An app password opens what it is for, until it expires or is revoked, in each way to log in.
func TestAppPasswordLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(t)
		l.dir.now = time.Now
		phone := l.addApp(t, AppPassword{Name: "phone", Protocols: []string{IMAP, SMTP, IMAP}})
		reader := l.addApp(t, AppPassword{Name: "reader", Protocols: []string{IMAP}})
		sender := l.addApp(t, AppPassword{Name: "sender", Protocols: []string{SMTP}})
		guest := l.addApp(t, AppPassword{Name: "guest", Protocols: []string{IMAP}, Expires: time.Now().Add(24 * time.Hour)})
		only, all := true, false
		for _, c := range []struct {
			name, protocol, user, password string
			before                         func() error
			err                            error
		}{
			{"for both", IMAP, alice, phone, nil, nil},
			{"for both", SMTP, alice, phone, nil, nil},
			{"for IMAP", IMAP, alice, reader, nil, nil},
			{"but not SMTP", SMTP, alice, reader, nil, ErrCredentials},
			{"for SMTP", SMTP, alice, sender, nil, nil},
			{"but not IMAP", IMAP, alice, sender, nil, ErrCredentials},
			{"for no protocol", "", alice, phone, nil, ErrCredentials},
			{"without separators", IMAP, alice, strings.ReplaceAll(phone, "-", ""), nil, nil},
			{"another's", IMAP, "b@x.test", phone, nil, ErrCredentials},
			{"nobody's", IMAP, "z@x.test", phone, nil, ErrCredentials},
			{"a letter is wrong", IMAP, alice, swapped(phone), nil, ErrCredentials},
			{"before it expires", IMAP, alice, guest, func() error { time.Sleep(24*time.Hour - time.Minute); return nil }, nil},
			{"when it has expired", IMAP, alice, guest, func() error { time.Sleep(time.Hour); return nil }, ErrCredentials},
			{"the account's own password", IMAP, alice, secret, nil, nil},
			{"is no longer one", IMAP, alice, secret, func() error { _, err := l.dir.Set(addr(alice), Settings{AppOnly: &only}); return err }, ErrCredentials},
			{"but this is", IMAP, alice, phone, nil, nil},
			{"and is again", IMAP, alice, secret, func() error { _, err := l.dir.Set(addr(alice), Settings{AppOnly: &all}); return err }, nil},
			{"beside a new password", IMAP, alice, phone, func() error { return l.dir.SetPassword(addr(alice), "new") }, nil},
			{"which is right too", IMAP, alice, "new", nil, nil},
			{"disabled", IMAP, alice, phone, func() error { return l.dir.SetDisabled(addr(alice), true) }, ErrCredentials},
			{"enabled", IMAP, alice, phone, func() error { return l.dir.SetDisabled(addr(alice), false) }, nil},
			{"revoked", IMAP, alice, phone, func() error { return l.dir.RevokeAppPassword(addr(alice), "phone") }, ErrCredentials},
			{"and no other", IMAP, alice, reader, nil, nil},
		} {
			if c.before != nil {
				l.change(t, c.before())
			}
			client := Client{Protocol: c.protocol, From: honest, Bindings: overTLS.Bindings}
			for mechanism, login := range map[string]func() (Login, error){
				"LOGIN": func() (Login, error) { return l.LogIn(t.Context(), client, c.user, c.password) },
				sasl.ScramSHA256: func() (Login, error) {
					return loginOf(scramLogin(t, l, sasl.ScramSHA256, client, "n,,", c.user, c.password, nil))
				},
				sasl.ScramSHA256Plus: func() (Login, error) {
					return loginOf(scramLogin(t, l, sasl.ScramSHA256Plus, client, "p=tls-exporter,,", c.user, c.password, nil))
				},
			} {
				l.guard = NewGuard(nil, nil)
				a, err := login()
				if !errors.Is(err, c.err) || err == nil && a.Address.String() != alice {
					t.Errorf("%s, for %q, with %s: %v %v, want %v", c.name, c.protocol, mechanism, a.Address, err, c.err)
				}
			}
		}
	})
}

func loginOf(x Exchange, err error) (Login, error) {
	if err != nil {
		return Login{}, err
	}
	return x.Login(), nil
}

// swapped is an app password with another first letter.
func swapped(text string) string {
	if text[0] == 'a' {
		return "b" + text[1:]
	}
	return "a" + text[1:]
}

// It was revoked, or its account changed, while a client was about to prove it.
func TestAppPasswordChangesMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, between := range map[string]func(d *Directory) error{
			"revoked":  func(d *Directory) error { return d.RevokeAppPassword(addr(alice), "phone") },
			"disabled": func(d *Directory) error { return d.SetDisabled(addr(alice), true) },
			"removed":  func(d *Directory) error { return d.Remove(addr(alice), nil) },
			"expired":  func(d *Directory) error { time.Sleep(time.Hour); return nil },
		} {
			l := newLogins(t)
			l.dir.now = time.Now
			text := l.addApp(t, AppPassword{Name: "phone", Protocols: []string{IMAP}, Expires: time.Now().Add(time.Minute)})
			_, err := scramLogin(t, l, sasl.ScramSHA256, overTLS, "n,,", alice, text, func() { l.change(t, between(l.dir)) })
			if !errors.Is(err, ErrCredentials) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// Nobody can guess an app password: who has one is let in when all others are refused, and known from then on.
func TestAppPasswordIsNeverLockedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(t)
		text := l.addApp(t, AppPassword{Name: "phone", Protocols: []string{IMAP}})
		for i := range nameFailures {
			from := Client{Protocol: IMAP, From: netip.AddrFrom4([4]byte{10, 0, byte(i), 1})}
			if _, err := l.LogIn(t.Context(), from, alice, fmt.Sprint("guess", i)); !errors.Is(err, ErrCredentials) {
				t.Fatal(err)
			}
		}
		if _, err := l.LogIn(t.Context(), overTLS, alice, secret); !errors.Is(err, ErrGuessing) {
			t.Errorf("a stranger: %v", err)
		}
		if _, err := scramLogin(t, l, sasl.ScramSHA256, overTLS, "n,,", alice, secret, nil); !errors.Is(err, ErrGuessing) {
			t.Errorf("a stranger with SCRAM: %v", err)
		}
		for _, from := range []netip.Addr{honest, netip.MustParseAddr("10.0.0.1")} {
			c := Client{Protocol: IMAP, From: from}
			if _, err := scramLogin(t, l, sasl.ScramSHA256, c, "n,,", alice, text, nil); err != nil {
				t.Errorf("an app password with SCRAM from %s: %v", from, err)
			}
			if _, err := l.LogIn(t.Context(), c, alice, text); err != nil {
				t.Errorf("an app password from %s: %v", from, err)
			}
		}
		if _, err := l.LogIn(t.Context(), overTLS, alice, secret); err != nil {
			t.Errorf("no stranger any more: %v", err)
		}
	})
}

// An app password that is right and does not open the account is refused as any other, with a reason for the log; it is
// no guess.
func TestAppPasswordThatDoesNotOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(t)
		l.dir.now = time.Now
		reader := l.addApp(t, AppPassword{Name: "reader", Protocols: []string{IMAP}})
		guest := l.addApp(t, AppPassword{Name: "guest", Protocols: []string{SMTP}, Expires: time.Now().Add(time.Hour)})
		both := l.addApp(t, AppPassword{Name: "both", Protocols: []string{IMAP, SMTP}})
		time.Sleep(time.Hour)
		c := Client{Protocol: SMTP, From: honest}
		refused := func(password, why string) {
			t.Helper()
			for range netFailures + 1 {
				_, plain := l.LogIn(t.Context(), c, alice, password)
				_, scram := scramLogin(t, l, sasl.ScramSHA256, c, "n,,", alice, password, nil)
				for _, err := range []error{plain, scram} {
					if !errors.Is(err, ErrCredentials) || !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), password) {
						t.Fatalf("%v, want %s", err, why)
					}
				}
			}
		}
		began := time.Now()
		refused(reader, `app password "reader" is not for smtp`)
		if took := time.Since(began); took != 2*(netFailures+1)*failureDelay {
			t.Errorf("answered in %v", took)
		}
		refused(guest, `app password "guest" expired at `+began.UTC().Format(time.RFC3339))
		l.change(t, l.dir.SetDisabled(addr(alice), true))
		refused(both, `the account is disabled`)
		l.change(t, l.dir.SetDisabled(addr(alice), false))
		if _, err := l.LogIn(t.Context(), c, alice, secret); err != nil {
			t.Errorf("the real password behind these: %v", err)
		}
	})
}

func TestAppPasswordsAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogins(t)
		l.dir.now = time.Now
		began := time.Now()
		text := l.addApp(t, AppPassword{Name: "phone", Protocols: []string{SMTP, IMAP}})
		time.Sleep(time.Second)
		l.addApp(t, AppPassword{Name: "old", Protocols: []string{SMTP}, Expires: time.Now().Add(time.Second)})
		updates := func() uint64 { return l.dir.st.Stats().Updates }
		login := func(protocol string) {
			t.Helper()
			if _, err := l.LogIn(t.Context(), Client{Protocol: protocol, From: honest}, alice, text); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		login(IMAP)
		first := updates()
		for range 59 {
			time.Sleep(time.Second)
			login(SMTP)
		}
		if n := updates() - first; n != 0 {
			t.Errorf("%d writes within a minute", n)
		}
		list, err := l.dir.AppPasswords(addr("A@X.test"))
		if err != nil || len(list) != 2 || list[0].Name != "phone" || list[1].Name != "old" {
			t.Fatalf("%+v, %v", list, err)
		}
		if p := list[0]; !slices.Equal(p.Protocols, []string{IMAP, SMTP}) || !p.Created.Equal(began) || !p.Expires.IsZero() ||
			!p.Used.At.Equal(began.Add(time.Hour+time.Second)) || p.Used.From != honest || p.Used.Protocol != IMAP {
			t.Errorf("%+v", p)
		}
		if p := list[1]; p.Expires.IsZero() || p.Used != (Use{}) {
			t.Errorf("%+v", p)
		}
		time.Sleep(time.Second)
		login(SMTP)
		list, _ = l.dir.AppPasswords(addr(alice))
		if u := list[0].Used; u.Protocol != SMTP || !u.At.Equal(time.Now()) {
			t.Errorf("used %+v", u)
		}
		if list, err := l.dir.AppPasswords(addr("b@x.test")); err != nil || len(list) != 0 {
			t.Errorf("another's: %v, %v", list, err)
		}
	})
}

func TestAppPasswordsThatCannotBeMade(t *testing.T) {
	l := newLogins(t)
	l.addApp(t, AppPassword{Name: "phone", Protocols: []string{IMAP}})
	imap := []string{IMAP}
	for _, c := range []struct {
		addr string
		p    AppPassword
		err  error
	}{
		{alice, AppPassword{Name: "phone", Protocols: imap}, ErrExists},
		{"z@x.test", AppPassword{Name: "phone", Protocols: imap}, ErrNotFound},
		{alice, AppPassword{Name: "", Protocols: imap}, ErrAppPassword},
		{alice, AppPassword{Name: " x", Protocols: imap}, ErrAppPassword},
		{alice, AppPassword{Name: "a\nb", Protocols: imap}, ErrAppPassword},
		{alice, AppPassword{Name: "a\xff", Protocols: imap}, ErrAppPassword},
		{alice, AppPassword{Name: strings.Repeat("x", 65), Protocols: imap}, ErrAppPassword},
		{alice, AppPassword{Name: "x"}, ErrAppPassword},
		{alice, AppPassword{Name: "x", Protocols: []string{"pop3"}}, ErrAppPassword},
		{alice, AppPassword{Name: "x", Protocols: imap, Expires: time.Now().Add(-time.Minute)}, ErrAppPassword},
	} {
		if _, text, err := l.dir.AddAppPassword(addr(c.addr), c.p); !errors.Is(err, c.err) || text != "" {
			t.Errorf("%+v: %q, %v, want %v", c.p, text, err, c.err)
		}
	}
	if err := l.dir.RevokeAppPassword(addr(alice), "other"); !errors.Is(err, ErrNoAppPassword) {
		t.Errorf("revoke what is not there: %v", err)
	}
	if err := l.dir.RevokeAppPassword(addr("z@x.test"), "phone"); !errors.Is(err, ErrNotFound) {
		t.Errorf("revoke nobody's: %v", err)
	}
	for i := range maxAppPasswords - 1 {
		l.addApp(t, AppPassword{Name: fmt.Sprint(i), Protocols: imap})
	}
	if _, _, err := l.dir.AddAppPassword(addr(alice), AppPassword{Name: "one more", Protocols: imap}); !errors.Is(err, ErrAppPassword) {
		t.Errorf("one more: %v", err)
	}
	w, _ := l.dir.holder(alice)
	c, err := l.dir.scramCredentials(w, alice, false)
	if err != nil || len(c.Keys) != scramKeys {
		t.Errorf("%d keys, %v", len(c.Keys), err)
	}
}

// Neither an app password nor anything that it could be made of again is stored or shown, and an account's are gone
// with it.
func TestAppPasswordsLeaveNothing(t *testing.T) {
	l := newLogins(t)
	text := l.addApp(t, AppPassword{Name: "phone", Protocols: []string{IMAP}})
	if _, err := l.LogIn(t.Context(), overTLS, alice, text); err != nil {
		t.Fatal(err)
	}
	bare, _ := bareApp(text)
	everything := func() []byte {
		var all bytes.Buffer
		l.change(t, l.dir.st.View(func(r store.Reader) error {
			for k, v := range r.Scan(nil, nil) {
				all.Write(k)
				all.Write(v)
			}
			return nil
		}))
		return all.Bytes()
	}
	if all := everything(); bytes.Contains(all, []byte(text)) || bytes.Contains(all, []byte(bare)) || !bytes.Contains(all, []byte("phone")) {
		t.Error("the store holds it, or nothing of it")
	}
	list, _ := l.dir.AppPasswords(addr(alice))
	if shown := fmt.Sprintf("%+v", list); strings.Contains(shown, bare) || strings.Contains(strings.ToLower(shown), "hash") {
		t.Errorf("shown: %s", shown)
	}
	if l.dir.KnownUntil(alice, netip.PrefixFrom(honest, 32)).IsZero() {
		t.Error("the network is not known")
	}
	l.change(t, l.dir.Remove(addr(alice), nil))
	if all := everything(); bytes.Contains(all, []byte("phone")) || !l.dir.KnownUntil(alice, netip.PrefixFrom(honest, 32)).IsZero() {
		t.Error("something is left of a removed account")
	}
}

func TestRevokingEndsSessions(t *testing.T) {
	l := newLogins(t)
	a, _ := l.dir.Get(addr(alice))
	l.addApp(t, AppPassword{Name: "phone", Protocols: []string{IMAP}})
	var told []ID
	defer l.dir.Watch(func(id ID) { told = append(told, id) })()
	l.change(t, l.dir.RevokeAppPassword(addr(alice), "phone"))
	revoked, _ := l.dir.Get(addr(alice))
	only := true
	_, err := l.dir.Set(addr(alice), Settings{AppOnly: &only})
	l.change(t, err)
	if l.dir.Stands(a) || l.dir.Stands(revoked) {
		t.Error("a login that was judged before stands")
	}
	if !slices.Equal(told, []ID{a.ID, a.ID}) {
		t.Errorf("told %v", told)
	}
}

// What is kept of old hands is bounded, and outlives the process.
func TestHandsAreBounded(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	d := populated(t)
	d.now = func() time.Time { return now }
	network := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)
	}
	kept := func() (n int) {
		for i := range 2 * maxHands {
			if !d.KnownUntil(alice, network(i)).IsZero() {
				n++
			}
		}
		return n
	}
	for i := range maxHands + 10 {
		d.Know(alice, network(i), now.Add(knownFor+time.Duration(i)*time.Second))
	}
	if kept() != maxHands || !d.KnownUntil(alice, network(9)).IsZero() || d.KnownUntil(alice, network(10)).IsZero() {
		t.Errorf("%d are kept, or not the latest", kept())
	}
	now = now.Add(knownFor + 20*time.Second)
	d.Know(alice, network(0), now.Add(knownFor))
	if n := kept(); n != maxHands+10-20 {
		t.Errorf("%d are kept when some have expired", n)
	}
	if !d.KnownUntil("b@x.test", network(0)).IsZero() {
		t.Error("another's name knows it")
	}
}

func FuzzBareApp(f *testing.F) {
	f.Add("abcde-fghij-klmno-pqrst-uvwxy")
	f.Add("ABCDE FGHIJ\tKLMNO\u00a0PQRST-UVWXY")
	f.Add("\u212aaaaaaaaaaaaaaaaaaaaaaaa")
	f.Fuzz(func(t *testing.T, s string) {
		bare, ok := bareApp(sasl.Prepare(s))
		if !ok {
			return
		}
		if again, ok := bareApp(grouped(bare)); !ok || again != bare || strings.ContainsFunc(bare, unicode.IsUpper) {
			t.Errorf("%q: %q, %q", s, bare, again)
		}
	})
}
