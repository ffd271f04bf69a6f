package sasl

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
)

// Client is the client's end of one exchange, with which we log in elsewhere.
type Client interface {
	// Next takes a challenge and returns the response to it. The first challenge is nil: the response to it goes with
	// the mechanism's name, or nothing does when it is nil. An error means that the exchange is to be cancelled.
	Next(challenge []byte) (response []byte, err error)
	// Proven returns an error when the server says that all is well without having shown what the mechanism asks of it.
	Proven() error
}

// NewPlainClient is PLAIN (RFC 4616). The server learns the password.
func NewPlainClient(user, password string) Client {
	return &told{words: []string{"\x00" + user + "\x00" + password}, first: true}
}

// NewLoginClient is LOGIN, which has no specification: the server asks for the name and then the password, and learns both.
func NewLoginClient(user, password string) Client { return &told{words: []string{user, password}} }

// told is a mechanism that tells words, whatever it is asked.
type told struct {
	words []string
	first bool // the first goes with the mechanism's name
}

func (t *told) Next(challenge []byte) ([]byte, error) {
	if challenge == nil && !t.first {
		return nil, nil
	}
	if len(t.words) == 0 {
		return nil, ErrSyntax
	}
	word := t.words[0]
	t.words = t.words[1:]
	return []byte(word), nil
}

func (t *told) Proven() error { return nil }

// NewScramClient is SCRAM (RFC 5802; RFC 7677) without channel binding. The server does not learn the password, and shows that it
// knows it.
func NewScramClient(h Hash, user, password string) Client {
	return &scramClient{hash: h, user: user, password: password, nonce: rand.Text()}
}

// Bounds on how much work a server may make us do for a password, and on how little it may want: who has seen one exchange
// could else try passwords against it.
const (
	leastIterations = 4096
	mostIterations  = 1_000_000
)

// errUnproven means that a server does not know the password.
var errUnproven = errors.New("the server does not show that it knows the password")

type scramClient struct {
	hash           Hash
	user, password string
	nonce          string
	step           int
	bare           string // client-first-message-bare
	signature      []byte // the server's, as it is to come
	proven         bool
}

func (s *scramClient) Next(challenge []byte) ([]byte, error) {
	s.step++
	switch s.step {
	case 1:
		name := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(Prepare(s.user))
		s.bare = "n=" + name + ",r=" + s.nonce
		return []byte("n,," + s.bare), nil
	case 2:
		return s.prove(string(challenge))
	case 3:
		return s.check(string(challenge))
	}
	return nil, ErrSyntax
}

// prove answers server-first-message: "r=" nonces ",s=" salt ",i=" iterations ["," extensions].
func (s *scramClient) prove(first string) ([]byte, error) {
	f := strings.Split(first, ",")
	if len(first) > maxScramMessage || len(f) < 3 || !validExtensions(f[3:]) {
		return nil, ErrSyntax
	}
	nonce, ok1 := strings.CutPrefix(f[0], "r=")
	salt, ok2 := strings.CutPrefix(f[1], "s=")
	count, ok3 := strings.CutPrefix(f[2], "i=")
	octets, err1 := base64.StdEncoding.DecodeString(salt)
	iterations, err2 := strconv.Atoi(count)
	switch {
	case !ok1 || !ok2 || !ok3 || err1 != nil || err2 != nil || len(octets) == 0:
		return nil, ErrSyntax
	case !validNonce(nonce) || !strings.HasPrefix(nonce, s.nonce) || nonce == s.nonce:
		return nil, ErrSyntax
	case iterations < leastIterations || iterations > mostIterations:
		return nil, errors.New("the server wants the password hashed " + count + " times, which is not between " +
			strconv.Itoa(leastIterations) + " and " + strconv.Itoa(mostIterations))
	}
	return s.proof(first, nonce, octets, iterations)
}

// proof is client-final-message (RFC 5802, 3).
func (s *scramClient) proof(first, nonce string, salt []byte, iterations int) ([]byte, error) {
	salted, err := pbkdf2.Key(s.hash, Prepare(s.password), salt, iterations, s.hash().Size())
	if err != nil {
		return nil, err
	}
	final := "c=biws,r=" + nonce // biws is "n,,"
	transcript := s.bare + "," + first + "," + final
	key := s.hash.mac(salted, "Client Key")
	proof := make([]byte, len(key))
	subtle.XORBytes(proof, key, s.hash.mac(s.hash.sum(key), transcript))
	s.signature = s.hash.mac(s.hash.mac(salted, "Server Key"), transcript)
	return []byte(final + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

// check takes server-final-message: "v=" signature.
func (s *scramClient) check(final string) ([]byte, error) {
	value, ok := strings.CutPrefix(final, "v=")
	signature, err := base64.StdEncoding.DecodeString(value)
	s.proven = ok && err == nil && subtle.ConstantTimeCompare(signature, s.signature) == 1
	return []byte{}, s.Proven()
}

func (s *scramClient) Proven() error {
	if !s.proven {
		return errUnproven
	}
	return nil
}
