package config

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Webhook is an application that hears what becomes of mail.
type Webhook struct {
	Name       string   `toml:"name"`
	URL        string   `toml:"url"`
	Secret     Secret   `toml:"secret"`
	SecretFile string   `toml:"secret_file"`
	Events     []string `toml:"events"`   // none is all
	Accounts   []string `toml:"accounts"` // addresses, or "@domain"; none is all

	fromFile bool // Secret was read from SecretFile
}

// TLSReports says whether other servers hear what TLS we have met there.
type TLSReports struct {
	Send         bool   `toml:"send"`
	Contact      string `toml:"contact"`
	Organization string `toml:"organization"`
}

// webhookSection is the table of one webhook, bound to w.
func webhookSection(w *Webhook) section {
	return section{"webhook", `An application that is told what becomes of mail, by POST. There may be any number of webhooks.`, true, []setting{
		{"name", &w.Name, `How commands name it.`, w.checkName},
		{"url", &w.URL, `Where events are posted, as in "https://app.example.org/events".`, func() error { return checkPostURL(w.URL) }},
		{"secret", secretOf(&w.Secret, w.fromFile), `The key that signs what is posted, at least 16 octets, here ...`, w.checkSecret},
		{"secret_file", &w.SecretFile, `... or as the first line of a file.`, nil},
		{"events", &w.Events, `Which events: "accepted", "delivered", "deferred", "bounced", "suppressed", "discarded". None is all.`, w.checkEvents},
		{"accounts", &w.Accounts, `Whose messages: addresses of accounts that send, or "@example.org" for all of a domain. None is all
messages, incoming ones too.`, w.checkAccounts},
	}}
}

func (w *Webhook) checkName() error {
	if !routeName.MatchString(w.Name) {
		return fmt.Errorf("%q is not a name; it wants letters, digits, \".\", \"_\" and \"-\", at most 64", w.Name)
	}
	return nil
}

// checkPostURL holds an address to what can be posted to.
func checkPostURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return fmt.Errorf("%q is not an address to post to; write it as \"https://app.example.org/mail\"", address)
	case u.User != nil || u.Fragment != "":
		return fmt.Errorf("an address to post to has no user and no \"#\"; use secret to show who posts")
	}
	return nil
}

func (w *Webhook) checkSecret() error {
	switch {
	case w.Secret != "" && w.SecretFile != "" && !w.fromFile:
		return fmt.Errorf("secret and secret_file are both set; one is enough")
	case w.Secret == "" && w.SecretFile == "":
		return fmt.Errorf("is empty, and so is secret_file; the application tells by it that a post is ours")
	}
	return checkSigning(w.Secret)
}

// checkSigning holds a key that signs to its length. It is its own octets, or "whsec_" and base64.
func checkSigning(s Secret) error {
	if s == stars { // as the config is shown
		return nil
	}
	octets := []byte(s)
	if encoded, ok := strings.CutPrefix(string(s), "whsec_"); ok {
		var err error
		if octets, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			return fmt.Errorf("what follows \"whsec_\" is not base64")
		}
	}
	if n := len(octets); n > 0 && n < 16 || n > 256 {
		return fmt.Errorf("has %d octets; it needs 16 to 256, as \"openssl rand -hex 32\" makes them", n)
	}
	return nil
}

func (w *Webhook) checkEvents() error {
	known := []string{"accepted", "delivered", "deferred", "bounced", "suppressed", "discarded"}
	for _, e := range w.Events {
		if !slices.Contains(known, e) {
			return fmt.Errorf("%q is not known; use \"%s\"", e, strings.Join(known, `", "`))
		}
	}
	return nil
}

func (w *Webhook) checkAccounts() error {
	for _, a := range w.Accounts {
		i := strings.LastIndexByte(a, '@')
		if i < 0 || checkDomainName(a[i+1:]) != nil || strings.ContainsAny(a, "<> ") {
			return fmt.Errorf("%q is not an account; write it as \"ann@example.org\" or \"@example.org\"", a)
		}
	}
	return nil
}

// tidyWebhooks makes of lists that are empty ones that are not there.
func (c *Config) tidyWebhooks() {
	if len(c.Webhooks) == 0 {
		c.Webhooks = nil
	}
	for i := range c.Webhooks {
		for _, list := range []*[]string{&c.Webhooks[i].Events, &c.Webhooks[i].Accounts} {
			if len(*list) == 0 {
				*list = nil
			}
		}
	}
}

// sampleWebhook is the webhook of the sample.
func sampleWebhook() Webhook {
	return Webhook{
		Name: "orders", URL: "https://app.example.org/events", SecretFile: "orders.secret",
		Events: []string{"delivered", "bounced"}, Accounts: []string{"orders@example.org"},
	}
}

// checkWebhooks refuses two webhooks of a name: their events would be one's.
func (c *Config) checkWebhooks() error {
	names := map[string]bool{}
	for i, w := range c.Webhooks {
		name := strings.ToLower(w.Name)
		if names[name] {
			return &Error{Key: arrayKey("webhook", i, "name"), Text: fmt.Sprintf("there is another webhook with the name %q", w.Name)}
		}
		names[name] = true
	}
	return nil
}

// tlsReportsSection is the table of TLS reports.
func (c *Config) tlsReportsSection() section {
	t := &c.TLSReports
	return section{"tlsrpt", `Reports to domains that ask for them in DNS: how TLS went in the sessions with their mail
hosts, once a day (RFC 8460).`, false, []setting{
		{"send", &t.Send, `Whether they are sent. A server whose hostname is none of the Internet sends none.`, nil},
		{"contact", &t.Contact, `Who can be asked about them, and whom they come from: an address of a domain that we sign mail
for. Empty is postmaster at the domain of ours that the hostname is in, or else at the hostname.`, t.checkContact},
		{"organization", &t.Organization, `In whose name they are; empty is the hostname.`, nil},
	}}
}

func (t *TLSReports) checkContact() error {
	if t.Contact == "" {
		return nil
	}
	i := strings.LastIndexByte(t.Contact, '@')
	if i < 1 || checkDomainName(t.Contact[i+1:]) != nil || strings.ContainsAny(t.Contact, "<> ,;") {
		return fmt.Errorf("%q is not an address; write it as \"postmaster@example.org\"", t.Contact)
	}
	return nil
}
