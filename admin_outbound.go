package postroad

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"postroad/delivery"
	"postroad/internal/account"
	"postroad/internal/control"
	"postroad/internal/envelope"
	"postroad/spool"
)

// What an administrator orders of mail that goes out.

// HoldQueue keeps recipients until they are released.
func (a *Admin) HoldQueue(ctx context.Context, h control.HoldQueue) (control.Changed, error) {
	return a.changeQueue(ctx, h.QueueFilter, func(ctx context.Context, f spool.Filter, by string) (int, error) {
		return a.c.Spool.Hold(ctx, f, by, envelope.Sanitize(h.Reason, 200))
	})
}

// ExpireQueue gives recipients up as if their time had ended.
func (a *Admin) ExpireQueue(ctx context.Context, f control.QueueFilter) (control.Changed, error) {
	return a.changeQueue(ctx, f, a.c.Runner.Expire)
}

// BounceQueue returns recipients to their senders.
func (a *Admin) BounceQueue(ctx context.Context, b control.BounceQueue) (control.Changed, error) {
	return a.changeQueue(ctx, b.QueueFilter, func(ctx context.Context, f spool.Filter, by string) (int, error) {
		return a.c.Runner.Bounce(ctx, f, by, b.Reason)
	})
}

// configuredRoute in an order takes back the route that was chosen for a recipient.
const configuredRoute = "default"

// RerouteQueue sends recipients by another route.
func (a *Admin) RerouteQueue(ctx context.Context, r control.RerouteQueue) (control.Changed, error) {
	route := r.Route
	switch {
	case route == configuredRoute:
		route = ""
	case route == "" || !a.c.Runner.HasRoute(route):
		return control.Changed{}, a.noRoute(route)
	}
	return a.changeQueue(ctx, r.QueueFilter, func(ctx context.Context, f spool.Filter, by string) (int, error) {
		return a.c.Spool.Reroute(ctx, f, by, route)
	})
}

func (a *Admin) noRoute(name string) error {
	known := append([]string{"mx", configuredRoute}, a.c.Runner.RouteNames()...)
	for i := range known {
		known[i] = fmt.Sprintf("%q", known[i])
	}
	return control.Errorf(control.NotFound, "there is no route %q", name).WithHint(
		"there are %s; routes stand in the configuration file", strings.Join(known, ", "))
}

// EditQueue changes what messages need of TLS.
func (a *Admin) EditQueue(ctx context.Context, e control.EditQueue) (control.Changed, error) {
	var require, optional bool
	switch e.TLS {
	case "require":
		require = true
	case "optional":
		optional = true
	case "default":
	default:
		return control.Changed{}, control.Errorf(control.Invalid, "%q is not a need of TLS; use require, optional or default", e.TLS)
	}
	return a.changeQueue(ctx, e.QueueFilter, func(ctx context.Context, f spool.Filter, by string) (int, error) {
		return a.c.Spool.EditTLS(ctx, f, by, require, optional)
	})
}

// running reports whether a server is at work on the data directory.
func (a *Admin) running() bool { return !a.c.Started.IsZero() }

// mostExplained bounds an explanation.
const mostExplained = 100

// ExplainQueue says why the recipients of a message are not yet delivered.
func (a *Admin) ExplainQueue(ctx context.Context, id string) (control.Explanation, error) {
	parsed, err := parseID(id)
	if err != nil {
		return control.Explanation{}, err
	}
	e, err := a.c.Spool.Get(parsed)
	if err != nil {
		return control.Explanation{}, adminError(err)
	}
	few := e.Recipients[:min(len(e.Recipients), mostExplained)]
	x := control.Explanation{ID: e.Message.ID.String(), More: len(e.Recipients) - len(few), Recipients: make([]control.RecipientExplanation, len(few))}
	for i := range few {
		x.Recipients[i] = a.explain(&e.Message, &few[i])
	}
	return x, nil
}

func (a *Admin) explain(m *spool.Message, r *spool.Recipient) control.RecipientExplanation {
	x := control.RecipientExplanation{QueueRecipient: a.showRecipient(m, r)}
	for _, words := range a.c.Runner.Explain(m, r, a.running()) {
		x.Why = append(x.Why, text(words))
	}
	if !x.Local && !x.List {
		d, _ := a.c.Runner.Destination(a.c.Runner.DestinationOf(m, r))
		if d.Key == "" { // nothing is known of it
			d.Key = a.c.Runner.DestinationOf(m, r)
		}
		shown := a.showDestination(d)
		if s, ok := a.c.Runner.Suspension(m, r); ok {
			suspend(&shown, s)
		}
		if route, _ := a.c.Runner.RouteOf(m, r); route == nil || route.Kind == delivery.MX {
			shown.TLS = a.tlsWords(r.To)
		}
		x.Destination = &shown
	}
	return x
}

// tlsWords tell what is stored of the TLS of an address' domain.
func (a *Admin) tlsWords(to envelope.Address) (words []string) {
	ascii, _ := to.ASCII()
	s, err := a.c.TLS.Show(ascii.Domain)
	if err != nil {
		return []string{text("what is known of its TLS cannot be read: " + err.Error())}
	}
	if sts := stsWords(s.STS); sts != "" {
		words = append(words, "MTA-STS policy: "+sts)
	}
	if memory := memoryWords(s.Memory); memory != "" {
		words = append(words, memory)
	}
	return words
}

func (a *Admin) showDestination(d delivery.Destination) control.Destination {
	shown := control.Destination{
		Name: d.Key, Route: d.Route, Waiting: d.Waiting, Active: d.Active, Limit: d.Limit, Idle: d.Idle, PerMinute: d.PerMinute,
		DeadSince: d.DeadSince, DeadUntil: d.DeadUntil, Probing: d.Probing,
	}
	if d.Last != (envelope.Reply{}) {
		shown.Reply, shown.ReplyAt = text(d.Last.String()), d.Last.At
	}
	if d.Next.After(a.c.Now()) {
		shown.Throttled = d.Next
	}
	if s, ok := a.c.Rules.Suspended(strings.TrimPrefix(d.Key, "suspended ")); ok {
		suspend(&shown, s)
	}
	return shown
}

func suspend(d *control.Destination, s delivery.Suspension) {
	d.Name, d.Suspended, d.Reason, d.SuspendedBy = s.Destination, s.Since, s.Reason, s.By
}

// Destinations lists those of which something is known.
func (a *Admin) Destinations(_ context.Context, name string) iter.Seq2[control.Destination, error] {
	return func(yield func(control.Destination, error) bool) {
		if name != "" {
			var err error
			if name, err = a.destinationName(name); err != nil {
				yield(control.Destination{}, err)
				return
			}
		}
		for _, d := range a.destinations(name) {
			if !yield(d, nil) {
				return
			}
		}
	}
}

// destinations are those of a name, or all when it is empty: first those that are suspended.
func (a *Admin) destinations(name string) (list []control.Destination) {
	for _, s := range a.c.Rules.Suspensions() {
		if name == "" || s.Destination == name {
			var d control.Destination
			suspend(&d, s)
			list = append(list, d)
		}
	}
	stopped := len(list)
	for _, d := range a.c.Runner.Destinations() {
		i := slices.IndexFunc(list[:stopped], func(s control.Destination) bool { return s.Name == d.Domain || s.Name == d.Route })
		switch {
		case i >= 0: // once is enough; attempts that were under way go on
			list[i].Active += d.Active
		case !d.Suspended && (name == "" || d.Domain == name || d.Route == name):
			list = append(list, a.showDestination(d))
		}
	}
	return list
}

// destinationName reads the name of a destination: that of a route, or a domain.
func (a *Admin) destinationName(name string) (string, error) {
	if name != "mx" && a.c.Runner.HasRoute(name) {
		return name, nil
	}
	if _, suspended := a.c.Rules.Suspended(name); suspended { // of a route that is gone
		return name, nil
	}
	return parseDomain(name)
}

// SuspendDestination stops all attempts at a destination.
func (a *Admin) SuspendDestination(ctx context.Context, s control.SuspendDestination) (control.Destination, error) {
	name, err := a.destinationName(s.Name)
	if err != nil {
		return control.Destination{}, err
	}
	ours, err := a.isOurs(name)
	if err != nil {
		return control.Destination{}, err
	}
	if ours {
		return control.Destination{}, control.Errorf(control.Refused, "%s is one of our domains: mail for it goes nowhere else", name).
			WithHint("postroad hold-rule add --to-domain %s puts new mail for it on hold", name)
	}
	suspension, err := a.c.Rules.Suspend(name, s.Reason, control.Caller(ctx))
	if err != nil {
		return control.Destination{}, adminError(err)
	}
	a.c.Runner.Reconsider()
	var d control.Destination
	suspend(&d, suspension)
	return d, nil
}

func (a *Admin) isOurs(domain string) (bool, error) {
	domains, err := a.c.Accounts.Domains()
	return slices.ContainsFunc(domains, func(d account.Domain) bool { return d.Name == domain }), adminError(err)
}

// ResumeDestination ends a suspension, and makes what waits due.
func (a *Admin) ResumeDestination(ctx context.Context, name string) (c control.Changed, err error) {
	name, err = a.destinationName(name)
	if err != nil {
		return c, err
	}
	if _, err := a.c.Rules.Resume(name); err != nil {
		return c, adminError(err)
	}
	defer a.c.Runner.Reconsider()
	c.Recipients, err = a.c.Spool.Retry(ctx, spool.Filter{Choose: a.goesTo(name)}, control.Caller(ctx))
	return c, adminError(err)
}

// goesTo chooses the recipients of a destination.
func (a *Admin) goesTo(name string) func(*spool.Message, *spool.Recipient) bool {
	return func(m *spool.Message, r *spool.Recipient) bool { return a.c.Runner.GoesTo(m, r, name) }
}

// ForgetDestination forgets what was learned of a destination.
func (a *Admin) ForgetDestination(ctx context.Context, name string) error {
	name, err := a.destinationName(name)
	if err != nil {
		return err
	}
	a.c.Runner.Forget(name)
	_, err = a.c.Spool.Retry(ctx, spool.Filter{State: spool.Deferred.String(), Choose: a.goesTo(name)}, control.Caller(ctx))
	return adminError(err)
}

// HoldRules lists the rules by which new mail is put on hold.
func (a *Admin) HoldRules(context.Context) iter.Seq2[control.HoldRule, error] {
	return func(yield func(control.HoldRule, error) bool) {
		for _, h := range a.c.Rules.Holds() {
			if !yield(showHoldRule(h), nil) {
				return
			}
		}
	}
}

func showHoldRule(h delivery.HoldRule) control.HoldRule {
	return control.HoldRule{
		Number: h.Number, Sender: h.Sender, Recipient: h.Recipient, Account: h.Account, Reason: h.Reason, Since: h.Since, By: h.By,
	}
}

// AddHoldRule makes a rule.
func (a *Admin) AddHoldRule(ctx context.Context, h control.HoldRule) (made control.HoldRule, err error) {
	rule := delivery.HoldRule{Reason: h.Reason, By: control.Caller(ctx)}
	if rule.Sender, err = pattern(h.Sender); err != nil {
		return made, err
	}
	if rule.Recipient, err = pattern(h.Recipient); err != nil {
		return made, err
	}
	if rule.Recipient == "<>" {
		return made, control.Errorf(control.Invalid, "%q is no recipient", rule.Recipient)
	}
	if h.Account != "" {
		acct, err := a.account(h.Account)
		if err != nil {
			return made, err
		}
		rule.Account = acct.Address.String()
	}
	rule, err = a.c.Rules.AddHold(rule)
	return showHoldRule(rule), adminError(err)
}

// RemoveHoldRule removes a rule.
func (a *Admin) RemoveHoldRule(_ context.Context, number uint64) error {
	return adminError(a.c.Rules.RemoveHold(number))
}

// account returns the account of an address.
func (a *Admin) account(address string) (account.Account, error) {
	addr, err := parseAddress(address)
	if err != nil {
		return account.Account{}, err
	}
	acct, err := a.c.Accounts.Get(addr)
	return acct, adminError(err)
}

// Suppressions lists the addresses that accounts' mail is not sent to.
func (a *Admin) Suppressions(_ context.Context, address string) iter.Seq2[control.Suppression, error] {
	return func(yield func(control.Suppression, error) bool) {
		accounts, err := a.accounts(address)
		for _, acct := range accounts {
			var all []account.Suppression
			if all, err = a.c.Accounts.Suppressions(acct.ID); err != nil {
				break
			}
			for _, s := range all {
				if !yield(showSuppression(acct, s), nil) {
					return
				}
			}
		}
		if err != nil {
			yield(control.Suppression{}, adminError(err))
		}
	}
}

// accounts returns the account of an address, or all when it is empty.
func (a *Admin) accounts(address string) ([]account.Account, error) {
	if address == "" {
		return a.c.Accounts.Accounts("")
	}
	acct, err := a.account(address)
	if err != nil {
		return nil, err
	}
	return []account.Account{acct}, nil
}

func showSuppression(acct account.Account, s account.Suppression) control.Suppression {
	return control.Suppression{
		Account: acct.Address.String(), Address: s.Address.String(), Since: s.Since, Until: s.Until, Reply: text(s.Reply), By: s.By,
	}
}

// AddSuppression enters an address into an account's list.
func (a *Admin) AddSuppression(ctx context.Context, n control.NewSuppression) (made control.Suppression, err error) {
	acct, err := a.account(n.Account)
	if err != nil {
		return made, err
	}
	to, err := parseAddress(n.Address)
	if err != nil {
		return made, err
	}
	s := account.Suppression{Address: to, Reply: envelope.Sanitize(n.Reason, 200), By: cmp.Or(control.Caller(ctx), "admin")}
	if n.For > 0 {
		s.Until = a.c.Now().Add(time.Duration(n.For))
	}
	s, err = a.c.Accounts.AddSuppression(acct.ID, s)
	return showSuppression(acct, s), adminError(err)
}

// RemoveSuppression takes an address from an account's list.
func (a *Admin) RemoveSuppression(_ context.Context, s control.Suppression) error {
	acct, err := a.account(s.Account)
	if err != nil {
		return err
	}
	to, err := parseAddress(s.Address)
	if err != nil {
		return err
	}
	return adminError(a.c.Accounts.RemoveSuppression(acct.ID, to))
}

// mostTrouble bounds the destinations that Status names.
const mostTrouble = 20

// inTrouble are the destinations that are suspended, and of those that cannot be reached the ones with most in memory.
func (a *Admin) inTrouble() (suspended, trouble []control.Destination) {
	for _, d := range a.destinations("") {
		switch {
		case !d.Suspended.IsZero():
			suspended = append(suspended, d)
		case !d.DeadSince.IsZero():
			trouble = append(trouble, d)
		}
	}
	slices.SortStableFunc(trouble, func(x, y control.Destination) int {
		return cmp.Or(cmp.Compare(y.Waiting, x.Waiting), x.DeadSince.Compare(y.DeadSince))
	})
	return suspended, trouble[:min(len(trouble), mostTrouble)]
}
