package hook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func request(url, text string) *Request {
	return &Request{
		URL: url, ID: "01abc-0", ContentType: "message/rfc822", Size: int64(len(text)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil },
	}
}

// serve answers as fn does, until the test ends.
func serve(t *testing.T, fn http.HandlerFunc) string {
	srv := httptest.NewServer(fn)
	t.Cleanup(srv.Close)
	return srv.URL
}

func client(t *testing.T) *Client {
	c := New(Config{})
	t.Cleanup(c.Close)
	return c
}

func TestPostIsSigned(t *testing.T) {
	secret := []byte("0123456789abcdef01234567")
	for _, tt := range []struct{ name, secret, envelope string }{
		{"a secret of text", string(secret), ""},
		{"a secret in base64", "whsec_" + base64.StdEncoding.EncodeToString(secret), ""},
		{"with an envelope", string(secret), `{"to":["a@b.test"]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const text = "Subject: hello\r\n\r\nbody\r\n"
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				got, _ := io.ReadAll(r.Body)
				if string(got) != text || r.ContentLength != int64(len(text)) || r.Header.Get("Content-Type") != "message/rfc822" {
					t.Errorf("%q came, of a length of %d, as %s", got, r.ContentLength, r.Header.Get("Content-Type"))
				}
				signed := r.Header.Get("Webhook-Id") + "." + r.Header.Get("Webhook-Timestamp") + "."
				if tt.envelope != "" {
					signed += r.Header.Get("Postroad-Envelope") + "."
				}
				m := hmac.New(sha256.New, secret)
				m.Write([]byte(signed + text))
				if want := "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil)); r.Header.Get("Webhook-Signature") != want {
					t.Errorf("the signature is %s, not %s", r.Header.Get("Webhook-Signature"), want)
				}
				io.WriteString(w, "thank you")
			})
			req := request(url, text)
			req.Envelope, req.Header = tt.envelope, map[string]string{"Postroad-Envelope": tt.envelope}
			var err error
			if req.Key, err = ParseKey(tt.secret); err != nil {
				t.Fatal(err)
			}
			a, err := client(t).Post(t.Context(), req)
			if err != nil || a.Code != 200 || a.Text != "thank you" || !a.Whole || a.Peer == "" {
				t.Errorf("%+v, %v", a, err)
			}
		})
	}
}

func TestWithoutAKeyNothingIsSigned(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Webhook-Signature") != "" || r.Header.Get("Webhook-Id") != "01abc-0" {
			t.Error(r.Header)
		}
	})
	if _, err := client(t).Post(t.Context(), request(url, "x")); err != nil {
		t.Error(err)
	}
}

func TestParseKey(t *testing.T) {
	for _, tt := range []struct {
		secret string
		ok     bool
	}{
		{"", true}, {"0123456789abcdef", true}, {"0123456789abcde", false}, {strings.Repeat("x", 257), false},
		{"whsec_MDEyMzQ1Njc4OWFiY2RlZg==", true}, {"whsec_MDEy", false}, {"whsec_not base64 at all", false},
	} {
		k, err := ParseKey(tt.secret)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrSecret) || err == nil && k.IsZero() != (tt.secret == "") {
			t.Errorf("%q: %v", tt.secret, err)
		}
	}
	a, _ := ParseKey("0123456789abcdef")
	b, _ := ParseKey("0123456789abcdeg")
	if a.ID() == b.ID() || len(a.ID()) != 8 {
		t.Errorf("the ids are %s and %s", a.ID(), b.ID())
	}
}

// The last octet comes after Before has agreed, and never when it has not.
func TestBefore(t *testing.T) {
	for _, text := range []string{"", "x", "xy", strings.Repeat("a line\r\n", 20_000)} {
		var got atomic.Int64
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(&counted{n: &got}, r.Body)
			if err == nil && n == int64(len(text)) {
				got.Store(-1)
			}
		})
		calls := 0
		req := request(url, text)
		req.Before = func() error {
			calls++
			if got.Load() < 0 {
				t.Errorf("%d octets: it was there before Before", len(text))
			}
			return nil
		}
		if a, err := client(t).Post(t.Context(), req); err != nil || a.Code != 200 || !a.Whole || calls != 1 || got.Load() != -1 {
			t.Errorf("%d octets: %+v, %v, %d calls", len(text), a, err, calls)
		}

		got.Store(0)
		no := errors.New("no")
		req.Before = func() error { return no }
		_, err := client(t).Post(t.Context(), req)
		if _, ok := errors.AsType[*LocalError](err); !ok || !errors.Is(err, no) || got.Load() < 0 {
			t.Errorf("%d octets: %v, and %d arrived", len(text), err, got.Load())
		}
	}
}

type counted struct{ n *atomic.Int64 }

func (c *counted) Write(p []byte) (int, error) { c.n.Add(int64(len(p))); return len(p), nil }

// What cannot be read is our own trouble, and never arrives as a whole.
func TestDamage(t *testing.T) {
	for name, in := range map[string]io.Reader{
		"too short":          strings.NewReader("1234"),
		"too long":           strings.NewReader("1234567"),
		"damaged in the end": io.MultiReader(strings.NewReader("123456"), failing{}),
		"damaged before":     io.MultiReader(strings.NewReader("123"), failing{}),
	} {
		t.Run(name, func(t *testing.T) {
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if b, err := io.ReadAll(r.Body); err == nil {
					t.Errorf("%q arrived", b)
				}
			})
			req := request(url, "123456")
			req.Open = func() (io.ReadCloser, error) { return io.NopCloser(in), nil }
			_, err := client(t).Post(t.Context(), req)
			if _, ok := errors.AsType[*LocalError](err); !ok {
				t.Error(err)
			}
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("damaged") }

func TestAnswers(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name string
		say  http.HandlerFunc
		want Answer
	}{
		{"a refusal with words", func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "no such order", http.StatusUnprocessableEntity)
		}, Answer{Code: 422, Text: "no such order\n"}},
		{"a page for browsers", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, "<html>")
		}, Answer{Code: 200}},
		{"a redirect is an answer", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}, Answer{Code: 307}},
		{"later, in seconds", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(429)
		}, Answer{Code: 429, RetryAfter: 2 * time.Minute}},
		{"later, at a time", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", now.Add(time.Hour).Format(http.TimeFormat))
			w.WriteHeader(503)
		}, Answer{Code: 503, RetryAfter: time.Hour}},
		{"much later", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "4000000000")
			w.WriteHeader(503)
		}, Answer{Code: 503, RetryAfter: 24 * time.Hour}},
		{"too late", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", now.Add(-time.Hour).Format(http.TimeFormat))
			w.WriteHeader(503)
		}, Answer{Code: 503}},
		{"without end", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			for r.Context().Err() == nil {
				if _, err := w.Write(bytes.Repeat([]byte("x"), 1<<10)); err != nil {
					return
				}
			}
		}, Answer{Code: 200, Text: strings.Repeat("x", maxText)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := New(Config{Now: func() time.Time { return now }})
			defer c.Close()
			a, err := c.Post(t.Context(), request(serve(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				tt.say(w, r)
			}), "hello"))
			tt.want.Peer, tt.want.Whole = a.Peer, true
			if err != nil || a != tt.want {
				t.Errorf("%+v, %v", a, err)
			}
		})
	}
}

// An answer whose header has no end is no answer.
func TestHugeHeader(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 2*maxHeader))
	})
	if a, err := client(t).Post(t.Context(), request(url, "hello")); err == nil {
		t.Errorf("%+v", a)
	}
}

// Who says "taken" before it has all has not taken it.
func TestEarlyAnswer(t *testing.T) {
	inBubble(t, func(conn net.Conn) {
		buf := make([]byte, 64<<10)
		conn.Read(buf) // some of it
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	}, func(c *Client) {
		a, err := c.Post(context.Background(), request("http://app.test/", strings.Repeat("x", 1<<20)))
		if err == nil && a.Whole {
			t.Errorf("%+v", a)
		}
	})
}

// Nobody makes us wait for ever.
func TestTimeouts(t *testing.T) {
	trickle := func(conn net.Conn, every time.Duration) {
		b := make([]byte, 1)
		for {
			if _, err := conn.Read(b); err != nil {
				return
			}
			time.Sleep(every)
		}
	}
	for _, tt := range []struct {
		name string
		say  func(net.Conn)
		most time.Duration
	}{
		{"takes nothing", func(conn net.Conn) { time.Sleep(24 * time.Hour) }, 5 * time.Minute},
		{"takes an octet a minute", func(conn net.Conn) { trickle(conn, time.Minute) }, 15*time.Minute + time.Second},
		{"answers nothing", func(conn net.Conn) { io.Copy(io.Discard, conn) }, 4 * time.Minute},
		{"answers without end", func(conn net.Conn) {
			go io.Copy(io.Discard, conn)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(conn, "X%d: x\r\n", i); err != nil {
					return
				}
				time.Sleep(10 * time.Second)
			}
		}, 15*time.Minute + time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, tt.say, func(c *Client) {
				start := time.Now()
				a, err := c.Post(context.Background(), request("http://app.test/", strings.Repeat("x", 64<<10)))
				if took := time.Since(start); err == nil || took > tt.most {
					t.Errorf("after %v: %+v, %v", took, a, err)
				}
			})
		})
	}
}

// inBubble has a client talk to say in a bubble.
func inBubble(t *testing.T, say func(net.Conn), fn func(*Client)) {
	synctest.Test(t, func(t *testing.T) {
		var far sync.WaitGroup
		c := New(Config{Dial: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			far.Go(func() { defer theirs.Close(); say(theirs) })
			return ours, nil
		}})
		fn(c)
		c.Close()
		far.Wait()
	})
}
