package mailauth

import (
	"strings"

	"postroad/internal/envelope"
)

// describe writes what was found in the words of RFC 8601, after the name of who has found it. Nothing in it is a stranger's
// but what was read as a domain, an address or base64.
func describe(hostname string, r Results, s SPF, c Client, from envelope.Address) string {
	lines := []string{hostname, "arc=" + string(r.ARC.Verdict), describeSPF(s, c, from)}
	for _, d := range r.DKIM {
		lines = append(lines, describeDKIM(d))
	}
	if len(r.DKIM) == 0 {
		lines = append(lines, "dkim=none")
	}
	return strings.Join(lines, ";\r\n\t")
}

func describeSPF(s SPF, c Client, from envelope.Address) string {
	words := []string{"spf=" + string(s.Verdict)}
	switch a, ascii := from.ASCII(); {
	case s.Helo:
		words = append(words, "smtp.helo="+value(s.Domain))
	case ascii:
		words = append(words, "smtp.mailfrom="+addressValue(a))
	default:
		words = append(words, "smtp.mailfrom="+value(a.Domain))
	}
	if c.IP.IsValid() {
		words = append(words, "smtp.remote-ip="+value(c.IP.Unmap().String()))
	}
	return strings.Join(words, " ")
}

func describeDKIM(d DKIM) string {
	words := []string{"dkim=" + string(d.Verdict)}
	for _, p := range [][2]string{{"d", d.Domain}, {"s", d.Selector}, {"a", string(d.Algorithm)}, {"b", d.Value}} {
		if p[1] != "" {
			words = append(words, "header."+p[0]+"="+value(p[1]))
		}
	}
	return strings.Join(words, " ")
}

// addressValue is an address, or its domain where the local part would need quotes of its own.
func addressValue(a envelope.Address) string {
	if value(a.Local) != a.Local {
		return value(a.Domain)
	}
	return a.Local + "@" + value(a.Domain)
}

// value is a value as RFC 8601, 2.2, has it: a token (RFC 2045, 5.1) or a quoted string.
func value(s string) string {
	if s != "" && strings.IndexFunc(s, notToken) < 0 {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			fallthrough
		case ' ' <= r && r <= '~':
			b.WriteRune(r)
		default:
			b.WriteByte('?')
		}
	}
	b.WriteByte('"')
	return b.String()
}

func notToken(r rune) bool {
	return r <= ' ' || r >= 0x7F || strings.ContainsRune(`()<>@,;:\"/[]?=`, r)
}
