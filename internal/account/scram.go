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
// Cyrus SASL does. It is stored with each account, so that it can be raised for new ones.
const scramIterations = 65_536

// derivation is how the keys of all of an account's passwords are made: a SCRAM client is told of one salt and one
// count, before it shows which password it has. It stays when a password is replaced.
type derivation struct {
	Salt       []byte `json:"salt"`
	Iterations int    `json:"iterations"`
}

func (d *Directory) newDerivation() derivation {
	salt := make([]byte, 16)
	rand.Read(salt)
	return derivation{salt, d.iterations}
}

// keyring is what SCRAM needs of one password: keys for each way to write it, by hash function.
type keyring struct {
	SHA256 []sasl.Keys `json:"sha256,omitempty"`
	SHA1   []sasl.Keys `json:"sha1,omitempty"` // empty unless SCRAM-SHA-1 was on when the password was seen
}

// keyring derives the keys of a password that may be written in each of the ways given.
func (d derivation) keyring(sha1 bool, ways ...string) (k keyring) {
	for _, password := range ways {
		k.SHA256 = append(k.SHA256, sasl.Derive(sasl.SHA256, password, d.Salt, d.Iterations))
		if sha1 {
			k.SHA1 = append(k.SHA1, sasl.Derive(sasl.SHA1, password, d.Salt, d.Iterations))
		}
	}
	return k
}

// lacks reports whether there are keys missing.
func (k keyring) lacks(sha1 bool) bool { return len(k.SHA256) == 0 || sha1 && len(k.SHA1) == 0 }

// of returns the keys for SCRAM with SHA-1 or SHA-256.
func (k keyring) of(sha1 bool) []sasl.Keys {
	if sha1 {
		return k.SHA1
	}
	return k.SHA256
}

// scramKeys is with how many keys each proof is compared: as many as an account can have. Who has fewer, or does not
// exist, is given random ones, so that the time does not tell.
const scramKeys = 1 + maxAppPasswords*waysToWrite

// scramCredentials returns what SCRAM needs of a user. Of one who does not exist the salt is made up: the
// same for the same name.
func (d *Directory) scramCredentials(who *holder, user string, sha1 bool) (sasl.Credentials, error) {
	secret, err := d.decoySecret()
	if err != nil {
		return sasl.Credentials{}, fmt.Errorf("look up credentials: %w", err)
	}
	c := sasl.Credentials{Salt: decoySalt(secret, user), Iterations: d.iterations}
	if len(who.record.Salt) > 0 {
		c.Salt, c.Iterations = who.record.Salt, who.record.Iterations
	}
	c.Keys = who.keys(sha1)
	nobodys := nobodysKeys(sha1)
	for len(c.Keys) < scramKeys {
		c.Keys = append(c.Keys, nobodys)
	}
	return c, nil
}

// nobodysKeys are those of a password that does not exist.
func nobodysKeys(sha1 bool) sasl.Keys {
	size := sasl.SHA256().Size()
	if sha1 {
		size = sasl.SHA1().Size()
	}
	k := sasl.Keys{Stored: make([]byte, size), Server: make([]byte, size)}
	rand.Read(k.Stored)
	rand.Read(k.Server)
	return k
}

func decoySalt(secret []byte, user string) []byte {
	h := hmac.New(sha256.New, secret)
	fmt.Fprintf(h, "salt %s", nameOf(user))
	return h.Sum(nil)[:16]
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

// learn stores the keys that are missing of a password that has just been found right. The login
// does not depend on it.
func (d *Directory) learn(a Account, old record, password string) {
	if !old.Keys.lacks(d.sha1) {
		return
	}
	keys := old.derivation.keyring(d.sha1, password)
	_, _ = d.change(a.Address, func(rec *record) {
		if rec.Hash == old.Hash {
			rec.Keys = keys
		}
	})
}
