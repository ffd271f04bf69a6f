package account

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"postroad/internal/envelope"
	"postroad/internal/store"
)

// What one recipient may become, and how far the way there may be.
const (
	maxTargets = 1000            // addresses in the end
	maxDepth   = 10              // aliases that lead to one another
	maxSteps   = 10 * maxTargets // addresses looked at
)

// Subaddress says how a local part is taken apart into an account or alias and a detail (RFC 5233): with
// the delimiter "+", mail for user+detail is for user. The zero value takes nothing apart.
type Subaddress struct {
	Delimiter string
	Mailboxes bool // the detail is the mailbox that the mail is for
}

// split parts a local part at its first delimiter. There is no empty user.
func (s Subaddress) split(local string) (user, detail string, ok bool) {
	if s.Delimiter == "" {
		return "", "", false
	}
	user, detail, ok = strings.Cut(local, s.Delimiter)
	return user, detail, ok && user != ""
}

// Resolve follows aliases from a recipient to where its mail goes, each target once. In this order an
// address means:
//
//	an account           itself, or where it forwards its mail
//	a foreign domain     the address itself, remote
//	a domain alias       the same local part in the other domain
//	an alias, a list     as they are set; announce-owner is who owns the list announce
//	a way back           the sender of what was forwarded (SRS), for reports only
//	user+detail          what user is, with the detail carried on to what is local
//	postmaster           the oldest account (RFC 5321, 4.5.1), also without a domain
//	the catch-all        of the domain
//
// An address of ours that leads nowhere, or through a catch-all back to itself, is ErrUnknown; one that leads only back to itself, or over too many
// aliases, is ErrLoop; one that leads to too many addresses, ErrTargets.
func (d *Directory) Resolve(addr envelope.Address) (targets []Target, err error) {
	err = d.st.View(func(r store.Reader) error {
		targets, err = d.resolve(r, addr)
		return err
	})
	return targets, err
}

func (d *Directory) resolve(r store.Reader, addr envelope.Address) ([]Target, error) {
	v := resolver{r: r, sub: d.sub, back: d.back}
	return v.resolve(addr)
}

// resolver is one walk along aliases.
type resolver struct {
	r      store.Reader
	sub    Subaddress
	back   Reverser // nil for none
	owners bool     // an account is itself, wherever its mail goes

	steps    map[step]progress
	catching progress // catch-alls that are under way
	looped   bool     // an address led back to itself, through no catch-all
	targets  []Target
	found    map[Target]bool // the targets, once there are two
}

// way is how an address was come to.
type way struct {
	via    envelope.Address // the last address of ours that leads on to another; zero when there was none
	detail string           // carried on to what is local
	depth  int
	back   bool // to the sender of what we have forwarded
}

// on is the way from c, which leads on to another address.
func (w way) on(c envelope.Address, detail string) way { return way{c, detail, w.depth + 1, w.back} }

// step is an address, canonical, with the detail that is carried on.
type step struct {
	addr   envelope.Address
	detail string
}

// progress of a step that is under way is underWay and how many catch-alls were when it began.
type progress uint8

const (
	passed progress = iota + 1
	underWay
)

func (v *resolver) resolve(addr envelope.Address) ([]Target, error) {
	err := v.follow(addr, way{})
	switch {
	case err != nil:
		return nil, err
	case len(v.targets) > 0:
		return v.targets, nil
	case v.looped:
		return nil, fmt.Errorf("%s: %w", addr, ErrLoop)
	}
	return nil, unknown(addr)
}

func unknown(addr envelope.Address) error { return fmt.Errorf("%s: %w", addr, ErrUnknown) }

// follow goes on to where mail for addr goes.
func (v *resolver) follow(addr envelope.Address, w way) error {
	c := addr.Canonical()
	at := step{c, w.detail}
	switch was := v.steps[at]; {
	case was >= underWay:
		// What leads back through a catch-all is an address that nothing was set for: it leads nowhere.
		v.looped = v.looped || was == underWay+v.catching
		return nil
	case was == passed:
		return nil
	case w.depth > maxDepth:
		return fmt.Errorf("%s: %w", addr, ErrLoop)
	case len(v.steps) >= maxSteps:
		return fmt.Errorf("%s: %w", addr, ErrTargets)
	}
	if id := accountAt(v.r, c); id != 0 && !v.forwards(id) {
		return v.add(v.mailbox(id, c, w.detail)) // nearly always, so it comes before all bookkeeping
	}
	if v.steps == nil {
		v.steps = map[step]progress{}
	}
	v.steps[at] = underWay + v.catching
	err := v.lead(addr, c, w)
	v.steps[at] = passed
	return err
}

// lead is follow for an address that is not just an account. given is c as it was written.
func (v *resolver) lead(given, c envelope.Address, w way) error {
	if id := accountAt(v.r, c); id != 0 {
		return v.forward(id, c, w)
	}
	if c.Domain != "" {
		dom, ours, err := domainAt(v.r, c.Domain)
		switch {
		case err != nil:
			return err
		case !ours:
			return v.add(Target{Address: given, Via: w.via, Return: w.back})
		case dom.Alias != "":
			w.depth++
			return v.follow(envelope.Address{Local: given.Local, Domain: dom.Alias}, w)
		}
	}
	ok, err := v.set(c, w)
	if !ok && err == nil {
		ok, err = v.reverse(given, w)
	}
	if !ok && err == nil {
		ok, err = v.split(given, w)
	}
	if ok || err != nil {
		return err
	}
	return v.rest(c, w)
}

// set follows what was set for exactly this address, if anything was.
func (v *resolver) set(c envelope.Address, w way) (bool, error) {
	targets, ok, err := aliasOf(v.r, c)
	if ok {
		return true, v.followAll(targets, w.on(c, w.detail))
	}
	if err != nil {
		return false, err
	}
	if isList(v.r, c) {
		return true, v.add(Target{Address: c, List: true})
	}
	owners, ok, err := ownersAt(v.r, c)
	if ok {
		return true, v.followAll(owners, w.on(c, ""))
	}
	return false, err
}

// reverse follows an address that leads back to the sender of what we have forwarded. One that is forged or too old leads
// nowhere, whatever catches the domain's unknown addresses.
func (v *resolver) reverse(given envelope.Address, w way) (bool, error) {
	if v.back == nil {
		return false, nil
	}
	sender, ok, err := v.back.Reverse(v.r, given)
	if !ok || err != nil {
		return ok, err
	}
	w = w.on(envelope.Address{}, "")
	w.back = true
	return true, v.follow(sender, w)
}

// split takes user+detail apart and follows what user is.
func (v *resolver) split(given envelope.Address, w way) (bool, error) {
	user, detail, ok := v.sub.split(given.Local)
	if !ok {
		return false, nil
	}
	w.detail = detail
	c := envelope.Address{Local: user, Domain: given.Domain}.Canonical()
	if id := accountAt(v.r, c); id != 0 {
		return true, v.forward(id, c, w)
	}
	return v.set(c, w)
}

// rest follows what catches an address that nothing was set for.
func (v *resolver) rest(c envelope.Address, w way) error {
	if c.Local == "postmaster" {
		return v.postmaster(w)
	}
	targets, ok, err := aliasOf(v.r, envelope.Address{Domain: c.Domain})
	if err == nil && !ok {
		err = unknown(c)
	}
	if err != nil {
		return err
	}
	v.catching++
	defer func() { v.catching-- }()
	return v.followAll(targets, w.on(c, ""))
}

// postmaster is the oldest account: there is always somebody to write to.
func (v *resolver) postmaster(w way) error {
	for k := range v.r.Scan(store.NewKey("aa"), store.NewKey("aa").End()) {
		id, _ := store.TakeUint(k[2:])
		a, _, err := byID(v.r, ID(id))
		if err != nil {
			return err
		}
		return v.follow(a.Address, way{via: w.via, depth: w.depth + 1})
	}
	return unknown(envelope.Address{Local: "postmaster"})
}

// followAll follows an alias's targets. One that leads nowhere does not stop the others.
func (v *resolver) followAll(targets []envelope.Address, w way) error {
	for _, t := range targets {
		if err := v.follow(t, w); err != nil && !errors.Is(err, ErrUnknown) {
			return err
		}
	}
	return nil
}

// forwards reports whether mail for the account goes elsewhere.
func (v *resolver) forwards(id ID) bool { return !v.owners && v.r.Get(forwardKey(id)) != nil }

// forward is an account's own mailbox, or where it forwards its mail, or both.
func (v *resolver) forward(id ID, c envelope.Address, w way) error {
	var f forwardRecord
	if v.forwards(id) {
		if _, err := get(v.r, forwardKey(id), &f); err != nil {
			return err
		}
	}
	if len(f.Targets) == 0 || f.Keep {
		if err := v.add(v.mailbox(id, c, w.detail)); err != nil {
			return err
		}
	}
	targets, err := parseAll(f.Targets)
	if err != nil {
		return err
	}
	return v.followAll(targets, w.on(c, w.detail))
}

func (v *resolver) mailbox(id ID, c envelope.Address, detail string) Target {
	if !v.sub.Mailboxes {
		detail = ""
	}
	return Target{Account: id, Address: c, Mailbox: detail}
}

// add adds a target unless it is there, by whatever way.
func (v *resolver) add(t Target) error {
	key := t.key()
	switch len(v.targets) {
	case 0:
		v.targets = []Target{t}
		return nil
	case 1:
		v.found = map[Target]bool{v.targets[0].key(): true}
	case maxTargets:
		if !v.found[key] {
			return fmt.Errorf("%s: %w", t.Address, ErrTargets)
		}
	}
	if !v.found[key] {
		v.found[key] = true
		v.targets = append(v.targets, t)
	}
	return nil
}

// key is t without what tells of the way to it.
func (t Target) key() Target {
	t.Via = envelope.Address{}
	return t
}

// accountAt returns the account whose own address is c, or 0.
func accountAt(r store.Reader, c envelope.Address) ID {
	v := r.Get(nameKey(c))
	if len(v) != 8 {
		return 0
	}
	id, _ := store.TakeUint(v)
	return ID(id)
}

// MaySend reports whether the account may use addr as sender: its own address with or without a detail, the
// aliases whose mail leads to it, in domain aliases too, and what was delegated to it. That somebody
// forwards mail to it does not make their address its own. One that is disabled or removed may use none.
func (d *Directory) MaySend(id ID, addr envelope.Address) (may bool, err error) {
	err = d.st.View(func(r store.Reader) error {
		may, err = d.maySend(r, id, addr)
		return err
	})
	return may, err
}

func (d *Directory) maySend(r store.Reader, id ID, addr envelope.Address) (bool, error) {
	a, _, err := byID(r, id)
	if errors.Is(err, ErrNotFound) || err == nil && a.Disabled {
		return false, nil
	}
	if err != nil || a.Address == addr.Canonical() {
		return err == nil, err
	}
	v := resolver{r: r, sub: d.sub, owners: true}
	targets, err := v.resolve(addr)
	switch {
	case slices.ContainsFunc(targets, func(t Target) bool { return t.Account == id }):
		return true, nil
	case err == nil, errors.Is(err, ErrUnknown), errors.Is(err, ErrLoop), errors.Is(err, ErrTargets):
		return d.delegated(r, id, addr)
	}
	return false, err
}
