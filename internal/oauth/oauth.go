// Package oauth asks an OAuth 2.0 issuer whom an access token was issued to, by token introspection (RFC 7662).
//
// What is promised: a token goes to the configured address alone, over TLS or within this machine, and never into an
// error. The issuer's answer is bounded in time and size, as is how many are asked for at once. What an answer said of a
// token is remembered, under a keyed hash, no longer than the token is good and no longer than five minutes: for so
// long a token may go on working that was revoked.
package oauth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config says who issues tokens, and which open something here.
type Config struct {
	IntrospectionURL string // https, or http on this machine
	ClientID         string // as whom this server asks; empty asks without a name
	ClientSecret     string

	Issuer   string // what "iss" must be; empty is anybody whom the address knows
	Audience string // what must be in "aud"; empty is anything
	Scope    string // what must be in "scope", separated by spaces; empty is nothing
	Claim    string // which claim has the user's address; empty is "username"

	Client *http.Client     // nil makes one
	Now    func() time.Time // nil is time.Now
}

// The bounds.
const (
	timeLimit     = 10 * time.Second
	maxAnswer     = 64 << 10
	maxAtOnce     = 8
	remembered    = 5 * time.Minute
	maxRemembered = 10_000
	maxToken      = 12 << 10
)

// ErrConfig refuses a configuration.
var ErrConfig = errors.New("tokens cannot be checked so")

// ErrBusy says that too many tokens are being asked for.
var ErrBusy = errors.New("too many tokens are being checked at once")

// Issuer knows whom tokens were issued to. Any number of goroutines.
type Issuer struct {
	// Set by New, never changed.
	cfg    Config
	client *http.Client
	now    func() time.Time
	key    [32]byte
	slots  chan struct{}

	mu    sync.Mutex // guards what follows
	known map[[sha256.Size]byte]memory
}

// memory is what was said of a token that is good.
type memory struct {
	user  string
	until time.Time
}

// New returns the issuer that cfg names; it asks nothing yet. ErrConfig.
func New(cfg Config) (*Issuer, error) {
	if err := CheckURL(cfg.IntrospectionURL); err != nil {
		return nil, err
	}
	if cfg.Claim == "" {
		cfg.Claim = "username"
	}
	i := &Issuer{cfg: cfg, client: cfg.Client, now: cfg.Now, slots: make(chan struct{}, maxAtOnce), known: map[[sha256.Size]byte]memory{}}
	if i.client == nil {
		i.client = &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: maxAnswer,
			MaxIdleConnsPerHost: maxAtOnce, IdleConnTimeout: time.Minute,
		}}
	}
	if i.now == nil {
		i.now = time.Now
	}
	rand.Read(i.key[:])
	return i, nil
}

// CheckURL holds the address of an issuer to what is safe to send tokens to. ErrConfig.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return fmt.Errorf("%w: %q is not the address of an issuer; write it as \"https://login.example.org/introspect\"", ErrConfig, address)
	case u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("%w: tokens would travel unprotected to %s; use https", ErrConfig, u.Host)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Scope is what tokens must be issued for; may be empty.
func (i *Issuer) Scope() string { return i.cfg.Scope }

// Configuration is where the issuer says of itself how tokens are to be had (OpenID Connect Discovery 1.0, 4); empty
// where its name is not known.
func (i *Issuer) Configuration() string {
	if i.cfg.Issuer == "" {
		return ""
	}
	return strings.TrimSuffix(i.cfg.Issuer, "/") + "/.well-known/openid-configuration"
}

// User returns the name that a token stands for, or why it opens nothing. An error is trouble with the
// issuer, ErrBusy, or ctx's.
func (i *Issuer) User(ctx context.Context, token string) (name, why string, err error) {
	if token == "" || len(token) > maxToken {
		return "", "no token has such a length", nil
	}
	key := i.hash(token)
	if m, ok := i.recall(key); ok {
		return m.user, "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	select {
	case i.slots <- struct{}{}:
		defer func() { <-i.slots }()
	case <-ctx.Done():
		return "", "", fmt.Errorf("check a token: %w", ErrBusy)
	}
	said, err := i.ask(ctx, token)
	if err != nil {
		return "", "", fmt.Errorf("check a token at %s: %w", i.host(), err)
	}
	if why = i.refuse(said); why != "" {
		return "", why, nil
	}
	name = said.text(i.cfg.Claim)
	i.remember(key, memory{name, i.until(said)})
	return name, "", nil
}

func (i *Issuer) host() string {
	u, _ := url.Parse(i.cfg.IntrospectionURL)
	return u.Host
}

// ask has the issuer look at a token (RFC 7662, 2.1).
func (i *Issuer) ask(ctx context.Context, token string) (answer, error) {
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, i.cfg.IntrospectionURL, strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if i.cfg.ClientID != "" { // RFC 6749, 2.3.1
		req.SetBasicAuth(url.QueryEscape(i.cfg.ClientID), url.QueryEscape(i.cfg.ClientSecret))
	}
	client := *i.client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return answer{}, fmt.Errorf("it answers %s", resp.Status)
	}
	return read(resp.Body)
}

// answer is what an issuer says of a token, as far as it matters here (RFC 7662, 2.2).
type answer struct {
	Active    bool
	Issuer    string
	Audience  audience
	Scope     string
	Expires   float64
	NotBefore float64
	claims    map[string]json.RawMessage
}

func read(r io.Reader) (a answer, err error) {
	text, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if err != nil {
		return a, err
	}
	if len(text) > maxAnswer {
		return a, fmt.Errorf("its answer is longer than %d octets", maxAnswer)
	}
	return parse(text)
}

func parse(text []byte) (a answer, err error) {
	var active *bool
	fields := map[string]json.RawMessage{} // by their exact names, which a struct would not ask for
	if err := json.Unmarshal(text, &fields); err != nil {
		return a, errAnswer
	}
	for name, to := range map[string]any{
		"active": &active, "iss": &a.Issuer, "aud": &a.Audience, "scope": &a.Scope, "exp": &a.Expires, "nbf": &a.NotBefore,
	} {
		if b, ok := fields[name]; ok && json.Unmarshal(b, to) != nil {
			return a, errAnswer
		}
	}
	if active == nil {
		return a, errAnswer
	}
	a.Active, a.claims = *active, fields
	return a, nil
}

var errAnswer = errors.New("its answer is not what RFC 7662 says")

// text is a claim that is one, or empty.
func (a answer) text(claim string) (s string) {
	_ = json.Unmarshal(a.claims[claim], &s)
	return s
}

// audience is one text or a list of them.
type audience []string

// UnmarshalJSON reads either form.
func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// refuse says why a token opens nothing; of one that opens something, nothing.
func (i *Issuer) refuse(a answer) string {
	now := i.now()
	switch {
	case !a.Active:
		return "the issuer says that the token is not active"
	case !now.Before(i.until(a)), a.NotBefore != 0 && now.Before(unix(a.NotBefore)):
		return "it is not the token's time"
	case i.cfg.Issuer != "" && a.Issuer != i.cfg.Issuer:
		return fmt.Sprintf("the token's iss is %.100q", a.Issuer)
	case i.cfg.Audience != "" && !slices.Contains(a.Audience, i.cfg.Audience):
		return fmt.Sprintf("the token's aud is %.100q", a.Audience)
	case !covers(a.Scope, i.cfg.Scope):
		return fmt.Sprintf("the token's scope is %.100q", a.Scope)
	case i.cfg.Claim == "email" && string(a.claims["email_verified"]) == "false":
		return "the token's email is not verified"
	case a.text(i.cfg.Claim) == "":
		return fmt.Sprintf("the issuer does not tell the token's %s", i.cfg.Claim)
	}
	return ""
}

// until is when what the issuer said of a token is forgotten.
func (i *Issuer) until(a answer) time.Time {
	until := i.now().Add(remembered)
	if expires := unix(a.Expires); a.Expires != 0 && expires.Before(until) {
		until = expires
	}
	return until
}

// unix is a NumericDate (RFC 7519, 2).
func unix(seconds float64) time.Time {
	const most = 1 << 40 // far beyond any, and no overflow
	return time.Unix(int64(min(max(seconds, -most), most)), 0)
}

// covers reports whether a token's scopes hold all that are needed (RFC 6749, 3.3).
func covers(has, needs string) bool {
	list := strings.Fields(has)
	for scope := range strings.FieldsSeq(needs) {
		if !slices.Contains(list, scope) {
			return false
		}
	}
	return true
}

// hash is by what a token is remembered: itself and all that the answer depended on, under a key that never leaves memory.
func (i *Issuer) hash(token string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, i.key[:])
	c := i.cfg
	for _, s := range []string{token, c.IntrospectionURL, c.ClientID, c.ClientSecret, c.Issuer, c.Audience, c.Scope, c.Claim} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	h.Sum(sum[:0])
	return sum
}

func (i *Issuer) recall(key [sha256.Size]byte) (memory, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	m, ok := i.known[key]
	return m, ok && i.now().Before(m.until)
}

// remember forgets all when there is too much.
func (i *Issuer) remember(key [sha256.Size]byte, m memory) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.known) >= maxRemembered {
		clear(i.known)
	}
	i.known[key] = m
}
