package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// issuer answers with what the test says, and counts.
type issuer struct {
	*httptest.Server
	asked  atomic.Int32
	answer atomic.Pointer[http.HandlerFunc]
}

func newIssuer(t *testing.T, secure bool) *issuer {
	i := &issuer{}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.asked.Add(1)
		(*i.answer.Load())(w, r)
	})
	if secure {
		i.Server = httptest.NewTLSServer(h)
	} else {
		i.Server = httptest.NewServer(h)
	}
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) says(f http.HandlerFunc) { i.answer.Store(&f) }

func (i *issuer) saysJSON(text string) {
	i.says(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, text)
	})
}

const theToken = "2YotnFZFEjr1zCsicMWpAA"

func TestUser(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	strict := Config{Issuer: "https://login.example", Audience: "mail", Scope: "imap smtp"}
	const full = `"iss": "https://login.example", "aud": ["web", "mail"], "scope": "smtp x imap", "username": "a@x.test"`
	for _, c := range []struct {
		name   string
		cfg    Config
		answer string
		want   string // empty is none, "!" an error
	}{
		{"good", Config{}, `{"active": true, "username": "a@x.test"}`, "a@x.test"},
		{"not good", Config{}, `{"active": false, "username": "a@x.test"}`, ""},
		{"nobody's", Config{}, `{"active": true}`, ""},
		{"a name that is no text", Config{}, `{"active": true, "username": ["a@x.test"]}`, ""},
		{"another claim", Config{Claim: "upn"}, `{"active": true, "username": "b@x.test", "upn": "a@x.test"}`, "a@x.test"},
		{"which is not there", Config{Claim: "upn"}, `{"active": true, "username": "b@x.test"}`, ""},
		{"an address", Config{Claim: "email"}, `{"active": true, "email": "a@x.test"}`, "a@x.test"},
		{"that is verified", Config{Claim: "email"}, `{"active": true, "email": "a@x.test", "email_verified": true}`, "a@x.test"},
		{"that is not", Config{Claim: "email"}, `{"active": true, "email": "a@x.test", "email_verified": false}`, ""},
		{"all that is asked for", strict, `{"active": true, ` + full + `}`, "a@x.test"},
		{"one audience", strict, `{"active": true, ` + strings.Replace(full, `["web", "mail"]`, `"mail"`, 1) + `}`, "a@x.test"},
		{"another's", strict, `{"active": true, ` + strings.Replace(full, "login", "elsewhere", 1) + `}`, ""},
		{"for another", strict, `{"active": true, ` + strings.Replace(full, `"mail"`, `"mails"`, 1) + `}`, ""},
		{"for nobody", strict, `{"active": true, "iss": "https://login.example", "scope": "imap smtp", "username": "a@x.test"}`, ""},
		{"for less", strict, `{"active": true, ` + strings.Replace(full, "imap", "imaps", 1) + `}`, ""},
		{"until later", Config{}, `{"active": true, "exp": 1700000001, "username": "a@x.test"}`, "a@x.test"},
		{"until now", Config{}, `{"active": true, "exp": 1700000000, "username": "a@x.test"}`, ""},
		{"for ever", Config{}, `{"active": true, "exp": 1e300, "username": "a@x.test"}`, "a@x.test"},
		{"from long ago", Config{}, `{"active": true, "exp": -1e300, "username": "a@x.test"}`, ""},
		{"not yet", Config{}, `{"active": true, "nbf": 1700000001, "username": "a@x.test"}`, ""},
		{"a name in another case", Config{}, `{"ACTIVE": true, "Username": "a@x.test"}`, "!"},
		{"another case does not count", Config{}, `{"active": false, "Active": true, "username": "a@x.test"}`, ""},
		{"no answer", Config{}, `{}`, "!"},
		{"no JSON", Config{}, `active`, "!"},
		{"a list", Config{}, `[{"active": true}]`, "!"},
		{"null", Config{}, `null`, "!"},
		{"yes", Config{}, `{"active": "yes"}`, "!"},
		{"an audience of numbers", Config{}, `{"active": true, "aud": [1], "username": "a@x.test"}`, "!"},
		{"long", Config{}, `{"active": true, "username": "a@x.test"}` + strings.Repeat(" ", maxAnswer), "!"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := newIssuer(t, false)
			i.saysJSON(c.answer)
			c.cfg.IntrospectionURL, c.cfg.Now = i.URL, func() time.Time { return now }
			is, err := New(c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			got, why, err := is.User(t.Context(), theToken)
			switch {
			case c.want == "!" && err == nil, c.want != "!" && err != nil, err == nil && (why == "") != (got != ""), err == nil && got != c.want:
				t.Errorf("%q, %q, %v", got, why, err)
			case err != nil && strings.Contains(err.Error(), theToken):
				t.Errorf("the error tells the token: %v", err)
			}
		})
	}
}

// Whoever reads the log learns what is wrong with a token, or with the config, and not the token.
func TestWhyATokenIsRefused(t *testing.T) {
	i := newIssuer(t, false)
	i.saysJSON(`{"active": true, "iss": "https://elsewhere.example", "aud": "web", "scope": "openid", "username": "a@x.test"}`)
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Issuer: "https://login.example"}, `the token's iss is "https://elsewhere.example"`},
		{Config{Audience: "mail"}, `the token's aud is ["web"]`},
		{Config{Scope: "mail"}, `the token's scope is "openid"`},
		{Config{Claim: "email"}, "the issuer does not tell the token's email"},
	} {
		c.cfg.IntrospectionURL = i.URL
		is, err := New(c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, why, err := is.User(t.Context(), theToken); why != c.want || err != nil {
			t.Errorf("got %s, %v, want %s", why, err, c.want)
		}
	}
}

// What an issuer is asked, and over what.
func TestRequest(t *testing.T) {
	i := newIssuer(t, true)
	i.says(func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		if r.Method != http.MethodPost || id != "mail+server" || secret != "s%3Ae+c" || r.FormValue("token") != theToken ||
			r.URL.RawQuery != "" || r.Header.Get("Accept") != "application/json" {
			t.Errorf("asked with %s %v %q %q %v", r.Method, r.URL, id, secret, r.Form)
		}
		fmt.Fprint(w, `{"active": true, "username": "a@x.test"}`)
	})
	is, err := New(Config{IntrospectionURL: i.URL + "/introspect", ClientID: "mail server", ClientSecret: "s:e c", Client: i.Client()})
	if err != nil {
		t.Fatal(err)
	}
	if name, why, err := is.User(t.Context(), theToken); name != "a@x.test" || why != "" || err != nil {
		t.Errorf("%q, %q, %v", name, why, err)
	}
	unknown, _ := New(Config{IntrospectionURL: i.URL})
	if name, _, err := unknown.User(t.Context(), theToken); name != "" || err == nil {
		t.Errorf("a certificate that nobody vouches for: %q, %v", name, err)
	}
}

func TestTrouble(t *testing.T) {
	other := newIssuer(t, false)
	other.saysJSON(`{"active": true, "username": "a@x.test"}`)
	for name, answer := range map[string]http.HandlerFunc{
		"500": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) },
		"401": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(401) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		},
		"cut off": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, `{"active": true, "username": "a@x.test"}`)
		},
		"gone": func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
	} {
		i := newIssuer(t, false)
		i.says(answer)
		is, _ := New(Config{IntrospectionURL: i.URL})
		name2, why, err := is.User(t.Context(), theToken)
		if why != "" || err == nil || name2 != "" || strings.Contains(err.Error(), theToken) {
			t.Errorf("%s: %q, %q, %v", name, name2, why, err)
		}
	}
	if other.asked.Load() != 0 {
		t.Error("a token went where a redirect led")
	}
	i := newIssuer(t, false)
	is, _ := New(Config{IntrospectionURL: i.URL})
	for _, token := range []string{"", strings.Repeat("x", maxToken+1)} {
		if _, why, err := is.User(t.Context(), token); why == "" || err != nil || i.asked.Load() != 0 {
			t.Errorf("a token of %d octets: %q, %v", len(token), why, err)
		}
	}
}

func TestURLs(t *testing.T) {
	for address, want := range map[string]bool{
		"https://login.example/introspect": true, "http://127.0.0.1:8080/x": true, "http://localhost/x": true, "http://[::1]:1/": true,
		"http://login.example/introspect": false, "http://127.0.0.1.example/": false, "ftp://localhost/": false, "": false, "/introspect": false,
		"https://": false, "https://me:secret@login.example/": false, "https://login.example/#x": false, "http://10.0.0.1/": false, ":": false,
	} {
		if err := CheckURL(address); (err == nil) != want || err != nil && !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", address, err)
		}
		if _, err := New(Config{IntrospectionURL: address}); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// What was said is remembered for five minutes, or for as long as the token is good; that it is not good, never.
func TestMemory(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	i := newIssuer(t, false)
	is, _ := New(Config{IntrospectionURL: i.URL, Now: func() time.Time { return now }})
	ask := func(what, token string, wantOK bool, wantAsked int32) {
		t.Helper()
		before := i.asked.Load()
		name, _, err := is.User(t.Context(), token)
		if ok := name != ""; ok != wantOK || err != nil || i.asked.Load()-before != wantAsked {
			t.Errorf("%s: %q, %v, asked %d times", what, name, err, i.asked.Load()-before)
		}
	}
	i.saysJSON(`{"active": true, "username": "a@x.test"}`)
	ask("new", "one", true, 1)
	ask("another", "two", true, 1)
	ask("known", "one", true, 0)
	i.saysJSON(`{"active": false}`)
	now = now.Add(remembered - time.Second)
	ask("still known", "one", true, 0)
	now = now.Add(time.Second)
	ask("no longer", "one", false, 1)
	ask("nor then", "one", false, 1)
	i.saysJSON(fmt.Sprintf(`{"active": true, "username": "a@x.test", "exp": %d}`, now.Unix()+60))
	ask("for a minute", "three", true, 1)
	now = now.Add(59 * time.Second)
	ask("not over", "three", true, 0)
	now = now.Add(time.Second)
	ask("over, whatever is said", "three", false, 1)
	i.saysJSON(`{"active": true, "username": "a@x.test"}`)
	for n := range 3 {
		is.known[[32]byte{byte(n)}] = memory{}
	}
	for n := len(is.known); n <= maxRemembered; n++ {
		is.remember([32]byte{1, byte(n), byte(n >> 8)}, memory{})
	}
	if len(is.known) > maxRemembered {
		t.Errorf("%d are remembered", len(is.known))
	}
}

// E07: what is remembered is remembered of this token and this configuration alone.
func TestE07EveryInputIsInTheKey(t *testing.T) {
	base := Config{"https://a.example", "id", "secret", "iss", "aud", "scope", "claim", nil, nil}
	is, err := New(base)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[[32]byte]string{is.hash("token"): "itself"}
	change := func(what string, f func(*Config), token string) {
		other := &Issuer{cfg: is.cfg, key: is.key}
		f(&other.cfg)
		sum := other.hash(token)
		if as, ok := seen[sum]; ok {
			t.Errorf("%s is remembered as %s", what, as)
		}
		seen[sum] = what
	}
	change("another token", func(*Config) {}, "token2")
	change("another issuer's address", func(c *Config) { c.IntrospectionURL += "/" }, "token")
	change("another client", func(c *Config) { c.ClientID += "x" }, "token")
	change("another secret", func(c *Config) { c.ClientSecret += "x" }, "token")
	change("another issuer", func(c *Config) { c.Issuer += "x" }, "token")
	change("another audience", func(c *Config) { c.Audience += "x" }, "token")
	change("another scope", func(c *Config) { c.Scope += "x" }, "token")
	change("another claim", func(c *Config) { c.Claim += "x" }, "token")
	change("moved by a letter", func(c *Config) { c.ClientID, c.ClientSecret = "ids", "ecret" }, "token")
	again, _ := New(base)
	if again.hash("token") == is.hash("token") {
		t.Error("the key is the same each time")
	}
}

// Many logins at once ask few at a time, and who goes away waits no longer.
func TestAtOnce(t *testing.T) {
	i := newIssuer(t, false)
	var now, most atomic.Int32
	release := make(chan struct{})
	i.says(func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-release
		now.Add(-1)
		fmt.Fprint(w, `{"active": true, "username": "a@x.test"}`)
	})
	is, _ := New(Config{IntrospectionURL: i.URL})
	var all sync.WaitGroup
	for n := range 3 * maxAtOnce {
		all.Go(func() {
			if _, why, err := is.User(t.Context(), fmt.Sprint("token", n)); why != "" || err != nil {
				t.Error(why, err)
			}
		})
	}
	for range maxAtOnce {
		release <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if name, _, err := is.User(ctx, "another"); name != "" || err == nil {
		t.Errorf("who went away: %q, %v", name, err)
	}
	close(release)
	all.Wait()
	if most.Load() > maxAtOnce {
		t.Errorf("%d were asked at once", most.Load())
	}
}

func TestDiscovery(t *testing.T) {
	for issuer, want := range map[string]string{
		"": "", "https://login.example": "https://login.example/.well-known/openid-configuration",
		"https://login.example/realm/": "https://login.example/realm/.well-known/openid-configuration",
	} {
		is, _ := New(Config{IntrospectionURL: "https://a.example", Issuer: issuer, Scope: "mail"})
		if got := is.Configuration(); got != want || is.Scope() != "mail" {
			t.Errorf("%s: %s", issuer, got)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(`{"active": true, "username": "a@x.test", "aud": ["x"], "scope": "a b", "exp": 1e99, "nbf": -1}`, "username")
	f.Add(`{"active": false}`, "email")
	f.Fuzz(func(t *testing.T, text, claim string) {
		is, _ := New(Config{IntrospectionURL: "https://a.example", Claim: claim, Scope: "a"})
		a, err := parse([]byte(text))
		if err != nil {
			return
		}
		if is.refuse(a) == "" && (!a.Active || !covers(a.Scope, "a") || is.until(a).After(time.Now().Add(remembered))) {
			t.Errorf("%s opens something", text)
		}
		if !json.Valid([]byte(text)) {
			t.Errorf("%q was read", text)
		}
	})
}
