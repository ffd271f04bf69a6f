package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

func mustParse(t *testing.T, text string) Config {
	t.Helper()
	c, err := Parse(strings.NewReader(text))
	if err != nil {
		t.Fatalf("Parse: %v\n%s", err, text)
	}
	return c
}

func TestAnEmptyFileIsTheDefault(t *testing.T) {
	if c := mustParse(t, ""); !reflect.DeepEqual(c, Default()) {
		t.Errorf("got %+v", c)
	}
	c := Default()
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}

const full = `
hostname = "mail.example.org"
data_dir = "/srv/mail"
shutdown_timeout = "30s"
[listen]
smtp = ":25"
submission = "off"
submissions = "[::1]:465"
imap = "127.0.0.1:0"
lmtp = "unix:/run/lmtp.sock"
[tls]
cert = "c.pem"
key = "k.pem"
client_ca = "users.pem"
[acme]
enabled = true
agreed = true
email = "ann@example.org"
names = ["mail.example.org", "*.example.net"]
challenge = "dns-01"
dns_key_file = "dns.key"
eab_key_id = "k"
eab_hmac = "m"
[auth]
scram_sha1 = true
smtp_channel_binding = true
[oauth]
introspection_url = "https://login.example.org/introspect"
client_id = "mail"
client_secret_file = "oauth.secret"
issuer = "https://login.example.org"
audience = "mail"
scope = "imap smtp"
user_claim = "email"
[[tls.certificate]]
cert = "c2.pem"
key = "k2.pem"
[[tls.certificate]]
cert = "c3.pem"
key = "k3.pem"
[limits]
message_size = "64MiB"
recipients = 200
[trust]
xclient = ["192.0.2.1", "2001:db8::/32", "::ffff:192.0.2.2"]
[retry]
first = "10m"
expire = "2d12h"
delay_notice = "0s"
jitter = 0
[[route]]
domain = "*"
host = "smtp.example.net"
port = 587
tls = "starttls"
username = "u"
password = "p\"w\\d"
[[route]]
domain = "example.com"
host = "192.0.2.1"
[[route]]
name = "app"
sender = "@example.org"
transport = "http"
url = "https://app.example.org/mail"
secret = "p\"ws and 16 octets"
[[route]]
domain = ".store.example"
transport = "lmtp"
host = "unix:/run/lmtp"
retry_max = "1h"
concurrency = 2
per_minute = 60
[[route]]
domain = "far.example"
transport = "mx"
tls = "encrypted"
source = ["192.0.2.1", "2001:db8::1"]
[[webhook]]
name = "orders"
url = "http://127.0.0.1:8080/events"
secret = "p\"ws and 16 octets"
events = ["bounced"]
accounts = ["@example.org"]
[tlsrpt]
send = false
contact = "tls@example.org"
organization = "Example"
[log]
level = "debug"
`

func TestParseReadsWhatIsWritten(t *testing.T) {
	c := mustParse(t, full)
	want := Default()
	want.Hostname, want.DataDir, want.ShutdownTimeout = "mail.example.org", "/srv/mail", Duration(30*time.Second)
	want.Listen = Listen{":25", Off, "[::1]:465", "127.0.0.1:0", "127.0.0.1:2993", "unix:/run/lmtp.sock"}
	want.TLS = TLS{Cert: "c.pem", Key: "k.pem", ClientCA: "users.pem", Certificates: []Certificate{{"c2.pem", "k2.pem"}, {"c3.pem", "k3.pem"}}}
	want.ACME.Enabled, want.ACME.Agreed, want.ACME.Email = true, true, "ann@example.org"
	want.ACME.Names, want.ACME.Challenge = []string{"mail.example.org", "*.example.net"}, "dns-01"
	want.ACME.DNSKeyFile, want.ACME.EABKeyID, want.ACME.EABHMAC = "dns.key", "k", "m"
	want.Auth = Auth{true, true}
	want.OAuth = OAuth{
		IntrospectionURL: "https://login.example.org/introspect", ClientID: "mail", ClientSecretFile: "oauth.secret",
		Issuer: "https://login.example.org", Audience: "mail", Scope: "imap smtp", UserClaim: "email",
	}
	want.Limits.MessageSize, want.Limits.Recipients = 64<<20, 200
	want.Trust.XCLIENT = []Network{
		Network(netip.MustParsePrefix("192.0.2.1/32")), Network(netip.MustParsePrefix("2001:db8::/32")), Network(netip.MustParsePrefix("192.0.2.2/32")),
	}
	want.Retry = Retry{Duration(10 * time.Minute), Duration(4 * time.Hour), Duration(60 * time.Hour), 0, 0}
	want.Routes = []Route{
		{Domain: "*", Transport: TransportSMTP, Host: "smtp.example.net", Port: 587, TLS: TLSRequired, Username: "u", Password: `p"w\d`},
		{Domain: "example.com", Transport: TransportSMTP, Host: "192.0.2.1", Port: 25, TLS: TLSOpportunistic},
		{Name: "app", Sender: "@example.org", Transport: TransportHTTP, Port: 25, TLS: TLSOpportunistic, URL: "https://app.example.org/mail", Secret: `p"ws and 16 octets`},
		{
			Domain: ".store.example", Transport: TransportLMTP, Host: "unix:/run/lmtp", Port: 24, TLS: TLSOpportunistic,
			RetryMax: Duration(time.Hour), Concurrency: 2, PerMinute: 60,
		},
		{Domain: "far.example", Transport: TransportMX, Port: 25, TLS: TLSEncrypted, Source: []string{"192.0.2.1", "2001:db8::1"}},
	}
	want.Webhooks = []Webhook{{
		Name: "orders", URL: "http://127.0.0.1:8080/events", Secret: `p"ws and 16 octets`, Events: []string{"bounced"}, Accounts: []string{"@example.org"},
	}}
	want.TLSReports = TLSReports{Contact: "tls@example.org", Organization: "Example"}
	want.Log.Level = "debug"
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %#v\nwant %#v", c, want)
	}
}

func TestErrorsNameLineKeyAndRemedy(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"unknown key with a near name", "[limits]\nrecipents = 3", `line 2: unknown key "limits.recipents"; did you mean "limits.recipients"?`},
		{"a key in another case", "[limits]\nRecipients = 200", `line 2: unknown key "limits.Recipients"; did you mean "limits.recipients"?`},
		{"a table in another case", "[Limits]\nrecipients = 200", `line 2: unknown key "Limits.recipients"; did you mean "limits.recipients"?`},
		{"a route's key in another case", "[[route]]\ndomain=\"*\"\nHost=\"h\"", `line 3: unknown key "route.Host"; did you mean "route.host"?`},
		{"unknown top key", "\nhostnam = \"x\"", `line 2: unknown key "hostnam"; did you mean "hostname"?`},
		{"right name, wrong table", "[retry]\nmessage_size = \"1MB\"", `line 2: unknown key "retry.message_size"; did you mean "limits.message_size"?`},
		{"right name, no table", "message_size = \"1MB\"", `line 1: unknown key "message_size"; did you mean "limits.message_size"?`},
		{"swapped letters", "[listen]\nsmpt = \":25\"", `did you mean "listen.smtp"?`},
		{"unknown table", "[limit]\nrecipients = 200", `did you mean "limits`},
		{"unknown route key", "[[route]]\ndomain=\"*\"\nhost=\"h\"\nprot=25", `line 4: unknown key "route.prot"; did you mean "route.port"?`},
		{"nothing is near", "zzzzzzzz = 1", `line 1: unknown key "zzzzzzzz"`},
		{"all unknown keys are told", "a1b2c3d4 = 1\nq9q9q9q9 = 2", "line 2: unknown key \"q9q9q9q9\""},
		{"a bad duration", "[retry]\nfirst = \"5 minutes\"", `line 2: retry.first: "5 minutes" is not a duration; write it as`},
		{"a duration without unit", "[retry]\nfirst = 300", `line 2: retry.first: a duration needs a unit`},
		{"an inline duration without unit", "retry = { first = 300 }", `line 1: retry.first: a duration needs a unit`},
		{"a negative duration", "[retry]\nfirst = \"-5m\"", `is not a duration`},
		{"a bad size", "[limits]\nmessage_size = \"50 megs\"", `line 2: limits.message_size: "50 megs" is not a size`},
		{"a size out of range", "[limits]\n\nmessage_size = \"1KB\"", `line 3: limits.message_size: 1KB is out of range: from 64KiB to 2GiB`},
		{"a number out of range", "[limits]\nrecipients = 3", `line 2: limits.recipients: 3 is out of range: from 100 to 50000`},
		{"a number as text", "[limits]\nrecipients = \"many\"", `line 2: limits.recipients: `},
		{"a text as number", "hostname = 3", `line 1: hostname: `},
		{"not a number", "[retry]\njitter = nan", `line 2: retry.jitter: NaN is out of range`},
		{"a bad address", "[listen]\nsmtp = \"2525\"", `line 2: listen.smtp: "2525" is not an address; write it as`},
		{"a bad port", "[listen]\nsmtp = \":70000\"", `line 2: listen.smtp: port "70000"`},
		{"a name to listen on", "[listen]\nsmtp = \"mail.example.org:25\"", `is not an IP address`},
		{"a socket for imap", "[listen]\nimap = \"unix:/run/imap\"", `line 2: listen.imap: "unix:/run/imap" is a unix socket; only lmtp`},
		{"a socket without path", "[listen]\nlmtp = \"unix:\"", `line 2: listen.lmtp: unix: wants the path`},
		{"half a certificate", "[tls]\ncert = \"x\"", `line 2: tls.cert: cert and key belong together`},
		{"a certificate without key", "[[tls.certificate]]\ncert = \"a\"\nkey = \"b\"\n[[tls.certificate]]\ncert = \"x\"", `tls.certificate[2].key: is empty; it wants the path`},
		{"a certificate's unknown key", "[[tls.certificate]]\ncret = \"x\"", `line 2: unknown key "tls.certificate.cret"; did you mean "tls.certificate.cert"?`},
		{"ACME without a yes", "[acme]\nenabled = true", `line 2: acme.enabled: read the authority's terms of service, then set acme.agreed to true`},
		{"ACME without address", "[acme]\nenabled = true\nagreed = true", `line 2: acme.enabled: set acme.email`},
		{"ACME for localhost", "[acme]\nenabled = true\nagreed = true\nemail = \"a@b\"", `no authority has certificates for "localhost"`},
		{"DNS-01 without key", "hostname=\"a.b\"\n[acme]\nenabled = true\nagreed = true\nemail = \"a@b\"\nchallenge = \"dns-01\"", `"dns-01" needs acme.dns_key_file`},
		{"a wildcard without DNS-01", "[acme]\nnames = [\"*.a.b\"]", `line 2: acme.names: "*.a.b" can only be had with "dns-01"`},
		{"a name twice", "[acme]\nnames = [\"a.b\", \"A.b\"]", `"A.b" stands there twice`},
		{"no name", "[acme]\nnames = [\"a b\"]", `acme.names: "a b" is not a host name`},
		{"a name that is no list", "[acme]\nnames = \"a.b\"", `line 2: acme.names: is a TOML string, but a list belongs here`},
		{"yes for true", "[acme]\nenabled = \"yes\"", `line 2: acme.enabled: is a TOML string, but true or false belongs here`},
		{"a directory in the clear", "[acme]\ndirectory = \"http://a.b\"", `it begins with https://`},
		{"half a binding", "[acme]\neab_key_id = \"x\"", `eab_key_id and eab_hmac belong together`},
		{"a challenge that is off", "[acme]\nhttp_listen = \"off\"", `"off" is not an address`},
		{"max below first", "[retry]\nfirst = \"1h\"\nmax = \"5m\"", `line 3: retry.max: 5m is out of range: from 1h to 7d`},
		{"a bad log level", "[log]\nlevel = \"loud\"", `line 2: log.level: "loud" is not known; use "debug", "info", "warn" or "error"`},
		{"a bad hostname", "hostname = \"a b\"", `line 1: hostname: "a b" is not a host name`},
		{"a route without host", "[[route]]\ndomain = \"*\"", `route[1].host: is empty; it wants the server's name`},
		{"the second route", "[[route]]\ndomain=\"*\"\nhost=\"h\"\n[[route]]\ndomain=\"b..c\"\nhost=\"h\"", `line 5: route[2].domain: "b..c" is not a host name`},
		{"two routes for one domain", "[[route]]\ndomain=\"a.b\"\nhost=\"h\"\n[[route]]\ndomain=\"A.B\"\nhost=\"h\"", `line 5: route[2].domain: there is another route`},
		{"a password in clear", "[[route]]\ndomain=\"*\"\nhost=\"h.example\"\nusername=\"u\"\npassword=\"p\"", `line 4: route[1].username: a password would travel unprotected`},
		{"a user without password", "[[route]]\ndomain=\"*\"\nhost=\"h\"\ntls=\"implicit\"\nusername=\"u\"", `needs a password`},
		{"a transport that is none", "[[route]]\ndomain=\"*\"\ntransport=\"uucp\"", `line 3: route[1].transport: "uucp" is not known; use "smtp", "lmtp", "mx", "http", "discard" or "reject"`},
		{"a host for mx", "[[route]]\ndomain=\"*\"\ntransport=\"mx\"\nhost=\"h\"", `line 3: route[1].transport: "mx" has no use for host, which is set`},
		{"a URL for smtp", "[[route]]\ndomain=\"*\"\nhost=\"h\"\nurl=\"https://x\"", `route[1].transport: "smtp" has no use for url, which is set`},
		{"a source to discard from", "[[route]]\ndomain=\"*\"\ntransport=\"discard\"\nsource=[\"192.0.2.1\"]", `"discard" has no use for source`},
		{"LMTP at the port of SMTP", "[[route]]\ndomain=\"*\"\ntransport=\"lmtp\"\nhost=\"mx.test\"\nport=25", `line 5: route[1].port: 25 is the port of SMTP, where LMTP must not be spoken; 24 is usual`},
		{"a socket for smtp", "[[route]]\ndomain=\"*\"\nhost=\"unix:/x\"", `line 3: route[1].host: "unix:/x" is a unix socket; only "lmtp" can use one`},
		{"a socket without a path", "[[route]]\ndomain=\"*\"\ntransport=\"lmtp\"\nhost=\"unix:\"", `line 4: route[1].host: "unix:" lacks the path`},
		{"TLS on a socket", "[[route]]\ndomain=\"*\"\ntransport=\"lmtp\"\nhost=\"unix:/x\"\ntls=\"starttls\"", `line 5: route[1].tls: "starttls" is of no use on a unix socket`},
		{"implicit TLS by MX", "[[route]]\ndomain=\"*\"\ntransport=\"mx\"\ntls=\"implicit\"", `line 4: route[1].tls: "implicit" is not what the hosts that DNS names speak`},
		{"a route of nobody", "[[route]]\nhost=\"h\"", `route[1].domain: is empty; it wants "*" or a domain such as "example.org", unless sender or name is set`},
		{"a domain below nothing", "[[route]]\ndomain=\".\"\nhost=\"h\"", `line 2: route[1].domain: is empty`},
		{"a sender that is none", "[[route]]\nsender=\"ann\"\nhost=\"h\"", `line 2: route[1].sender: "ann" is not a sender; write it as`},
		{"a name with a space", "[[route]]\nname=\"my relay\"\nhost=\"h\"", `line 2: route[1].name: "my relay" is not a name`},
		{"a name that is taken", "[[route]]\nname=\"mx\"\nhost=\"h\"", `line 2: route[1].name: "mx" is what commands call the hosts that DNS names`},
		{"two routes of a name", "[[route]]\nname=\"a\"\nhost=\"h\"\n[[route]]\nname=\"a\"\nhost=\"h\"", `line 5: route[2].name: there is another route with the name "a"`},
		{"two routes for a sender", "[[route]]\nsender=\"@a.b\"\nhost=\"h\"\n[[route]]\nsender=\"@A.b\"\ndomain=\"*\"\nhost=\"h\"", `line 6: route[2].domain: there is another route for "*" of @A.b`},
		{"no URL", "[[route]]\ndomain=\"*\"\ntransport=\"http\"", `route[1].url: "" is not an address to post to; write it as "https://`},
		{"a user in a URL", "[[route]]\ndomain=\"*\"\ntransport=\"http\"\nurl=\"https://u:p@x/\"", `line 4: route[1].url: an address to post to has no user`},
		{"two secrets of a route", "[[route]]\ndomain=\"*\"\ntransport=\"http\"\nurl=\"https://x/\"\nsecret=\"0123456789abcdef\"\nsecret_file=\"b\"", `line 5: route[1].secret: secret and secret_file are both set; one is enough`},
		{"a secret that is short", "[[route]]\ndomain=\"*\"\ntransport=\"http\"\nurl=\"https://x/\"\nsecret=\"short\"", `line 5: route[1].secret: has 5 octets; it needs 16 to 256`},
		{"a secret in no base64", "[[webhook]]\nname=\"a\"\nurl=\"https://x/\"\nsecret=\"whsec_*\"", `what follows "whsec_" is not base64`},
		{"a webhook without a name", "[[webhook]]\nurl=\"https://x/\"", `webhook[1].name: "" is not a name`},
		{"a webhook to nowhere", "[[webhook]]\nname=\"a\"\nurl=\"x\"", `line 3: webhook[1].url: "x" is not an address to post to`},
		{"a webhook that nobody can trust", "[[webhook]]\nname=\"a\"\nurl=\"https://x/\"", `webhook[1].secret: is empty, and so is secret_file`},
		{"an event that is none", "[[webhook]]\nname=\"a\"\nurl=\"https://x/\"\nsecret=\"0123456789abcdef\"\nevents=[\"opened\"]", `line 5: webhook[1].events: "opened" is not known`},
		{"an account that is none", "[[webhook]]\nname=\"a\"\nurl=\"https://x/\"\nsecret=\"0123456789abcdef\"\naccounts=[\"ann\"]", `line 5: webhook[1].accounts: "ann" is not an account`},
		{"two webhooks of a name", "[[webhook]]\nname=\"a\"\nurl=\"https://x/\"\nsecret=\"0123456789abcdef\"\n[[webhook]]\nname=\"A\"\nurl=\"https://x/\"\nsecret=\"0123456789abcdef\"", `line 6: webhook[2].name: there is another webhook`},
		{"a contact that is none", "[tlsrpt]\ncontact=\"ann\"", `line 2: tlsrpt.contact: "ann" is not an address`},
		{"a name to send from", "[[route]]\ndomain=\"*\"\nhost=\"h\"\nsource=[\"mail.example.org\"]", `line 4: route[1].source: "mail.example.org" is not an address of this machine`},
		{"two IPv4 addresses to send from", "[[route]]\ndomain=\"*\"\nhost=\"h\"\nsource=[\"192.0.2.1\",\"::1\",\"192.0.2.2\"]", `"192.0.2.2" is the second of its kind`},
		{"a server to ask by its name", "[dns]\nservers=[\"ns.example.org\"]", `line 2: dns.servers: "ns.example.org" is not the address of a DNS server`},
		{"a trust that is none", "[dns]\ntrust_ad=\"yes\"", `line 2: dns.trust_ad: "yes"`},
		{"two addresses of a kind to send from", "[delivery]\nsource=[\"::1\",\"2001:db8::1\"]", `line 2: delivery.source: "2001:db8::1" is the second of its kind`},
		{"a route's waits in disorder", "[[route]]\ndomain=\"*\"\nhost=\"h\"\nretry_first=\"1h\"\nretry_expire=\"10m\"", `line 5: route[1].retry_expire: 10m is out of range: from 1h to 365d`},
		{"a route's duration without unit", "[[route]]\ndomain=\"*\"\nhost=\"h\"\nretry_max=60", `line 4: route[1].retry_max: a duration needs a unit`},
		{"an issuer nowhere", "[oauth]\nclient_id = \"x\"", `oauth.introspection_url: is empty, but other keys of [oauth] are set`},
		{"a secret of nobody", "[oauth]\nintrospection_url = \"https://x\"\nclient_secret = \"x\"", `line 2: oauth.introspection_url: a client_secret is set, but no client_id`},
		{"two secrets", "[oauth]\nintrospection_url = \"https://x\"\nclient_id=\"x\"\nclient_secret=\"x\"\nclient_secret_file=\"x\"", `one is enough`},
		{"no claim", "[oauth]\nuser_claim = \"\"", `line 2: oauth.user_claim: is empty; it wants the name of a claim`},
		{"yes is not true", "[auth]\nscram_sha1 = \"yes\"", `true or false belongs here`},
		{"two passwords", "[[route]]\ndomain=\"*\"\nhost=\"h\"\ntls=\"implicit\"\nusername=\"u\"\npassword=\"p\"\npassword_file=\"f\"", `one is enough`},
		{"one route table", "[route]\ndomain=\"*\"", `route`},
		{"a key twice", "hostname = \"a\"\nhostname = \"b\"", `line 2: `},
		{"not TOML", "hostname = \n", `line 1: `},
		{"a network that is none", "[trust]\nxclient = [\"192.0.2.1\", \"192.0.2.1/24\"]", `line 2: trust.xclient: "192.0.2.1/24" is not a network; write it as`},
		{"everybody as a proxy", "[trust]\nxclient = [\"192.0.2.1\", \"0.0.0.0/0\"]", `line 2: trust.xclient: "0.0.0.0/0" is everybody`},
		{"everybody behind a proxy", "[trust]\nproxies = [\"::/0\"]", `line 2: trust.proxies: "::/0" is everybody`},
		{"one network", "[trust]\nxclient = \"192.0.2.1\"", `line 2: trust.xclient: is a TOML string, but a list of networks belongs here`},
		{"a control character", "hostname = \"a\\u0007\"", `control character`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse(strings.NewReader(tc.text))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
}

func TestErrorsNameTheFile(t *testing.T) {
	path := write(t, "postroad.toml", "hostname = \"ok\"\nx7x7x7x7 = 1\ny8y8y8y8 = 2\n")
	_, err := Load(path)
	if err == nil || strings.Count(err.Error(), path+":") != 2 || !strings.HasPrefix(err.Error(), path+":2: unknown key") {
		t.Errorf("got %v", err)
	}
	path = write(t, "postroad.toml", "hostname = \"not ok\"\n")
	if _, err := Load(path); err == nil || !strings.HasPrefix(err.Error(), path+":1: hostname: ") {
		t.Errorf("got %v", err)
	}
}

func TestNoDecoderWordsReachPeople(t *testing.T) {
	for _, text := range []string{"hostname = 3", "limits = 3", "[limits]\nrecipients = \"x\"", "[retry]\njitter = \"x\"", "[listen]\nsmtp = 25", "route = 1", "[[limits]]\nrecipients = 100", "[limits]\nrecipients = 1e3"} {
		_, err := Parse(strings.NewReader(text))
		if err == nil || strings.Contains(err.Error(), "config.") || strings.Contains(err.Error(), "type ") || strings.Contains(err.Error(), "Go ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadResolvesPathsAndReadsPasswords(t *testing.T) {
	path := write(t, "postroad.toml", `
data_dir = "data"
[tls]
cert = "c.pem"
key = "/abs/k.pem"
[listen]
lmtp = "unix:run/lmtp.sock"
[oauth]
introspection_url = "https://login.example.org/introspect"
client_id = "mail"
client_secret_file = "pw"
[[route]]
domain = "*"
host = "localhost"
username = "u"
password_file = "pw"
`)
	dir := filepath.Dir(path)
	if err := os.WriteFile(filepath.Join(dir, "pw"), []byte("s3cret word\r\nnot this\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.DataDir != filepath.Join(dir, "data") || c.TLS.Cert != filepath.Join(dir, "c.pem") || c.TLS.Key != "/abs/k.pem" || c.Listen.LMTP != Addr("unix:"+dir+"/run/lmtp.sock") {
		t.Errorf("paths: %+v", c)
	}
	if c.Routes[0].Password != "s3cret word" {
		t.Errorf("password: %q", string(c.Routes[0].Password))
	}
	if c.OAuth.ClientSecret != "s3cret word" || strings.Contains(c.String(), stars) {
		t.Errorf("secret: %q, shown in\n%s", string(c.OAuth.ClientSecret), c)
	}
	if err := c.Check(); err != nil {
		t.Errorf("a loaded configuration is not accepted: %v", err)
	}
	if again := mustParse(t, c.String()); again.Routes[0].PasswordFile != filepath.Join(dir, "pw") || again.Routes[0].Password != "" {
		t.Errorf("written: %#v", again.Routes[0])
	}
}

func TestLoadTellsWhichPasswordFileIsBad(t *testing.T) {
	path := write(t, "p.toml", "[[route]]\ndomain=\"*\"\nhost=\"localhost\"\nusername=\"u\"\npassword_file=\"none\"\n")
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "route[1].password_file: open ") || !errors.As(err, new(*Error)) {
		t.Errorf("got %v", err)
	}
	os.WriteFile(filepath.Join(filepath.Dir(path), "none"), []byte("\nx"), 0o600)
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "begins with an empty line") {
		t.Errorf("got %v", err)
	}
}

func TestWriteRoundTrips(t *testing.T) {
	c := mustParse(t, full)
	again := mustParse(t, c.String())
	if again.Routes[0].Password != stars {
		t.Errorf("password shown as %q", string(again.Routes[0].Password))
	}
	again.Routes[0].Password, again.ACME.EABHMAC = c.Routes[0].Password, c.ACME.EABHMAC
	again.Routes[2].Secret, again.Webhooks[0].Secret = c.Routes[2].Secret, c.Webhooks[0].Secret
	if !reflect.DeepEqual(c, again) {
		t.Errorf("got  %#v\nwant %#v", again, c)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	c := mustParse(t, full)
	j, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{c.String(), fmt.Sprintf("%v %+v %#v %v %+v", c, c, c, c.Routes, c.Webhooks), string(j)} {
		if strings.Contains(shown, `p"w`) || strings.Contains(shown, `p\"w`) {
			t.Errorf("the password is shown: %s", shown)
		}
	}
}

func TestSampleIsTheDefaultWithEveryKey(t *testing.T) {
	var b bytes.Buffer
	if err := WriteSample(&b); err != nil {
		t.Fatal(err)
	}
	if c := mustParse(t, b.String()); !reflect.DeepEqual(c, Default()) {
		t.Error("the sample is not the default")
	}
	c := mustParse(t, regexp.MustCompile(`(?m)^#(\S)`).ReplaceAllString(b.String(), "$1"))
	if len(c.Routes) != 1 || c.Routes[0].Domain != "*" {
		t.Errorf("routes: %#v", c.Routes)
	}
	if len(c.TLS.Certificates) != 1 || c.TLS.Certificates[0].Cert != "example.org.pem" {
		t.Errorf("certificates: %#v", c.TLS.Certificates)
	}
	if len(c.Webhooks) != 1 || c.Webhooks[0].Name != "orders" {
		t.Errorf("webhooks: %#v", c.Webhooks)
	}
	c.Routes, c.TLS.Certificates, c.Webhooks = nil, nil, nil
	if !reflect.DeepEqual(c, Default()) {
		t.Errorf("the sample without its marks is not the default: %#v", c)
	}
}

// The table and the structs are two lists of the same keys.
func TestTheTableHoldsEveryField(t *testing.T) {
	inTable := map[string]bool{}
	for _, k := range keys() {
		inTable[k] = true
	}
	var walk func(typ reflect.Type, prefix string)
	walk = func(typ reflect.Type, prefix string) {
		for f := range typ.Fields() {
			if !f.IsExported() {
				continue
			}
			key := joinKey(prefix, f.Tag.Get("toml"))
			if !inTable[key] {
				t.Errorf("%s of %s is not in the table", key, f.Name)
			}
			delete(inTable, key)
			switch {
			case f.Type.Kind() == reflect.Struct:
				walk(f.Type, key)
			case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
				walk(f.Type.Elem(), key)
			}
		}
	}
	walk(reflect.TypeFor[Config](), "")
	for k := range inTable {
		t.Errorf("%s is in the table but not in Config", k)
	}
}

func TestEverySettingIsDocumented(t *testing.T) {
	var c Config
	for _, sec := range c.kinds() {
		for _, s := range sec.settings {
			if s.doc == "" {
				t.Errorf("%s has no documentation", joinKey(sec.name, s.key))
			}
		}
	}
}

// The manual is written by WriteManual: POSTROAD_WRITE_DOCS=1 go test ./internal/config
func TestTheManualIsThisTable(t *testing.T) {
	var b bytes.Buffer
	if err := WriteManual(&b); err != nil {
		t.Fatal(err)
	}
	const path = "../../docs/config.md"
	if os.Getenv("POSTROAD_WRITE_DOCS") != "" {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, b.Bytes()) {
		t.Error("docs/config.md is not what the table says; write it with POSTROAD_WRITE_DOCS=1 go test ./internal/config")
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "90s": 90 * time.Second, "5m": 5 * time.Minute, "1h30m": 90 * time.Minute,
		"5d": 120 * time.Hour, "1d12h": 36 * time.Hour, "250ms": 250 * time.Millisecond,
	} {
		if d, err := ParseDuration(text); err != nil || d != want {
			t.Errorf("%q: %v, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "d", "5", "5x", "-5m", "1.5d", "5d-3h", "99999999d", "5dd", "5d5", " 5m"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("%q is accepted as %v", text, d)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", 90 * time.Second: "1m30s", 5 * time.Minute: "5m", 4 * time.Hour: "4h", 36 * time.Hour: "1d12h",
		120 * time.Hour: "5d", 25 * time.Millisecond: "25ms", 24*time.Hour + time.Minute: "1d1m", time.Hour + time.Second: "1h0m1s",
	} {
		if got := Duration(d).String(); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "50MB": 50e6, "50 mb": 50e6, "64MiB": 64 << 20, "1kib": 1024, "2GB": 2e9, "7B": 7,
	} {
		if n, err := ParseSize(text); err != nil || n != want {
			t.Errorf("%q: %v, %v", text, n, err)
		}
	}
	for _, text := range []string{"", "MB", "-1", "1.5MB", "9223372036854775808", "9999999999GiB", "1TB", "x"} {
		if n, err := ParseSize(text); err == nil {
			t.Errorf("%q is accepted as %d", text, n)
		}
	}
	for n, want := range map[Size]string{0: "0B", 50e6: "50MB", 64 << 20: "64MiB", 1000: "1KB", 1023: "1023B"} {
		if got := n.String(); got != want {
			t.Errorf("%d: %q, want %q", int64(n), got, want)
		}
	}
}

func TestAddresses(t *testing.T) {
	for text, want := range map[string]struct {
		network, address string
		off              bool
	}{
		"off":              {"tcp", "off", true},
		"127.0.0.1:25":     {"tcp", "127.0.0.1:25", false},
		"127.8.9.1:25":     {"tcp", "127.8.9.1:25", false},
		"localhost:0":      {"tcp", "localhost:0", false},
		"[::1]:25":         {"tcp", "[::1]:25", false},
		":25":              {"tcp", ":25", false},
		"0.0.0.0:25":       {"tcp", "0.0.0.0:25", false},
		"192.0.2.1:25":     {"tcp", "192.0.2.1:25", false},
		"[fe80::1%lo]:25":  {"tcp", "[fe80::1%lo]:25", false},
		"unix:/run/x.sock": {"unix", "/run/x.sock", false},
	} {
		a := Addr(text)
		err := a.Check()
		network, address := a.Network()
		if err != nil || network != want.network || address != want.address || a.IsOff() != want.off {
			t.Errorf("%q: %q %q %v, %v", text, network, address, a.IsOff(), err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("[[route]]\n[[route]]\ndomain.x=1"))
	f.Add([]byte("retry = {first = 1, max = {}}"))
	f.Add([]byte("[retry]\nfirst = \"9999999999999h\""))
	f.Add([]byte("route = [{domain=\"*\", host=\"h\"}]"))
	f.Add([]byte("route=[]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(bytes.NewReader(text))
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without words")
			}
			return
		}
		again, err := Parse(strings.NewReader(c.String()))
		if err != nil {
			t.Fatalf("what Write writes is refused: %v\n%s", err, c)
		}
		again.ACME.EABHMAC = c.ACME.EABHMAC
		for i := range c.Routes {
			again.Routes[i].Password, again.Routes[i].Secret = c.Routes[i].Password, c.Routes[i].Secret
		}
		for i := range c.Webhooks {
			again.Webhooks[i].Secret = c.Webhooks[i].Secret
		}
		if !reflect.DeepEqual(c, again) {
			t.Fatalf("round trip:\n%#v\n%#v", c, again)
		}
	})
}

func TestSolicitationClasses(t *testing.T) {
	for text, want := range map[string]string{
		`[]`:                                   "",
		`["net.example:ADV", "ADLT"]`:          "",
		`["` + strings.Repeat("a", 400) + `"]`: "",
		`["` + strings.Repeat("a", 401) + `"]`: "401 octets",
		`["net.example:ADV ADLT"]`:             "is not a solicitation class",
		`["a,b"]`:                              "is not a solicitation class",
		`[""]`:                                 "is not a solicitation class",
		`["1a"]`:                               "is not a solicitation class",
		`["a\u202eb"]`:                         "is not a solicitation class",
	} {
		_, err := Parse(strings.NewReader("[policy]\nno_soliciting = " + text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), "no_soliciting: ") || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.40s: %v", text, err)
		}
	}
}

// The examples of how mail goes out are configurations.
func TestExamplesOfDelivery(t *testing.T) {
	text, err := os.ReadFile("../../docs/delivery.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	for _, block := range examples {
		if _, err := Parse(strings.NewReader(block[1])); err != nil {
			t.Errorf("%v in\n%s", err, block[1])
		}
	}
	if len(examples) == 0 {
		t.Error("there are no examples")
	}
}
