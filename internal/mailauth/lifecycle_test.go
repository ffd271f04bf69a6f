package mailauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/dns/dnstest"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
)

// running is Keys whose Run runs, in a bubble.
func running(t *testing.T) (k *Keys, r *dnstest.Resolver, log *bytes.Buffer) {
	t.Helper()
	st, err := store.Open(storetest.MemoryDir(t), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r, log = &dnstest.Resolver{}, &bytes.Buffer{}
	k = OpenKeys(KeysConfig{Store: st, Resolver: r, Log: slog.New(slog.NewTextHandler(log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { k.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
		st.Close()
	})
	return k, r, log
}

// states are the keys of a domain as "selector state", in order of their selectors.
func states(t *testing.T, k *Keys) string {
	t.Helper()
	synctest.Wait()
	list, err := k.List("example.test")
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, key := range list {
		words = append(words, key.Selector+" "+string(key.State))
	}
	return strings.Join(words, ", ")
}

// signing are the selectors that sign.
func signing(t *testing.T, k *Keys) string {
	t.Helper()
	keys, err := k.Signing("example.test", func(string) (bool, error) { return true, nil })
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, key := range keys {
		words = append(words, key.Selector)
	}
	return strings.Join(words, " ")
}

// The life of a domain's keys, from the first to what is left of them.
func TestKeysLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, r, log := running(t)
		expect := func(when, want, sign string) {
			t.Helper()
			if got := states(t, k); got != want {
				t.Errorf("%s: %s, want %s", when, got, want)
			}
			if got := signing(t, k); got != sign {
				t.Errorf("%s: %q sign, want %q", when, got, sign)
			}
		}
		first, err := k.Add("example.test", "one", RSA, Ed25519)
		if err != nil {
			t.Fatal(err)
		}
		expect("made", "one-ed waiting, one-rsa waiting", "")
		time.Sleep(time.Hour)
		expect("without a record", "one-ed waiting, one-rsa waiting", "")
		r.TXT(first[0].Name(), first[0].Record())
		r.TXT(first[1].Name(), first[0].Record())
		time.Sleep(6 * time.Minute)
		expect("one has its record, the other a wrong one", "one-ed waiting, one-rsa active", "one-rsa")
		r.TXT(first[1].Name(), first[1].Record())
		time.Sleep(6 * time.Minute)
		expect("both", "one-ed active, one-rsa active", "one-rsa one-ed")

		time.Sleep(100 * 24 * time.Hour)
		second, err := k.Rotate("example.test")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Rotate("example.test"); !errors.Is(err, ErrRotating) {
			t.Errorf("a rotation upon a rotation: %v", err)
		}
		rsa, ed := second[0], second[1]
		if rsa.Algorithm != RSA {
			rsa, ed = ed, rsa
		}
		time.Sleep(time.Hour)
		expect("rotated", ed.Selector+" waiting, "+rsa.Selector+" waiting, one-ed active, one-rsa active", "one-rsa one-ed")
		r.TXT(rsa.Name(), rsa.Record())
		time.Sleep(6 * time.Minute)
		expect("one is seen", ed.Selector+" waiting, "+rsa.Selector+" active, one-ed active, one-rsa old", rsa.Selector+" one-ed")
		r.TXT(ed.Name(), ed.Record())
		time.Sleep(6 * time.Minute)
		both := rsa.Selector + " " + ed.Selector
		expect("both are seen", ed.Selector+" active, "+rsa.Selector+" active, one-ed old, one-rsa old", both)

		time.Sleep(10*24*time.Hour - time.Hour)
		expect("just before the time is up", ed.Selector+" active, "+rsa.Selector+" active, one-ed old, one-rsa old", both)
		time.Sleep(2 * time.Hour)
		expect("after it", ed.Selector+" active, "+rsa.Selector+" active, one-ed retired, one-rsa retired", both)
		if strings.Count(log.String(), "the record of a DKIM key may be removed") != 2 {
			t.Errorf("the log does not say what may be removed:\n%s", log)
		}
		time.Sleep(48 * time.Hour)
		expect("while the record is there", ed.Selector+" active, "+rsa.Selector+" active, one-ed retired, one-rsa retired", both)
		r.TXT(first[0].Name())
		r.Fail(first[1].Name(), dnstest.ErrServFail)
		time.Sleep(48 * time.Hour)
		expect("one record is gone, of the other nothing is known", ed.Selector+" active, "+rsa.Selector+" active, one-ed retired", both)
	})
}

// A record that is lost does not stop signing: it may be there for others. It is told of.
func TestARecordIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, r, log := running(t)
		keys, err := k.Add("example.test", "one", Ed25519)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Activate(t.Context(), "example.test", "", true); err != nil { // forced
			t.Fatal(err)
		}
		time.Sleep(7 * time.Hour)
		list, _ := k.List("example.test")
		if list[0].State != Active || list[0].Finding == "" || list[0].Trouble(time.Now()) == "" {
			t.Errorf("%+v", list[0])
		}
		time.Sleep(20 * time.Hour)
		synctest.Wait()
		if n := strings.Count(log.String(), "nobody can look up"); n != 1 {
			t.Errorf("told %d times:\n%s", n, log)
		}
		r.TXT(keys[0].Name(), keys[0].Record())
		time.Sleep(7 * time.Hour)
		synctest.Wait()
		list, _ = k.List("example.test")
		if list[0].Finding != "" || list[0].Trouble(time.Now()) != "" {
			t.Errorf("%+v", list[0])
		}
	})
}

// Nothing that is told of keys has a private one in it, and of a retired one there is none.
func TestPrivateKeysStay(t *testing.T) {
	f := open(t)
	var log bytes.Buffer
	f.keys.cfg.Log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	keys := f.activeKeys("example.test")
	private := func() (all [][]byte) {
		rows, err := f.keys.rows("example.test")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			all = append(all, r.Private)
		}
		return all
	}
	told, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	signed := f.sign(Outbound{Own: true}, plain)
	for _, p := range private() {
		secret, _ := json.Marshal(p)
		for where, text := range map[string]string{"what is told": string(told), "the log": log.String(), "the message": signed} {
			if len(p) == 0 || strings.Contains(text, strings.Trim(string(secret), `"`)[40:]) {
				t.Errorf("%s has a private key", where)
			}
		}
	}
	next, err := f.keys.Rotate("example.test")
	if err != nil {
		t.Fatal(err)
	}
	f.publish(next...)
	for range 2 {
		if _, err := f.keys.Check(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		f.now = f.now.Add(11 * 24 * time.Hour)
	}
	gone := 0
	for _, p := range private() {
		if len(p) == 0 {
			gone++
		}
	}
	if gone != 2 {
		t.Errorf("%d private keys are destroyed, want 2", gone)
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	f := open(t)
	if _, err := f.keys.Add("example.test", "x", RSA); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"the same":      second(f.keys.Add("example.test", "x", RSA)),
		"no PEM":        second(f.keys.Import("example.test", "y", []byte("nothing"))),
		"a public key":  second(f.keys.Import("example.test", "y", []byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n"))),
		"a selector":    second(f.keys.Add("example.test", "a b", RSA)),
		"a bad domain":  second(f.keys.Add("Example.test", "a", RSA)),
		"no such key":   f.keys.Remove("example.test", "y"),
		"none to wait":  second(f.keys.Activate(t.Context(), "else.test", "", true)),
		"none to renew": second(f.keys.Rotate("example.test")),
	} {
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }
