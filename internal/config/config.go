// Package config is the file that a server is run from: TOML, strict and complete.
//
// What is promised: a file that Parse accepts means what it says. An unknown key, a
// key that stands twice, a value of the wrong kind or out of its range is an error
// with its line and words that say what to write instead. One table, in settings.go,
// holds each setting with its documentation and its rule; what Write prints, the
// sample and the manual are made from it.
package config

import (
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Config is everything a server is run with. Default gives every field a value that
// is ready for use; the meaning and range of each is written in settings.go.
type Config struct {
	Hostname        string     `toml:"hostname"`
	DataDir         string     `toml:"data_dir"`
	ShutdownTimeout Duration   `toml:"shutdown_timeout"`
	Listen          Listen     `toml:"listen"`
	TLS             TLS        `toml:"tls"`
	ACME            ACME       `toml:"acme"`
	Auth            Auth       `toml:"auth"`
	OAuth           OAuth      `toml:"oauth"`
	Limits          Limits     `toml:"limits"`
	Policy          Policy     `toml:"policy"`
	Recipients      Recipients `toml:"recipients"`
	Submission      Submission `toml:"submission"`
	IMAP            IMAP       `toml:"imap"`
	Trust           Trust      `toml:"trust"`
	DNS             DNS        `toml:"dns"`
	Retry           Retry      `toml:"retry"`
	Delivery        Delivery   `toml:"delivery"`
	DKIM            DKIM       `toml:"dkim"`
	Forwarding      Forwarding `toml:"forwarding"`
	Routes          []Route    `toml:"route"`
	Webhooks        []Webhook  `toml:"webhook"`
	TLSReports      TLSReports `toml:"tlsrpt"`
	Trace           Trace      `toml:"trace"`
	Log             Log        `toml:"log"`
}

// Listen holds one address for each listener.
type Listen struct {
	SMTP        Addr `toml:"smtp"`
	Submission  Addr `toml:"submission"`
	Submissions Addr `toml:"submissions"`
	IMAP        Addr `toml:"imap"`
	IMAPS       Addr `toml:"imaps"`
	LMTP        Addr `toml:"lmtp"`
}

// TLS names the certificates' files; none means a self-signed one in the data
// directory.
type TLS struct {
	Cert         string        `toml:"cert"`
	Key          string        `toml:"key"`
	ClientCA     string        `toml:"client_ca"`
	Certificates []Certificate `toml:"certificate"`
}

// Auth says which ways to log in are offered beside those that always are.
type Auth struct {
	ScramSHA1          bool `toml:"scram_sha1"`
	SMTPChannelBinding bool `toml:"smtp_channel_binding"`
}

// OAuth names who issues tokens that open accounts here; without an address nobody does.
type OAuth struct {
	IntrospectionURL string `toml:"introspection_url"`
	ClientID         string `toml:"client_id"`
	ClientSecret     Secret `toml:"client_secret"`
	ClientSecretFile string `toml:"client_secret_file"`
	Issuer           string `toml:"issuer"`
	Audience         string `toml:"audience"`
	Scope            string `toml:"scope"`
	UserClaim        string `toml:"user_claim"`

	fromFile bool // ClientSecret was read from ClientSecretFile
}

// ACME says how certificates are obtained, when it is enabled.
type ACME struct {
	Enabled       bool     `toml:"enabled"`
	Agreed        bool     `toml:"agreed"`
	Email         string   `toml:"email"`
	Names         []string `toml:"names"` // none is the hostname
	Challenge     string   `toml:"challenge"`
	HTTPListen    Addr     `toml:"http_listen"`
	TLSALPNListen Addr     `toml:"tls_alpn_listen"`
	DNSServer     Addr     `toml:"dns_server"`
	DNSKeyFile    string   `toml:"dns_key_file"`
	Directory     string   `toml:"directory"`
	RootCA        string   `toml:"root_ca"`
	EABKeyID      string   `toml:"eab_key_id"`
	EABHMAC       Secret   `toml:"eab_hmac"`
}

// Certificate names the files of one more certificate, which clients get that ask for its names.
type Certificate struct {
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
}

// Limits bound what one peer, message or connection may take.
type Limits struct {
	MessageSize           Size     `toml:"message_size"`
	Recipients            int      `toml:"recipients"`
	Connections           int      `toml:"connections"`
	ConnectionsPerAddress int      `toml:"connections_per_address"`
	CommandsPerMinute     int      `toml:"commands_per_minute"`
	Errors                int      `toml:"errors"`
	Hops                  int      `toml:"hops"`
	FullMailbox           string   `toml:"full_mailbox"` // tempfail, reject
	SMTPTimeout           Duration `toml:"smtp_timeout"`
	IMAPTimeout           Duration `toml:"imap_timeout"`
}

// Policy says how those are treated who do too much, or misbehave. What is 0 is off.
type Policy struct {
	ConnectionsPerNetwork int      `toml:"connections_per_network"`
	ConnectionsPerMinute  int      `toml:"connections_per_minute"`
	MessagesPerHour       int      `toml:"messages_per_hour"`
	RecipientsPerHour     int      `toml:"recipients_per_hour"`
	RefusedPerHour        Size     `toml:"refused_per_hour"`
	ErrorsPerHour         int      `toml:"errors_per_hour"`
	AccountMessages       int      `toml:"account_messages_per_hour"`
	AccountRecipients     int      `toml:"account_recipients_per_hour"`
	GreetDelay            Duration `toml:"greet_delay"`
	Tarpit                int      `toml:"tarpit"`
	BanGuesses            int      `toml:"ban_guesses"`
	BanUnknown            int      `toml:"ban_unknown"`
	BanAbuse              int      `toml:"ban_abuse"`
	NoSoliciting          []string `toml:"no_soliciting"` // solicitation classes (RFC 3865)
}

// Trust names peers that may do what others may not.
type Trust struct {
	Networks []Network `toml:"networks"`
	Proxies  []Network `toml:"proxies"`
	XCLIENT  []Network `toml:"xclient"`
}

// Recipients says what addresses mean.
type Recipients struct {
	Delimiter     string `toml:"delimiter"`
	DetailMailbox string `toml:"detail_mailbox"` // off, existing, create
}

// Submission says how the mail of our own users goes out. A daily limit of 0 is none.
type Submission struct {
	HideClient      bool `toml:"hide_client"`
	SaveSent        bool `toml:"save_sent"`
	DailyMessages   int  `toml:"daily_messages"`
	DailyRecipients int  `toml:"daily_recipients"`
	DailyNew        int  `toml:"daily_new_recipients"`

	SuppressFor Duration `toml:"suppress_for"` // 0 is never
}

// IMAP is what IMAP clients are told of this server.
type IMAP struct {
	AdminContact string `toml:"admin_contact"` // a URI; empty is none
}

// Retry is the schedule of a recipient that was deferred.
type Retry struct {
	First       Duration `toml:"first"`
	Max         Duration `toml:"max"`
	Expire      Duration `toml:"expire"`
	DelayNotice Duration `toml:"delay_notice"` // 0 is never
	Jitter      float64  `toml:"jitter"`
}

// Delivery bounds the work of sending mail on.
type Delivery struct {
	Concurrency           int      `toml:"concurrency"`
	PerDestination        int      `toml:"per_destination"`
	PerMinute             int      `toml:"per_minute"`
	MessagesPerConnection int      `toml:"messages_per_connection"`
	ConnectTimeout        Duration `toml:"connect_timeout"`
	CommandTimeout        Duration `toml:"command_timeout"`
	TLSMemory             Duration `toml:"tls_memory"` // 0 is none
	Source                []string `toml:"source"`
}

// DNS says whom to ask.
type DNS struct {
	Servers  []string `toml:"servers"`
	TrustAD  string   `toml:"trust_ad"`
	Timeout  Duration `toml:"timeout"`
	Attempts int      `toml:"attempts"`
}

// Trace bounds what is remembered of messages.
type Trace struct {
	Age    Duration `toml:"age"`
	Events int      `toml:"events"`
}

// Log says what is logged, and how.
type Log struct {
	Level  string `toml:"level"`  // debug, info, warn, error
	Format string `toml:"format"` // text, json
}

// Load reads the configuration file at path. Relative paths in it start at the
// file's own directory, and password files are read.
func Load(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, err
	}
	defer f.Close()
	c, err := parse(f, path)
	if err != nil {
		return Config{}, err
	}
	c.resolve(filepath.Dir(path))
	return c, c.readPasswords()
}

// Parse reads a configuration; what it leaves out has its default. Paths and
// password files are left as they are written.
func Parse(r io.Reader) (Config, error) { return parse(r, "") }

// resolve makes relative paths start at dir.
func (c *Config) resolve(dir string) {
	paths := []*string{&c.DataDir, &c.TLS.Cert, &c.TLS.Key, &c.TLS.ClientCA, &c.ACME.DNSKeyFile, &c.ACME.RootCA, &c.OAuth.ClientSecretFile}
	for i := range c.TLS.Certificates {
		paths = append(paths, &c.TLS.Certificates[i].Cert, &c.TLS.Certificates[i].Key)
	}
	for i := range c.Routes {
		paths = append(paths, &c.Routes[i].PasswordFile, &c.Routes[i].SecretFile)
	}
	for i := range c.Webhooks {
		paths = append(paths, &c.Webhooks[i].SecretFile)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	c.Listen.LMTP = c.Listen.LMTP.under(dir)
	for i := range c.Routes {
		c.Routes[i].Host = string(Addr(c.Routes[i].Host).under(dir))
	}
}

// maxPasswordFile is far beyond any password, and keeps a wrong path from filling memory.
const maxPasswordFile = 64 << 10

// readPasswords puts the first line of each password file where the password belongs.
func (c *Config) readPasswords() error {
	if err := readPassword("oauth.client_secret_file", c.OAuth.ClientSecretFile, &c.OAuth.ClientSecret, &c.OAuth.fromFile); err != nil {
		return err
	}
	for i := range c.Routes {
		r := &c.Routes[i]
		if err := readPassword(arrayKey("route", i, "password_file"), r.PasswordFile, &r.Password, &r.fromFile); err != nil {
			return err
		}
		if err := readPassword(arrayKey("route", i, "secret_file"), r.SecretFile, &r.Secret, &r.secretFromFile); err != nil {
			return err
		}
	}
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		if err := readPassword(arrayKey("webhook", i, "secret_file"), w.SecretFile, &w.Secret, &w.fromFile); err != nil {
			return err
		}
	}
	return nil
}

func readPassword(key, file string, to *Secret, read *bool) error {
	if file == "" {
		return nil
	}
	line, err := firstLine(file)
	if err != nil {
		return &Error{Key: key, Text: err.Error()}
	}
	if line == "" {
		return &Error{Key: key, Text: file + " begins with an empty line; the password belongs there"}
	}
	*to, *read = Secret(line), true
	return nil
}

func firstLine(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPasswordFile))
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSuffix(line, "\r"), err
}
