package smtpd

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/smtpd/wire"
)

// What a named proxy may say of the client for which it speaks, as Postfix defined it in its XCLIENT and XFORWARD.
var (
	xclientNames  = []string{"NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT"}
	xforwardNames = []string{"NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"}
)

// origin is what is told of the client that a message is from: by its own word, or by a proxy's.
type origin struct {
	peer  peer
	hello helo
}

// isProxy reports whether the peer is one of those that may speak for others: what counts is who has connected.
func (s *session) isProxy() bool {
	ip := peerOf(s.raw.RemoteAddr()).ip
	return ip.IsValid() && slices.ContainsFunc(s.srv.Proxies, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// mayLogInFor reports whether a proxy may say who has logged in with it.
func (s *session) mayLogInFor() bool { return s.srv.kind == Submission }

// xclientList are the attributes of XCLIENT that count here.
func (s *session) xclientList() []string {
	if s.mayLogInFor() {
		return xclientNames
	}
	return slices.DeleteFunc(slices.Clone(xclientNames), func(n string) bool { return n == "LOGIN" })
}

// xclient is XCLIENT: the session is from now on one with the client that is named, from the greeting on.
func (s *session) xclient(arg string) *wire.Reply {
	if !s.isProxy() {
		return replyNoProxy
	}
	given, r := parseAttributes(arg, s.xclientList())
	switch {
	case r != nil:
		return r
	case !isSMTP(given["PROTO"]):
		return replyAttribute
	}
	was := origin{s.peer, helo{esmtp: true}}
	now, r := was.with(given)
	if r != nil {
		return r
	}
	a, r := s.accountOf(given["LOGIN"])
	if r != nil {
		return r
	}
	s.forget()
	s.peer, s.hello = now.peer, now.hello
	s.log = s.logger()
	if r := s.enterAs(s.peer.ip); r != nil {
		s.over = true
		return r
	}
	s.log.Info("a proxy speaks", "proxy", peerOf(s.raw.RemoteAddr()).String(), "said", envelope.Sanitize(arg, 500))
	if a.ID != 0 {
		s.logIn(account.Login{Account: a, By: "the proxy's word"})
	}
	return s.srv.banner()
}

// accountOf is the account that a proxy says has logged in; without a name none.
func (s *session) accountOf(login string) (a account.Account, r *wire.Reply) {
	if login == "" {
		return a, nil
	}
	addr, err := envelope.ParseAddress(login)
	if err != nil {
		return a, replyAttribute
	}
	if a, err = s.srv.Accounts.Get(addr); err == nil && a.Disabled {
		err = account.ErrCredentials
	}
	if err != nil {
		s.log.Warn("login refused that a proxy told of", "account", envelope.Sanitize(login, 320), "err", err)
		return a, replyBadLogin
	}
	return a, nil
}

// xforward is XFORWARD: what the trace tells of the next message's client. The session stays the proxy's.
func (s *session) xforward(arg string) *wire.Reply {
	if !s.isProxy() {
		return replyNoProxy
	}
	given, r := parseAttributes(arg, xforwardNames)
	if r != nil {
		return r
	}
	was := origin{peer: peer{ip: nowhere}} // nothing of the proxy's own is mixed in
	if s.forwarded != nil {
		was = *s.forwarded
	}
	now, r := was.with(given)
	if r != nil {
		return r
	}
	s.forwarded = &now
	return replyOK
}

// parseAttributes reads NAME=value pairs with spaces between. A value is xtext, and "" when it is not known.
func parseAttributes(arg string, known []string) (map[string]string, *wire.Reply) {
	given := map[string]string{}
	for word := range strings.FieldsSeq(arg) {
		name, value, ok := strings.Cut(word, "=")
		name = strings.ToUpper(name)
		if _, twice := given[name]; !ok || twice || !slices.Contains(known, name) {
			return nil, replyAttribute
		}
		value, err := attributeValue(value)
		if err != nil {
			return nil, replyAttribute
		}
		given[name] = value
	}
	return given, nil
}

func attributeValue(s string) (string, error) {
	if strings.EqualFold(s, "[UNAVAILABLE]") || strings.EqualFold(s, "[TEMPUNAVAIL]") {
		return "", nil
	}
	return envelope.DecodeXtext(s)
}

// with returns o with what was given of it, each held against its rule.
func (o origin) with(given map[string]string) (origin, *wire.Reply) {
	for name, value := range given {
		ok := true
		switch name {
		case "ADDR":
			o.peer.ip, ok = parseClientAddr(value)
		case "NAME":
			o.peer.name, ok = value, value == "" || validHelo(value)
		case "HELO":
			o.hello.name, ok = value, value == "" || validHelo(value)
		case "PROTO":
			o.hello.esmtp, ok = !strings.EqualFold(value, "SMTP"), value == "" || isProto(value)
		case "PORT", "DESTPORT":
			ok = value == "" || isPort(value)
		case "DESTADDR":
			_, ok = parseClientAddr(value)
		}
		if !ok {
			return o, replyAttribute
		}
	}
	return o, nil
}

// nowhere is the address of a client of whom none is known: nothing that is allowed to this machine is allowed to it.
var nowhere = netip.IPv4Unspecified()

// parseClientAddr reads 192.0.2.1 or IPV6:2001:db8::1.
func parseClientAddr(s string) (netip.Addr, bool) {
	if s == "" {
		return nowhere, true
	}
	rest, v6 := strings.CutPrefix(strings.ToUpper(s), "IPV6:")
	ip, err := netip.ParseAddr(rest)
	return ip.Unmap(), err == nil && ip.Zone() == "" && (!v6 || ip.Is6())
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// isProto takes whatever a message may have come by before it came to a proxy (XFORWARD).
func isProto(s string) bool { return len(s) <= 64 && validHelo(s) }

// isSMTP takes what a client may speak for whom a proxy speaks (XCLIENT); empty is not known.
func isSMTP(s string) bool {
	return s == "" || strings.EqualFold(s, "SMTP") || strings.EqualFold(s, "ESMTP")
}
