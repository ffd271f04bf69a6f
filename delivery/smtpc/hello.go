package smtpc

import (
	"slices"
	"strings"
)

func (c *Conn) greeting() error {
	reply, err := c.read(c.opts.Timeouts.Greeting)
	if err != nil || reply.Code != 220 {
		return c.fault("greeting", reply, err)
	}
	return nil
}

// hello says EHLO, and HELO to a server that does not know it (RFC 5321, 3.2); LHLO where LMTP is spoken (RFC 2033, 4.1).
func (c *Conn) hello() error {
	verb := "EHLO"
	if c.opts.LMTP {
		verb = "LHLO"
	}
	lines, reply, err := c.ask(verb + " " + c.opts.Hostname)
	if err == nil && reply.Code == 250 {
		c.extensions(lines)
		return nil
	}
	if err == nil && !reply.Temporary() && !c.opts.LMTP {
		lines, reply, err = c.ask("HELO " + c.opts.Hostname)
	}
	if err != nil || reply.Code != 250 {
		return c.fault(verb, reply, err)
	}
	c.extensions(lines[:1])
	return nil
}

// extensions reads what EHLO's lines offer; keywords are matched in any case. Some servers write "AUTH=PLAIN", and some of them
// "AUTH PLAIN" besides.
func (c *Conn) extensions(lines []string) {
	c.greeted, _, _ = strings.Cut(lines[0], " ")
	c.ext = make(map[string]string)
	for _, line := range lines[1:] {
		word := line
		if i := strings.IndexAny(line, " \t="); i >= 0 {
			word = line[:i]
		}
		param := strings.Trim(line[len(word):], " \t=")
		if word = strings.ToUpper(word); word == "AUTH" {
			param = strings.Trim(c.ext[word]+" "+param, " ")
		}
		c.ext[word] = param
	}
}

// Offers reports whether the server offers an extension, by its keyword in capitals.
func (c *Conn) Offers(keyword string) bool {
	_, ok := c.ext[keyword]
	return ok
}

// Param is what the server said behind an extension's keyword, as it came: "PLAIN LOGIN" behind AUTH.
func (c *Conn) Param(keyword string) string { return c.ext[keyword] }

// Greeted is the name that the server gave itself in its answer to EHLO.
func (c *Conn) Greeted() string { return c.greeted }

// Extensions are what the server offers, each with what it said behind the keyword, in order of keywords.
func (c *Conn) Extensions() []string {
	var all []string
	for keyword, param := range c.ext {
		all = append(all, strings.TrimSpace(keyword+" "+param))
	}
	slices.Sort(all)
	return all
}
