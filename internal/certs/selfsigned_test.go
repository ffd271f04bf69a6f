package certs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSelfSigned: wherever a first start is cut short, the next one has a certificate
// with its key; and what was damaged later is refused with words that say what to do.
func TestSelfSigned(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(cert, key string)
		fails bool
	}{
		{"nothing is there yet", func(cert, key string) { os.Remove(cert); os.Remove(key) }, false},
		{"only the key was written", func(cert, key string) { os.Remove(cert) }, false},
		{"the key was being written", func(cert, key string) { os.Remove(cert); os.Rename(key, key+".tmp"); os.Truncate(key+".tmp", 5) }, false},
		{"the certificate was being written", func(cert, key string) { os.Rename(cert, cert+".tmp"); os.Truncate(cert+".tmp", 5) }, false},
		{"all is well", func(cert, key string) {}, false},
		{"the key is gone", func(cert, key string) { os.Remove(key) }, true},
		{"the certificate is damaged", func(cert, key string) { os.Truncate(cert, 100) }, true},
		{"the key is empty", func(cert, key string) { os.Truncate(key, 0) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "tls")
			open(t, Config{Dir: dir})
			tt.spoil(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
			_, err := Open(Config{Dir: dir, Hostname: hostname})
			switch {
			case !tt.fails && err != nil:
				t.Error(err)
			case tt.fails && (err == nil || !strings.Contains(err.Error(), "move both files in "+dir+" away")):
				t.Errorf("got %v", err)
			}
			if info, err := os.Stat(filepath.Join(dir, "key.pem")); err == nil && info.Mode().Perm() != 0o600 {
				t.Errorf("the key has mode %v", info.Mode())
			}
		})
	}
}

// A self-signed certificate is another one when it ends soon, also in a server that runs on, or when the server has
// another name; what somebody else put in its place is left alone.
func TestSelfSignedIsReplaced(t *testing.T) {
	now := time.Now()
	cfg := Config{Dir: t.TempDir(), Now: func() time.Time { return now }}
	c := open(t, cfg)
	first := seen(t, c, hostname)
	for _, after := range []time.Duration{0, 700 * 24 * time.Hour} {
		now = time.Now().Add(after)
		c.Reload()
		if !seen(t, c, hostname).Equal(first) || !seen(t, open(t, cfg), hostname).Equal(first) {
			t.Fatalf("another certificate after %v", after)
		}
	}
	now = first.NotAfter.Add(-24 * time.Hour)
	c.Reload()
	second := seen(t, c, hostname)
	if second.Equal(first) || second.NotAfter.Before(now.AddDate(2, 0, 0)) {
		t.Errorf("a day before its end there is no other: %v", second.NotAfter)
	}
	if !seen(t, open(t, cfg), hostname).Equal(second) {
		t.Error("a start does not find what was made")
	}
	cfg.Hostname = "other.example.test"
	if got := seen(t, open(t, cfg), cfg.Hostname); got.VerifyHostname(cfg.Hostname) != nil {
		t.Errorf("after the name changed: %v", got.DNSNames)
	}
	foreign := writePair(t, cfg.Dir, "", "mx.example.net")
	if got := seen(t, open(t, cfg), ""); !got.Equal(foreign) {
		t.Errorf("somebody's own certificate was replaced by %v", got.DNSNames)
	}
}
