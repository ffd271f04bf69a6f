package postroad

import (
	"context"
	"iter"
	"slices"

	"postroad/internal/account"
	"postroad/internal/control"
	"postroad/internal/envelope"
)

// AliasDomain makes a domain another name of one of ours.
func (a *Admin) AliasDomain(ctx context.Context, c control.DomainAlias) (control.Domain, error) {
	for _, name := range []string{c.Name, c.Of} {
		if _, err := parseDomain(name); err != nil {
			return control.Domain{}, err
		}
	}
	d, err := a.c.Accounts.AliasDomain(c.Name, c.Of)
	return control.Domain(d), adminError(err)
}

// RemoveDomainAlias removes a domain that is another name of one of ours.
func (a *Admin) RemoveDomainAlias(ctx context.Context, name string) error {
	name, err := parseDomain(name)
	if err != nil {
		return err
	}
	domains, err := a.c.Accounts.Domains()
	if err != nil {
		return adminError(err)
	}
	if !slices.ContainsFunc(domains, func(d account.Domain) bool { return d.Name == name && d.Alias != "" }) {
		return control.Errorf(control.NotFound, "%s is no domain alias", name).WithHint("see `postroad domain alias list`")
	}
	return adminError(a.c.Accounts.RemoveDomain(name))
}

// Forwards lists the accounts that send their mail on.
func (a *Admin) Forwards(ctx context.Context, domain string) iter.Seq2[control.Forward, error] {
	list, err := a.c.Accounts.Forwards(domain)
	return shown(showForward, list, err)
}

func showForward(f account.Forward) control.Forward {
	out := control.Forward{Account: f.Account.String(), Targets: texts(f.Targets)}
	if len(f.Targets) > 0 {
		out.Keep = &f.Keep
	}
	return out
}

// AddForward adds targets to where an account's mail is sent on.
func (a *Admin) AddForward(ctx context.Context, c control.Forward) (control.Forward, error) {
	return a.changeForward(c, func(f *account.Forward, targets []envelope.Address) error {
		for _, t := range targets {
			if !slices.Contains(f.Targets, t) {
				f.Targets = append(f.Targets, t)
			}
		}
		if c.Keep != nil {
			f.Keep = *c.Keep
		}
		return nil
	})
}

// RemoveForward takes targets away from there, or all.
func (a *Admin) RemoveForward(ctx context.Context, c control.Forward) (control.Forward, error) {
	return a.changeForward(c, func(f *account.Forward, targets []envelope.Address) error {
		if len(f.Targets) == 0 {
			return control.Errorf(control.NotFound, "%s does not forward its mail", f.Account)
		}
		if len(targets) == 0 {
			f.Targets = nil
		}
		for _, t := range targets {
			i := slices.Index(f.Targets, t)
			if i < 0 {
				return control.Errorf(control.NotFound, "%s does not forward its mail to %s", f.Account, t)
			}
			f.Targets = slices.Delete(f.Targets, i, i+1)
		}
		return nil
	})
}

func (a *Admin) changeForward(c control.Forward, fn func(*account.Forward, []envelope.Address) error) (control.Forward, error) {
	addr, err := parseAddress(c.Account)
	if err != nil {
		return control.Forward{}, err
	}
	targets, err := parseCanonical(c.Targets)
	if err != nil {
		return control.Forward{}, err
	}
	f, err := a.c.Accounts.ChangeForward(addr, func(f *account.Forward) error { return fn(f, targets) })
	if err != nil {
		return control.Forward{}, adminError(err)
	}
	return showForward(f), nil
}

// Delegations lists who may send as an address that is not its own.
func (a *Admin) Delegations(ctx context.Context) iter.Seq2[control.Delegation, error] {
	list, err := a.c.Accounts.Delegations()
	return shown(showDelegation, list, err)
}

func showDelegation(d account.Delegation) control.Delegation {
	return control.Delegation{As: orDomain(d.As), Delegate: d.Delegate.String()}
}

// Delegate lets an account send as an address, or as all of a domain.
func (a *Admin) Delegate(ctx context.Context, c control.Delegation) (control.Delegation, error) {
	as, delegate, err := parseDelegation(c)
	if err != nil {
		return control.Delegation{}, err
	}
	d, err := a.c.Accounts.Delegate(as, delegate)
	return showDelegation(d), adminError(err)
}

// Undelegate takes that back.
func (a *Admin) Undelegate(ctx context.Context, c control.Delegation) error {
	as, delegate, err := parseDelegation(c)
	if err != nil {
		return err
	}
	return adminError(a.c.Accounts.Undelegate(as, delegate))
}

func parseDelegation(c control.Delegation) (as, delegate envelope.Address, err error) {
	if as, err = parseOrDomain(c.As); err == nil {
		delegate, err = parseAddress(c.Delegate)
	}
	return as, delegate, err
}

// Lists lists lists.
func (a *Admin) Lists(ctx context.Context, domain string) iter.Seq2[control.List, error] {
	list, err := a.c.Accounts.Lists(domain)
	return shown(showList, list, err)
}

func showList(l account.List) control.List {
	return control.List{
		Address: l.Address.String(), Owners: texts(l.Owners), Post: string(l.Post), Title: l.Title,
		Members: l.Members, Created: l.Created,
	}
}

// List returns one list.
func (a *Admin) List(ctx context.Context, address string) (control.List, error) {
	addr, err := parseAddress(address)
	if err != nil {
		return control.List{}, err
	}
	l, err := a.c.Accounts.List(addr)
	return shownList(l, err)
}

func shownList(l account.List, err error) (control.List, error) {
	if err != nil {
		return control.List{}, adminError(err)
	}
	return showList(l), nil
}

// AddList makes a list with members.
func (a *Admin) AddList(ctx context.Context, c control.NewList) (control.List, error) {
	addr, err := parseAddress(c.Address)
	if err != nil {
		return control.List{}, err
	}
	owners, err := parseAddresses(c.Owners)
	if err != nil {
		return control.List{}, err
	}
	members, err := parseAddresses(c.Members)
	if err != nil {
		return control.List{}, err
	}
	if c.Post == "" {
		c.Post = string(account.PostMembers)
	}
	return shownList(a.c.Accounts.AddList(account.List{
		Address: addr, Owners: owners, Post: account.Poster(c.Post), Title: c.Title,
	}, members...))
}

// SetList changes a list's settings.
func (a *Admin) SetList(ctx context.Context, c control.SetList) (control.List, error) {
	addr, err := parseAddress(c.Address)
	if err != nil {
		return control.List{}, err
	}
	owners, err := parseAddresses(c.Owners)
	if err != nil {
		return control.List{}, err
	}
	return shownList(a.c.Accounts.ChangeList(addr, func(l *account.List) {
		if len(owners) > 0 {
			l.Owners = owners
		}
		if c.Post != nil {
			l.Post = account.Poster(*c.Post)
		}
		if c.Title != nil {
			l.Title = *c.Title
		}
	}))
}

// RemoveList removes a list with its members.
func (a *Admin) RemoveList(ctx context.Context, address string) error {
	addr, err := parseAddress(address)
	if err != nil {
		return err
	}
	return adminError(a.c.Accounts.RemoveList(addr))
}

// Members lists a list's members.
func (a *Admin) Members(ctx context.Context, address string) iter.Seq2[control.Member, error] {
	addr, err := parseAddress(address)
	var list []envelope.Address
	if err == nil {
		list, err = a.c.Accounts.Members(addr)
	}
	return shown(func(m envelope.Address) control.Member { return control.Member{Address: m.String()} }, list, err)
}

// AddMembers adds members to a list.
func (a *Admin) AddMembers(ctx context.Context, c control.ListMembers) (control.List, error) {
	return a.changeMembers(c, a.c.Accounts.AddMembers)
}

// RemoveMembers takes members from a list.
func (a *Admin) RemoveMembers(ctx context.Context, c control.ListMembers) (control.List, error) {
	return a.changeMembers(c, a.c.Accounts.RemoveMembers)
}

func (a *Admin) changeMembers(c control.ListMembers, fn func(envelope.Address, []envelope.Address) (account.List, error)) (control.List, error) {
	addr, err := parseAddress(c.Address)
	if err != nil {
		return control.List{}, err
	}
	members, err := parseAddresses(c.Members)
	if err != nil {
		return control.List{}, err
	}
	return shownList(fn(addr, members))
}

// shown yields what show makes of a list.
func shown[T, R any](show func(T) R, list []T, err error) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		var none R
		if err != nil {
			yield(none, adminError(err))
			return
		}
		for _, v := range list {
			if !yield(show(v), nil) {
				return
			}
		}
	}
}

func texts(list []envelope.Address) []string {
	all := make([]string, len(list))
	for i, a := range list {
		all[i] = a.String()
	}
	return all
}

// parseAddresses reads addresses that must have a domain.
func parseAddresses(list []string) ([]envelope.Address, error) {
	all := make([]envelope.Address, len(list))
	for i, s := range list {
		var err error
		if all[i], err = parseAddress(s); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// parseCanonical is parseAddresses for what is compared.
func parseCanonical(list []string) ([]envelope.Address, error) {
	all, err := parseAddresses(list)
	for i, a := range all {
		all[i] = a.Canonical()
	}
	return all, err
}

// parseOrDomain reads an address, or "@domain" for all of a domain.
func parseOrDomain(s string) (addr envelope.Address, err error) {
	if len(s) > 0 && s[0] == '@' {
		addr.Domain, err = parseDomain(s[1:])
		return addr, err
	}
	addr, err = parseAddress(s)
	return addr.Canonical(), err
}

// orDomain writes what parseOrDomain reads.
func orDomain(a envelope.Address) string {
	if a.Local == "" {
		return "@" + a.Domain
	}
	return a.String()
}
