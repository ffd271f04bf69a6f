package mailauth

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/mail"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postroad/internal/dns"
	"postroad/internal/envelope"
)

// SignerConfig is what a Signer needs. Now and Resolver may be nil: the system's.
type SignerConfig struct {
	Hostname string // who says what is found of a message
	Keys     *Keys
	Local    func(domain string) (bool, error) // whether a domain is ours
	Resolver dns.Resolver
	NoSeals  bool // what we forward is not sealed
	Now      func() time.Time
}

// Signer makes the fields that vouch for messages on their way out. Any number of goroutines.
type Signer struct{ cfg SignerConfig }

// NewSigner returns a Signer.
func NewSigner(c SignerConfig) *Signer {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Resolver == nil {
		c.Resolver = dns.System()
	}
	return &Signer{c}
}

// Outbound is what is known of a message that leaves.
type Outbound struct {
	Own    bool             // it is for us to sign: who sent it had logged in, or we have written it
	Posted bool             // a list of ours sends it on for a stranger, who may have written any address into it
	From   envelope.Address // the reverse-path
	Via    envelope.Address // our address that forwards it; zero when none does
	Client Client           // who brought it
}

// Client is who brought a message.
type Client struct {
	IP   netip.Addr // not valid when nobody did
	Helo string
}

// patience is how long the DNS has to answer what a message of others needs.
const patience = 30 * time.Second

// Fields returns what goes before a message: each field ends in CRLF. open gives its octets, as they leave, from the
// start. What we send ourselves is signed; what we forward for others is sealed.
func (s *Signer) Fields(ctx context.Context, o Outbound, open func() (io.ReadCloser, error)) ([]byte, error) {
	if !o.Own && o.Via.IsZero() {
		return nil, nil
	}
	r, err := open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	m, err := readHead(r)
	if errors.Is(err, ErrHeader) { // it was let in, and so it goes out
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	vouch := s.seal
	if o.Own {
		vouch = s.dkim
	}
	fields, err := vouch(ctx, o, m)
	return append(fields, deliveredTo(o.Via, m.fields)...), err
}

// seal makes a set of ARC that tells what was found of a message before it is changed by whoever gets it next; nothing when
// the domain that forwards it has no key.
func (s *Signer) seal(ctx context.Context, o Outbound, m *message) ([]byte, error) {
	if s.cfg.NoSeals {
		return nil, nil
	}
	keys, err := s.keysOf(o.Via.Domain)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	e := examine(m.fields)
	if err := m.readBody(append(e.forms(), ours)...); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found := e.results(ctx, s.cfg.Resolver, s.cfg.Now(), m)
	spf := CheckSPF(ctx, s.cfg.Resolver, o.Client, o.From)
	names := signedNames(m.fields)
	for range count(m.fields, "dkim-signature") {
		names = append(names, "dkim-signature")
	}
	words := describe(s.cfg.Hostname, found, spf, o.Client, o.From)
	return seal(keys[0], e.chain, found.ARC.Verdict, m.fields, names, m.hash(ours).hash.Sum(nil), words, s.cfg.Now())
}

// dkim makes a signature with each key of who the message says it is from, or else of who sends it.
func (s *Signer) dkim(_ context.Context, o Outbound, m *message) (fields []byte, err error) {
	authors := authorDomains(m.fields)
	domains := []string{authors[0], o.From.Domain}
	if o.Posted {
		domains = domains[1:]
	}
	keys, err := s.keysOf(domains...)
	if err != nil || len(keys) == 0 || o.Posted && slices.ContainsFunc(authors, keys[0].speaksFor) {
		return nil, err
	}
	if err := m.readBody(ours); err != nil {
		return nil, err
	}
	names := signedNames(m.fields)
	for _, key := range keys {
		f, err := dkimField(key, m.fields, names, m.hash(ours).hash.Sum(nil), s.cfg.Now())
		if err != nil {
			return nil, err
		}
		fields = append(fields, f...)
	}
	return fields, nil
}

// keysOf returns the keys of the first of the domains that has some.
func (s *Signer) keysOf(domains ...string) (keys []*SigningKey, err error) {
	for _, d := range domains {
		d = envelope.Address{Domain: d}.Canonical().Domain
		if keys, err = s.cfg.Keys.Signing(d, s.cfg.Local); len(keys) > 0 || err != nil {
			break
		}
	}
	return keys, err
}

// speaksFor reports whether who reads a signature may take it for one of a domain's owner: it is the signer's, or above or
// below it (RFC 7489, 3.1). So it is of a domain that could not be read.
func (k *SigningKey) speaksFor(domain string) bool {
	above := func(a, b string) bool { return strings.HasSuffix("."+b, "."+a) }
	return domain == "" || above(k.Domain, domain) || above(domain, k.Domain)
}

// authorDomains are the domains of the addresses in From fields, at least one; empty for what cannot be read.
func authorDomains(fields []field) (domains []string) {
	for i := range fields {
		if fields[i].name == "from" {
			domains = append(domains, domainsOf(trimField(&fields[i]))...)
		}
	}
	if len(domains) == 0 {
		return []string{""}
	}
	return domains
}

func domainsOf(body string) (domains []string) {
	// Names are not looked at: whatever they are encoded in, they stand in nobody's way.
	asIs := func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	p := mail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: asIs}}
	list, err := p.ParseList(body)
	if err != nil || len(list) == 0 {
		return []string{""}
	}
	for _, a := range list {
		domain, err := envelope.ParseDomain(a.Address[strings.LastIndexByte(a.Address, '@')+1:])
		if err != nil {
			domain = ""
		}
		domains = append(domains, domain)
	}
	return domains
}

// deliveredTo is the field by which a message is known when it comes back to who forwards it, unless it is there.
func deliveredTo(via envelope.Address, fields []field) string {
	if via.IsZero() {
		return ""
	}
	for i := range fields {
		if fields[i].name != "delivered-to" {
			continue
		}
		addr, err := envelope.ParsePath(trimField(&fields[i]))
		if err == nil && addr.Canonical() == via.Canonical() {
			return ""
		}
	}
	return "Delivered-To: " + via.String() + "\r\n"
}
