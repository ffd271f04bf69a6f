package delivery

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postroad/delivery/smtpc"
	"postroad/internal/dns"
	"postroad/internal/envelope"
	"postroad/internal/tlspolicy"
	"postroad/internal/tlsrpt"
	"postroad/spool"
)

// A Finding is what an attempt to send mail somewhere meets before it would name a sender: the same questions to DNS, the
// same choice of hosts and addresses, the same demands on TLS.
type Finding struct {
	Domain  string // of the recipient, in A-labels
	Route   string // in words; empty is by DNS
	MX      []dns.MX
	Secure  bool   // the MX records, or that there are none, were validated by DNSSEC
	Alias   string // where CNAMEs led from the domain; empty for nowhere else
	STS     *tlspolicy.STS
	Memory  *tlspolicy.Memory
	Reports []string    // where TLS reports about it go; none are asked for when it is empty
	Hosts   []FoundHost // in the order in which they are tried
	Verdict string      // what would become of mail, in a sentence
	Reply   envelope.Reply
}

// FoundHost is one mail host.
type FoundHost struct {
	Name      string
	Addresses []netip.Addr // that would be dialled
	Secure    bool         // they were validated by DNSSEC
	Need      tlspolicy.Need
	TLSA      []string // the records, when that is where the need comes from
	Trouble   string   // why it would not be tried
	Authentic string   // why mail with REQUIRETLS could not go there; empty when it could
	Calls     []Call
}

// Call is one connection to a mail host.
type Call struct {
	Address      netip.Addr
	Trouble      string // why it cannot be used; empty when it can
	Name         string // that the host gave itself
	TLS          string // version and cipher suite; empty for none
	Unverified   string // why the certificate is not good by what is asked of it; empty when it is
	Certificates []*x509.Certificate
	Extensions   []string // of the last EHLO
	Dialogue     string
}

// probeTime bounds a probe.
const probeTime = 2 * time.Minute

// Probe finds out what would become of mail from a sender to an address, without sending any. It needs no Run, and of the
// Config only what has to do with hosts. At most 10 addresses are dialled, as by an attempt.
func (r *Runner) Probe(ctx context.Context, from, to envelope.Address) Finding {
	ctx, cancel := context.WithTimeout(dns.NotBefore(ctx, r.cfg.Now()), probeTime)
	defer cancel()
	p := r.newProbe(from, to)
	switch p.a.kind() {
	case Discard, Reject:
		p.a.run(ctx)
	case HTTP:
		p.Verdict = "mail is posted to " + p.a.postHost() + "; an application is not probed, since each post is a message"
		return p.Finding
	default:
		p.hosts(ctx)
	}
	p.conclude()
	return p.Finding
}

// Hostname is the name by which the Runner introduces itself.
func (r *Runner) Hostname() string { return r.cfg.Hostname }

// probe is a Probe under way.
type probe struct {
	Finding
	a    *attempt
	good *Call // the first that mail would be sent over
	host string
}

func (r *Runner) newProbe(from, to envelope.Address) *probe {
	d := spool.Due{Message: &spool.Message{Envelope: envelope.Envelope{From: from}}}
	d.Recipient.To = to
	way, _ := r.way(&d)
	ascii, _ := to.ASCII()
	a := &attempt{
		r: r, msg: d.Message, done: []outcome{{due: d}}, left: []int{0}, probing: true,
		lane: &lane{key: way.key, domain: ascii.Domain, route: way.route},
	}
	p := &probe{Finding: Finding{Domain: ascii.Domain}, a: a}
	if way.route != nil {
		p.Route = r.routeWords(way.route, &d.Recipient)
	}
	return p
}

// hosts goes through the destination's hosts as connectAndSend does.
func (p *probe) hosts(ctx context.Context) {
	a := p.a
	if path := a.socket(); path != "" {
		p.socket(ctx, path)
		return
	}
	if a.lane.byMX() {
		p.records(ctx)
	}
	hosts, err := a.hosts(ctx)
	if err == nil {
		err = a.policies(ctx, hosts)
	}
	if err != nil {
		a.noHost(err)
		return
	}
	p.policy()
	for _, name := range hosts.Records {
		if !a.back {
			p.Hosts = append(p.Hosts, p.visit(ctx, name))
		}
	}
	if p.good == nil && a.tried == 0 {
		a.noHost(a.trouble)
	}
	a.noMail()
}

// records shows what DNS says, which hosts then has from memory.
func (p *probe) records(ctx context.Context) {
	if _, literal := envelope.Literal(p.Domain); literal {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, p.a.r.cfg.Limits.Connect)
	defer cancel()
	mx, err := p.a.r.cfg.Resolver.LookupMX(ctx, p.Domain)
	p.MX, p.Secure = mx.Records, mx.Secure && (err == nil || errors.Is(err, dns.ErrNotFound))
	slices.SortStableFunc(p.MX, func(a, b dns.MX) int {
		return cmp.Or(cmp.Compare(a.Preference, b.Preference), cmp.Compare(a.Host, b.Host))
	})
	if mx.Name != p.Domain {
		p.Alias = mx.Name
	}
	p.Reports, _ = tlsrpt.Asks(ctx, p.a.r.cfg.Resolver, p.Domain) // mail goes without
}

// policy shows what is stored of the domain's TLS by now.
func (p *probe) policy() {
	if p.a.tls.policy == nil {
		return
	}
	if s, err := p.a.r.cfg.Policies.Show(p.Domain); err == nil {
		p.STS, p.Memory = s.STS, s.Memory
	}
}

// visit finds out what one host is like.
func (p *probe) visit(ctx context.Context, name string) FoundHost {
	a := p.a
	found := FoundHost{Name: name}
	h, err := a.approach(ctx, name)
	found.Addresses, found.Secure, found.Need = h.addrs.Records, h.addrs.Secure, a.tls.need
	if found.Need.Kind == tlspolicy.DANE {
		found.TLSA = found.Need.Policy().Strings
	}
	if err != nil {
		a.trouble, a.back = worse(a.trouble, err), errors.Is(err, errLoop)
		found.Trouble = err.Error()
		return found
	}
	if a.tls.policy != nil {
		if _, err := a.tls.policy.Required(name, found.Need); err != nil {
			found.Authentic = err.Error()
		}
	}
	a.wait = a.patience(len(h.addrs.Records))
	for _, ip := range h.addrs.Records {
		if a.tried >= maxAddresses || ctx.Err() != nil || a.back {
			break
		}
		found.Calls = append(found.Calls, p.call(ctx, name, ip))
	}
	return found
}

// call connects to an address and hangs up.
func (p *probe) call(ctx context.Context, host string, ip netip.Addr) Call {
	a := p.a
	a.tried++
	a.said, a.tls.chain = smtpc.Transcript{}, nil
	call := Call{Address: ip}
	conn, err := a.connect(ctx, host, ip)
	call.Certificates = a.tls.chain
	if err == nil {
		p.answered(&call, host, conn)
	} else {
		call.Trouble = err.Error()
		a.refusedAtDoor(err)
	}
	call.Dialogue = a.said.String()
	return call
}

// answered notes what a host says that lets us in.
func (p *probe) answered(call *Call, host string, conn *smtpc.Conn) {
	call.Name, call.TLS, call.Extensions = conn.Greeted(), conn.TLS(), conn.Extensions()
	if err := conn.Verified(); call.TLS != "" && err != nil {
		call.Unverified = err.Error()
	}
	looped := p.a.looped(conn)
	conn.Close()
	switch {
	case looped:
		call.Trouble = errLoop.Error()
		p.a.back = true
		if p.good == nil {
			p.a.noHost(worse(errLoop, p.a.trouble))
		}
	case p.good == nil:
		p.good, p.host = call, host
	}
}

// socket is for a route that leads to one.
func (p *probe) socket(ctx context.Context, path string) {
	conn, err := p.a.connectSocket(ctx, path)
	if err != nil {
		p.a.refusedAtDoor(err)
		return
	}
	call := Call{Name: conn.Greeted(), Extensions: conn.Extensions()}
	conn.Close()
	call.Dialogue = p.a.said.String()
	p.good, p.host = &call, path
	p.Hosts = []FoundHost{{Name: path, Calls: []Call{call}}}
}

// conclude says what would become of mail.
func (p *probe) conclude() {
	p.Reply = p.a.done[0].reply
	switch suspension, suspended := p.a.r.Suspension(p.a.msg, &p.a.done[0].due.Recipient); {
	case suspended:
		p.Verdict = fmt.Sprintf("mail waits: its destination is suspended since %s by %s%s", shown(suspension.Since), suspension.By, because(suspension.Reason))
	case p.good != nil:
		p.Reply = envelope.Reply{}
		p.Verdict = "mail goes to " + p.goodWords()
	case p.a.done[0].verdict == discarded:
		p.Verdict = "mail is dropped, as the route says"
	case p.Reply.Temporary():
		p.Verdict = "mail waits, and is tried again: " + p.Reply.String()
	default:
		p.Verdict = "mail goes back to its sender: " + p.Reply.String()
	}
}

func (p *probe) goodWords() string {
	var b strings.Builder
	b.WriteString(p.host)
	c := p.good
	if c.Address.IsValid() {
		fmt.Fprintf(&b, " (%s)", c.Address)
	}
	switch {
	case !c.Address.IsValid(): // it stays on this machine
	case c.TLS == "":
		b.WriteString(", in the clear")
	case c.Unverified != "":
		b.WriteString(", by TLS that shows nobody who it is")
	default:
		b.WriteString(", by verified TLS")
	}
	return b.String()
}

// shows keeps what a server shows in the handshake for the probe.
func (s *security) shows(state tls.ConnectionState) { s.chain = state.PeerCertificates }
