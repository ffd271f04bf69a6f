package postroad

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"postroad/internal/account"
	"postroad/internal/control"
	"postroad/internal/mailauth"
)

// DKIMKeys lists the keys that sign the mail of a domain, and those that did or will.
func (a *Admin) DKIMKeys(ctx context.Context, domain string) iter.Seq2[control.DKIMKey, error] {
	var list []mailauth.Key
	domain, err := dkimDomain(domain)
	if err == nil {
		list, err = a.c.Keys.List(domain)
	}
	return shown(showKey, list, err)
}

// dkimDomain reads a domain; empty is all.
func dkimDomain(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	return parseDomain(s)
}

func showKey(k mailauth.Key) control.DKIMKey {
	return control.DKIMKey{
		Domain: k.Domain, Selector: k.Selector, Algorithm: string(k.Algorithm), Bits: k.Bits, State: string(k.State),
		Made: k.Made, Since: k.Since, Until: k.Until, Checked: k.Checked, Finding: k.Finding,
		Name: k.Name(), Record: k.Record(), Zone: k.Zone(),
	}
}

func showKeys(list []mailauth.Key, err error) ([]control.DKIMKey, error) {
	if err != nil {
		return nil, adminError(err)
	}
	all := make([]control.DKIMKey, len(list))
	for i, k := range list {
		all[i] = showKey(k)
	}
	return all, nil
}

// AddDKIMKeys makes keys, which sign once the DNS has their records.
func (a *Admin) AddDKIMKeys(ctx context.Context, n control.NewDKIMKeys) ([]control.DKIMKey, error) {
	algorithms := map[string][]mailauth.Algorithm{
		"rsa": {mailauth.RSA}, "ed25519": {mailauth.Ed25519}, "both": {mailauth.RSA, mailauth.Ed25519},
	}[n.Algorithm]
	if algorithms == nil {
		return nil, control.Errorf(control.Invalid, "%q is no algorithm: use rsa, ed25519 or both", n.Algorithm)
	}
	domain, err := a.ourDomain(n.Domain)
	if err != nil {
		return nil, err
	}
	return showKeys(a.c.Keys.Add(domain, n.Selector, algorithms...))
}

// ourDomain reads a domain of ours.
func (a *Admin) ourDomain(s string) (string, error) {
	domain, err := parseDomain(s)
	if err != nil {
		return "", err
	}
	local, err := a.c.Accounts.IsLocal(domain)
	if err == nil && !local {
		err = fmt.Errorf("%s: %w", domain, account.ErrNoDomain)
	}
	return domain, adminError(err)
}

// ImportDKIMKey takes over a key that another program has signed with.
func (a *Admin) ImportDKIMKey(ctx context.Context, i control.DKIMImport) (control.DKIMKey, error) {
	domain, err := a.ourDomain(i.Domain)
	if err != nil {
		return control.DKIMKey{}, err
	}
	k, err := a.c.Keys.Import(domain, i.Selector, []byte(i.PEM))
	return showKey(k), adminError(err)
}

// RotateDKIMKeys makes new keys in the place of those that sign.
func (a *Admin) RotateDKIMKeys(ctx context.Context, domain string) ([]control.DKIMKey, error) {
	domain, err := a.ourDomain(domain)
	if err != nil {
		return nil, err
	}
	return showKeys(a.c.Keys.Rotate(domain))
}

// CheckDKIMKeys looks for the records of keys now.
func (a *Admin) CheckDKIMKeys(ctx context.Context, domain string) ([]control.DKIMKey, error) {
	domain, err := dkimDomain(domain)
	if err != nil {
		return nil, err
	}
	return showKeys(a.c.Keys.Check(ctx, domain))
}

// ActivateDKIMKeys lets keys sign that wait for their records, once those are there, or at once.
func (a *Admin) ActivateDKIMKeys(ctx context.Context, n control.DKIMKeyName) ([]control.DKIMKey, error) {
	domain, err := parseDomain(n.Domain)
	if err != nil {
		return nil, err
	}
	return showKeys(a.c.Keys.Activate(ctx, domain, n.Selector, n.Force))
}

// RemoveDKIMKeys drops keys.
func (a *Admin) RemoveDKIMKeys(ctx context.Context, n control.DKIMKeyName) error {
	domain, err := parseDomain(n.Domain)
	if err != nil {
		return err
	}
	return adminError(a.c.Keys.Remove(domain, n.Selector))
}

// dropKeys removes the keys of a domain that is ours no more.
func (a *Admin) dropKeys(domain string) error {
	if err := a.c.Keys.Remove(domain, ""); !errors.Is(err, mailauth.ErrKeyNotFound) {
		return err
	}
	return nil
}

// dkimStatus tells whose mail is signed, and what of the keys needs a person.
func (a *Admin) dkimStatus() (s control.DKIMStatus, err error) {
	domains, err := a.c.Accounts.Domains()
	if err != nil {
		return s, err
	}
	keys, err := a.c.Keys.List("")
	if err != nil {
		return s, err
	}
	for _, d := range domains {
		has := func(state mailauth.KeyState) bool {
			return slices.ContainsFunc(keys, func(k mailauth.Key) bool { return k.Domain == d.Name && k.State == state })
		}
		switch {
		case has(mailauth.Active):
			s.Signing++
		case has(mailauth.Waiting):
			s.Waiting = append(s.Waiting, d.Name)
		default:
			s.Unsigned = append(s.Unsigned, d.Name)
		}
	}
	for _, k := range keys {
		if words := k.Trouble(a.c.Now()); words != "" {
			s.Trouble = append(s.Trouble, words)
		}
	}
	for _, list := range []*[]string{&s.Unsigned, &s.Waiting, &s.Trouble} {
		*list = (*list)[:min(len(*list), 20)]
	}
	return s, nil
}
