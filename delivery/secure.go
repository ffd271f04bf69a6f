package delivery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"postroad/delivery/smtpc"
	"postroad/internal/dns"
	"postroad/internal/envelope"
	"postroad/internal/tlspolicy"
	"postroad/internal/tlsrpt"
)

// security is what an attempt knows of the TLS that its hosts must show.
type security struct {
	policy *tlspolicy.Policy   // of the domain; nil: mail does not go by MX, or there are no policies
	need   tlspolicy.Need      // of the present host
	local  net.Addr            // our end of the last connection
	chain  []*x509.Certificate // that the last connection showed, of a probe
	bad    error               // what was wrong with the certificate that the last connection showed

	tries int       // hosts and addresses that were tried
	never int       // those that will never do, for a message with REQUIRETLS
	why   *insecure // the last of those
}

// insecure is why a host does not get the message.
type insecure struct {
	status string // without its class
	never  bool   // the host cannot do what a message with REQUIRETLS asks for
	err    error
}

func (e *insecure) Error() string { return e.err.Error() }
func (e *insecure) Unwrap() error { return e.err }

// policies asks what the domain wants of its mail hosts.
func (a *attempt) policies(ctx context.Context, hosts dns.Answer[string]) (err error) {
	if a.r.cfg.Policies != nil && a.lane.byMX() {
		a.tls.policy, err = a.r.cfg.Policies.Domain(ctx, a.lane.domain, hosts)
	}
	return err
}

// approach looks a mail host up, and what it must show.
func (a *attempt) approach(ctx context.Context, name string) (host, error) {
	h, err := a.addresses(ctx, name)
	if err == nil {
		a.tls.need, err = a.need(ctx, h)
	}
	if err != nil {
		a.tls.count(err)
	}
	return h, err
}

// count counts a host, or an address, that did not take the message at the door.
func (s *security) count(err error) {
	s.tries++
	if e, ok := errors.AsType[*insecure](err); ok && e.never {
		s.never++
		s.why = e
	}
}

// need is what a host must show for this message.
func (a *attempt) need(ctx context.Context, h host) (tlspolicy.Need, error) {
	e := &a.msg.Envelope
	if a.tls.policy == nil {
		return withoutPolicy(e), nil
	}
	need, err := a.tls.policy.Host(ctx, h.name, h.addrs)
	if waives(e) {
		return need.Waived(), nil
	}
	if err == nil && e.RequireTLS {
		need, err = a.tls.policy.Required(h.name, need)
	}
	if err != nil {
		err = &insecure{status: "7.5", never: errors.Is(err, tlspolicy.ErrUnauthentic), err: err}
	}
	return need, err
}

// withoutPolicy is the need of a host that the administrator named.
func withoutPolicy(e *envelope.Envelope) tlspolicy.Need {
	if e.RequireTLS {
		return tlspolicy.Need{Level: tlspolicy.Verified, Kind: tlspolicy.RequireTLS, Words: "the sender requires TLS (REQUIRETLS)"}
	}
	return tlspolicy.Need{}
}

// levels are the ways to secure a connection that needs ask for.
var levels = [...]smtpc.TLS{
	tlspolicy.Opportunistic: smtpc.Opportunistic, tlspolicy.Encrypted: smtpc.Encrypted, tlspolicy.Verified: smtpc.Required,
}

// strength orders the ways to secure a connection, as a route may name them.
var strength = [...]int{smtpc.None: 0, smtpc.Opportunistic: 1, smtpc.Encrypted: 2, smtpc.Required: 3, smtpc.Implicit: 4}

// options are those of a connection to the present host. The administrator's word on a route's TLS counts, but is not
// enough for a message that must go by TLS.
func (a *attempt) options() smtpc.Options {
	c, need := &a.r.cfg, &a.tls.need
	o := smtpc.Options{Hostname: c.Hostname, Config: c.TLS, Timeouts: c.Timeouts, Now: c.Now}
	o.TLS, o.ServerName = levels[need.Level], need.ServerName
	if a.probing {
		o.Shown = a.tls.shows
	}
	if need.Verify != nil {
		o.Verify = func(state tls.ConnectionState) error {
			a.tls.bad = need.Verify(state)
			return a.tls.bad
		}
	}
	if route := a.lane.route; route != nil {
		o.Username, o.Password = route.Username, route.Password
		if need.Level == tlspolicy.Opportunistic || strength[route.TLS] > strength[o.TLS] {
			o.TLS = route.TLS
		}
	}
	return o
}

// connect opens a connection; once more and in the clear where nobody asks for TLS and TLS is what failed. A password
// never goes that way.
func (a *attempt) connect(ctx context.Context, host string, ip netip.Addr) (*smtpc.Conn, error) {
	o := a.options()
	conn, err := a.dial(ctx, host, ip, o)
	a.report(host, ip, conn, err)
	if e, ok := errors.AsType[*smtpc.Error](err); ok && e.Phase == "STARTTLS" {
		if o.TLS == smtpc.Opportunistic && o.Username == "" {
			o.TLS = smtpc.None
			conn, err = a.dial(ctx, host, ip, o)
		} else {
			err = a.untrusted(e)
		}
	}
	if err == nil && a.msg.Envelope.RequireTLS && !conn.Offers("REQUIRETLS") && !a.isReport() { // RFC 8689, 4.2.1: then the next host
		conn.Close()
		err = &insecure{"7.30", true, fmt.Errorf("%s does not promise to use TLS all the way (REQUIRETLS)", host)}
	}
	if err != nil {
		a.tls.count(err)
		return nil, err
	}
	a.tls.tries++
	return conn, nil
}

// isReport tells what has the null sender: its next hop need not promise TLS on all of the way (RFC 8689, 5).
func (a *attempt) isReport() bool { return a.msg.Envelope.From.IsZero() }

// untrusted is why a host to which mail must go by TLS does not get it.
func (a *attempt) untrusted(e *smtpc.Error) error {
	r := &insecure{status: "7.5", err: e}
	if errors.Is(e, smtpc.ErrNotOffered) {
		r.status = "7.4"
	}
	r.never = a.msg.Envelope.RequireTLS && (a.tls.bad != nil || errors.Is(e, smtpc.ErrNotOffered))
	if words := a.tls.need.Words; words != "" {
		r.err = fmt.Errorf("%w (%s)", e, words)
	}
	return r
}

// report tells the domain's policy how a session began, if it came to TLS.
func (a *attempt) report(host string, ip netip.Addr, conn *smtpc.Conn, err error) {
	if a.tls.policy == nil || a.probing || tlsrpt.IsReport(a.msg) { // RFC 8460, 3: reports are not about themselves
		return
	}
	s := tlspolicy.Session{Host: host, IP: ip, Local: addrOf(a.tls.local), Need: a.tls.need}
	switch e, ok := errors.AsType[*smtpc.Error](err); {
	case err == nil:
		s.TLS, s.Verified = conn.TLS(), conn.Verified()
	case ok && e.Phase == "STARTTLS":
		s.Err, s.NotOffered = e, errors.Is(e, smtpc.ErrNotOffered) || e.Reply.Code != 0
	default: // it has nothing to do with TLS
		return
	}
	a.tls.policy.Report(s)
}

func addrOf(addr net.Addr) netip.Addr {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// reply is the one for recipients of a host that is not secure enough. Even for REQUIRETLS it is one that defers: another
// host may do.
func (e *insecure) reply(r *Runner) envelope.Reply {
	reply := r.ours("4."+e.status, envelope.Sanitize(e.Error(), 1000))
	if e, ok := errors.AsType[*smtpc.Error](e.err); ok {
		reply.From = e.Reply.From
	}
	return reply
}

// bounced settles a message with REQUIRETLS that none of the hosts can take, and tells whether it did: it is returned
// (RFC 8689, 4.2.1). As long as one host could not be asked, the message waits; a report always does, for it would be lost.
func (a *attempt) bounced() bool {
	if a.tls.why == nil || a.isReport() || a.tls.never < a.tls.tries || len(a.left) == 0 {
		return false
	}
	reply := a.tls.why.reply(a.r)
	reply.Code, reply.Enhanced = 550, "5.7.10" // encryption needed
	if a.tls.why.status == "7.30" {
		reply.Enhanced = "5.7.30"
	}
	a.reached = true
	a.settle(reply)
	return true
}

// kept is what a connection that waits was made under.
type kept struct {
	policy   *tlspolicy.Policy
	required bool // for a message with REQUIRETLS
	waived   bool // for one to which no policy applies
}

func (a *attempt) kept() kept {
	e := &a.msg.Envelope
	return kept{a.tls.policy, e.RequireTLS, waives(e)}
}

// waives reports whether the sender wants no policy applied (RFC 8689, 4.2.2).
func waives(e *envelope.Envelope) bool { return e.TLSOptional && !e.RequireTLS }

// mayCarry reports whether a connection that waited may carry this message: it was made under a need that is as strong,
// and nothing that is known of the domain has changed since.
func (a *attempt) mayCarry(c *idleConn) bool {
	e := &a.msg.Envelope
	return c.kept.required == e.RequireTLS && (!c.kept.waived || waives(e)) && (c.kept.policy == nil || c.kept.policy.Holds())
}

// dial opens a connection.
func (a *attempt) dial(ctx context.Context, host string, ip netip.Addr, o smtpc.Options) (*smtpc.Conn, error) {
	port := a.r.cfg.Port
	if !a.lane.byMX() {
		port = a.lane.route.Port
	}
	nc, err := a.dialTo(ctx, ip, port)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %s (%s): %w", host, ip, reason(err))
	}
	a.tls.local, a.tls.bad = nc.LocalAddr(), nil
	o.LMTP, o.Record = a.kind() == LMTP, &a.said
	return smtpc.Open(ctx, nc, host, o)
}

// reason drops the addresses that the net package repeats in its errors.
func reason(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}
