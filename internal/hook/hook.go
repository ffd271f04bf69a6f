// Package hook posts to applications over HTTP: a message, an event, a report.
//
// What is promised:
//
//   - What is posted is streamed, with its exact length, and signed as Standard Webhooks 1.0 says, when there is a key.
//   - Only a 2xx answer that came after the whole of it was handed over counts as taken. Redirects are not followed.
//   - An answer, its header included, is bounded in size, and nobody waits for ever: neither for a connection, nor for
//     some octets to be taken, nor for the answer, nor for all of it together.
//   - The last octets leave after the caller has agreed to that (Request.Before), so that a receiver that needs the
//     whole of it has it only then.
package hook

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"time"
)

// Config is what New needs; the zero value is ready for use.
type Config struct {
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error) // nil is the operating system's
	TLS    *tls.Config                                                       // the roots; nil is the system's
	Agent  string                                                            // User-Agent
	Direct bool                                                              // whatever proxy the environment names, it is not used
	Now    func() time.Time
}

// How long things may take.
const (
	connectWithin = 30 * time.Second // a connection, and then TLS
	blockWithin   = time.Minute      // some octets to be taken
	answerWithin  = 2 * time.Minute  // the answer, once all was sent
	allWithin     = 15 * time.Minute
)

// The bounds on answers.
const (
	maxHeader = 64 << 10
	maxText   = 1 << 10
	// maxRetryAfter is the longest wait that an answer can ask for.
	maxRetryAfter = 24 * time.Hour
	// expectFrom is how many octets are not sent before the other side has had a look at the header.
	expectFrom = 1 << 20
)

// Client posts. Any number of goroutines.
type Client struct {
	// Set by New, never changed.
	cfg       Config
	transport *http.Transport
}

// New returns a client without connections.
func New(cfg Config) *Client {
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Client{cfg: cfg}
	c.transport = &http.Transport{
		DialContext: c.dial, TLSClientConfig: cfg.TLS.Clone(), ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: connectWithin, ResponseHeaderTimeout: answerWithin,
		MaxResponseHeaderBytes: maxHeader, MaxIdleConnsPerHost: 4, MaxIdleConns: 64, IdleConnTimeout: 30 * time.Second,
		DisableCompression: true, ExpectContinueTimeout: time.Second,
	}
	if !cfg.Direct {
		c.transport.Proxy = http.ProxyFromEnvironment
	}
	return c
}

func (c *Client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	return c.cfg.Dial(ctx, network, addr)
}

// Close lets go of connections that wait for another request.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Request is one thing to be posted.
type Request struct {
	URL         string
	ID          string // the same whenever the same thing is posted again; of letters, digits, "-", "_" and "."
	ContentType string
	Size        int64
	// Open gives the octets: Size of them. It is called once to sign them and once to send them.
	Open func() (io.ReadCloser, error)
	// Header is sent too. Values hold no control characters.
	Header map[string]string
	// Envelope is signed before the octets, with a "." between them; empty for none.
	Envelope string
	Key      Key
	// Before is called once, before the last octets are sent; nil for nothing. Its error ends the request with nothing delivered.
	Before func() error
}

// Answer is what the other side said.
type Answer struct {
	Code       int           // of HTTP
	Text       string        // how its body begins; not sanitised
	RetryAfter time.Duration // how long it wants to be left alone; 0 when it did not say, at most a day
	TLS        string        // version and cipher suite; empty without
	Peer       string        // the address that was talked to; empty when none was reached
	Whole      bool          // all of it had been handed over before the answer, or the error, came
}

// Post sends a request and returns the answer, whatever it says. An error means that there is none: of Open or Before
// it is a LocalError, any other is the network's or the other side's; of the Answer, Peer and Whole count also then.
func (c *Client) Post(ctx context.Context, r *Request) (Answer, error) {
	ctx, breakOff := context.WithCancelCause(ctx)
	defer breakOff(nil)
	all := time.AfterFunc(allWithin, func() { breakOff(errSlow) })
	defer all.Stop()
	req, err := c.request(ctx, r)
	if err != nil {
		return Answer{}, &LocalError{err}
	}
	body, err := newBody(r, breakOff)
	if err != nil {
		return Answer{}, &LocalError{err}
	}
	defer body.end()
	if r.Size > 0 {
		req.Body, req.ContentLength = body, r.Size
	}
	return c.exchange(req, body)
}

// LocalError is trouble on our own side: nothing was delivered.
type LocalError struct{ Err error }

func (e *LocalError) Error() string { return e.Err.Error() }
func (e *LocalError) Unwrap() error { return e.Err }

// errSlow is why a request is broken off.
var errSlow = errors.New("the other side takes too long")

// request is all but the body.
func (c *Client) request(ctx context.Context, r *Request) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, http.NoBody)
	if err != nil {
		return nil, err
	}
	for name, value := range r.Header {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", r.ContentType)
	req.Header.Set("User-Agent", cmp.Or(c.cfg.Agent, "postroad"))
	if r.Size > expectFrom {
		req.Header.Set("Expect", "100-continue") // who refuses it by its header is spared the rest
	}
	return req, c.sign(req.Header, r)
}

// sign sets the headers of Standard Webhooks.
func (c *Client) sign(h http.Header, r *Request) error {
	now := c.cfg.Now()
	h.Set("Webhook-Id", r.ID)
	h.Set("Webhook-Timestamp", timestamp(now))
	if r.Key.IsZero() {
		return nil
	}
	m := r.Key.begin(r.ID, now)
	if r.Envelope != "" {
		io.WriteString(m.sum, r.Envelope+".")
	}
	octets, err := r.Open()
	if err != nil {
		return err
	}
	defer octets.Close()
	if _, err := io.Copy(m.sum, octets); err != nil {
		return err
	}
	h.Set("Webhook-Signature", m.String())
	h.Set("Webhook-Key-Id", r.Key.ID())
	return nil
}

// exchange sends the request and reads the answer.
func (c *Client) exchange(req *http.Request, body *body) (a Answer, err error) {
	trace := &httptrace.ClientTrace{GotConn: func(g httptrace.GotConnInfo) { a.Peer = g.Conn.RemoteAddr().String() }}
	resp, err := c.transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	a.Whole = body.answered()
	if resp != nil {
		defer resp.Body.Close()
	}
	if local := body.failed(); local != nil {
		return a, &LocalError{local}
	}
	if err != nil {
		return a, cmp.Or(context.Cause(req.Context()), err)
	}
	a.Code, a.RetryAfter = resp.StatusCode, c.retryAfter(resp.Header.Get("Retry-After"))
	if resp.TLS != nil {
		a.TLS = tls.VersionName(resp.TLS.Version) + " " + tls.CipherSuiteName(resp.TLS.CipherSuite)
	}
	a.Text = text(resp)
	return a, nil
}

// text is how an answer's body begins, where it was written for programs or people who run them.
func text(resp *http.Response) string {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind == "text/html" {
		return ""
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxText)) // what came before an error has to do
	return string(b)
}

// retryAfter reads both forms (RFC 9110, 10.2.3).
func (c *Client) retryAfter(value string) time.Duration {
	var wait time.Duration
	if n, err := strconv.ParseUint(value, 10, 32); err == nil {
		wait = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		wait = at.Sub(c.cfg.Now())
	}
	return min(max(wait, 0), maxRetryAfter)
}
