package delivery

import (
	"cmp"
	"net/netip"
	"strings"

	"postroad/delivery/smtpc"
	"postroad/internal/envelope"
	"postroad/spool"
)

// Route says how mail for a domain, or of a sender, goes out. Where several match, the most exact counts: first by
// the recipient's domain, then by the sender. Without one, mail goes to the hosts that DNS names.
type Route struct {
	// Name is how commands and spool.Recipient.Transport name it; empty is its Domain, "from " and its Sender, or both.
	Name string
	// Domain of the recipients: "example.org", ".example.org" for all that end so, "*" or empty for all.
	Domain string
	// Sender is an address or "@domain" of the reverse-path, "<>" for the null one, empty for all. A route that has
	// neither Domain nor Sender is only for recipients whose Transport names it.
	Sender string

	Kind   Kind
	Host   string // of SMTP and LMTP: name or address
	Port   int    // of Host; 0 is 25 for SMTP, 24 for LMTP
	Socket string // of LMTP: the path of a unix socket, in place of Host
	URL    string // of HTTP
	Secret string // of HTTP: the key by which what is sent is signed (hook.ParseKey); empty for none
	posted posted // of HTTP: what is sent

	TLS                smtpc.TLS
	Username, Password string       // to log in with; empty for none
	Source             []netip.Addr // local addresses to dial from, one of each family at most; none is any
	Text               string       // of Reject: the reply's

	Schedule       *Schedule // nil is the server's
	PerDestination int       // attempts at a time; 0 is the server's limit
	PerMinute      int       // messages a minute; 0 is no limit
}

// Kind is the way that a route's mail goes.
type Kind uint8

// The kinds of routes.
const (
	SMTP    Kind = iota // to Host
	MX                  // to the hosts that DNS names
	LMTP                // to Host or Socket
	HTTP                // by POST to URL
	Discard             // nowhere: it is settled, and the trace has the route's name
	Reject              // back to the sender, with Text
)

// String returns the kind's word, as the config has it.
func (k Kind) String() string {
	return [...]string{"smtp", "mx", "lmtp", "http", "discard", "reject"}[k]
}

// What a Transport names besides the routes that are configured: DNS, in spite of them.
const byDNS = "mx"

// withDefaults returns the route as the Runner uses it.
func (r Route) withDefaults() Route {
	r.Domain = canonicalDomain(r.Domain)
	if r.Domain == "" && r.Sender != "" {
		r.Domain = "*"
	}
	r.Sender = canonicalSender(r.Sender)
	r.Name = cmp.Or(r.Name, defaultName(r.Domain, r.Sender))
	switch r.Kind {
	case SMTP:
		r.Port = cmp.Or(r.Port, 25)
	case LMTP:
		r.Port = cmp.Or(r.Port, 24)
	}
	return r
}

func defaultName(domain, sender string) string {
	switch {
	case sender == "":
		return domain
	case domain == "*":
		return "from " + sender
	}
	return domain + " from " + sender
}

// canonicalDomain is a route's domain as recipients' are compared with it.
func canonicalDomain(s string) string {
	dot := ""
	if strings.HasPrefix(s, ".") {
		dot, s = ".", s[1:]
	}
	if canonical, err := envelope.ParseDomain(s); err == nil {
		return dot + canonical
	}
	return dot + strings.ToLower(s)
}

// canonicalSender is a route's sender as reverse-paths are compared with it.
func canonicalSender(s string) string {
	if domain, ok := strings.CutPrefix(s, "@"); ok {
		return "@" + canonicalDomain(domain)
	}
	if a, err := envelope.ParseAddress(s); err == nil {
		return a.Canonical().String()
	}
	return s
}

// routing finds routes. It is never changed.
type routing struct {
	named  map[string]*Route            // by name
	choose map[string]map[string]*Route // by domain, then by sender
}

func newRouting(routes []Route) *routing {
	t := &routing{named: map[string]*Route{byDNS: nil}, choose: map[string]map[string]*Route{}}
	for _, r := range routes {
		r = r.withDefaults()
		t.named[r.Name] = &r
		if r.Domain == "" {
			continue
		}
		if t.choose[r.Domain] == nil {
			t.choose[r.Domain] = map[string]*Route{}
		}
		t.choose[r.Domain][r.Sender] = &r
	}
	return t
}

// find returns the route for mail from a sender to a domain, in A-labels; nil is by MX.
func (t *routing) find(from envelope.Address, domain string) *Route {
	if len(t.choose) == 0 {
		return nil
	}
	from = from.Canonical()
	if route := t.bySender(domain, from); route != nil {
		return route
	}
	for rest := domain; ; {
		i := strings.IndexByte(rest, '.')
		if i < 0 {
			return t.bySender("*", from)
		}
		if route := t.bySender(rest[i:], from); route != nil {
			return route
		}
		rest = rest[i+1:]
	}
}

// bySender returns the most exact route of those for one domain.
func (t *routing) bySender(domain string, from envelope.Address) *Route {
	routes := t.choose[domain]
	if routes == nil {
		return nil
	}
	exact, host := from.String(), "@"+from.Domain
	if from.IsZero() {
		exact, host = "<>", "<>"
	}
	return cmp.Or(routes[exact], routes[host], routes[""])
}

// route returns how a recipient goes out; nil is by MX. It is false when its Transport names a route that is not there.
func (r *Runner) route(d *spool.Due) (*Route, bool) {
	if name := d.Recipient.Transport; name != "" {
		if route, ok := r.routes.named[name]; ok {
			return route, true
		}
		return reportRoute(name)
	}
	if len(r.routes.choose) == 0 {
		return nil, true
	}
	to, _ := d.Recipient.To.ASCII()
	return r.routes.find(d.Message.Envelope.From, to.Domain), true
}

// byMX reports whether the destination's hosts are those that DNS names, and not of the administrator's choice.
func (l *lane) byMX() bool { return l.route == nil || l.route.Kind == MX }
