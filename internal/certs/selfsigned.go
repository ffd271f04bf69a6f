package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"postroad/internal/durable"
)

// selfSignedBy stands in the certificates that are made here.
const selfSignedBy = "postroad self-signed"

// renewSelfSignedBefore its end a self-signed certificate is replaced by another.
const renewSelfSignedBefore = 30 * 24 * time.Hour

// selfSigned is the self-signed certificate, made when it is missing.
func (c *Certs) selfSigned() (*pairFile, error) {
	dir := c.cfg.Dir
	f := &pairFile{Pair: Pair{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}, made: true, source: "self-signed"}
	f.advice = " (move both files in " + dir + " away, and the next start makes new ones)"
	_, err := os.Stat(f.Cert)
	if errors.Is(err, fs.ErrNotExist) {
		err = c.writeSelfSigned(f)
	} else if err == nil && c.outlived(f) {
		err = c.replaceSelfSigned(f)
	}
	if err != nil {
		return nil, fmt.Errorf("make a self-signed certificate in %s: %w", dir, err)
	}
	return f, nil
}

// outlived reports whether f is whole and ours, and due to be replaced: it ends soon, or is for another host.
func (c *Certs) outlived(f *pairFile) bool {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil || !slices.Equal(pair.Leaf.Subject.Organization, []string{selfSignedBy}) {
		return false
	}
	return c.cfg.Now().After(pair.Leaf.NotAfter.Add(-renewSelfSignedBefore)) || pair.Leaf.VerifyHostname(c.cfg.Hostname) != nil
}

// replaceSelfSigned makes another certificate. While files of two certificates could be there, there is no
// certificate: a start that was cut short is taken up like a first one.
func (c *Certs) replaceSelfSigned(f *pairFile) error {
	if err := os.Remove(f.Cert); err != nil {
		return err
	}
	return c.writeSelfSigned(f)
}

// renewSelfSigned replaces the certificate that was made here, once it is due.
func (c *Certs) renewSelfSigned(f *pairFile) {
	if c.cfg.Now().Before(f.cert.Leaf.NotAfter.Add(-renewSelfSignedBefore)) || !c.outlived(f) {
		return
	}
	if err := c.replaceSelfSigned(f); err != nil {
		c.log.Error("no new self-signed certificate could be made; see that the directory can be written to", "dir", c.cfg.Dir, "err", err)
	}
}

// writeSelfSigned makes a certificate. The key is written first, and each file is there as a whole or not at
// all: a first certificate that is there has its key, wherever a start was cut short.
func (c *Certs) writeSelfSigned(f *pairFile) error {
	if err := os.MkdirAll(c.cfg.Dir, 0o700); err != nil {
		return err
	}
	cert, key, err := makeSelfSigned(c.cfg.Hostname, c.cfg.Now())
	if err != nil {
		return err
	}
	if err := durable.WriteFile(f.Key, key, 0o600); err != nil {
		return err
	}
	return durable.WriteFile(f.Cert, cert, 0o644)
}

// makeSelfSigned returns a certificate for hostname and this machine, and its key, as
// PEM. It is its own authority, so that a client can be told to trust just it.
func makeSelfSigned(hostname string, now time.Time) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: hostname, Organization: []string{selfSignedBy}},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.AddDate(2, 3, 0), // Apple accepts at most 825 days
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:        true, BasicConstraintsValid: true,
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if hostname != "localhost" {
		template.DNSNames = append(template.DNSNames, hostname)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	return cert, key, nil
}
