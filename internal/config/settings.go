package config

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A section is a table of the file; the first has no name and holds the keys that
// stand before all tables.
type section struct {
	name     string
	doc      string
	array    bool // one of several tables of that name
	settings []setting
}

// A setting is one key: where its value lives, what it means, what it may be.
type setting struct {
	key   string
	value any // pointer into the Config: *string, *int, *float64, *Duration ...
	doc   string
	check func() error // nil: any value of the type
}

// Default returns the configuration of an empty file.
func Default() Config {
	return Config{
		Hostname:        "localhost",
		DataDir:         "postroad-data",
		ShutdownTimeout: Duration(10 * time.Second),
		Listen: Listen{
			SMTP: "127.0.0.1:2525", Submission: "127.0.0.1:2587", Submissions: "127.0.0.1:2465",
			IMAP: "127.0.0.1:2143", IMAPS: "127.0.0.1:2993", LMTP: Off,
		},
		Limits: Limits{
			MessageSize: 50e6, Recipients: 1000,
			Connections: 1000, ConnectionsPerAddress: 100,
			CommandsPerMinute: 30_000, Errors: 20, Hops: 100, FullMailbox: "tempfail",
			SMTPTimeout: Duration(5 * time.Minute), IMAPTimeout: Duration(30 * time.Minute),
		},
		Recipients: Recipients{Delimiter: "+", DetailMailbox: "off"},
		Submission: Submission{HideClient: true, DailyMessages: 1000, DailyRecipients: 2000, DailyNew: 500, SuppressFor: Duration(30 * day)},
		Policy: Policy{
			ConnectionsPerNetwork: 500, ConnectionsPerMinute: 600, MessagesPerHour: 20_000, RecipientsPerHour: 50_000,
			RefusedPerHour: 1e9, ErrorsPerHour: 3000, AccountMessages: 1000, AccountRecipients: 10_000,
			GreetDelay: Duration(2 * time.Second), Tarpit: 5, BanGuesses: 20, BanUnknown: 100, BanAbuse: 10,
		},
		DNS: DNS{TrustAD: "local"},
		Retry: Retry{
			First: Duration(5 * time.Minute), Max: Duration(4 * time.Hour), Expire: Duration(5 * day),
			DelayNotice: Duration(4 * time.Hour), Jitter: 0.1,
		},
		DKIM:       DKIM{KeepOld: Duration(10 * day)},
		Forwarding: Forwarding{SRS: true, ARC: true},
		Delivery: Delivery{
			Concurrency: 50, PerDestination: 5, MessagesPerConnection: 100,
			ConnectTimeout: Duration(30 * time.Second), CommandTimeout: Duration(5 * time.Minute), TLSMemory: Duration(day),
		},
		TLSReports: TLSReports{Send: true},

		OAuth: OAuth{UserClaim: "username"},
		Trace: Trace{Age: Duration(30 * day), Events: 2_000_000},
		ACME: ACME{
			Challenge: "http-01", HTTPListen: ":80", TLSALPNListen: ":443", DNSServer: "127.0.0.1:53",
			Directory: "https://acme-v02.api.letsencrypt.org/directory",
		},
		Log: Log{Level: "info", Format: "text"},
	}
}

// settings is the table of all sections that there are one of, bound to c.
func (c *Config) settings() []section {
	return []section{
		{"", "", false, []setting{
			{"hostname", &c.Hostname, `The name by which this server introduces itself (EHLO, Received fields, reports).
For mail with the outside it must be a full name whose address leads here.`, c.checkHostname},
			{"data_dir", &c.DataDir, `Where everything is kept. A relative path starts at this file's directory.`, nonEmpty(&c.DataDir, "the path of a directory")},
			{"shutdown_timeout", &c.ShutdownTimeout, `After a signal to stop, sessions have this long to end by themselves.`, between(&c.ShutdownTimeout, 0, Duration(time.Hour))},
		}},
		{"listen", `Where connections are taken: "address:port", or "off". Port 0 picks a free one.`, false, []setting{
			{"smtp", &c.Listen.SMTP, `Mail from other servers, for our own domains only (25 on the Internet).`, tcpOnly(&c.Listen.SMTP)},
			{"submission", &c.Listen.Submission, `Mail from our own users, after STARTTLS and a password (587).`, tcpOnly(&c.Listen.Submission)},
			{"submissions", &c.Listen.Submissions, `The same with TLS from the start (465).`, tcpOnly(&c.Listen.Submissions)},
			{"imap", &c.Listen.IMAP, `Mailboxes, after STARTTLS (143).`, tcpOnly(&c.Listen.IMAP)},
			{"imaps", &c.Listen.IMAPS, `Mailboxes with TLS from the start (993).`, tcpOnly(&c.Listen.IMAPS)},
			{"lmtp", &c.Listen.LMTP, `Mail from another server on this machine. Also "unix:/path/of/socket", to which
every user may connect that can enter its directory.`, func() error { return c.Listen.LMTP.Check() }},
		}},
		{"tls", `The certificate and its private key as PEM files, which are read again when they
change. With none named, a self-signed certificate is made in the data directory.`, false, []setting{
			{"cert", &c.TLS.Cert, `The certificate, then those between it and the root.`, bothOrNone(&c.TLS.Cert, &c.TLS.Key)},
			{"key", &c.TLS.Key, `Its private key.`, nil},
			{"client_ca", &c.TLS.ClientCA, `The authorities (PEM) whose certificates users may show to log in without a password.`, nil},
		}},
		{"acme", `Certificates from an authority (RFC 8555), obtained and renewed without a hand; until the
first one is there, a self-signed one is shown. Files of [tls] come before them.`, false, []setting{
			{"enabled", &c.ACME.Enabled, `Whether certificates are obtained.`, c.checkACME},
			{"agreed", &c.ACME.Agreed, `Whether you agree to the authority's terms of service.`, nil},
			{"email", &c.ACME.Email, `Your address, for the account at the authority.`, nil},
			{"names", &c.ACME.Names, `The names to obtain a certificate for, each its own; none is the hostname. With
"dns-01" also "*.example.org".`, c.checkACMENames},
			{"challenge", &c.ACME.Challenge, `How the authority sees that a name is yours: "http-01" (it connects to port 80 of the
name), "tls-alpn-01" (to port 443) or "dns-01" (it looks for a record in DNS).`, oneOf(&c.ACME.Challenge, "http-01", "tls-alpn-01", "dns-01")},
			{"http_listen", &c.ACME.HTTPListen, `Where "http-01" is answered, and nothing else.`, onlyTCP(&c.ACME.HTTPListen)},
			{"tls_alpn_listen", &c.ACME.TLSALPNListen, `Where "tls-alpn-01" is answered, and nothing else.`, onlyTCP(&c.ACME.TLSALPNListen)},
			{"dns_server", &c.ACME.DNSServer, `For "dns-01": the server that takes updates of the zone (RFC 2136).`, onlyTCP(&c.ACME.DNSServer)},
			{"dns_key_file", &c.ACME.DNSKeyFile, `For "dns-01": the key that signs updates, as "tsig-keygen" writes it.`, nil},
			{"directory", &c.ACME.Directory, `The authority: the address of its directory.`, c.checkDirectory},
			{"root_ca", &c.ACME.RootCA, `What the authority's own certificate is verified by (PEM); empty is what this
machine trusts.`, nil},
			{"eab_key_id", &c.ACME.EABKeyID, `For authorities that want it: the id of the account that you have there ...`, c.checkEAB},
			{"eab_hmac", &c.ACME.EABHMAC, `... and its key ("external account binding").`, nil},
		}},
		{"auth", `How people log in. PLAIN and SCRAM-SHA-256 are always offered.`, false, []setting{
			{"scram_sha1", &c.Auth.ScramSHA1, `Whether SCRAM-SHA-1 is offered too, for old clients; what it needs is kept of passwords
that are set or shown while this is on.`, nil},
			{"smtp_channel_binding", &c.Auth.SMTPChannelBinding, `Whether programs that send may bind the login to their TLS connection
(SCRAM-SHA-256-PLUS), as those that read mail may. Mutt and NeoMutt with GNU SASL choose
that, cannot do it, and give up; where this is on, they need smtp_authenticators="scram-sha-256".`, nil},
		}},
		{"oauth", `Tokens of an OAuth 2.0 issuer that log in (OAUTHBEARER, XOAUTH2). Each is checked by
asking the issuer (RFC 7662); what it says counts for five minutes at most.`, false, []setting{
			{"introspection_url", &c.OAuth.IntrospectionURL, `Where the issuer answers, https but for this machine; empty takes no tokens.`, c.checkOAuth},
			{"client_id", &c.OAuth.ClientID, `As whom this server asks, by HTTP Basic authentication; empty asks without.`, nil},
			{"client_secret", secretOf(&c.OAuth.ClientSecret, c.OAuth.fromFile), `The password for that, here ...`, nil},
			{"client_secret_file", &c.OAuth.ClientSecretFile, `... or as the first line of a file.`, nil},
			{"issuer", &c.OAuth.Issuer, `What the token's "iss" must be; empty is anything. Clients are told to get tokens there.`, nil},
			{"audience", &c.OAuth.Audience, `What the token's "aud" must hold; empty is anything.`, nil},
			{"scope", &c.OAuth.Scope, `What the token's "scope" must hold, separated by spaces; empty is nothing.`, nil},
			{"user_claim", &c.OAuth.UserClaim, `What of the issuer's answer is the account's address: "username", "email", ...`, nonEmpty(&c.OAuth.UserClaim, "the name of a claim")},
		}},
		{"limits", `What one peer, message or connection may take.`, false, []setting{
			{"message_size", &c.Limits.MessageSize, `The largest message, offered as SIZE and APPENDLIMIT.`, between(&c.Limits.MessageSize, 64<<10, 2<<30)},
			{"recipients", &c.Limits.Recipients, `Recipients of one message; RFC 5321 asks for at least 100.`, between(&c.Limits.Recipients, 100, 50_000)},
			{"connections", &c.Limits.Connections, `Connections to one listener at a time.`, between(&c.Limits.Connections, 1, 1_000_000)},
			{"connections_per_address", &c.Limits.ConnectionsPerAddress, `Those of one address; a network of IPv6 (/64) counts as one. This
machine's own have no such bound.`, between(&c.Limits.ConnectionsPerAddress, 1, 1_000_000)},
			{"commands_per_minute", &c.Limits.CommandsPerMinute, `SMTP commands on one connection in any minute, without a message accepted in between.`, between(&c.Limits.CommandsPerMinute, 60, 100_000_000)},
			{"errors", &c.Limits.Errors, `Refused SMTP commands after which a connection is closed.`, between(&c.Limits.Errors, 1, 10_000)},
			{"hops", &c.Limits.Hops, `Received fields after which a message is taken to be in a loop; RFC 5321 asks for
at least 100.`, between(&c.Limits.Hops, 10, 1000)},
			{"full_mailbox", &c.Limits.FullMailbox, `What the sender of mail for a full mailbox is told: "tempfail" (452, try again later) or
"reject" (552, for good).`, oneOf(&c.Limits.FullMailbox, "tempfail", "reject")},
			{"smtp_timeout", &c.Limits.SMTPTimeout, `Silence after which an SMTP connection is closed; RFC 5321 asks for 5 minutes.`, between(&c.Limits.SMTPTimeout, Duration(time.Second), Duration(day))},
			{"imap_timeout", &c.Limits.IMAPTimeout, `Silence after which an IMAP connection is closed; RFC 9051 asks for 30 minutes.`, between(&c.Limits.IMAPTimeout, Duration(time.Second), Duration(7*day))},
		}},
		{"policy", `How those are treated who do too much, or misbehave. The numbers are those of one
address: an IPv4 address, or an IPv6 /64. A network (IPv4 /24, IPv6 /48) may do five times as much, and who has
logged in from there lately ten times. This machine and trust.networks may do what they like.`, false, []setting{
			{"connections_per_network", &c.Policy.ConnectionsPerNetwork, `Connections of one network at a time, to all listeners together.`, between(&c.Policy.ConnectionsPerNetwork, 1, 1_000_000)},
			{"connections_per_minute", &c.Policy.ConnectionsPerMinute, `New connections.`, between(&c.Policy.ConnectionsPerMinute, 1, 1_000_000)},
			{"messages_per_hour", &c.Policy.MessagesPerHour, `Messages of who is not logged in.`, between(&c.Policy.MessagesPerHour, 1, 1_000_000_000)},
			{"recipients_per_hour", &c.Policy.RecipientsPerHour, `Recipients of those.`, between(&c.Policy.RecipientsPerHour, 1, 1_000_000_000)},
			{"refused_per_hour", &c.Policy.RefusedPerHour, `What comes of messages that are not accepted, or cut off.`, between(&c.Policy.RefusedPerHour, 1e6, 1e15)},
			{"errors_per_hour", &c.Policy.ErrorsPerHour, `Refused commands.`, between(&c.Policy.ErrorsPerHour, 1, 1_000_000_000)},
			{"account_messages_per_hour", &c.Policy.AccountMessages, `Messages of an account that is logged in, wherever it is.`, between(&c.Policy.AccountMessages, 1, 1_000_000_000)},
			{"account_recipients_per_hour", &c.Policy.AccountRecipients, `Recipients of those.`, between(&c.Policy.AccountRecipients, 1, 1_000_000_000)},
			{"greet_delay", &c.Policy.GreetDelay, `How long a stranger's silence is watched before it is greeted on the smtp listener; who
talks is sent away. Nobody waits who has sent mail or logged in within 30 days; "0s" is no wait.`, between(&c.Policy.GreetDelay, 0, Duration(time.Minute))},
			{"tarpit", &c.Policy.Tarpit, `Errors on an SMTP connection that are answered at once; each further one waits, up to 5 seconds. 0 is no wait.`, between(&c.Policy.Tarpit, 0, 10_000)},
			{"ban_guesses", &c.Policy.BanGuesses, `Wrong passwords in six hours, for which an address is banned; here and below, 0 is never.`, between(&c.Policy.BanGuesses, 0, 1_000_000)},
			{"ban_unknown", &c.Policy.BanUnknown, `Unknown recipients in an hour, beyond those of accepted messages, for which it is banned.`, between(&c.Policy.BanUnknown, 0, 1_000_000)},
			{"ban_abuse", &c.Policy.BanAbuse, `Connections in an hour that speak another protocol, too early, or smuggle, for which it is banned.`, between(&c.Policy.BanAbuse, 0, 1_000_000)},
			{"no_soliciting", &c.Policy.NoSoliciting, `Solicitation classes of mail that is not taken, as in ["net.example:ADV"]. EHLO announces
them, and a sender who declares one of them is refused (RFC 3865).`, c.checkSoliciting},
		}},
		{"trust", `Peers that may do what others may not, by address or network.`, false, []setting{
			{"networks", &c.Trust.Networks, `Those to which nothing in [policy] applies, as a relay that brings all our mail.`, nil},
			{"proxies", &c.Trust.Proxies, `Proxies that say for whom they speak in a header of the PROXY protocol (1 or 2). All their
connections to the TCP listeners must begin with one.`, notEverybody(&c.Trust.Proxies)},
			{"xclient", &c.Trust.XCLIENT, `Proxies and filters that say for whom they speak (XCLIENT, XFORWARD), also who has
logged in there, and that may ask for mail that waits for any domain (ETRN).`, notEverybody(&c.Trust.XCLIENT)},
		}},
		{"recipients", `What the addresses of our domains mean.`, false, []setting{
			{"delimiter", &c.Recipients.Delimiter, `Mail for user+detail goes to user, unless there is an account or alias of just that
name; "" turns this off.`, c.checkDelimiter},
			{"detail_mailbox", &c.Recipients.DetailMailbox, `Whether mail for user+detail goes to the user's mailbox of the detail's name: "off",
"existing" (when there is one) or "create" (made when there is none, by whoever writes).
Where it cannot, it goes to the INBOX; nobody writes to Drafts, Sent and Trash so.`,
				oneOf(&c.Recipients.DetailMailbox, "off", "existing", "create")},
		}},
		{"submission", `The mail of our own users. The daily limits are those of each account for which no others
were set ("postroad account set"); 0 is none. A day begins at 00:00 UTC.`, false, []setting{
			{"hide_client", &c.Submission.HideClient, `Whether Received fields keep to themselves from where a user has sent a message: the
address, often a home's, and the name of the computer. The trace has it in any case.`, nil},
			{"save_sent", &c.Submission.SaveSent, `Whether what a user sends is copied into the user's mailbox for sent mail. Most mail
programs do so themselves, and have to be told not to, or there are two copies.`, nil},
			{"daily_messages", &c.Submission.DailyMessages, `Messages that an account sends.`, between(&c.Submission.DailyMessages, 0, 1_000_000_000)},
			{"daily_recipients", &c.Submission.DailyRecipients, `Recipients of these.`, between(&c.Submission.DailyRecipients, 0, 1_000_000_000)},
			{"daily_new_recipients", &c.Submission.DailyNew, `Of these, addresses in domains of others that the account has not written to before: this
bounds what a thief of its password can do to strangers.`, between(&c.Submission.DailyNew, 0, 1_000_000_000)},
			{"suppress_for", &c.Submission.SuppressFor, `How long an account's mail is returned at once that is for an address which has refused its mail as
none that there is ("postroad suppression"); "0s" sends it each time.`, between(&c.Submission.SuppressFor, 0, Duration(10*365*day))},
		}},
		{"imap", `What IMAP clients are told.`, false, []setting{
			{"admin_contact", &c.IMAP.AdminContact, `How users reach you, as in "mailto:postmaster@example.org"; they find it as the server's
annotation /shared/admin (RFC 5464).`, c.checkContact},
		}},
		{"retry", `When mail is tried again that could not be delivered yet. The wait grows with
the age of the message, from first to max.`, false, []setting{
			{"first", &c.Retry.First, `The wait after the first failure.`, between(&c.Retry.First, Duration(time.Second), Duration(day))},
			{"max", &c.Retry.Max, `The longest wait between two attempts.`, c.checkRetryMax},
			{"expire", &c.Retry.Expire, `The age at which a message goes back to its sender.`, c.checkExpire},
			{"delay_notice", &c.Retry.DelayNotice, `The age at which the sender is told, once, of the delay; "0s" is never.`, between(&c.Retry.DelayNotice, 0, Duration(365*day))},
			{"jitter", &c.Retry.Jitter, `The part of a wait, from 0 to 0.5, that is left to chance, so that not all come at once.`, between(&c.Retry.Jitter, 0, 0.5)},
		}},
		{"dns", `Whom to ask for names. DANE needs a server that validates DNSSEC, best one on this machine.`, false, []setting{
			{"servers", &c.DNS.Servers, `Servers that do recursion, asked in this order: "192.0.2.1" or "[2001:db8::1]:5353". None
are those of /etc/resolv.conf, which is read again when it changes.`, c.checkServers},
			{"trust_ad", &c.DNS.TrustAD, `Whose word is taken that DNSSEC has validated an answer: "local" (servers on this machine, and
those of a resolv.conf with "options trust-ad"), "all" (if nobody can get between), or "none".`, oneOf(&c.DNS.TrustAD, "local", "all", "none")},
			{"timeout", &c.DNS.Timeout, `The time that a server has to answer; 0 is resolv.conf's, or 5 seconds.`, between(&c.DNS.Timeout, 0, Duration(30*time.Second))},
			{"attempts", &c.DNS.Attempts, `How often all servers are asked; 0 is resolv.conf's, or 2.`, between(&c.DNS.Attempts, 0, 5)},
		}},
		{"delivery", `Sending mail on.`, false, []setting{
			{"concurrency", &c.Delivery.Concurrency, `Deliveries at a time.`, between(&c.Delivery.Concurrency, 1, 10_000)},
			{"per_destination", &c.Delivery.PerDestination, `Those to one destination.`, between(&c.Delivery.PerDestination, 1, 1000)},
			{"per_minute", &c.Delivery.PerMinute, `Messages to one destination in a minute; 0 is no limit. A route may have its own.`, between(&c.Delivery.PerMinute, 0, 1_000_000)},
			{"messages_per_connection", &c.Delivery.MessagesPerConnection, `Messages sent over one connection before it is closed.`, between(&c.Delivery.MessagesPerConnection, 1, 100_000)},
			{"connect_timeout", &c.Delivery.ConnectTimeout, `The time a server has to accept a connection.`, between(&c.Delivery.ConnectTimeout, Duration(time.Second), Duration(time.Hour))},
			{"tls_memory", &c.Delivery.TLSMemory, `How long mail waits for a domain whose hosts always showed a good certificate and do not any
more ("postroad tls"), from the first time; "0s" remembers nothing.`, between(&c.Delivery.TLSMemory, 0, Duration(30*day))},
			{"command_timeout", &c.Delivery.CommandTimeout, `The time a server has to answer a command.`, between(&c.Delivery.CommandTimeout, Duration(time.Second), Duration(time.Hour))},
			{"source", &c.Delivery.Source, `The local addresses to send from, where no route says others: one IPv4 address, one IPv6
address, or both. With one alone, mail does not go out by the other family. None is any.`, checkSource(&c.Delivery.Source)},
		}},
		{"dkim", `Signatures of mail that goes out (DKIM). The keys are made by "postroad dkim".`, false, []setting{
			{"keep_old", &c.DKIM.KeepOld, `How long the record of a key that was replaced must stay in the DNS: longer than what it
signed is on its way. Signatures count for 7 days.`, between(&c.DKIM.KeepOld, Duration(8*day), Duration(365*day))},
		}},
		{"forwarding", `Mail from outside that an account or alias sends on to elsewhere.`, false, []setting{
			{"srs", &c.Forwarding.SRS, `Whether it leaves with a sender in our domain, from which reports find their way back
(Sender Rewriting Scheme). Without, many receivers refuse it, as its sender's SPF record does not name us.`, nil},
			{"arc", &c.Forwarding.ARC, `Whether what was found of it is sealed (ARC), where the domain that forwards it has a DKIM key.`, nil},
		}},
		c.tlsReportsSection(),
		{"trace", `What is remembered of each message's way.`, false, []setting{
			{"age", &c.Trace.Age, `How long.`, between(&c.Trace.Age, Duration(time.Hour), Duration(10*365*day))},
			{"events", &c.Trace.Events, `How many events at most; the oldest go first.`, between(&c.Trace.Events, 1000, 1_000_000_000)},
		}},
		{"log", `The log goes to standard error.`, false, []setting{
			{"level", &c.Log.Level, `From here on up: "debug", "info", "warn" or "error".`, oneOf(&c.Log.Level, "debug", "info", "warn", "error")},
			{"format", &c.Log.Format, `"text" or "json".`, oneOf(&c.Log.Format, "text", "json")},
		}},
	}
}

// certificateSection is the table of one more certificate, bound to p.
func certificateSection(p *Certificate) section {
	return section{"tls.certificate", `One more certificate, for the clients that ask for a name in it (SNI). There may be any
number of them; clients that ask for none of their names get the first of all.`, true, []setting{
		{"cert", &p.Cert, `The certificate, then those between it and the root.`, nonEmpty(&p.Cert, "the path of a PEM file")},
		{"key", &p.Key, `Its private key.`, nonEmpty(&p.Key, "the path of a PEM file")},
	}}
}

// secretOf is a password as a setting; one that was read from a file is shown by that.
func secretOf(s *Secret, fromFile bool) *Secret {
	if fromFile {
		return new(Secret)
	}
	return s
}

// all is the whole table with the certificates, routes and webhooks that there are.
func (c *Config) all() []section {
	s := c.settings()
	for i := range c.TLS.Certificates {
		s = append(s, certificateSection(&c.TLS.Certificates[i]))
	}
	for i := range c.Routes {
		s = append(s, routeSection(&c.Routes[i]))
	}
	for i := range c.Webhooks {
		s = append(s, webhookSection(&c.Webhooks[i]))
	}
	return s
}

// kinds is the table with one of each section.
func (c *Config) kinds() []section {
	r := defaultRoute()
	return append(c.settings(), certificateSection(&Certificate{}), routeSection(&r), webhookSection(&Webhook{}))
}

// Check reports the first value that is out of its range, as an *Error.
func (c *Config) Check() error {
	seen := map[string]int{}
	for _, sec := range c.all() {
		for _, s := range sec.settings {
			key := joinKey(sec.name, s.key)
			if sec.array {
				key = arrayKey(sec.name, seen[sec.name], s.key)
			}
			if err := s.verify(); err != nil {
				return &Error{Key: key, Text: err.Error()}
			}
		}
		seen[sec.name]++
	}
	return cmp.Or(c.checkRoutes(), c.checkWebhooks())
}

func (s setting) verify() error {
	if v, ok := s.value.(*string); ok {
		if err := printable(*v); err != nil {
			return err
		}
	}
	if v, ok := s.value.(*[]string); ok {
		for _, text := range *v {
			if err := printable(text); err != nil {
				return err
			}
		}
	}
	if v, ok := s.value.(*Secret); ok && printable(string(*v)) != nil {
		return fmt.Errorf("the password holds a control character")
	}
	if s.check == nil {
		return nil
	}
	return s.check()
}

// between holds a number, size or duration to a range.
func between[T int | float64 | Duration | Size](v *T, low, high T) func() error {
	return func() error {
		if *v >= low && *v <= high { // false for NaN
			return nil
		}
		return fmt.Errorf("%v is out of range: from %v to %v", *v, low, high)
	}
}

func oneOf[T ~string](v *T, words ...T) func() error {
	return func() error {
		if slices.Contains(words, *v) {
			return nil
		}
		return fmt.Errorf("%q is not known; use %s", *v, wordList(words))
	}
}

func wordList[T ~string](words []T) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	last := len(quoted) - 1
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}

func nonEmpty(v *string, what string) func() error {
	return func() error {
		if *v != "" {
			return nil
		}
		return fmt.Errorf("is empty; it wants %s", what)
	}
}

func tcpOnly(a *Addr) func() error {
	return func() error {
		if network, _ := a.Network(); network == "unix" {
			return fmt.Errorf("%q is a unix socket; only lmtp can use one", *a)
		}
		return a.Check()
	}
}

func (c *Config) checkHostname() error {
	if err := checkDomainName(c.Hostname); err != nil {
		return fmt.Errorf("%w; it wants a name such as \"mail.example.org\"", err)
	}
	return nil
}

// onlyTCP is for an address that something else decides the use of.
func onlyTCP(a *Addr) func() error {
	return func() error {
		if network, _ := a.Network(); network == "unix" || a.IsOff() {
			return fmt.Errorf("%q is not an address; write it as \"127.0.0.1:8080\"", *a)
		}
		return a.Check()
	}
}

func (c *Config) checkACME() error {
	a := c.ACME
	switch {
	case !a.Enabled:
		return nil
	case !a.Agreed:
		return fmt.Errorf("read the authority's terms of service, then set acme.agreed to true")
	case !strings.Contains(a.Email, "@"):
		return fmt.Errorf("set acme.email to your address, for the account at the authority")
	case a.Challenge == "dns-01" && a.DNSKeyFile == "":
		return fmt.Errorf("\"dns-01\" needs acme.dns_key_file, the key for updates of DNS")
	case len(a.Names) == 0 && !strings.Contains(c.Hostname, "."):
		return fmt.Errorf("no authority has certificates for %q; set hostname, or acme.names", c.Hostname)
	}
	return nil
}

func (c *Config) checkACMENames() error {
	seen := map[string]bool{}
	for _, name := range c.ACME.Names {
		host, wild := strings.CutPrefix(name, "*.")
		switch {
		case wild && c.ACME.Challenge != "dns-01":
			return fmt.Errorf("%q can only be had with \"dns-01\"", name)
		case checkDomainName(host) != nil:
			return fmt.Errorf("%w; it wants names such as \"mail.example.org\"", checkDomainName(host))
		case seen[strings.ToLower(name)]:
			return fmt.Errorf("%q stands there twice", name)
		}
		seen[strings.ToLower(name)] = true
	}
	return nil
}

var solicitation = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9.:_-]*$`) // RFC 3865, 2.2

// checkSoliciting also keeps the line of EHLO that lists the classes to its length.
func (c *Config) checkSoliciting() error {
	const most = 400
	for _, class := range c.Policy.NoSoliciting {
		if !solicitation.MatchString(class) {
			return fmt.Errorf("%q is not a solicitation class, as \"net.example:ADV\" is", class)
		}
	}
	if n := len(strings.Join(c.Policy.NoSoliciting, ",")); n > most {
		return fmt.Errorf("the classes together have %d octets, and EHLO has room for %d", n, most)
	}
	return nil
}

// checkContact wants a URI (RFC 5464, 6.2.1), of a length that any client shows.
func (c *Config) checkContact() error {
	const most = 1000
	u, err := url.Parse(c.IMAP.AdminContact)
	if c.IMAP.AdminContact == "" || err == nil && u.Scheme != "" && u.Opaque+u.Host != "" && len(c.IMAP.AdminContact) <= most {
		return nil
	}
	return fmt.Errorf("%q is not a URI; write it as \"mailto:postmaster@example.org\"", c.IMAP.AdminContact)
}

func (c *Config) checkDirectory() error {
	u, err := url.Parse(c.ACME.Directory)
	if err == nil && u.Scheme == "https" && u.Host != "" {
		return nil
	}
	return fmt.Errorf("%q is not an address of an ACME directory; it begins with https://", c.ACME.Directory)
}

func (c *Config) checkEAB() error {
	if (c.ACME.EABKeyID == "") == (c.ACME.EABHMAC == "") {
		return nil
	}
	return fmt.Errorf("eab_key_id and eab_hmac belong together")
}

func bothOrNone(cert, key *string) func() error {
	return func() error {
		if (*cert == "") == (*key == "") {
			return nil
		}
		return fmt.Errorf("cert and key belong together: set both, or neither for a self-signed certificate")
	}
}

// checkDelimiter keeps letters, and what old servers route by, from parting an address.
func (c *Config) checkDelimiter() error {
	if d := c.Recipients.Delimiter; len(d) > 4 || strings.Trim(d, "+-=_#~.") != "" {
		return fmt.Errorf("%q is not possible; it wants \"+\" or another of - = _ # ~ . or nothing", d)
	}
	return nil
}

func (c *Config) checkOAuth() error {
	o := &c.OAuth
	switch {
	case o.ClientSecret != "" && o.ClientSecretFile != "" && !o.fromFile:
		return fmt.Errorf("client_secret and client_secret_file are both set; one is enough")
	case (o.ClientSecret != "" || o.ClientSecretFile != "") && o.ClientID == "":
		return fmt.Errorf("a client_secret is set, but no client_id")
	case o.IntrospectionURL == "" && (o.ClientID != "" || o.Issuer != "" || o.Audience != "" || o.Scope != ""):
		return fmt.Errorf("is empty, but other keys of [oauth] are set")
	}
	return nil
}

func (c *Config) checkRetryMax() error {
	return between(&c.Retry.Max, c.Retry.First, Duration(7*day))()
}

func (c *Config) checkExpire() error {
	return between(&c.Retry.Expire, c.Retry.First, Duration(365*day))()
}

// checkDomainName holds a name to the rules of host names (RFC 1123, 2.1), and lets
// U-labels pass.
func checkDomainName(s string) error {
	if s == "" {
		return fmt.Errorf("is empty")
	}
	bad := fmt.Errorf("%q is not a host name", s)
	if len(s) > 253 {
		return bad
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, notHostRune) {
			return bad
		}
	}
	return nil
}

func notHostRune(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
		return false
	}
	return r <= 0x9f || r == '\ufffd'
}
