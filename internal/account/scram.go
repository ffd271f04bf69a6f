package account

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"postroad/internal/sasl"
	"postroad/internal/store"
)

// scramIterations is what a SCRAM client has to compute for a login, some 15 ms: the most that
// Cyrus SASL does. Passwords that were stored with fewer are stored anew when they are next seen.
const scramIterations = 65_536

// scram is what is stored for SCRAM-SHA-256.
type scram struct {
	Salt       []byte `json:"salt"`
	Iterations int    `json:"iterations"`
	Stored     []byte `json:"stored"`
	Server     []byte `json:"server"`
}

func newScram(password string) *scram {
	salt := make([]byte, 16)
	rand.Read(salt)
	c := sasl.Derive(password, salt, scramIterations)
	return &scram{Salt: salt, Iterations: c.Iterations, Stored: c.StoredKey[:], Server: c.ServerKey[:]}
}

// scramCredentials returns what SCRAM needs of a user. Of one who cannot log in by it they are made up: the
// same for the same name, and nobody has the password.
func (d *Directory) scramCredentials(user string) (sasl.Credentials, error) {
	_, rec, err := d.credentials(user)
	if err != nil {
		return sasl.Credentials{}, fmt.Errorf("look up credentials: %w", err)
	}
	secret, err := d.decoySecret()
	if err != nil {
		return sasl.Credentials{}, fmt.Errorf("look up credentials: %w", err)
	}
	if s := rec.Scram; s.readable() {
		return sasl.Credentials{
			Salt: s.Salt, Iterations: s.Iterations,
			StoredKey: [sha256.Size]byte(s.Stored), ServerKey: [sha256.Size]byte(s.Server),
		}, nil
	}
	salt := decoyOf(secret, "salt", user)
	return sasl.Credentials{
		Salt: salt[:16], Iterations: scramIterations,
		StoredKey: decoyOf(secret, "stored", user), ServerKey: decoyOf(secret, "server", user),
	}, nil
}

func (s *scram) readable() bool {
	return s != nil && len(s.Salt) > 0 && s.Iterations > 0 && len(s.Stored) == sha256.Size && len(s.Server) == sha256.Size
}

func decoyOf(secret []byte, what, user string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, secret)
	fmt.Fprintf(h, "%s %s", what, nameOf(user))
	h.Sum(sum[:0])
	return sum
}

func secretKey() store.Key { return store.NewKey("as") }

// decoySecret is what salts of unknown users are made from. It is made when it is first
// needed, and kept: that salts change with each start would tell who is unknown.
func (d *Directory) decoySecret() (secret []byte, err error) {
	err = d.st.View(func(r store.Reader) error {
		secret = append([]byte(nil), r.Get(secretKey())...)
		return nil
	})
	if err != nil || len(secret) > 0 {
		return secret, err
	}
	err = d.st.Update(func(tx store.Tx) error {
		if secret = append([]byte(nil), tx.Get(secretKey())...); len(secret) == 0 {
			secret = make([]byte, 32)
			rand.Read(secret)
			tx.Put(secretKey(), secret)
		}
		return nil
	})
	return secret, err
}

// renew stores what SCRAM needs of a password that has just been found right, where that
// is missing or too cheap. The login does not depend on it.
func (d *Directory) renew(a Account, old record, password string) {
	if old.Scram != nil && old.Scram.Iterations >= scramIterations {
		return
	}
	fresh := newScram(password)
	_, _ = d.change(a.Address, func(rec *record) {
		if rec.Hash == old.Hash {
			rec.Scram = fresh
		}
	})
}
