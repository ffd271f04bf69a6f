package imapd

import (
	"crypto/tls"
	"errors"
	"io"
	"time"

	"github.com/emersion/go-imap/v2"

	"postroad/internal/mailbox"
	"postroad/internal/mime"
	"postroad/internal/store"
	"postroad/internal/trace"
)

// Append stores a message, which streams into a draft and through the scanner. The client is asked for it after
// what can be refused without it was.
func (s *session) Append(name string, r imap.LiteralReader, o *imap.AppendOptions) (*imap.AppendData, error) {
	mb, err := s.mayAppend(name, r.Size())
	if err != nil {
		s.wire.refuseLiteral()
		return nil, err
	}
	draft := s.srv.Store.NewDraft()
	defer draft.Discard()
	scan := mime.NewScanner()
	s.wire.acceptLiteral()
	if err := receive(io.MultiWriter(draft, scan), r); err != nil {
		return nil, s.refuse("take the message", err)
	}
	if err := s.wire.endLiteral(); errors.Is(err, errTrailing) {
		return nil, bad("the message must be the last of the command")
	} else if err != nil {
		return nil, s.refuse("take the message", err)
	}
	st := scan.Finish()
	placed, err := s.srv.Mailboxes.Append(mb.ID, draft, st, o.Time, fromFlags(o.Flags), s.traced(draft.ID(), st))
	if errors.Is(err, mailbox.ErrNotFound) {
		return nil, no(imap.ResponseCodeTryCreate, "there is no such mailbox")
	} else if err != nil {
		return nil, s.refuse("store the message", err)
	}
	return &imap.AppendData{UID: imap.UID(placed.UID), UIDValidity: placed.UIDValidity}, nil
}

// mayAppend refuses early what would be refused when the message is there.
func (s *session) mayAppend(name string, size int64) (mailbox.Mailbox, error) {
	mb, err := s.destination(name)
	if err != nil {
		return mb, err
	}
	if err := s.srv.Store.Failed(); err != nil {
		return mb, s.refuse("take the message", errors.Join(store.ErrFailed, err))
	}
	a, err := s.srv.Accounts.ByID(s.account.ID)
	if err != nil {
		return mb, s.refuse("find the account", err)
	}
	used, _, err := s.srv.Mailboxes.Usage(s.owner)
	if err == nil && a.Quota.Octets > 0 && used+size > a.Quota.Octets {
		err = mailbox.ErrOverQuota
	}
	return mb, s.refuse("take the message", err)
}

// receive copies a message through a bounded buffer.
func receive(w io.Writer, r imap.LiteralReader) error {
	n, err := io.CopyBuffer(onlyWriter{w}, r, make([]byte, min(r.Size()+1, 32<<10)))
	if err == nil && n < r.Size() {
		err = io.ErrUnexpectedEOF
	}
	return err
}

type onlyWriter struct{ io.Writer }

// traced records where an appended message came from, in the transaction that stores it.
func (s *session) traced(id store.ID, st *mime.Structure) func(store.Tx, mailbox.Placed) error {
	e := trace.Event{
		Time:      s.srv.Now(),
		Kind:      trace.Appended,
		MessageID: st.Envelope.MessageID,
		Size:      st.Size,
		Protocol:  "IMAP",
		Peer:      s.wire.RemoteAddr().String(),
		TLS:       s.wire.tlsName(),
		Account:   s.account.Address.String(),
	}
	return func(tx store.Tx, p mailbox.Placed) error {
		e.Mailbox, e.UID = e.Account+" "+p.Name, p.UID
		trace.Record(tx, id, e)
		return nil
	}
}

// tlsName is the version and cipher suite of the connection, or "".
func (w *wire) tlsName() string {
	tc, ok := w.Conn.(*tls.Conn)
	if !ok {
		return ""
	}
	st := tc.ConnectionState()
	return tls.VersionName(st.Version) + " " + tls.CipherSuiteName(st.CipherSuite)
}

// loggedOut puts the wire back to the time before login.
func (w *wire) loggedOut() {
	w.loggedIn = false
	w.loginBy = time.Now().Add(w.srv.Limits.Login)
}
