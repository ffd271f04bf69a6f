package srs

import (
	"errors"
	"strings"
	"testing"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

type fixture struct {
	t   testing.TB
	st  *store.Store
	r   *Rewriter
	now time.Time
}

func open(t testing.TB) *fixture {
	t.Helper()
	st, err := store.Open(storetest.MemoryDir(t), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	f := &fixture{t: t, st: st, now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
	f.r = Open(st, func() time.Time { return f.now })
	return f
}

// keyed is open with keys that are known.
func keyed(t testing.TB, secrets ...string) *fixture {
	f := open(t)
	var keys []key
	for _, s := range secrets {
		keys = append(keys, key{f.now, []byte(s)})
	}
	f.st.Update(func(tx store.Tx) error { put(tx, store.NewKey("sr"), keys); return nil })
	return f
}

func addr(s string) envelope.Address {
	a, err := envelope.ParsePath(s)
	if err != nil {
		panic(err)
	}
	return a
}

func (f *fixture) forward(from string) envelope.Address {
	f.t.Helper()
	a, err := f.r.Forward(addr(from), "ours.test")
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

func (f *fixture) reverse(a envelope.Address) (back envelope.Address, ok bool, err error) {
	f.st.View(func(rd store.Reader) error {
		back, ok, err = f.r.Reverse(rd, a)
		return nil
	})
	return back, ok, err
}

// The hashes were made by another program: HMAC-SHA256 over all but the hash in lower case, in base32, the first six of it.
var known = []string{"XK67P7", "TLBGJD", "UFPV3P", "DBTT7X", "WNLNMK", "LM4FTW", "H62RY7", "HEVRSD"}

func TestKnownAnswers(t *testing.T) {
	f := keyed(t, "secret")
	for _, c := range []struct{ from, want string }{
		{"ann@far.test", "SRS0=@0=JJ=far.test=ann@ours.test"},
		{"Ann.B+c=d@far.test", "SRS0=@1=JJ=far.test=Ann.B+c=d@ours.test"},
		{"ann@[192.0.2.1]", `"SRS0=@2=JJ=[192.0.2.1]=ann"@ours.test`},
		{"ann@bücher.test", "SRS0=@3=JJ=xn--bcher-kva.test=ann@ours.test"},
		{"SRS0=HHHH=TT=origin.test=ann@far.test", "SRS1=@4=far.test==HHHH=TT=origin.test=ann@ours.test"},
		{"srs0+HHHH=TT=origin.test=ann@far.test", "SRS1=@5=far.test=+HHHH=TT=origin.test=ann@ours.test"},
		{"SRS1=HHHH=first.test==HHHH=TT=origin.test=ann@far.test", "SRS1=@6=first.test==HHHH=TT=origin.test=ann@ours.test"},
		{"<>", ""},
		{"srs0@far.test", "SRS0=@7=JJ=far.test=srs0@ours.test"},
	} {
		for n, hash := range known {
			c.want = strings.ReplaceAll(c.want, "@"+string('0'+rune(n)), hash)
		}
		if got := f.forward(c.from).String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.from, got, c.want)
		}
	}
}

func TestDays(t *testing.T) {
	for at, want := range map[int64]string{0: "AA", 1: "AB", 31: "A7", 32: "BA", 1023: "77", 1024: "AA", 20777: "JJ"} {
		if got := days(time.Unix(at*86400+5, 0)); got != want {
			t.Errorf("day %d: %s, want %s", at, got, want)
		}
	}
	now := time.Unix(1026*86400, 0)
	for text, want := range map[string]int{"AC": 0, "AB": 1, "aa": 2, "77": 3, "AD": 1023} {
		if got, ok := age(text, now); got != want || !ok {
			t.Errorf("%s: %d %v, want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "A", "AAA", "A1", "é"} {
		if _, ok := age(text, now); ok {
			t.Errorf("%q is a day", text)
		}
	}
}

func TestThereAndBack(t *testing.T) {
	f := open(t)
	long := strings.Repeat("x", 60)
	for _, from := range []string{
		"ann@far.test", "A.n+n=@far.test", `"a b\"c"@far.test`, "grüße@far.test", "ann@[IPv6:2001:db8::1]", "SRS0=a=b=c=d@far.test",
		long + "@far.test", "ann@" + strings.Repeat("long.", 40) + "test", "SRS0=" + long[:50] + "@far.test", `"?a?q?b?="@far.test`,
	} {
		a := f.forward(from)
		if _, err := envelope.ParseAddress(a.String()); err != nil {
			t.Errorf("%s: %v", from, err)
		}
		for _, form := range []envelope.Address{a, a.Canonical(), {Local: strings.ToUpper(a.Local), Domain: a.Domain}} {
			back, ok, err := f.reverse(form)
			if err != nil || !ok || back.Canonical() != addr(from).Canonical() {
				t.Errorf("%s: %s leads back to %s, %v, %v", from, form, back, ok, err)
			}
		}
		if back, _, _ := f.reverse(a); back != addr(from) && !strings.Contains(from, "b\\") && back.Local != addr(from).Local {
			t.Errorf("%s: back as %s", from, back)
		}
	}
	for _, a := range []string{"ann@ours.test", "srs@ours.test", "SRS2=a=b=c=d@ours.test", "SRS0@ours.test", "SRS0.x@ours.test"} {
		if _, ok, err := f.reverse(addr(a)); ok || err != nil {
			t.Errorf("%s: %v, %v", a, ok, err)
		}
	}
}

func TestForged(t *testing.T) {
	f := open(t)
	if _, ok, err := f.reverse(addr("SRS0=AAAAAA=JJ=far.test=ann@ours.test")); !ok || !errors.Is(err, ErrForged) {
		t.Errorf("without any key: %v, %v", ok, err)
	}
	good := f.forward("ann@far.test")
	again := f.forward("SRS0=HHHH=TT=origin.test=ann@far.test")
	kept := f.forward(strings.Repeat("x", 60) + "@far.test")
	for _, a := range []envelope.Address{good, again, kept} {
		for i := 5; i < len(a.Local); i++ {
			for _, c := range []byte("xZ2=~") {
				changed := []byte(a.Local)
				changed[i] = c
				if strings.EqualFold(string(changed), a.Local) {
					continue
				}
				back, _, err := f.reverse(envelope.Address{Local: string(changed), Domain: a.Domain})
				if !errors.Is(err, ErrForged) {
					t.Errorf("%s leads to %s: %v", changed, back, err)
				}
			}
		}
	}
	// An address of one kind is none of the other.
	swapped := envelope.Address{Local: "SRS1" + good.Local[4:], Domain: good.Domain}
	if back, _, err := f.reverse(swapped); !errors.Is(err, ErrForged) {
		t.Errorf("%s leads to %s", swapped, back)
	}
}

func TestAWayBackEnds(t *testing.T) {
	f := open(t)
	short, long := f.forward("ann@far.test"), f.forward(strings.Repeat("x", 60)+"@far.test")
	again := f.forward("SRS0=HHHH=TT=origin.test=ann@far.test")
	f.now = f.now.Add(21 * day)
	for _, a := range []envelope.Address{short, long} {
		if _, _, err := f.reverse(a); err != nil {
			t.Errorf("after 21 days: %v", err)
		}
	}
	f.now = f.now.Add(day)
	for _, a := range []envelope.Address{short, long} {
		if _, _, err := f.reverse(a); !errors.Is(err, ErrExpired) {
			t.Errorf("after 22 days: %v", err)
		}
	}
	if back, _, err := f.reverse(again); err != nil || back.Domain != "far.test" { // the one who made the SRS0 knows its age
		t.Errorf("SRS1: %s, %v", back, err)
	}
	f.now = f.now.Add(-23 * day) // a clock that was set back
	if _, _, err := f.reverse(short); !errors.Is(err, ErrExpired) {
		t.Errorf("from tomorrow: %v", err)
	}
}

func TestKeptAddressesArePruned(t *testing.T) {
	f := open(t)
	from := strings.Repeat("x", 60) + "@far.test"
	f.forward(from)
	f.now = f.now.Add(10 * day)
	a := f.forward(from) // used again
	f.now = f.now.Add(20 * day)
	if err := f.r.Prune(); err != nil {
		t.Fatal(err)
	}
	if back, _, err := f.reverse(a); err != nil || back != addr(from) {
		t.Errorf("%s, %v", back, err)
	}
	f.now = f.now.Add(4 * day)
	if err := f.r.Prune(); err != nil {
		t.Fatal(err)
	}
	f.st.View(func(rd store.Reader) error {
		for k := range rd.Scan(store.NewKey("sl"), store.NewKey("sl").End()) {
			t.Errorf("left: %q", k)
		}
		return nil
	})
}

func TestKeysChange(t *testing.T) {
	f := open(t)
	a := f.forward("ann@far.test")
	if b := f.forward("ann@far.test"); b != a {
		t.Errorf("%s, then %s", a, b)
	}
	f.r = Open(f.st, f.r.now) // another process
	if b := f.forward("ann@far.test"); b != a {
		t.Errorf("%s, then after a restart %s", a, b)
	}
	f.now = f.now.Add(renew * day)
	last := f.forward("ann@far.test")
	f.now = f.now.Add(day)
	next := f.forward("ann@far.test")
	if last.Local[5:11] == next.Local[5:11] {
		t.Error("the key is the same after half a year")
	}
	for _, a := range []envelope.Address{last, next} {
		if _, _, err := f.reverse(a); err != nil {
			t.Error(err)
		}
	}
}

func FuzzReverse(f *testing.F) {
	fx := keyed(f, "secret")
	f.Add("SRS0=AAAAAA=JJ=far.test=ann")
	f.Add("SRS1=AAAAAA=far.test==HHHH=TT=origin.test=ann")
	f.Add("SRS0+=A=")
	f.Fuzz(func(t *testing.T, local string) {
		back, ok, err := fx.reverse(envelope.Address{Local: local, Domain: "ours.test"})
		if ok && err == nil {
			t.Errorf("%q was taken for ours: %s", local, back)
		}
		// With its hash right, what is read is an address or refused.
		rest, ok := parse(local)
		if !ok {
			return
		}
		_, text, _ := strings.Cut(rest, "=")
		a := envelope.Address{Local: local[:5] + key{Secret: []byte("secret")}.hash(local[:4], text) + "=" + text, Domain: "ours.test"}
		if back, _, err := fx.reverse(a); err == nil {
			if _, err := envelope.ParseAddress(back.String()); err != nil {
				t.Errorf("%q leads to %q: %v", a.Local, back, err)
			}
		}
	})
}
