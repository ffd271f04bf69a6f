package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"

	"github.com/rogpeppe/go-internal/testscript"
)

// keyFile FILE rsa|ed25519 writes a private key as other programs do.
func keyFile(ts *testscript.TestScript, _ bool, args []string) {
	var block pem.Block
	if args[1] == "rsa" {
		private, err := rsa.GenerateKey(rand.Reader, 2048)
		ts.Check(err)
		block = pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)}
	} else {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		ts.Check(err)
		der, err := x509.MarshalPKCS8PrivateKey(private)
		ts.Check(err)
		block = pem.Block{Type: "PRIVATE KEY", Bytes: der}
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&block), 0o600))
}
