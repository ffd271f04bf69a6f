package sasl

import (
	"crypto"
	_ "crypto/sha512" // SHA-384 and SHA-512 certificates
	"crypto/tls"
	"crypto/x509"
)

// The channel binding types that are known here.
const (
	Exporter  = "tls-exporter"         // RFC 9266
	EndPoint  = "tls-server-end-point" // RFC 5929, 4
	exportKey = "EXPORTER-Channel-Binding"
)

// Bindings are what a connection's login can be bound to: for each type the octets that
// only the two ends of this connection know, or that name its server.
type Bindings map[string][]byte

// BindingsOf returns the bindings of a TLS connection on which shown was the server's
// certificate; a nil state has none. Exporter needs TLS 1.3, or 1.2 with an extended master
// secret. EndPoint needs to know the certificate, which may be nil.
func BindingsOf(state *tls.ConnectionState, shown *x509.Certificate) Bindings {
	if state == nil {
		return nil
	}
	b := Bindings{}
	if key, err := state.ExportKeyingMaterial(exportKey, nil, 32); err == nil {
		b[Exporter] = key
	}
	if shown == nil {
		return b
	}
	if sum := endPoint(shown); sum != nil {
		b[EndPoint] = sum
	}
	return b
}

// endPoint is the certificate's hash, by the algorithm that it was signed with; MD5 and
// SHA-1 count as SHA-256. Where signing uses no hash, or two, there is none.
func endPoint(cert *x509.Certificate) []byte {
	var h crypto.Hash
	switch cert.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.SHA256WithRSA, x509.SHA256WithRSAPSS, x509.ECDSAWithSHA256:
		h = crypto.SHA256
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		h = crypto.SHA384
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		h = crypto.SHA512
	default:
		return nil
	}
	sum := h.New()
	sum.Write(cert.Raw)
	return sum.Sum(nil)
}
