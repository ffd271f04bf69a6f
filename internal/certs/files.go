package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxFile is far beyond any chain of certificates, and keeps a wrong path from filling memory.
const maxFile = 1 << 20

// A pairFile is a certificate and the files that it came from.
type pairFile struct {
	Pair
	source string // where the files come from: "file", "self-signed" or an ACME server
	name   string // whom it is to be for, when it is obtained
	advice string // what to do when it cannot be read, if that is known
	made   bool   // by us: self-signed
	later  bool   // it may not be there yet

	cert    *tls.Certificate // nil when it is not there yet
	seen    watched
	trouble string // why what is in the files now is not shown; "" when it is
}

// watched is what is known of files that are looked at again and again.
type watched struct {
	sum    [sha256.Size]byte // of what was read last
	broken int               // how often that has been found broken, one look after the other
}

// look reports whether what was read is news, or not yet known to be as it should be.
func (w *watched) look(sum [sha256.Size]byte) bool {
	if sum == w.sum {
		return w.broken > 0
	}
	w.sum, w.broken = sum, 0
	return true
}

// tellBroken counts one more look at what is broken, and reports whether it is to be told now: at the second
// look, since at the first one somebody may have been writing, and only then.
func (w *watched) tellBroken() bool {
	w.broken++
	return w.broken == 2
}

// openFiles loads what the config names, what was obtained, and when it names none what is made here.
func (c *Certs) openFiles() error {
	for _, p := range c.cfg.Files {
		c.files = append(c.files, &pairFile{Pair: p, source: "file"})
	}
	if c.acme != nil {
		c.files = append(c.files, c.acme.files()...)
	}
	if len(c.cfg.Files) == 0 {
		own, err := c.selfSigned()
		if err != nil {
			return err
		}
		c.files = append(c.files, own)
	}
	for _, f := range c.files {
		_, err := f.load()
		if f.later && err != nil {
			c.log.Error("a certificate that was obtained cannot be used, and will be obtained again", "cert", f.Cert, "err", err)
			err = os.Rename(f.Cert, f.Cert+".damaged")
		}
		if err != nil {
			return fmt.Errorf("load the certificate %s with its key %s: %w%s", f.Cert, f.Key, err, f.advice)
		}
	}
	return nil
}

// Check reports the first file that Open would fail with. It makes nothing.
func Check(cfg Config) error {
	c := Certs{cfg: cfg}
	if len(cfg.Files) > 0 {
		if err := c.openFiles(); err != nil {
			return err
		}
	}
	if cfg.ACME != nil {
		if err := cfg.ACME.check(); err != nil {
			return err
		}
	}
	return c.openClientCA()
}

// load reads the files and reports whether there is a new certificate. After an error the one before it stays.
func (f *pairFile) load() (bool, error) {
	cert, err := readFile(f.Cert)
	if f.later && f.cert == nil && errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	key, err := readFile(f.Key)
	if err != nil {
		return false, err
	}
	if !f.seen.look(sha256.Sum256(bytes.Join([][]byte{cert, key}, []byte{0}))) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, err
	}
	f.cert, f.seen.broken = &pair, 0
	return true, nil
}

// Reload reads the files again now. What is wrong with them is logged.
func (c *Certs) Reload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var loaded []*pairFile
	for _, f := range c.files {
		if c.reload(f) {
			loaded = append(loaded, f)
		}
	}
	if len(loaded) > 0 {
		c.shown.Store(c.table())
	}
	for _, f := range loaded { // told when it is true
		c.log.Info("certificate loaded", "cert", f.Cert, "names", f.cert.Leaf.DNSNames, "until", f.cert.Leaf.NotAfter)
	}
	c.reloadClientCA()
}

// reload reports whether f has a new certificate. mu must be held.
func (c *Certs) reload(f *pairFile) bool {
	if f.made {
		c.renewSelfSigned(f)
	}
	changed, err := f.load()
	f.trouble = words(err)
	if err != nil && f.seen.tellBroken() {
		c.log.Error("the new certificate cannot be used and the one before it stays; put a certificate and the key that belongs to it there",
			"cert", f.Cert, "key", f.Key, "err", err)
	}
	return changed
}

func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A caFile is the authorities that clients' certificates may come from.
type caFile struct {
	name string
	seen watched
}

func (c *Certs) openClientCA() error {
	if c.cfg.ClientCA == "" {
		return nil
	}
	c.clientCA = &caFile{name: c.cfg.ClientCA}
	pool, err := c.clientCA.load()
	if err != nil {
		return fmt.Errorf("load the client authorities: %w", err)
	}
	c.clients.Store(pool)
	return nil
}

// load returns the pool when it is new, and nil when it is as it was.
func (f *caFile) load() (*x509.CertPool, error) {
	text, err := readFile(f.name)
	if err != nil {
		return nil, err
	}
	if !f.seen.look(sha256.Sum256(text)) {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", f.name)
	}
	f.seen.broken = 0
	return pool, nil
}

// reloadClientCA reads the authorities again. mu must be held.
func (c *Certs) reloadClientCA() {
	if c.clientCA == nil {
		return
	}
	pool, err := c.clientCA.load()
	switch {
	case err != nil && c.clientCA.seen.tellBroken():
		c.log.Error("the client authorities cannot be used and those before stay; put their certificates there", "file", c.clientCA.name, "err", err)
	case pool != nil:
		c.clients.Store(pool)
		c.log.Info("client authorities loaded", "file", c.clientCA.name)
	}
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(filepath.Clean(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is larger than 1 MiB; it is no certificate", name)
	}
	return text, err
}
