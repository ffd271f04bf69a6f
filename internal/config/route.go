package config

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"time"
)

// Route says how mail for a domain, or of a sender, goes out.
type Route struct {
	Name         string    `toml:"name"`
	Domain       string    `toml:"domain"`
	Sender       string    `toml:"sender"`
	Transport    Transport `toml:"transport"`
	Host         string    `toml:"host"` // or unix:/path, for LMTP
	Port         int       `toml:"port"`
	TLS          TLSMode   `toml:"tls"`
	Username     string    `toml:"username"`
	Password     Secret    `toml:"password"`
	PasswordFile string    `toml:"password_file"`
	URL          string    `toml:"url"`
	Secret       Secret    `toml:"secret"`
	SecretFile   string    `toml:"secret_file"`
	Text         string    `toml:"text"`
	Source       []string  `toml:"source"`

	RetryFirst  Duration `toml:"retry_first"` // 0 is as in [retry], as for the next two
	RetryMax    Duration `toml:"retry_max"`
	RetryExpire Duration `toml:"retry_expire"`
	Concurrency int      `toml:"concurrency"` // 0 is delivery.per_destination
	PerMinute   int      `toml:"per_minute"`  // 0 is no limit

	fromFile, secretFromFile bool // Password, Secret were read from their files
}

// Transport is the way that a route's mail goes.
type Transport string

// The transports.
const (
	TransportMX      Transport = "mx"
	TransportSMTP    Transport = "smtp"
	TransportLMTP    Transport = "lmtp"
	TransportHTTP    Transport = "http"
	TransportDiscard Transport = "discard"
	TransportReject  Transport = "reject"
)

// defaultRoute is a route of which nothing has been said.
func defaultRoute() Route {
	return Route{Transport: TransportSMTP, Port: 25, TLS: TLSOpportunistic}
}

// sampleRoute is the route of the sample.
func sampleRoute() Route {
	r := defaultRoute()
	r.Domain, r.Host, r.Port, r.TLS = "*", "smtp.example.org", 587, TLSRequired
	r.Username, r.PasswordFile = "postroad", "smarthost.password"
	return r
}

// completeRoutes gives routes the defaults of what they leave out.
func (ps *places) completeRoutes(routes []Route) {
	for i := range routes {
		r, d := &routes[i], defaultRoute()
		missing := func(key string) bool { return !ps.has(arrayKey("route", i, key)) }
		if missing("transport") {
			r.Transport = d.Transport
		}
		if missing("port") {
			r.Port = d.Port
			if r.Transport == TransportLMTP {
				r.Port = 24
			}
		}
		if missing("tls") {
			r.TLS = d.TLS
		}
		if len(r.Source) == 0 {
			r.Source = nil
		}
	}
}

// routeSection is the table of one route, bound to r.
func routeSection(r *Route) section {
	return section{"route", `How mail goes out that is for a certain domain, or of a certain sender, when not to the hosts that
DNS names. There may be any number of routes. Where several match, the most exact counts: first by the
recipient's domain, then by the sender. Mail for accounts of this server needs no route and takes none.`, true, []setting{
		{"name", &r.Name, `How commands name it ("postroad queue reroute --route"); empty is its domain, "from " and its sender,
or both.`, r.checkName},
		{"domain", &r.Domain, `The domain of the recipients; ".example.org" is all domains that end so; "*" is every domain
without a route of its own.`, r.checkDomain},
		{"sender", &r.Sender, `The sender, as an address or "@example.org"; "<>" is that of reports. Empty is every sender. A
route with a name, but neither domain nor sender, is for mail that a command sends that way.`, r.checkSender},
		{"transport", &r.Transport, `"smtp" (to the server that host names), "lmtp" (to host, as mail for its own mailboxes), "mx" (to
the hosts that DNS names, with what is set here), "http" (as a POST to url), "discard" (nowhere: the
mail is dropped, and only the trace tells) or "reject" (back to its sender, with text).`, r.checkTransport},
		{"host", &r.Host, `The server's name or address. For "lmtp" also "unix:/path/of/socket".`, r.checkHost},
		{"port", &r.Port, `Its port; 24 when left out of an "lmtp" route.`, r.checkPort},
		{"tls", &r.TLS, `"none", "opportunistic" (STARTTLS when offered), "encrypted" (STARTTLS, whatever the certificate, or
no delivery), "starttls" (with a good certificate, or no delivery) or "implicit" (TLS from the start,
good certificate).`, r.checkTLS},
		{"username", &r.Username, `The user to log in as; empty for none. Only over "starttls" or "implicit", or
to this machine.`, r.checkLogin},
		{"password", secretOf(&r.Password, r.fromFile), `The password, here ...`, nil},
		{"password_file", &r.PasswordFile, `... or as the first line of a file.`, nil},
		{"url", &r.URL, `Where an "http" route posts each message, as in "https://app.example.org/mail".`, r.checkURL},
		{"secret", secretOf(&r.Secret, r.secretFromFile), `The key that signs what is posted, here ...`, r.checkSecret},
		{"secret_file", &r.SecretFile, `... or as the first line of a file.`, nil},
		{"text", &r.Text, `What the sender is told by a "reject" route; empty is that mail for this address is not sent from here.`, r.checkText},
		{"source", &r.Source, `The local addresses to send from: one IPv4 address, one IPv6 address, or both. None is any.`, checkSource(&r.Source)},
		{"retry_first", &r.RetryFirst, `The wait after the first failure; "0s" is as in [retry], here and in the next two.`, r.schedule(&r.RetryFirst, Duration(time.Second), Duration(day))},
		{"retry_max", &r.RetryMax, `The longest wait between two attempts.`, r.schedule(&r.RetryMax, Duration(time.Second), Duration(7*day))},
		{"retry_expire", &r.RetryExpire, `The age at which a message goes back to its sender.`, r.schedule(&r.RetryExpire, Duration(time.Second), Duration(365*day))},
		{"concurrency", &r.Concurrency, `Deliveries at a time; 0 is as in [delivery].`, between(&r.Concurrency, 0, 1000)},
		{"per_minute", &r.PerMinute, `Messages a minute at most; 0 is no limit.`, between(&r.PerMinute, 0, 1_000_000)},
	}}
}

var routeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// reservedNames have a meaning of their own where a command names a route.
var reservedNames = map[string]string{"mx": "the hosts that DNS names", "default": "the route that is configured"}

func (r *Route) checkName() error {
	if meaning := reservedNames[r.Name]; meaning != "" {
		return fmt.Errorf("%q is what commands call %s; take another name", r.Name, meaning)
	}
	if r.Name != "" && !routeName.MatchString(r.Name) {
		return fmt.Errorf("%q is not a name; it wants letters, digits, \".\", \"_\" and \"-\", at most 64", r.Name)
	}
	return nil
}

func (r *Route) checkDomain() error {
	if r.Domain == "" && (r.Sender != "" || r.Name != "") || r.Domain == "*" {
		return nil
	}
	if err := checkDomainName(strings.TrimPrefix(r.Domain, ".")); err != nil {
		return fmt.Errorf("%w; it wants \"*\" or a domain such as \"example.org\", unless sender or name is set", err)
	}
	return nil
}

func (r *Route) checkSender() error {
	if r.Sender == "" || r.Sender == "<>" {
		return nil
	}
	i := strings.LastIndexByte(r.Sender, '@')
	if i < 0 || checkDomainName(r.Sender[i+1:]) != nil || strings.ContainsAny(r.Sender, "<> ") {
		return fmt.Errorf("%q is not a sender; write it as \"ann@example.org\", \"@example.org\" or \"<>\"", r.Sender)
	}
	return nil
}

// checkTransport refuses keys that say nothing for the transport: who set them meant another.
func (r *Route) checkTransport() error {
	known := oneOf(&r.Transport, TransportSMTP, TransportLMTP, TransportMX, TransportHTTP, TransportDiscard, TransportReject)
	if err := known(); err != nil {
		return err
	}
	server := r.Transport == TransportSMTP || r.Transport == TransportLMTP
	for _, x := range []struct {
		key, value string
		use        bool
	}{
		{"host", r.Host, server}, {"username", r.Username, server},
		{"url", r.URL, r.Transport == TransportHTTP},
		{"secret", string(r.Secret) + r.SecretFile, r.Transport == TransportHTTP},
		{"source", strings.Join(r.Source, " "), server || r.Transport == TransportMX},
	} {
		if x.value != "" && !x.use {
			return fmt.Errorf("%q has no use for %s, which is set", r.Transport, x.key)
		}
	}
	return nil
}

func (r *Route) checkHost() error {
	path, unix := strings.CutPrefix(r.Host, unixPrefix)
	switch {
	case r.Transport != TransportSMTP && r.Transport != TransportLMTP:
		return nil
	case unix && r.Transport != TransportLMTP:
		return fmt.Errorf("%q is a unix socket; only \"lmtp\" can use one", r.Host)
	case unix && path == "":
		return fmt.Errorf("%q lacks the path, as in \"unix:/run/dovecot/lmtp\"", r.Host)
	case unix || net.ParseIP(r.Host) != nil:
		return nil
	}
	if err := checkDomainName(r.Host); err != nil {
		return fmt.Errorf("%w; it wants the server's name or address", err)
	}
	return nil
}

// checkPort keeps LMTP off the port of SMTP, where it would be taken for that (RFC 2033, 5).
func (r *Route) checkPort() error {
	if r.Transport == TransportLMTP && r.Port == 25 {
		return fmt.Errorf("25 is the port of SMTP, where LMTP must not be spoken; 24 is usual")
	}
	return between(&r.Port, 1, 65535)()
}

// isUnix reports whether the route's server is reached by a unix socket.
func (r *Route) isUnix() bool { return strings.HasPrefix(r.Host, unixPrefix) }

// Socket is the path of the unix socket that leads to the route's server; empty for none.
func (r *Route) Socket() string {
	path, _ := strings.CutPrefix(r.Host, unixPrefix)
	if !r.isUnix() {
		return ""
	}
	return path
}

func (r *Route) checkTLS() error {
	if r.isUnix() && r.TLS != TLSNone && r.TLS != TLSOpportunistic {
		return fmt.Errorf("%q is of no use on a unix socket; leave it out", r.TLS)
	}
	if r.Transport == TransportMX && r.TLS == TLSImplicit {
		return fmt.Errorf("%q is not what the hosts that DNS names speak; use \"starttls\"", r.TLS)
	}
	return oneOf(&r.TLS, TLSNone, TLSOpportunistic, TLSEncrypted, TLSRequired, TLSImplicit)()
}

func (r *Route) checkLogin() error {
	switch {
	case r.Password != "" && r.PasswordFile != "" && !r.fromFile:
		return fmt.Errorf("password and password_file are both set; one is enough")
	case (r.Password != "" || r.PasswordFile != "") && r.Username == "":
		return fmt.Errorf("is empty, but a password is set")
	case r.Username != "" && r.Password == "" && r.PasswordFile == "":
		return fmt.Errorf("needs a password: set password or password_file")
	case r.Username != "" && !r.private():
		return fmt.Errorf("a password would travel unprotected; set tls to \"starttls\" or \"implicit\"")
	}
	return nil
}

// private reports whether a password may travel to the route's server.
func (r *Route) private() bool {
	ip := net.ParseIP(r.Host)
	return r.TLS == TLSRequired || r.TLS == TLSImplicit || r.Host == "localhost" || r.isUnix() || ip != nil && ip.IsLoopback()
}

func (r *Route) checkURL() error {
	if r.Transport != TransportHTTP {
		return nil
	}
	return checkPostURL(r.URL)
}

func (r *Route) checkSecret() error {
	if r.Secret != "" && r.SecretFile != "" && !r.secretFromFile {
		return fmt.Errorf("secret and secret_file are both set; one is enough")
	}
	return checkSigning(r.Secret)
}

// maxText keeps the reply that it becomes to a line.
const maxText = 400

func (r *Route) checkText() error {
	if len(r.Text) > maxText {
		return fmt.Errorf("has %d octets, and a reply has room for %d", len(r.Text), maxText)
	}
	return nil
}

// checkSource holds a list of local addresses to one of each kind.
func checkSource(list *[]string) func() error {
	return func() error { return oneOfEach(*list) }
}

func oneOfEach(list []string) error {
	var v4, v6 bool
	for _, s := range list {
		ip, err := netip.ParseAddr(s)
		seen := &v6
		if ip.Unmap().Is4() {
			seen = &v4
		}
		switch {
		case err != nil || ip.IsUnspecified() || ip.IsMulticast():
			return fmt.Errorf("%q is not an address of this machine; write it as \"192.0.2.1\" or \"2001:db8::1\"", s)
		case *seen:
			return fmt.Errorf("%q is the second of its kind; one IPv4 and one IPv6 address are possible", s)
		}
		*seen = true
	}
	return nil
}

// schedule holds a duration to a range when it is set, and the three of the route to their order.
func (r *Route) schedule(v *Duration, low, high Duration) func() error {
	return func() error {
		if *v == 0 {
			return nil
		}
		if v != &r.RetryFirst {
			low = max(low, r.RetryFirst)
		}
		return between(v, low, high)()
	}
}

// checkRoutes refuses two routes for the same mail, or of the same name: which counts would be a guess.
func (c *Config) checkRoutes() error {
	seen, names := map[[2]string]bool{}, map[string]bool{}
	for i, r := range c.Routes {
		match := [2]string{strings.ToLower(r.Domain), strings.ToLower(r.Sender)}
		if match[0] == "" && match[1] != "" {
			match[0] = "*"
		}
		if match[0] != "" && seen[match] {
			return &Error{Key: arrayKey("route", i, "domain"), Text: fmt.Sprintf("there is another route for %q%s", r.Domain, of(r.Sender))}
		}
		if r.Name != "" && names[r.Name] {
			return &Error{Key: arrayKey("route", i, "name"), Text: fmt.Sprintf("there is another route with the name %q", r.Name)}
		}
		seen[match], names[r.Name] = true, true
	}
	return nil
}

func of(sender string) string {
	if sender == "" {
		return ""
	}
	return " of " + sender
}
