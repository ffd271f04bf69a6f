package imapd

import (
	"errors"
	"fmt"
	"io"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/imapd/wire"
	"postroad/internal/listen"
	"postroad/internal/mailbox"
	"postroad/internal/mime"
	"postroad/internal/store"
	"postroad/internal/trace"
)

// Bounds of an APPEND of several messages (RFC 3502), which are all in memory or on disk until the last one is there.
const (
	maxAppended      = 1000
	maxAppendedSmall = 16 << 20 // octets of those that are in memory
	smallMessage     = 128 << 10
)

// append is APPEND (RFC 9051, 6.3.12), of several messages too (RFC 3502), of parts (RFC 4469) and of binary ones (RFC
// 3516, 4.4).
// What can be refused without a message is refused before it is asked for.
func (s *session) append(c *wire.Append) reply {
	to, err := s.destination(c.Mailbox)
	if err != nil {
		return s.refuse("take the message", err)
	}
	in := &incoming{session: s, to: to}
	defer in.discard()
	if err := in.receiveAll(); err != nil {
		return s.notReceived(err)
	}
	placed, err := in.commit(nil)
	if err != nil {
		return s.refuse("store the message", err)
	}
	return ok(appended(to, placed), "")
}

// appended is the APPENDUID of messages (RFC 4315, 3), unless the client may not know UIDs of that mailbox (5).
func appended(to mailbox.Mailbox, placed []mailbox.Placed) string {
	if !to.Rights.Has(mailbox.RightRead) {
		return ""
	}
	uids := roaring.New()
	for _, p := range placed {
		uids.Add(p.UID)
	}
	return fmt.Sprintf("APPENDUID %d %s", to.UIDValidity, setText(uids))
}

// An incoming is the messages of a command on their way to a mailbox.
type incoming struct {
	*session
	to       mailbox.Mailbox
	freed    int64 // octets that a message which goes gives back to the quota
	messages []mailbox.NewMessage
	octets   int64 // of all messages
	small    int64 // of those in memory
}

// A lostError is an error of the connection.
type lostError struct{ error }

// notReceived is how a command ends whose messages did not arrive.
func (s *session) notReceived(err error) reply {
	if syntax, ok := errors.AsType[*wire.SyntaxError](err); ok {
		return syntaxReply(syntax)
	}
	if lost, ok := errors.AsType[lostError](err); ok {
		s.lost(lost.error, slow)
		return reply{status: answered}
	}
	return s.refuse("take the message", err)
}

func (in *incoming) receiveAll() error {
	for {
		m, err := in.dec.NextMessage()
		if err != nil {
			return connectionError(err)
		}
		if m == nil {
			return nil
		}
		if err := in.receive(m); err != nil {
			return err
		}
	}
}

func connectionError(err error) error {
	if _, ok := errors.AsType[*wire.SyntaxError](err); ok {
		return err
	}
	return lostError{err}
}

// receive takes one message, which streams into a draft and through the scanner.
func (in *incoming) receive(m *wire.Message) error {
	if len(in.messages) == maxAppended {
		return no(codeLimit, "an APPEND takes at most %d messages", maxAppended)
	}
	draft := in.srv.Store.NewDraft()
	a := &arrival{in: in, draft: draft, scan: mime.NewScanner()}
	in.messages = append(in.messages, mailbox.NewMessage{Draft: draft, Internal: m.Date, Flags: m.Flags})
	for {
		p, err := m.NextPart()
		if err != nil {
			return connectionError(err)
		}
		if p == nil {
			break
		}
		if err := a.part(p); err != nil {
			return err
		}
	}
	if draft.Size() == 0 {
		return no("", "a message of no octets cancels the APPEND") // RFC 3502, 6.3.11
	}
	in.octets += draft.Size()
	if draft.Size() <= smallMessage {
		in.small += draft.Size()
	}
	in.messages[len(in.messages)-1].Structure = a.scan.Finish()
	return nil
}

// fits refuses octets for which there is no room, when so many of the message were taken.
func (in *incoming) fits(taken, more int64) error {
	if err := in.srv.Store.Failed(); err != nil {
		return errors.Join(store.ErrFailed, err)
	}
	switch {
	case taken+more > in.srv.Limits.MessageSize:
		return no(codeTooBig, "a message can have %d octets", in.srv.Limits.MessageSize)
	case in.small+min(taken+more, smallMessage) > maxAppendedSmall:
		return no(codeTooBig, "these are too many messages for one APPEND; send them in several")
	}
	q, err := in.srv.Mailboxes.QuotaUse(in.to.Owner)
	if err != nil {
		return err
	}
	octets := in.octets + taken + more - in.freed
	if q.Limit.Octets > 0 && octets > 0 && q.Used.Octets+octets > q.Limit.Octets {
		return mailbox.ErrOverQuota
	}
	return nil
}

// commit stores the messages, and where they came from.
func (in *incoming) commit(replaces *mailbox.Replaced) ([]mailbox.Placed, error) {
	messages := in.messages
	in.messages = nil // AppendAll has the drafts
	return in.access.AppendAll(in.to.ID, messages, replaces, func(tx store.Tx, placed []mailbox.Placed) error {
		for i := range messages {
			in.trace(tx, &messages[i], placed[i])
		}
		return nil
	})
}

func (in *incoming) trace(tx store.Tx, m *mailbox.NewMessage, p mailbox.Placed) {
	owner := in.account.Address.String()
	trace.Record(tx, m.Draft.ID(), trace.Event{
		Time:      in.srv.Now(),
		Kind:      trace.Appended,
		MessageID: m.Structure.Envelope.MessageID,
		Size:      m.Structure.Size,
		Protocol:  "IMAP",
		Peer:      listen.Peer(in.conn.raw.RemoteAddr()),
		TLS:       in.conn.tlsName(),
		Account:   owner,
		Mailbox:   owner + " " + in.to.Name,
		UID:       p.UID,
	})
}

// discard drops what was received and is not to be stored.
func (in *incoming) discard() {
	for _, m := range in.messages {
		m.Draft.Discard()
	}
}

// An arrival is a message of which parts are still to come.
type arrival struct {
	in    *incoming
	draft *store.Draft
	scan  *mime.Scanner
}

// part adds a part: octets that the client sends, or that lie here already.
func (a *arrival) part(p *wire.Part) error {
	if p.URL != "" {
		return a.paste(p.URL)
	}
	if err := a.in.fits(a.draft.Size(), p.Size); err != nil {
		return err
	}
	n, err := a.take(p, p.Size)
	if err == nil && n < p.Size {
		err = lostError{io.ErrUnexpectedEOF}
	}
	return err
}

// take copies octets through a bounded buffer. An error of reading them is one of the connection.
func (a *arrival) take(r io.Reader, size int64) (n int64, err error) {
	buf := make([]byte, min(size+1, 32<<10))
	for {
		got, failed := r.Read(buf)
		if got > 0 {
			if err := a.write(buf[:got]); err != nil {
				return n, err
			}
			n += int64(got)
		}
		switch {
		case failed == io.EOF:
			return n, nil
		case failed != nil:
			return n, lostError{failed}
		}
	}
}

func (a *arrival) write(p []byte) error {
	if _, err := a.draft.Write(p); err != nil {
		return err
	}
	_, err := a.scan.Write(p)
	return err
}
