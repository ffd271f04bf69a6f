package postroad

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"postroad/imapd"
	"postroad/internal/account"
	"postroad/internal/control"
	"postroad/internal/envelope"
	"postroad/internal/mailbox"
	"postroad/internal/store"
)

// Domains lists the domains whose mail ends here.
func (a *Admin) Domains(ctx context.Context) ([]control.Domain, error) {
	domains, err := a.c.Accounts.Domains()
	list := make([]control.Domain, 0, len(domains))
	for _, d := range domains {
		list = append(list, control.Domain(d))
	}
	return list, adminError(err)
}

// AddDomain makes mail for a domain end here.
func (a *Admin) AddDomain(ctx context.Context, name string) (control.Domain, error) {
	if _, err := parseDomain(name); err != nil {
		return control.Domain{}, err
	}
	d, err := a.c.Accounts.AddDomain(name)
	return control.Domain(d), adminError(err)
}

// RemoveDomain removes a domain without accounts and aliases.
func (a *Admin) RemoveDomain(ctx context.Context, name string) error {
	if err := a.c.Accounts.RemoveDomain(name); err != nil {
		return adminError(err)
	}
	domain, err := parseDomain(name)
	if err == nil {
		err = adminError(a.dropKeys(domain))
	}
	return err
}

// Accounts lists accounts and what they use.
func (a *Admin) Accounts(ctx context.Context, domain string) iter.Seq2[control.Account, error] {
	return func(yield func(control.Account, error) bool) {
		list, err := a.c.Accounts.Accounts(domain)
		if err != nil {
			yield(control.Account{}, adminError(err))
			return
		}
		for _, acct := range list {
			shown, err := a.show(acct)
			if err == nil {
				err = adminError(ctx.Err())
			}
			if !yield(shown, err) || err != nil {
				return
			}
		}
	}
}

// show is an account with its use.
func (a *Admin) show(acct account.Account) (control.Account, error) {
	octets, messages, err := a.c.Mailboxes.Usage(mailbox.Owner(acct.ID))
	sent, failed := a.c.Accounts.SentToday(acct.ID)
	return control.Account{
		ID: uint64(acct.ID), Address: acct.Address.String(), Disabled: acct.Disabled, Admin: acct.Admin, AppOnly: acct.AppOnly, Created: acct.Created,
		Quota: acct.Quota.Octets, MaxMessages: acct.Quota.Messages, Octets: octets, Messages: messages, Hidden: acct.Hidden,
		SaveSent: string(acct.SaveSent), Daily: control.DailyLimits(acct.Daily), SentToday: control.SentToday(sent),
		DailyMost: control.SentToday(acct.Daily.Over(a.c.Daily)),
	}, adminError(errors.Join(err, failed))
}

// Account returns one account.
func (a *Admin) Account(ctx context.Context, address string) (control.Account, error) {
	_, acct, err := a.owner(address)
	if err != nil {
		return control.Account{}, err
	}
	return a.show(acct)
}

// AddAccount makes an account and its mailboxes in one transaction.
func (a *Admin) AddAccount(ctx context.Context, n control.NewAccount) (control.Account, error) {
	addr, err := parseAddress(n.Address)
	if err != nil {
		return control.Account{}, err
	}
	if n.Quota < 0 || n.MaxMessages < 0 {
		return control.Account{}, control.Errorf(control.Invalid, "a quota cannot be negative")
	}
	acct, err := a.c.Accounts.Add(addr, n.Password, func(tx store.Tx, acct account.Account) error {
		return a.c.Mailboxes.CreateDefaults(tx, mailbox.Owner(acct.ID))
	})
	if err == nil && n.Quota+n.MaxMessages > 0 {
		acct, err = a.c.Accounts.Set(addr, account.Settings{Octets: &n.Quota, Messages: &n.MaxMessages})
	}
	if err != nil {
		return control.Account{}, adminError(err)
	}
	return a.show(acct)
}

// SetPassword replaces an account's password.
func (a *Admin) SetPassword(ctx context.Context, c control.Credential) error {
	addr, err := parseAddress(c.Address)
	if err != nil {
		return err
	}
	return adminError(a.c.Accounts.SetPassword(addr, c.Password))
}

// SetDisabled says whether an account may log in.
func (a *Admin) SetDisabled(ctx context.Context, c control.SetDisabled) error {
	addr, err := parseAddress(c.Address)
	if err != nil {
		return err
	}
	return adminError(a.c.Accounts.SetDisabled(addr, c.Disabled))
}

// SetAccount changes an account's settings.
func (a *Admin) SetAccount(ctx context.Context, c control.SetAccount) (control.Account, error) {
	addr, err := parseAddress(c.Address)
	if err != nil {
		return control.Account{}, err
	}
	if err := hideable(c.Hide); err != nil {
		return control.Account{}, err
	}
	acct, err := a.c.Accounts.Set(addr, account.Settings{
		Octets: c.Quota, Messages: c.MaxMessages, Admin: c.Admin, AppOnly: c.AppOnly, Hide: c.Hide, Show: c.Show,
		SaveSent: (*account.Switch)(c.SaveSent), Daily: account.OwnAllowance(c.Daily),
	})
	if err != nil {
		return control.Account{}, adminError(err)
	}
	return a.show(acct)
}

// AppPasswords lists an account's app passwords.
func (a *Admin) AppPasswords(ctx context.Context, address string) ([]control.AppPassword, error) {
	addr, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	list, err := a.c.Accounts.AppPasswords(addr)
	shown := make([]control.AppPassword, 0, len(list))
	for _, p := range list {
		shown = append(shown, a.showAppPassword(p))
	}
	return shown, adminError(err)
}

func (a *Admin) showAppPassword(p account.AppPassword) control.AppPassword {
	shown := control.AppPassword{
		Name: p.Name, Protocols: p.Protocols, Created: p.Created, Expires: p.Expires,
		Expired: !p.Expires.IsZero() && !a.c.Now().Before(p.Expires), Used: p.Used.At, UsedFor: p.Used.Protocol,
	}
	switch {
	case p.Used.From.IsValid():
		shown.UsedFrom = p.Used.From.String()
	case !p.Used.At.IsZero():
		shown.UsedFrom = "this machine"
	}
	return shown
}

// AddAppPassword gives an account one more password.
func (a *Admin) AddAppPassword(ctx context.Context, n control.NewAppPassword) (control.MadeAppPassword, error) {
	addr, err := parseAddress(n.Address)
	if err != nil {
		return control.MadeAppPassword{}, err
	}
	p := account.AppPassword{Name: n.Name, Protocols: n.Protocols}
	if len(p.Protocols) == 0 {
		p.Protocols = []string{account.IMAP, account.SMTP}
	}
	if n.Lifetime != 0 {
		p.Expires = a.c.Now().Add(time.Duration(n.Lifetime))
	}
	made, text, err := a.c.Accounts.AddAppPassword(addr, p)
	return control.MadeAppPassword{AppPassword: a.showAppPassword(made), Password: text}, adminError(err)
}

// RevokeAppPassword takes an app password back.
func (a *Admin) RevokeAppPassword(ctx context.Context, n control.AppPasswordName) error {
	addr, err := parseAddress(n.Address)
	if err != nil {
		return err
	}
	return adminError(a.c.Accounts.RevokeAppPassword(addr, n.Name))
}

// hideable says Invalid when IMAP has no such capability, or none that can be hidden.
func hideable(names []string) error {
	list := imapd.Hideable()
	for _, name := range names {
		if !slices.Contains(list, strings.ToUpper(name)) {
			return control.Errorf(control.Invalid, "%q is not a capability that can be hidden", name).
				WithHint("there are %s", strings.Join(list, ", "))
		}
	}
	return nil
}

// RemoveAccount removes an account with its mail, in this order:
//
//	disable         nobody logs in any more
//	mailboxes       in steps; interrupted, the command can be given again
//	account         no mail arrives any more
//	mailboxes       what arrived meanwhile
func (a *Admin) RemoveAccount(ctx context.Context, address string) error {
	owner, acct, err := a.owner(address)
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return a.c.Accounts.SetDisabled(acct.Address, true) },
		func() error { return a.c.Mailboxes.RemoveAll(ctx, owner) },
		func() error { return a.c.Accounts.Remove(acct.Address, nil) },
		func() error { return a.c.Mailboxes.RemoveAll(context.WithoutCancel(ctx), owner) },
	} {
		if err := step(); err != nil {
			return adminError(fmt.Errorf("remove %s: %w", acct.Address, err))
		}
	}
	return nil
}

// Aliases lists aliases.
func (a *Admin) Aliases(ctx context.Context, domain string) iter.Seq2[control.Alias, error] {
	list, err := a.c.Accounts.Aliases(domain)
	return shown(showAlias, list, err)
}

func showAlias(al account.Alias) control.Alias {
	return control.Alias{Address: orDomain(al.Address), Targets: texts(al.Targets)}
}

// AddAlias adds targets to an alias.
func (a *Admin) AddAlias(ctx context.Context, c control.Alias) (control.Alias, error) {
	addr, targets, err := parseAlias(c)
	if err != nil {
		return control.Alias{}, err
	}
	a.aliases.Lock()
	defer a.aliases.Unlock()
	old, err := a.alias(addr)
	if err != nil && !errors.Is(err, control.NotFound) {
		return control.Alias{}, err
	}
	all := old.Targets
	for _, t := range targets {
		if !slices.Contains(all, t) {
			all = append(all, t)
		}
	}
	al, err := a.c.Accounts.SetAlias(addr, all)
	if err != nil {
		return control.Alias{}, adminError(err)
	}
	v := showAlias(al)
	v.Nowhere = a.nowhere(al.Targets)
	return v, nil
}

// nowhere returns those of some addresses that are ours and lead to nobody.
func (a *Admin) nowhere(list []envelope.Address) (unknown []string) {
	for _, addr := range list {
		if _, err := a.c.Accounts.Resolve(addr); errors.Is(err, account.ErrUnknown) {
			unknown = append(unknown, addr.String())
		}
	}
	return unknown
}

// RemoveAlias takes targets from an alias, or all of it.
func (a *Admin) RemoveAlias(ctx context.Context, c control.Alias) error {
	addr, targets, err := parseAlias(c)
	if err != nil {
		return err
	}
	a.aliases.Lock()
	defer a.aliases.Unlock()
	old, err := a.alias(addr)
	if err != nil {
		return err
	}
	rest := old.Targets
	for _, t := range targets {
		i := slices.Index(rest, t)
		if i < 0 {
			return control.Errorf(control.NotFound, "%s does not lead to %s", c.Address, t)
		}
		rest = slices.Delete(slices.Clone(rest), i, i+1)
	}
	if len(targets) == 0 || len(rest) == 0 {
		return adminError(a.c.Accounts.RemoveAlias(addr))
	}
	_, err = a.c.Accounts.SetAlias(addr, rest)
	return adminError(err)
}

// alias returns the alias at an address.
func (a *Admin) alias(addr envelope.Address) (account.Alias, error) {
	list, err := a.c.Accounts.Aliases(addr.Domain)
	if err != nil {
		return account.Alias{}, adminError(err)
	}
	for _, al := range list {
		if al.Address == addr.Canonical() {
			return al, nil
		}
	}
	return account.Alias{}, control.Errorf(control.NotFound, "there is no alias %s", showAlias(account.Alias{Address: addr}).Address)
}

// parseAlias reads an alias's addresses; "@domain" is the catch-all.
func parseAlias(c control.Alias) (addr envelope.Address, targets []envelope.Address, err error) {
	if addr, err = parseOrDomain(c.Address); err != nil {
		return addr, nil, err
	}
	targets, err = parseCanonical(c.Targets)
	return addr, targets, err
}
