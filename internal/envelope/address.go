package envelope

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// Limits in octets (RFC 5321, 4.5.3.1; RFC 1035, 2.3.4).
const (
	maxLocal   = 64  // of the local part as it is written
	maxLabel   = 63  // of a domain's label
	maxDomain  = 253 // of a domain in A-labels
	maxAddress = 254 // of an address: a path of 256 without its angle brackets
	maxInput   = 1024
)

// ErrAddress is what every parser of this package returns, wrapped with what is wrong.
var ErrAddress = errors.New("not an address")

// Address is local-part@domain in parsed form. The zero Address is the null
// reverse-path. Local has no quotes or backslashes; Domain is lower case, in A-labels
// or U-labels as it was given (see Canonical), or an address literal with its
// brackets. A Local with no Domain is the bare "postmaster" of RFC 5321, 4.5.1.
type Address struct {
	Local  string
	Domain string
}

// ParseAddress reads local@domain with the rules and limits of RFC 5321 (quoted
// local parts, address literals; 64 and 254 octets) and RFC 6531. No comments, no
// source routes, no display names, no encoded words, no control characters, no empty
// local part, and no domain that ends in a number: an IP address has brackets. The
// limits hold for the canonical form too, so that it is an address as well.
func ParseAddress(s string) (Address, error) {
	a, err := parseAddress(s)
	if err != nil {
		return Address{}, fmt.Errorf("%q is %w: %s", Sanitize(s, 80), ErrAddress, err)
	}
	return a, nil
}

// ParsePath reads a reverse- or forward-path with or without its angle brackets:
// "<>" is the null path, a source route is dropped (RFC 5321, appendix C), and a
// bare postmaster, which only a forward-path may be, has no Domain.
func ParsePath(s string) (Address, error) {
	a, err := parsePath(s)
	if err != nil {
		return Address{}, fmt.Errorf("%q is %w: %s", Sanitize(s, 80), ErrAddress, err)
	}
	return a, nil
}

// ParseDomain reads a domain name or address literal, as in EHLO or after the @,
// and returns it in canonical form.
func ParseDomain(s string) (string, error) {
	_, canonical, err := parseDomain(s)
	if err != nil {
		return "", fmt.Errorf("%q is not a domain: %w", Sanitize(s, 80), err)
	}
	return canonical, nil
}

func parsePath(s string) (Address, error) {
	if s == "<>" {
		return Address{}, nil
	}
	if rest, ok := strings.CutPrefix(s, "<"); ok {
		if s, ok = strings.CutSuffix(rest, ">"); !ok {
			return Address{}, errors.New("the closing > is missing")
		}
	}
	if strings.HasPrefix(s, "@") {
		var err error
		if s, err = dropRoute(s); err != nil {
			return Address{}, err
		}
	}
	if strings.EqualFold(s, "postmaster") {
		return Address{Local: s}, nil
	}
	return parseAddress(s)
}

// dropRoute takes "@one,@two:" off the front; the domains must be good all the same.
func dropRoute(s string) (string, error) {
	if len(s) > maxInput {
		return "", errTooLong
	}
	route, rest, ok := strings.Cut(s, ":")
	if strings.Contains(route, "[") || !ok {
		return "", errors.New("the local part is missing")
	}
	for hop := range strings.SplitSeq(route, ",") {
		domain, ok := strings.CutPrefix(hop, "@")
		if !ok {
			return "", errors.New("the source route is malformed")
		}
		if _, _, err := parseDomain(domain); err != nil {
			return "", err
		}
	}
	return rest, nil
}

var errTooLong = errors.New("it is too long")

func parseAddress(s string) (Address, error) {
	if len(s) > maxInput {
		return Address{}, errTooLong
	}
	if !utf8.ValidString(s) {
		return Address{}, errors.New("it is not valid UTF-8")
	}
	local, rest, err := parseLocal(s)
	if err != nil {
		return Address{}, err
	}
	domain, ok := strings.CutPrefix(rest, "@")
	if !ok {
		return Address{}, errors.New("the @ is missing or something stands before it")
	}
	given, canonical, err := parseDomain(domain)
	if err != nil {
		return Address{}, err
	}
	if len(s)-len(rest) > maxLocal || len(Address{Local: canonicalLocal(local)}.String()) > maxLocal {
		return Address{}, fmt.Errorf("the part before the @ is longer than %d octets", maxLocal)
	}
	a := Address{Local: local, Domain: given}
	if len(a.String()) > maxAddress || len(Address{canonicalLocal(local), canonical}.String()) > maxAddress {
		return Address{}, errTooLong
	}
	return a, nil
}

// parseLocal reads a dot-string or quoted string and returns its meaning and what follows.
func parseLocal(s string) (local, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		local, rest, err = parseQuoted(s[1:])
	} else {
		local, rest, err = parseDotString(s)
	}
	switch {
	case err != nil:
	case local == "":
		err = errors.New("the part before the @ is empty")
	case hasEncodedWord(local):
		err = errors.New("it has an encoded word, which no address has")
	}
	return local, rest, err
}

// hasEncodedWord reports whether s has what a reader of mail would decode (RFC 2047, 2).
// It means nothing in an address; a system further on that decodes it sees another one.
func hasEncodedWord(s string) bool {
	for {
		_, rest, ok := strings.Cut(s, "=?")
		if !ok {
			return false
		}
		part := strings.SplitN(rest, "?", 4) // charset, encoding, text, the closing =
		if len(part) == 4 && part[0] != "" && len(part[1]) == 1 && strings.HasPrefix(part[3], "=") {
			return true
		}
		s = rest
	}
}

func parseDotString(s string) (local, rest string, err error) {
	end := strings.IndexFunc(s, func(r rune) bool { return !isAtext(r) && r != '.' })
	if end < 0 {
		end = len(s)
	}
	if !isDotString(s[:end]) && end > 0 {
		return "", "", errors.New("a dot is misplaced")
	}
	return s[:end], s[end:], nil
}

// parseQuoted reads up to the closing quote; the opening one has been read.
func parseQuoted(s string) (local, rest string, err error) {
	var b strings.Builder
	quoted := false
	for i, r := range s {
		switch {
		case !quoted && r == '"':
			return b.String(), s[i+1:], nil
		case !quoted && r == '\\':
			quoted = true
			continue
		case !isText(r) || quoted && r >= utf8.RuneSelf:
			return "", "", errors.New("it has a character that no address has")
		}
		b.WriteRune(r)
		quoted = false
	}
	return "", "", errors.New("the closing quote is missing")
}

// isText reports whether r may stand in a quoted string (RFC 5321, 4.1.2; RFC 6531,
// 3.3). Look-alikes of the @, line separators, marks that turn the direction of writing
// and what cannot be seen at all are not taken: they only serve to deceive. The joiners
// U+200C and U+200D are: some scripts cannot be written without.
func isText(r rune) bool {
	if r < utf8.RuneSelf {
		return ' ' <= r && r <= '~'
	}
	switch r {
	case '\uFF20', '\uFE6B', '\u2028', '\u2029', utf8.RuneError:
		return false
	case '\u200C', '\u200D':
		return true
	}
	return !unicode.IsControl(r) && !unicode.Is(unicode.Cf, r)
}

func isAtext(r rune) bool {
	switch {
	case r >= utf8.RuneSelf:
		return isText(r)
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return true
	}
	return strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
}

func isDotString(s string) bool {
	return s != "" && s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..") &&
		strings.IndexFunc(s, func(r rune) bool { return !isAtext(r) && r != '.' }) < 0
}

// parseDomain returns a domain in lower case as it was given, and in A-labels.
func parseDomain(s string) (given, canonical string, err error) {
	switch {
	case s == "":
		return "", "", errors.New("the domain is missing")
	case len(s) > maxInput:
		return "", "", errTooLong
	case s[0] == '[':
		lit, err := parseLiteral(s)
		return lit, lit, err
	case IsASCII(s) && !strings.Contains(strings.ToLower(s), "xn--"):
		s = strings.ToLower(s)
		return s, s, checkDomain(s)
	}
	return parseIDN(s)
}

// parseIDN reads a domain with international labels. What comes back is a fixed
// point: read again, it is the same. Beyond upper case nothing is mapped: a domain
// with a character that is invisible, or stands for another, only serves to deceive.
func parseIDN(s string) (given, canonical string, err error) {
	canonical, err = idna.Lookup.ToASCII(s)
	if err != nil {
		return "", "", errors.New("the domain has a label that no domain has")
	}
	if plain, err := idna.Punycode.ToASCII(canonicalLocal(s)); err != nil || plain != canonical {
		return "", "", errors.New("the domain has a character that no domain has")
	}
	if err := checkDomain(canonical); err != nil {
		return "", "", err
	}
	unicoded, err := idna.Lookup.ToUnicode(canonical)
	if again, err2 := idna.Lookup.ToASCII(unicoded); err != nil || err2 != nil || again != canonical {
		return "", "", errors.New("the domain has a label that has no one form")
	}
	if IsASCII(s) {
		return canonical, canonical, nil
	}
	return unicoded, canonical, nil
}

// checkDomain holds an ASCII domain in lower case against RFC 5321, 4.1.2.
func checkDomain(s string) error {
	if len(s) > maxDomain {
		return fmt.Errorf("the domain is longer than %d octets", maxDomain)
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return errors.New("the domain has a label that no domain has")
		}
		last = label
	}
	if strings.Trim(last, "0123456789") == "" {
		return errors.New("the domain ends in a number; an IP address stands in [brackets]")
	}
	return nil
}

// isLabel reports whether a domain can have this label. The underscore is in no host's name, but DNS has it, and so have
// domains that real mail comes from.
func isLabel(s string) bool {
	if s == "" || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
	}) < 0
}

// parseLiteral reads [192.0.2.1] or [IPv6:2001:db8::1] (RFC 5321, 4.1.3) in its one form.
func parseLiteral(s string) (string, error) {
	inner, ok := strings.CutSuffix(s[1:], "]")
	if !ok {
		return "", errors.New("the closing ] is missing")
	}
	const tag = "ipv6:"
	v6 := len(inner) > len(tag) && strings.EqualFold(inner[:len(tag)], tag)
	if v6 {
		inner = inner[len(tag):]
	}
	ip, err := netip.ParseAddr(inner)
	if err != nil || ip.Is6() != v6 || ip.Zone() != "" {
		return "", errors.New("it has no IP address between the brackets")
	}
	if v6 {
		return "[IPv6:" + ip.String() + "]", nil
	}
	return "[" + ip.String() + "]", nil
}

// Literal returns the IP address of a domain that is an address literal.
func Literal(domain string) (netip.Addr, bool) {
	inner, ok := strings.CutPrefix(domain, "[")
	if !ok {
		return netip.Addr{}, false
	}
	inner = strings.TrimPrefix(strings.TrimSuffix(inner, "]"), "IPv6:")
	ip, err := netip.ParseAddr(inner)
	return ip, err == nil
}

// IsZero reports whether a is the null reverse-path.
func (a Address) IsZero() bool { return a == Address{} }

// String writes the address with quotes where RFC 5321 needs them, without angle brackets.
func (a Address) String() string {
	if a.Domain == "" {
		return a.quotedLocal()
	}
	return a.quotedLocal() + "@" + a.Domain
}

func (a Address) quotedLocal() string {
	if a.Local == "" || isDotString(a.Local) {
		return a.Local
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(a.Local) + `"`
}

// Path writes the address in angle brackets: "<>" for the zero Address.
func (a Address) Path() string { return "<" + a.String() + ">" }

// Canonical is the form by which accounts and domains are looked up: the local part
// in lower case and Unicode NFC, the domain in lower-case A-labels (IDNA).
// Equal canonical forms are the same address here.
func (a Address) Canonical() Address {
	if _, canonical, err := parseDomain(a.Domain); err == nil {
		a.Domain = canonical
	}
	a.Local = canonicalLocal(a.Local)
	return a
}

// canonicalLocal normalises on both sides of the change to lower case, as the
// change can take text out of NFC.
func canonicalLocal(s string) string {
	if IsASCII(s) {
		return strings.ToLower(s)
	}
	return norm.NFC.String(strings.ToLower(norm.NFC.String(s)))
}

// ASCII returns the address with the domain in A-labels, and whether it is all ASCII then.
func (a Address) ASCII() (Address, bool) {
	if _, canonical, err := parseDomain(a.Domain); err == nil {
		a.Domain = canonical
	}
	return a, IsASCII(a.Local) && IsASCII(a.Domain)
}

// IsASCII reports whether s needs no SMTPUTF8.
func IsASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
