package smtpd

import (
	"fmt"
	"io"
	"mime"
	"net/mail"
	"strings"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/store"
)

// Outgoing is how the mail of our own users is treated, on Submission.
type Outgoing struct {
	HideClient bool              // Received fields do not say from where the message came
	Daily      account.Allowance // what an account may send in a day, unless something else was set for it
	SaveSent   bool              // accounts keep a copy of what they send, unless something else was set for one

	// SentCopy begins the copy of a message; nil keeps none.
	SentCopy func(account.Account) SentCopy
}

// SentCopy is the copy of a message that its sender keeps.
type SentCopy interface {
	io.Writer      // takes the octets of the body, our fields included
	Finish() error // the body has come whole
	// Put adds the copy in the transaction that accepts the message. It may run again. An error refuses the message; that
	// there is no room for the copy is none.
	Put(tx store.Tx, body store.ID) error
	// Missing is why no copy was added, after the transaction; nil when one was.
	Missing() error
}

// outgoing is what of a transaction is its sender's own business.
type outgoing struct {
	account account.Account  // as it was at MAIL
	sending *account.Sending // what counts against its daily limits; nil without any
}

// send begins the message of who is logged in.
func (s *session) send() (o outgoing, err error) {
	if s.srv.kind != Submission {
		return o, nil
	}
	if o.account, err = s.srv.Accounts.ByID(s.account.ID); err != nil {
		return o, err
	}
	o.sending, err = s.srv.Accounts.Sending(o.account, s.srv.Outgoing.Daily)
	return o, err
}

// sentCopy begins the copy of the message that its sender keeps; nil for none.
func (s *session) sentCopy(o outgoing) SentCopy {
	out := &s.srv.Outgoing
	if s.srv.kind != Submission || out.SentCopy == nil || !o.account.SaveSent.Or(out.SaveSent) {
		return nil
	}
	return out.SentCopy(o.account)
}

// with is what happens in the transaction that accepts the message; nil for nothing.
func (m *message) with() func(store.Tx) error {
	sending, sent := m.tx.outgoing.sending, m.sent
	if sending == nil && sent == nil {
		return nil
	}
	return func(tx store.Tx) error {
		err := sending.Count(tx)
		if err == nil && sent != nil {
			err = sent.Put(tx, m.draft.ID())
		}
		return err
	}
}

// mayWrite holds a submission to the account's own addresses: all that it names in From, whoever the Sender is, since
// From is what people are shown; and Sender, where there is one (RFC 6409, 6.1). Who has passed a message on (Resent-From) is
// not looked at: its From is what it was, and must be the account's all the same.
func (s *session) mayWrite(h *header) error {
	if s.srv.kind != Submission {
		return nil
	}
	if err := s.mayUse(&h.from); err != nil || len(h.sender.bodies) == 0 {
		return err
	}
	return s.mayUse(&h.sender)
}

func (s *session) mayUse(f *addressField) error {
	list, err := f.addresses()
	if err != nil {
		return reply(550, "5.6.0", "%s", err)
	}
	for _, a := range list {
		ok, err := s.srv.Accounts.MaySend(s.account.ID, a)
		if err == nil && !ok {
			err = reply(550, "5.7.1", "the %s field says %s, and %s may not send as that", f.name, a, s.account.Address)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// addressField is a field that says who has written or sent a message.
type addressField struct {
	name   string
	most   int      // addresses in it; 0 is any number
	bodies []string // at most two: there may be one
	cut    bool     // one was longer than what is kept
}

func (f *addressField) take(body []byte, cut bool) {
	f.cut = f.cut || cut
	if len(f.bodies) < 2 {
		f.bodies = append(f.bodies, string(body))
	}
}

// addresses reads the one field that there must be (RFC 5322, 3.6).
func (f *addressField) addresses() (list []envelope.Address, err error) {
	switch {
	case len(f.bodies) == 0:
		return nil, fmt.Errorf("the message has no %s field", f.name)
	case len(f.bodies) > 1:
		return nil, fmt.Errorf("the message has several %s fields", f.name)
	case f.cut:
		return nil, fmt.Errorf("the %s field is longer than %d octets", f.name, fieldSize)
	}
	parser := mail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: anyCharset}}
	found, err := parser.ParseList(unfold(f.bodies[0]))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the %s field cannot be read as addresses", f.name)
	case len(found) == 0: // a group of nobody
		return nil, fmt.Errorf("the %s field has no address", f.name)
	case f.most > 0 && len(found) > f.most:
		return nil, fmt.Errorf("the %s field has several addresses", f.name)
	}
	for _, each := range found {
		a, err := addrSpec(each.Address)
		if err != nil {
			return nil, fmt.Errorf("the %s field has a bad address: %w", f.name, err)
		}
		list = append(list, a)
	}
	return list, nil
}

// leaderless reports whether several people have written the message and none of them is said to have sent it (RFC 5322,
// 3.6.2).
func (h *header) leaderless() bool {
	if len(h.sender.bodies) > 0 || len(h.from.bodies) != 1 || !strings.Contains(h.from.bodies[0], ",") {
		return false
	}
	list, err := h.from.addresses()
	return err == nil && len(list) > 1
}

// addrSpec reads an address that net/mail has taken the quotes off.
func addrSpec(s string) (envelope.Address, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return envelope.ParseAddress(s)
	}
	return envelope.ParseAddress(envelope.Address{Local: s[:at]}.String() + s[at:])
}

// anyCharset lets display names be in any charset: only the addresses matter here.
func anyCharset(_ string, r io.Reader) (io.Reader, error) { return r, nil }
