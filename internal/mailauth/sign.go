package mailauth

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// twice are the fields that are signed once more than they are there, so that none can be added unseen.
var twice = []string{
	"from", "to", "cc", "subject", "date", "message-id", "reply-to", "mime-version", "content-type", "content-transfer-encoding",
}

// asTheyAre are fields that are signed where they are there.
var asTheyAre = []string{
	"sender", "in-reply-to", "references", "resent-from", "resent-to", "resent-cc", "resent-date", "resent-message-id",
	"list-id", "list-post", "list-owner", "list-help", "list-subscribe", "list-unsubscribe", "list-unsubscribe-post",
	"list-archive", "feedback-id", "autocrypt",
}

// signedNames are the names in h= of what we sign.
func signedNames(fields []field) (names []string) {
	add := func(name string, more int) {
		for range count(fields, name) + more {
			names = append(names, name)
		}
	}
	for _, name := range twice {
		add(name, 1)
	}
	for _, name := range asTheyAre {
		add(name, 0)
	}
	return names
}

// dkimField makes a DKIM-Signature field.
func dkimField(key *SigningKey, fields []field, names []string, bodyHash []byte, now time.Time) ([]byte, error) {
	f := newFolded("DKIM-Signature")
	f.tag("v", "1")
	f.key(key)
	f.tag("c", "relaxed/relaxed")
	f.tag("t", strconv.FormatInt(now.Unix(), 10))
	f.tag("x", strconv.FormatInt(now.Add(lifetime).Unix(), 10))
	f.list("h", names)
	f.long("bh", base64.StdEncoding.EncodeToString(bodyHash))
	return f.sign(key, fields, names)
}

// folded is a field of tags that is being written, in lines of at most 78 octets where they can be broken.
type folded struct {
	buf  bytes.Buffer
	line int // octets in the last line
}

func newFolded(name string) *folded {
	f := &folded{}
	f.write(name + ":")
	return f
}

func (f *folded) write(s string) {
	f.buf.WriteString(s)
	f.line += len(s)
}

const lineLength = 76

// word writes s after a space, or in a line of its own.
func (f *folded) word(s string) {
	if f.line+1+len(s) > lineLength {
		f.buf.WriteString("\r\n\t")
		f.line = 1
	} else {
		f.write(" ")
	}
	f.write(s)
}

func (f *folded) tag(name, value string) { f.word(name + "=" + value + ";") }

func (f *folded) key(key *SigningKey) {
	f.tag("a", string(key.Algorithm))
	f.tag("d", key.Domain)
	f.tag("s", key.Selector)
}

// list writes names with colons between; lines may be broken after each.
func (f *folded) list(name string, values []string) {
	f.word(name + "=" + values[0])
	for _, v := range values[1:] {
		f.write(":")
		if f.line+len(v)+1 > lineLength {
			f.buf.WriteString("\r\n\t")
			f.line = 1
		}
		f.write(v)
	}
	f.write(";")
}

// long writes base64; lines may be broken anywhere in it.
func (f *folded) long(name, value string) {
	f.word(name + "=")
	f.broken(value)
	f.write(";")
}

func (f *folded) broken(s string) {
	for len(s) > 0 {
		n := min(len(s), max(lineLength-f.line, 0))
		if n == 0 {
			f.buf.WriteString("\r\n\t")
			f.line = 1
			continue
		}
		f.write(s[:n])
		s = s[n:]
	}
}

// sign ends the field with its value, over the fields that names chooses and itself.
func (f *folded) sign(key *SigningKey, fields []field, names []string) ([]byte, error) {
	f.word("b=")
	s := signature{field: &field{raw: f.buf.Bytes()}, relaxed: true, names: names}
	return f.end(key, s.digest(fields))
}

func (f *folded) end(key *SigningKey, digest []byte) ([]byte, error) {
	value, err := key.sign(digest)
	if err != nil {
		return nil, err
	}
	f.broken(base64.StdEncoding.EncodeToString(value))
	f.buf.WriteString("\r\n")
	return f.buf.Bytes(), nil
}

// sign signs a SHA-256 hash. Ed25519 signs the hash as a message (RFC 8463, 3).
func (k *SigningKey) sign(digest []byte) ([]byte, error) {
	var opts crypto.SignerOpts = crypto.SHA256
	if k.Algorithm == Ed25519 {
		opts = crypto.Hash(0)
	}
	value, err := k.signer.Sign(rand.Reader, digest, opts)
	if err != nil {
		return nil, fmt.Errorf("sign with %s of %s: %w", k.Selector, k.Domain, err)
	}
	return value, nil
}

// message is a message that is being read: its header, and then hashes of its body.
type message struct {
	fields []field
	body   *bufio.Reader
	hashes []*bodyHash
}

// readHead reads the header of a message.
func readHead(r io.Reader) (*message, error) {
	m := &message{body: bufio.NewReaderSize(r, 4*blockSize)}
	var err error
	m.fields, err = readHeader(m.body)
	return m, err
}

// readBody reads the rest, for its hashes in some forms; each is made once.
func (m *message) readBody(forms ...bodyForm) error {
	var all []io.Writer
	for _, form := range forms {
		if m.hash(form) == nil {
			h := newBodyHash(form)
			m.hashes, all = append(m.hashes, h), append(all, h)
		}
	}
	if _, err := io.Copy(io.MultiWriter(all...), m.body); err != nil {
		return err
	}
	for _, h := range m.hashes {
		h.Close()
	}
	return nil
}

// hash returns the hash in a form, or nil.
func (m *message) hash(form bodyForm) *bodyHash {
	for _, h := range m.hashes {
		if h.form == form {
			return h
		}
	}
	return nil
}

// ours is the form in which we sign bodies.
var ours = bodyForm{relaxed: true, length: -1}

// trimField returns the one line of a field's body, for words.
func trimField(f *field) string { return strings.Join(strings.Fields(string(f.body())), " ") }
