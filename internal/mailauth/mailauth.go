// Package mailauth says who vouches for a message, and vouches for ours: DKIM (RFC 6376, 8301, 8463), ARC (RFC 8617), and
// SPF (RFC 7208) of who brought it. What is promised:
//
//   - A message is read in one pass, whatever number of signatures it has or gets. Of its body nothing is kept but hashes.
//   - What a stranger's message, or the DNS, can make this do is bounded: 1 MiB of header and a little more, 10 DKIM signatures, 50 sets of
//     ARC, keys of 1024 to 4096 bits.
//   - What is signed is what leaves, and what our signatures name cannot be added to: each field that a reader sees is
//     signed once more than it is there.
//   - A private key leaves the store for a signature only: it is in no log, no error, no reply to an administrator.
//   - A key signs once the DNS has its record, and its record may go only when nothing that it signed can still be on its way.
//
// In the store:
//
//	dk  domain, selector    a DKIM key
package mailauth

import (
	"crypto"
	"errors"
	"time"
)

// Algorithm is how a signature is made (RFC 8301, 3.1; RFC 8463, 3). Both hash with SHA-256.
type Algorithm string

// The algorithms.
const (
	RSA     Algorithm = "rsa-sha256"
	Ed25519 Algorithm = "ed25519-sha256"
)

// Bounds of what a message of strangers may have us do.
const (
	maxHeader     = 1<<20 + 64<<10 // as much as is let in, and what servers add
	maxSignatures = 10             // of DKIM
	maxSets       = 50             // of ARC (RFC 8617, 4.2.1)
	maxNames      = 500
	minRSA        = 1024
	maxRSA        = 4096
)

// lifetime is how long a signature of ours counts: who sends a message again and again has that long (x=).
const lifetime = 7 * 24 * time.Hour

// ErrHeader means that a message has no header that could be signed.
var ErrHeader = errors.New("the header cannot be signed")

// SigningKey is a key that is in use.
type SigningKey struct {
	Domain    string // in A-labels
	Selector  string
	Algorithm Algorithm
	signer    crypto.Signer
}
