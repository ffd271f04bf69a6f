package account

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"

	"postroad/internal/sasl"
)

// The cost of an argon2id hash: about 25 ms on one core, 19 MiB. It is stored with
// each hash, so it can be raised without locking anybody out.
const (
	argonTime    = 2
	argonMemory  = 19 * 1024 // KiB
	argonThreads = 1
	argonKey     = 32
	maxPassword  = 1024
)

// hashPassword returns the password's hash in PHC form. ErrPassword.
func hashPassword(password string) (string, error) {
	if len(password) == 0 || len(password) > maxPassword {
		return "", ErrPassword
	}
	salt := make([]byte, 16)
	rand.Read(salt)
	key := argon2.IDKey([]byte(sasl.Prepare(password)), salt, argonTime, argonMemory, argonThreads, argonKey)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		argonMemory, argonTime, argonThreads, b64.EncodeToString(salt), b64.EncodeToString(key)), nil
}

// checkPassword reports whether the password has this hash. A hash that cannot be
// read, or that would cost more than 1 GiB, is nobody's.
func checkPassword(hash, password string) bool {
	var version int
	var memory, time uint32
	var threads uint8
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false
	}
	if _, err := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=%d", &version, &memory, &time, &threads); err != nil {
		return false
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	key, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	bounded := memory <= 1<<20 && 0 < time && time <= 100 && threads > 0 && 16 <= len(key) && len(key) <= 128
	if err1 != nil || err2 != nil || version != argon2.Version || !bounded {
		return false
	}
	got := argon2.IDKey([]byte(sasl.Prepare(password)), salt, time, memory, threads, uint32(len(key)))
	return subtle.ConstantTimeCompare(got, key) == 1
}

// Verify returns the account that user (its address) and its own password open, or
// ErrCredentials; a disabled account is opened by none. An unknown user costs as
// much time as a wrong password. At most two hashes are computed at once, so that
// logins cannot use up the memory: who waits for half a minute gets ErrBusy, and ctx
// may end the wait before.
func (d *Directory) Verify(ctx context.Context, user, password string) (Account, error) {
	w, err := d.holder(user)
	if err != nil {
		return Account{}, fmt.Errorf("check a password: %w", err)
	}
	ok, err := d.verifier.verify(ctx, w.record.Hash, password)
	if err != nil {
		return Account{}, fmt.Errorf("check a password: %w", err)
	}
	if !ok || !w.ownPassword() {
		return Account{}, ErrCredentials
	}
	d.learn(w.Account, w.record, password)
	return w.Account, nil
}

const (
	remembered = 5 * time.Minute  // how long a verified password needs no argon2 again
	patience   = 30 * time.Second // how long a login waits for those before it
)

// verifier checks passwords, few at once, and remembers those that were right: for
// each stored hash a MAC of hash and password under a key that never leaves memory.
type verifier struct {
	now   func() time.Time
	key   [32]byte
	decoy string        // a hash for users that do not exist
	slots chan struct{} // one for each argon2 that may run
	check func(hash, password string) bool

	mu    sync.Mutex
	right map[string]memory // by stored hash
}

type memory struct {
	mac   [sha256.Size]byte
	until time.Time
}

// maxRemembered bounds the memory; when it is full all is forgotten.
const maxRemembered = 100_000

func newVerifier(now func() time.Time) *verifier {
	v := &verifier{now: now, slots: make(chan struct{}, 2), check: checkPassword, right: map[string]memory{}}
	rand.Read(v.key[:])
	b64 := base64.RawStdEncoding
	v.decoy = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		argonMemory, argonTime, argonThreads, b64.EncodeToString(v.key[:16]), b64.EncodeToString(make([]byte, argonKey)))
	return v
}

// verify reports whether the password has the stored hash; an empty hash stands for
// an unknown user. The error is ErrBusy or ctx's.
func (v *verifier) verify(ctx context.Context, hash, password string) (bool, error) {
	if len(password) > maxPassword {
		password = "" // never right, and costs as much as any other
	}
	mac := v.mac(hash, password)
	if hash != "" && v.knows(hash, mac) {
		return true, nil
	}
	select {
	case v.slots <- struct{}{}:
		defer func() { <-v.slots }()
	case <-time.After(patience):
		return false, ErrBusy
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if hash == "" {
		v.check(v.decoy, password)
		return false, nil
	}
	ok := v.check(hash, password)
	if ok {
		v.remember(hash, mac)
	}
	return ok, nil
}

func (v *verifier) mac(hash, password string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, v.key[:])
	fmt.Fprintf(h, "%d:%s%s", len(hash), hash, password)
	h.Sum(sum[:0])
	return sum
}

func (v *verifier) knows(hash string, mac [sha256.Size]byte) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	m, ok := v.right[hash]
	return ok && v.now().Before(m.until) && hmac.Equal(m.mac[:], mac[:])
}

func (v *verifier) remember(hash string, mac [sha256.Size]byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.right) >= maxRemembered {
		clear(v.right)
	}
	v.right[hash] = memory{mac, v.now().Add(remembered)}
}
