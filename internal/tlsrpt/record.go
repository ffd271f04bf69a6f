package tlsrpt

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"postroad/internal/dns"
	"postroad/internal/envelope"
)

// maxURIs bounds to how many places one report goes: a domain may name others than itself.
const maxURIs = 2

// ErrNotAsked means that a domain does not ask for reports, or not in a way that can be understood.
var ErrNotAsked = errors.New("the domain asks for no TLS reports")

// A target is where a report goes: a mail address, or an https URL.
type target struct {
	mail envelope.Address
	url  string
}

// lookup asks where a domain wants its reports (RFC 8460, 3). ErrNotAsked, or trouble with the DNS.
func lookup(ctx context.Context, r dns.Resolver, domain string) ([]target, error) {
	answer, err := r.LookupTXT(ctx, "_smtp._tls."+domain)
	if errors.Is(err, dns.ErrNotFound) {
		return nil, ErrNotAsked
	}
	if err != nil {
		return nil, err
	}
	return parseRecords(answer.Records)
}

// parseRecords finds the one record that counts.
func parseRecords(records []string) ([]target, error) {
	var found []string
	for _, record := range records {
		if version, rest, _ := strings.Cut(record, ";"); strings.TrimRight(version, " \t") == "v=TLSRPTv1" {
			found = append(found, rest)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%w: it has %d such records", ErrNotAsked, len(found))
	}
	for field := range strings.SplitSeq(found[0], ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		if name != "rua" {
			continue
		}
		if targets := parseURIs(value); len(targets) > 0 {
			return targets, nil
		}
	}
	return nil, fmt.Errorf("%w: its record names no address that reports can go to", ErrNotAsked)
}

func parseURIs(list string) (targets []target) {
	for uri := range strings.SplitSeq(list, ",") {
		if t, ok := parseURI(strings.TrimSpace(uri)); ok && len(targets) < maxURIs {
			targets = append(targets, t)
		}
	}
	return targets
}

// maxURI bounds an address to post to.
const maxURI = 1000

func parseURI(uri string) (t target, ok bool) {
	u, err := url.Parse(uri)
	if err != nil || len(uri) > maxURI {
		return t, false
	}
	switch strings.ToLower(u.Scheme) {
	case "mailto":
		to, _, _ := strings.Cut(u.Opaque, "?")
		if to, err = url.PathUnescape(to); err == nil {
			t.mail, err = envelope.ParseAddress(to)
		}
		if err == nil {
			t.mail, ok = t.mail.ASCII()
		}
		return t, ok
	case "https":
		u.Scheme = "https"
		t.url = u.String()
		return t, u.Hostname() != "" && u.User == nil && u.Fragment == ""
	}
	return t, false
}

// Record is the DNS record, in a zone file's form, by which a domain asks others for reports to an address.
func Record(domain, address string) string {
	return fmt.Sprintf(`_smtp._tls.%s. IN TXT "v=TLSRPTv1; rua=mailto:%s"`, domain, escapeURI(address))
}

// escapeURI hides what has a meaning in the record (RFC 8460, 3).
func escapeURI(address string) string {
	local, domain, _ := strings.Cut(address, "@")
	return strings.NewReplacer("!", "%21", ",", "%2C", ";", "%3B").Replace(url.PathEscape(local)) + "@" + domain
}

// Asks reports what a domain's record says, for a person: where reports about it go.
func Asks(ctx context.Context, r dns.Resolver, domain string) ([]string, error) {
	targets, err := lookup(ctx, r, domain)
	var all []string
	for _, t := range targets {
		if t.url != "" {
			all = append(all, t.url)
		} else {
			all = append(all, "mailto:"+t.mail.String())
		}
	}
	return all, err
}

const transportPrefix = "tlsrpt "

// Transport is the spool.Recipient.Transport of a report that goes by HTTPS.
func Transport(url string) string { return transportPrefix + url }

// URLOf returns where a Transport posts a report.
func URLOf(transport string) (url string, ok bool) {
	return strings.CutPrefix(transport, transportPrefix)
}
