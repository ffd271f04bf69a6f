package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/miekg/dns"
)

// question asks for the records of a type at a name, in small letters and with its final dot.
type question struct {
	name string
	typ  uint16
}

const (
	askSize  = 1232 // octets that an answer by UDP may have, so that no network cuts it into pieces (RFC 6891, 6.2.5)
	readSize = 4096 // what is read, should a server not care
	maxStray = 100  // packets that answer something else before TCP is used, where nobody else can put in a word
)

var (
	errStray     = errors.New("an answer to another question")
	errTruncated = errors.New("the answer is cut off")
	errMalformed = errors.New("the answer is malformed")
)

// trouble is a server's word that it cannot tell. It is temporary.
type trouble struct {
	rcode int
	extra string // RFC 8914
}

func (t *trouble) Error() string {
	text := dns.RcodeToString[t.rcode]
	if text == "" {
		text = fmt.Sprintf("RCODE %d", t.rcode)
	}
	if t.extra != "" {
		text += " (" + t.extra + ")"
	}
	return "the server says " + text
}

// ask goes through the servers until one has an answer: records, or that there are none. Who has said that he cannot
// tell is not asked again; who has said nothing is. Their order does not change with experience: who makes a name
// answer late could otherwise turn us away from the server that validates, for other names, too.
func (s *setup) ask(ctx context.Context, q question) (*dns.Msg, bool, error) {
	said := make([]bool, len(s.servers))
	var last error
	for range s.attempts {
		for i, server := range s.servers {
			if said[i] || ctx.Err() != nil {
				continue
			}
			m, err := server.ask(ctx, q, s.timeout)
			if err == nil {
				return m, server.trusted && m.AuthenticatedData, nil
			}
			_, said[i] = errors.AsType[*trouble](err)
			last = fmt.Errorf("DNS server %s: %w", server.addr, reason(err))
		}
	}
	if last == nil {
		last = ctx.Err()
	}
	return nil, false, last
}

// reason says in words what the net package says with addresses that have been named.
func reason(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// ask asks one server, without EDNS if it does not know that (RFC 6891, 7).
func (s server) ask(ctx context.Context, q question, timeout time.Duration) (*dns.Msg, error) {
	query := newQuery(q)
	m, err := s.exchange(ctx, query, timeout)
	if t, ok := errors.AsType[*trouble](err); ok && t.withoutEDNS() {
		query.Id, query.Extra = dns.Id(), nil
		m, err = s.exchange(ctx, query, timeout)
	}
	return m, err
}

func (t *trouble) withoutEDNS() bool {
	return t.rcode == dns.RcodeFormatError || t.rcode == dns.RcodeNotImplemented || t.rcode == dns.RcodeBadVers
}

// newQuery asks with the AD bit, which says that we understand it in the answer (RFC 6840, 5.7).
func newQuery(q question) *dns.Msg {
	query := new(dns.Msg)
	query.SetQuestion(q.name, q.typ)
	query.AuthenticatedData = true
	query.SetEdns0(askSize, false)
	return query
}

// exchange asks by UDP, and by TCP when the answer is too long for that or somebody tries to answer in the server's place.
func (s server) exchange(ctx context.Context, query *dns.Msg, timeout time.Duration) (*dns.Msg, error) {
	m, err := s.converse(ctx, "udp", query, timeout)
	if errors.Is(err, errTruncated) || errors.Is(err, errStray) {
		m, err = s.converse(ctx, "tcp", query, timeout)
	}
	if err != nil {
		return nil, err
	}
	return m, verdict(m)
}

// converse asks on a connection of its own: its port is not known to others, and nothing comes in on it from elsewhere.
func (s server) converse(ctx context.Context, network string, query *dns.Msg, timeout time.Duration) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, s.addr.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c := &dns.Conn{Conn: conn, UDPSize: readSize}
	if err := c.WriteMsg(query); err != nil {
		return nil, err
	}
	for range maxStray {
		var b []byte
		if b, err = c.ReadMsgHeader(nil); err != nil && !errors.Is(err, dns.ErrShortRead) {
			return nil, err
		}
		m, err := parse(b, query)
		if !errors.Is(err, errStray) {
			return m, err
		}
	}
	return nil, errStray
}

// headerSize is that of every message (RFC 1035, 4.1.1).
const headerSize = 12

// parse reads what may be the answer to a query. What has another id is errStray; so is, with a good id by chance, what
// answers another question. The counts of the header are held against what came: dns.Msg does not mind when records
// are missing.
func parse(b []byte, query *dns.Msg) (*dns.Msg, error) {
	if len(b) < headerSize || uint16(b[0])<<8|uint16(b[1]) != query.Id || b[2]&0x80 == 0 {
		return nil, errStray
	}
	if b[2]&0x02 != 0 {
		return nil, errTruncated
	}
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	if len(m.Question) == 0 && m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return m, nil // it has not even read the question
	}
	if len(m.Question) != 1 || !sameQuestion(m.Question[0], query.Question[0]) {
		return nil, errStray
	}
	for i, n := range []int{len(m.Question), len(m.Answer), len(m.Ns), len(m.Extra)} {
		if int(b[4+2*i])<<8|int(b[5+2*i]) != n {
			return nil, fmt.Errorf("%w: it breaks off", errMalformed)
		}
	}
	return m, whole(m.Answer)
}

func sameQuestion(a, b dns.Question) bool {
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && dns.CanonicalName(a.Name) == dns.CanonicalName(b.Name)
}

// whole refuses records that end before their last field, which dns.Msg lets pass.
func whole(records []dns.RR) error {
	for _, rr := range records {
		short := false
		switch rr := rr.(type) {
		case *dns.MX:
			short = rr.Mx == ""
		case *dns.CNAME:
			short = rr.Target == ""
		case *dns.PTR:
			short = rr.Ptr == ""
		case *dns.A:
			short = len(rr.A) == 0
		case *dns.AAAA:
			short = len(rr.AAAA) == 0
		case *dns.TLSA:
			short = rr.Certificate == ""
		}
		if short {
			return fmt.Errorf("%w: its %s record is too short", errMalformed, dns.TypeToString[rr.Header().Rrtype])
		}
	}
	return nil
}

// verdict is nil for an answer: there are records, or there are none. A server that is not responsible and does not ask
// others either (lame) knows neither.
func verdict(m *dns.Msg) error {
	switch {
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return &trouble{m.Rcode, extended(m)}
	case len(m.Answer) == 0 && !m.Authoritative && !m.RecursionAvailable:
		return &trouble{dns.RcodeRefused, "it does no recursion"}
	}
	return nil
}

// extended is the reason that a server gives for its trouble (RFC 8914), by the name of its code.
func extended(m *dns.Msg) string {
	opt := m.IsEdns0()
	if opt == nil {
		return ""
	}
	for _, o := range opt.Option {
		if e, ok := o.(*dns.EDNS0_EDE); ok {
			return dns.ExtendedErrorCodeToString[e.InfoCode]
		}
	}
	return ""
}
