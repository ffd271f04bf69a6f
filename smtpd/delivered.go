package smtpd

import (
	"slices"

	"postroad/internal/account"
	"postroad/internal/envelope"
)

// A message that comes in for one address of ours says so in a Delivered-To field, which it keeps wherever it is
// forwarded. When it comes in for that address again, it is in a loop.

// deliveredField is the Delivered-To field of a message for exactly one address of ours: two must not learn of
// each other. A list has none, as delivery puts its own; what is relayed has none, as it is not delivered here.
func (tx *transaction) deliveredField() string {
	if len(tx.given) != 1 || !tx.ours || tx.given[0].Domain == "" {
		return ""
	}
	return "Delivered-To: " + tx.given[0].String() + "\r\n"
}

// isOurs reports whether an address that leads to targets is one whose Delivered-To field is for us to put.
func isOurs(addr envelope.Address, targets []account.Target) bool {
	return !slices.ContainsFunc(targets, func(t account.Target) bool {
		return t.Account == 0 && t.Address.Canonical() == addr.Canonical()
	})
}

// deliveries looks in a header for Delivered-To fields of those that the message is for.
type deliveries struct {
	given []envelope.Address
	front bool                      // a server in front of us may say above all Received fields for whom it brings the message
	names map[envelope.Address]bool // them, canonical; made with the first field
	loop  bool
}

// take looks at the body of a field with so many Received fields above it. What is no address is none of ours.
func (d *deliveries) take(body []byte, received int) {
	addr, err := envelope.ParsePath(unfold(string(body)))
	if err != nil || d.loop || d.front && received == 0 {
		return
	}
	if d.names == nil {
		d.names = make(map[envelope.Address]bool, len(d.given))
		for _, a := range d.given {
			d.names[a.Canonical()] = true
		}
	}
	d.loop = d.names[addr.Canonical()]
}

// mayPost refuses a sender that may not write to a list among the targets.
func (s *session) mayPost(targets []account.Target) error {
	for _, t := range targets {
		if !t.List {
			continue
		}
		ok, err := s.srv.Accounts.MayPost(t.Address, s.tx.envelope.From)
		if err != nil {
			return err
		}
		if !ok {
			return reply(550, "5.7.2", "%s may not write to the list %s", s.tx.envelope.From.Path(), t.Address)
		}
	}
	return nil
}

// mayReturn refuses anything but a report on its way back to the sender of what we have forwarded: by that way nobody is to
// be written to.
func (s *session) mayReturn(targets []account.Target) error {
	back := func(t account.Target) bool { return t.Return }
	if !s.tx.envelope.From.IsZero() && slices.ContainsFunc(targets, back) {
		return replyReturn
	}
	return nil
}
