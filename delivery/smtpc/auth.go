package smtpc

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"

	"postroad/internal/envelope"
	"postroad/internal/sasl"
)

// maxRounds bounds the challenges of one login.
const maxRounds = 5

// login logs in, by the mechanism that tells least of the password. A password itself is sent under TLS only.
func (c *Conn) login() error {
	if c.opts.Username == "" {
		return nil
	}
	mechanism, client, err := c.mechanism()
	if err != nil {
		return c.fault("AUTH", envelope.Reply{}, err)
	}
	c.secret = true
	reply, err := c.authenticate(mechanism, client)
	c.secret = false
	switch {
	case err != nil || reply.Code != 235:
		return c.fault("AUTH", reply, err)
	case client.Proven() != nil:
		return c.fault("AUTH", envelope.Reply{}, client.Proven())
	}
	c.loggedIn = true
	return nil
}

func (c *Conn) mechanism() (string, sasl.Client, error) {
	offered := c.ext["AUTH"]
	user, password := c.opts.Username, c.opts.Password
	switch {
	case hasWord(offered, sasl.ScramSHA256):
		return sasl.ScramSHA256, sasl.NewScramClient(sasl.SHA256, user, password), nil
	case c.tls == "" && !c.leavesNoMachine():
		return "", nil, fmt.Errorf("%w: the password is not sent in the clear", ErrTLS)
	case hasWord(offered, sasl.Plain):
		return sasl.Plain, sasl.NewPlainClient(user, password), nil
	case hasWord(offered, sasl.Login):
		return sasl.Login, sasl.NewLoginClient(user, password), nil
	}
	return "", nil, errors.New("the server offers no AUTH that is known here: SCRAM-SHA-256, PLAIN, LOGIN")
}

// leavesNoMachine reports whether the other end is on this machine, so that nobody is on the way.
func (c *Conn) leavesNoMachine() bool {
	switch a := c.nc.RemoteAddr().(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}

// authenticate goes through the exchange (RFC 4954, 4).
func (c *Conn) authenticate(mechanism string, client sasl.Client) (envelope.Reply, error) {
	command := "AUTH " + mechanism
	initial, err := client.Next(nil)
	if err != nil {
		return envelope.Reply{}, err
	}
	if initial != nil {
		command += " " + base64.StdEncoding.EncodeToString(initial)
	}
	lines, reply, err := c.ask(command)
	for range maxRounds {
		if err != nil || reply.Code != 334 {
			return reply, err
		}
		challenge, wrong := base64.StdEncoding.DecodeString(strings.TrimSpace(lines[0]))
		response, refused := client.Next(challenge)
		if refused = errors.Join(wrong, refused); refused != nil {
			c.ask("*")
			return envelope.Reply{}, refused
		}
		lines, reply, err = c.ask(base64.StdEncoding.EncodeToString(response))
	}
	return envelope.Reply{}, errors.New("the login has no end")
}

func hasWord(list, word string) bool {
	for w := range strings.FieldsSeq(list) {
		if strings.EqualFold(w, word) {
			return true
		}
	}
	return false
}
