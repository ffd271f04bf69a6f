package hook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Key signs what is posted. The zero Key signs nothing.
type Key struct{ secret []byte }

// secretPrefix marks a secret that is written in base64.
const secretPrefix = "whsec_"

// The lengths of secrets, in octets.
const (
	minSecret = 16
	maxSecret = 256
)

// ErrSecret refuses a secret.
var ErrSecret = errors.New("no secret to sign with")

// ParseKey reads a secret: "whsec_" and base64, or any text, whose octets it is then. Empty is the zero Key. ErrSecret
// when it is too short to keep anybody out, or not base64.
func ParseKey(secret string) (Key, error) {
	octets := []byte(secret)
	if encoded, ok := strings.CutPrefix(secret, secretPrefix); ok {
		var err error
		if octets, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			return Key{}, fmt.Errorf("%w: what follows %q is not base64", ErrSecret, secretPrefix)
		}
	}
	if n := len(octets); n != 0 && n < minSecret || n > maxSecret {
		return Key{}, fmt.Errorf("%w: it has %d octets, and needs %d to %d", ErrSecret, n, minSecret, maxSecret)
	}
	return Key{octets}, nil
}

// IsZero reports whether k signs nothing.
func (k Key) IsZero() bool { return len(k.secret) == 0 }

// ID tells keys apart, so that a receiver that knows several finds the right one. It tells nothing of the secret but to
// who knows it.
func (k Key) ID() string {
	m := hmac.New(sha256.New, k.secret)
	m.Write([]byte("postroad key id"))
	return hex.EncodeToString(m.Sum(nil)[:4])
}

// mac begins a signature: what is written to it is signed after the id and the time.
type mac struct {
	sum interface {
		Write([]byte) (int, error)
		Sum([]byte) []byte
	}
}

func (k Key) begin(id string, at time.Time) mac {
	m := mac{hmac.New(sha256.New, k.secret)}
	fmt.Fprintf(m.sum, "%s.%s.", id, timestamp(at))
	return m
}

// String is the signature as its header has it.
func (m mac) String() string { return "v1," + base64.StdEncoding.EncodeToString(m.sum.Sum(nil)) }

func timestamp(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }
