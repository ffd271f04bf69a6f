package imapd

import (
	"context"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// store is STORE (RFC 9051, 6.4.6; RFC 7162, 3.1.3). Of more messages than one command may speak of, the last are changed
// (RFC 9738, 3.1).
func (s *session) store(c *wire.Store) reply {
	if slices.ContainsFunc(c.Flags, isRecent) {
		return bad(codeClientBug, `\Recent cannot be changed`)
	}
	sel, err := s.writable(0)
	if err != nil {
		return s.refuse("store flags", err)
	}
	uids, err := s.resolve(c.Set, c.UID)
	if err != nil {
		return s.refuse("store flags", err)
	}
	if c.UnchangedSince != nil {
		s.followModSeqs()
	}
	some, code := s.withinLimit(uids)
	var before untold
	if c.Silent {
		if before, err = s.untold(); err != nil {
			return s.refuse("store flags", err)
		}
	}
	var done mailbox.Stored
	err = s.during(func(ctx context.Context) (err error) {
		done, err = s.access.Store(ctx, sel.id, some, storeOp(c.Op), c.Flags, c.UnchangedSince)
		return err
	})
	if !c.Silent {
		sel.own.note(&done)
	} else if mine, ok := before.only(&done); ok {
		sel.own.note(&mine)
	}
	if told := s.tellStored(c, &done); err == nil {
		err = told
	}
	if err != nil {
		return s.refuse("store flags", err)
	}
	return s.stored(c, some, &done, code)
}

// An untold is what a client was not told of before it changes flags without wanting an answer.
type untold struct {
	changed *roaring.Bitmap // messages with other flags than it knows; nil for none
	modSeq  uint64          // what came after this, it was not told
}

func (s *session) untold() (u untold, err error) {
	if wanted := s.selectedEvents(); wanted.messages {
		err = s.follow(false, wanted.fetch)
	}
	u.modSeq = s.sel.view.ModSeq()
	if s.sel.changed != nil {
		u.changed = s.sel.changed.Clone()
	}
	return u, err
}

// only returns the changes of which the client knows the outcome since it made them: of messages that nobody else had
// changed meanwhile. When somebody came in between, it is not known which those are.
func (u *untold) only(done *mailbox.Stored) (mailbox.Stored, bool) {
	for i, modSeq := range done.ModSeqs {
		if modSeq != u.modSeq+uint64(i)+1 {
			return mailbox.Stored{}, false
		}
	}
	mine := *done
	if u.changed != nil {
		mine.Changed = roaring.AndNot(done.Changed, u.changed)
	}
	return mine, true
}

func isRecent(flag string) bool { return mailbox.Flags{`\Recent`}.Has(flag) }

func storeOp(op byte) mailbox.FlagOp {
	switch op {
	case '+':
		return mailbox.AddFlags
	case '-':
		return mailbox.RemoveFlags
	}
	return mailbox.SetFlags
}

// tellStored tells the flags that messages have now. A client that follows modseqs is told the new ones even when it
// wants to hear nothing, and after UNCHANGEDSINCE those that are as before, too (RFC 7162, 3.1.3).
func (s *session) tellStored(c *wire.Store, done *mailbox.Stored) error {
	told := done.Done
	if c.Silent && c.UnchangedSince == nil {
		told = done.Changed
	}
	if told.IsEmpty() || c.Silent && !s.enabled.has(condStore) {
		return nil
	}
	if !c.Silent {
		s.tellKeywords()
	}
	seqs := newSequence(s.known())
	for m, err := range s.srv.Mailboxes.Read(s.sel.id, told, 0) {
		if err != nil {
			return err
		}
		switch seq := seqs.of(m.UID); {
		case seq == 0:
		case c.Silent:
			s.changeBegin(seq, m.UID, c.UID)
			s.fetchModSeq(&m.Message)
			s.out.End().CRLF()
		default:
			s.tellFlags(seq, &m.Message, c.UID)
		}
	}
	return nil
}

// stored is how a STORE ends: which messages were left alone because somebody else has changed them, and whether
// some were gone.
func (s *session) stored(c *wire.Store, asked *roaring.Bitmap, done *mailbox.Stored, limit string) reply {
	gone := !c.UID && done.Done.GetCardinality()+done.Modified.GetCardinality() < asked.GetCardinality()
	switch modified := done.Modified; {
	case !modified.IsEmpty():
		if !c.UID {
			modified = numbersOf(modified, s.known())
		}
		r := ok("MODIFIED "+setText(modified), "some messages were changed by somebody else")
		if gone {
			r.status = statusNo
		}
		return r
	case gone:
		return s.refuse("store flags", mailbox.ErrExpunged)
	}
	return ok(limit, "")
}
