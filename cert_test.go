package postroad

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postroad/internal/config"
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
			cfg := config.Default()
			cfg.DataDir = t.TempDir()
			if _, err := tlsConfig(cfg, time.Now()); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(cfg.DataDir, "tls")
			tt.spoil(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
			_, err := tlsConfig(cfg, time.Now())
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
