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
	"postroad/spool"
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

// outgoing is the message of one of our own users; nil is anybody's else.
type outgoing struct {
	account account.Account  // as it was at MAIL
	sending *account.Sending // what counts against its daily limits; nil without any
}

// send begins the message of who is logged in.
func (s *session) send() (*outgoing, error) {
	if s.srv.kind != Submission {
		return nil, nil
	}
	var o outgoing
	var err error
	if o.account, err = s.srv.Accounts.ByID(s.account.ID); err != nil {
		return nil, err
	}
	o.sending, err = s.srv.Accounts.Sending(o.account, s.srv.Outgoing.Daily)
	return &o, err
}

// to counts a recipient.
func (o *outgoing) to(addr envelope.Address) error {
	if o == nil {
		return nil
	}
	return o.sending.To(addr)
}

// sentCopy begins the copy of the message that its sender keeps; nil for none.
func (s *session) sentCopy(o *outgoing) SentCopy {
	out := &s.srv.Outgoing
	if o == nil || out.SentCopy == nil || !o.account.SaveSent.Or(out.SaveSent) {
		return nil
	}
	return out.SentCopy(o.account)
}

// with is what happens in the transaction that accepts the message as msg.
func (m *message) with(msg *spool.Message) func(store.Tx) error {
	return func(tx store.Tx) error {
		if m.tx.outgoing != nil {
			if err := m.tx.outgoing.sending.Count(tx); err != nil {
				return err
			}
		}
		if m.sent != nil {
			if err := m.sent.Put(tx, m.draft.ID()); err != nil {
				return err
			}
		}
		if m.s.srv.Accepted != nil {
			m.s.srv.Accepted(tx, msg, m.tx.rcpts)
		}
		return nil
	}
}

// mayWrite holds a submission to the account's own addresses: all that it names in From, whoever the Sender is, since
// From is what people are shown; and Sender, where there is one (RFC 6409, 6.1). Who has passed a message on (Resent-From) is
// not looked at: its From is what it was, and must be the account's all the same.
func (s *session) mayWrite(h *header) error {
	if s.srv.kind != Submission {
		return nil
	}
	list, err := h.authors()
	if err != nil {
		return reply(554, "5.6.0", "%s", err) // RFC 6409, 6.3
	}
	if err := s.mayUse("From", list); err != nil || len(h.sender.bodies) == 0 {
		return err
	}
	if list, err = h.sender.addresses("Sender"); err == nil && len(list) > 1 {
		err = fmt.Errorf("the Sender field has several addresses")
	}
	if err != nil {
		return reply(554, "5.6.0", "%s", err) // RFC 6409, 6.3
	}
	return s.mayUse("Sender", list)
}

func (s *session) mayUse(field string, list []envelope.Address) error {
	for _, a := range list {
		ok, err := s.srv.Accounts.MaySend(s.account.ID, a)
		if err == nil && !ok {
			err = reply(550, "5.7.1", "the %s field says %s, and %s may not send as that", field, a, s.account.Address)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// addressField is a field that says who has written or sent a message.
type addressField struct {
	bodies []string // at most two: there may be one
	cut    bool     // one was longer than what is kept
}

func (f *addressField) take(body []byte, cut bool) {
	f.cut = f.cut || cut
	if len(f.bodies) < 2 {
		f.bodies = append(f.bodies, string(body))
	}
}

func (h *header) authors() ([]envelope.Address, error) { return h.from.addresses("From") }

// addresses reads the one field that there must be (RFC 5322, 3.6).
func (f *addressField) addresses(name string) (list []envelope.Address, err error) {
	switch {
	case len(f.bodies) == 0:
		return nil, fmt.Errorf("the message has no %s field", name)
	case len(f.bodies) > 1:
		return nil, fmt.Errorf("the message has several %s fields", name)
	case f.cut:
		return nil, fmt.Errorf("the %s field is longer than %d octets", name, fieldSize)
	}
	parser := mail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: anyCharset}}
	found, err := parser.ParseList(unfold(f.bodies[0]))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the %s field cannot be read as addresses", name)
	case len(found) == 0: // a group of nobody
		return nil, fmt.Errorf("the %s field has no address", name)
	}
	for _, each := range found {
		a, err := addrSpec(each.Address)
		if err != nil {
			return nil, fmt.Errorf("the %s field has a bad address: %w", name, err)
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
	list, err := h.authors()
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
