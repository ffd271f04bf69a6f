package sasl

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Hash is the hash function that a form of SCRAM is built on.
type Hash func() hash.Hash

// The hash functions of the forms that are known here. SHA-1 is weak where two texts shall not have one hash, which is
// not what SCRAM asks of it.
var (
	SHA1   Hash = sha1.New
	SHA256 Hash = sha256.New
)

// Keys are what a server keeps of a password to check it by SCRAM (RFC 5802, 3). From them
// nobody can log in, but passwords can be tried against them.
type Keys struct {
	Stored []byte `json:"stored"`
	Server []byte `json:"server"`
}

// Credentials are a user's: any of several passwords may be proven. They are derived with one
// salt and count, because a client is told of one before it shows which it has.
type Credentials struct {
	Salt       []byte
	Iterations int
	Keys       []Keys
}

// Derive returns the keys of a password; its cost grows with the iterations.
func Derive(h Hash, password string, salt []byte, iterations int) Keys {
	salted, err := pbkdf2.Key(h, Prepare(password), salt, iterations, h().Size())
	if err != nil {
		panic(fmt.Sprintf("sasl: PBKDF2 refuses its parameters: %v", err)) // only FIPS 140 does: salts under 16 octets
	}
	return Keys{Stored: h.sum(h.mac(salted, "Client Key")), Server: h.mac(salted, "Server Key")}
}

func (h Hash) sum(b []byte) []byte {
	x := h()
	x.Write(b)
	return x.Sum(nil)
}

func (h Hash) mac(key []byte, text string) []byte {
	x := hmac.New(h, key)
	x.Write([]byte(text))
	return x.Sum(nil)
}

// Scram says how the server's end of SCRAM is to decide.
type Scram struct {
	Hash Hash
	// Lookup returns a user's credentials. Of a user who does not exist it returns some that
	// are always the same for the name, with as many keys as others have: the client shall
	// not see the difference.
	Lookup func(user string) (Credentials, error)
	// Check is told once which of the keys the client has proven to know the password of; nil
	// is none. It is the last to decide. identity is as whom the client wants to act, or empty.
	Check func(identity, user string, proven *Keys) error

	Plus     bool     // the client chose the PLUS form
	Bindings Bindings // of the connection; not empty means that the PLUS form is offered

	nonce string // ours, for tests; empty is a random one
}

// NewScram returns the server's end of one exchange. A failure is told by the protocol
// alone, without a server-final-message, which RFC 5802 (7, "e") lets a server leave out:
// one that the client had to answer would give it a way to leave before it is counted.
func NewScram(o Scram) Server {
	if o.nonce == "" {
		o.nonce = rand.Text()
	}
	return &scram{Scram: o}
}

type scramState int

const (
	scramBegin scramState = iota // the client's first message is next
	scramProof                   // its final message is next
	scramEmpty                   // an empty response is next
	scramOver
)

type scram struct {
	Scram
	state scramState
	asked bool

	header      string // gs2-header, as it came
	binding     []byte // what the client must bind to
	identity    string
	user        string
	credentials Credentials
	both        string // nonces
	transcript  string // client-first-message-bare "," server-first-message
}

// bounds on what a client may make us remember, in octets.
const (
	maxScramMessage = 8 << 10
	maxScramNonce   = 512
)

func (s *scram) Next(response []byte) (challenge []byte, done bool, err error) {
	state := s.state
	s.state = scramOver // unless it goes on
	switch {
	case len(response) > maxScramMessage || !utf8.Valid(response) || bytes.IndexByte(response, 0) >= 0:
		return nil, false, ErrSyntax
	case state == scramBegin && response == nil && !s.asked:
		s.asked, s.state = true, scramBegin
		return []byte{}, false, nil
	case state == scramBegin:
		challenge, err = s.begin(string(response))
		s.state = scramProof
	case state == scramProof:
		challenge, err = s.prove(string(response))
		s.state = scramEmpty
	case state == scramEmpty && len(response) == 0:
		return nil, true, nil
	default:
		err = ErrSyntax
	}
	if err != nil {
		s.state = scramOver
		return nil, false, err
	}
	return challenge, false, nil
}

// begin takes client-first-message: gs2-header "n=" user ",r=" nonce ["," extensions].
func (s *scram) begin(message string) ([]byte, error) {
	bare, err := s.takeHeader(message)
	if err != nil {
		return nil, err
	}
	f := strings.Split(bare, ",")
	if len(f) < 2 { // an "m=" in front, a mandatory extension, is not "n=" either
		return nil, ErrSyntax
	}
	name, named := strings.CutPrefix(f[0], "n=")
	nonce, ok := strings.CutPrefix(f[1], "r=")
	if !named || !ok || !validNonce(nonce) || !validExtensions(f[2:]) {
		return nil, ErrSyntax
	}
	if s.user, err = saslName(name); err != nil {
		return nil, err
	}
	if s.credentials, err = s.Lookup(s.user); err != nil {
		return nil, err
	}
	s.both = nonce + s.nonce
	first := "r=" + s.both + ",s=" + base64.StdEncoding.EncodeToString(s.credentials.Salt) +
		",i=" + strconv.Itoa(s.credentials.Iterations)
	s.transcript = bare + "," + first
	return []byte(first), nil
}

// takeHeader reads the gs2-header and decides on the channel binding (RFC 5802, 6).
func (s *scram) takeHeader(message string) (rest string, err error) {
	flag, rest, ok1 := strings.Cut(message, ",")
	identity, rest, ok2 := strings.Cut(rest, ",")
	if !ok1 || !ok2 {
		return "", ErrSyntax
	}
	s.header = message[:len(message)-len(rest)]
	if identity != "" {
		encoded, ok := strings.CutPrefix(identity, "a=")
		if !ok {
			return "", ErrSyntax
		}
		if s.identity, err = saslName(encoded); err != nil {
			return "", err
		}
	}
	return rest, s.bind(flag)
}

func (s *scram) bind(flag string) error {
	kind, bound := strings.CutPrefix(flag, "p=")
	switch {
	case bound != s.Plus || !bound && flag != "n" && flag != "y":
		return ErrSyntax
	case bound && s.Bindings[kind] == nil:
		return fmt.Errorf("%w: unsupported-channel-binding-type", ErrBinding)
	case flag == "y" && len(s.Bindings) > 0: // somebody has hidden from the client that we offer it
		return fmt.Errorf("%w: server-does-support-channel-binding", ErrBinding)
	}
	s.binding = s.Bindings[kind]
	return nil
}

// prove takes client-final-message: "c=" binding ",r=" nonces ["," extensions] ",p=" proof.
func (s *scram) prove(message string) ([]byte, error) {
	without, encoded, ok := cutLast(message, ",p=")
	f := strings.Split(without, ",")
	if !ok || len(f) < 2 || f[1] != "r="+s.both || !validExtensions(f[2:]) {
		return nil, ErrSyntax
	}
	bound, ok := strings.CutPrefix(f[0], "c=")
	input, err1 := base64.StdEncoding.Strict().DecodeString(bound)
	proof, err2 := base64.StdEncoding.Strict().DecodeString(encoded)
	if !ok || err1 != nil || err2 != nil || len(proof) != s.Hash().Size() || !bytes.HasPrefix(input, []byte(s.header)) {
		return nil, ErrSyntax
	}
	message = s.transcript + "," + without
	proven := s.proven(proof, message)
	if subtle.ConstantTimeCompare(input[len(s.header):], s.binding) != 1 {
		proven = nil
	}
	if err := s.Check(s.identity, s.user, proven); err != nil || proven == nil {
		return nil, cmp.Or(err, ErrBinding)
	}
	return []byte("v=" + base64.StdEncoding.EncodeToString(s.Hash.mac(proven.Server, message))), nil
}

// proven returns the keys whose password the proof shows. All are tried, whichever fits.
func (s *scram) proven(proof []byte, message string) (found *Keys) {
	for i := range s.credentials.Keys {
		if k := &s.credentials.Keys[i]; s.proves(proof, message, k.Stored) {
			found = k
		}
	}
	return found
}

// proves reports whether the proof is ClientKey XOR ClientSignature (RFC 5802, 3).
func (s *scram) proves(proof []byte, message string, stored []byte) bool {
	key := make([]byte, len(proof))
	subtle.XORBytes(key, proof, s.Hash.mac(stored, message))
	return subtle.ConstantTimeCompare(s.Hash.sum(key), stored) == 1
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func validNonce(s string) bool {
	return s != "" && len(s) <= maxScramNonce && strings.IndexFunc(s, func(r rune) bool { return r < '!' || r > '~' }) < 0
}

// validExtensions takes what later versions may add: attributes, each a letter with a value, which are not looked at.
func validExtensions(list []string) bool {
	for _, x := range list {
		if len(x) < 3 || x[1] != '=' || (x[0]|0x20) < 'a' || (x[0]|0x20) > 'z' || x[0] == 'm' {
			return false
		}
	}
	return true
}

// saslName decodes a name, in which a comma is "=2C" and "=" is "=3D", and prepares it.
func saslName(s string) (string, error) {
	rest := s
	for {
		_, after, more := strings.Cut(rest, "=")
		if !more {
			break
		}
		if !strings.HasPrefix(after, "2C") && !strings.HasPrefix(after, "3D") {
			return "", ErrSyntax
		}
		rest = after[2:]
	}
	name := strings.NewReplacer("=2C", ",", "=3D", "=").Replace(s)
	if name == "" {
		return "", ErrSyntax
	}
	return Prepare(name), nil
}
