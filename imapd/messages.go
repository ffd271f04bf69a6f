package imapd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"postroad/internal/mailbox"
	"postroad/internal/mime"
	"postroad/internal/store"
)

// A step is how many messages are read or changed at a time.
const step = 500

// Fetch tells of messages. What opens a message without PEEK marks it as seen first.
func (s *session) Fetch(w *imapserver.FetchWriter, set imap.NumSet, o *imap.FetchOptions) error {
	sel, err := s.mailbox()
	if err != nil {
		return err
	}
	plan, err := newPlan(o)
	if err != nil {
		return err
	}
	uids, err := sel.resolve(set, true)
	if err != nil {
		return err
	}
	f := &fetch{session: s, plan: plan, w: w, seqs: newSequence(sel.view.UIDs())}
	if plan.opens && !sel.readOnly {
		err = pages(uids, step, f.openAndTell)
	} else {
		err = f.tell(uids)
	}
	if err == nil {
		err = f.trouble
	}
	if err == nil && f.told < uids.GetCardinality() && byNumber(set) {
		err = mailbox.ErrExpunged
	}
	return s.refuse("fetch messages", err)
}

// byNumber reports whether the client knows the messages by sequence numbers. One that is gone is then worth a word.
func byNumber(set imap.NumSet) bool {
	_, ok := set.(imap.SeqSet)
	return ok
}

// A fetch is a FETCH under way.
type fetch struct {
	*session
	plan    *plan
	w       *imapserver.FetchWriter
	seqs    *sequence
	flags   []imap.Flag // used again for each message
	buf     []byte      // likewise
	told    uint64      // messages
	trouble error       // with some message; the others are told all the same
}

// openAndTell marks messages as seen and tells of them.
func (f *fetch) openAndTell(uids *roaring.Bitmap) error {
	unseen := roaring.New()
	for m, err := range f.srv.Mailboxes.Messages(f.sel.id, uids) {
		if err != nil {
			return err
		}
		if !m.Flags.Has(`\Seen`) {
			unseen.Add(m.UID)
		}
	}
	f.plan.newlySeen = unseen
	if !unseen.IsEmpty() {
		changed, err := f.change(f.sel.id, unseen, mailbox.AddFlags, []string{`\Seen`})
		f.sel.own.note(changed)
		if err != nil {
			return err
		}
	}
	return f.tell(uids)
}

// tell sends a response for each message.
func (f *fetch) tell(uids *roaring.Bitmap) error {
	for m, err := range f.srv.Mailboxes.Messages(f.sel.id, uids) {
		if err == nil {
			err = f.ctx.Err()
		}
		if err != nil {
			return err
		}
		if err := f.one(m); err != nil {
			return err
		}
	}
	return nil
}

// one tells of one message. What cannot be read of it is the command's trouble, not the end of it.
func (f *fetch) one(m mailbox.Message) error {
	seq := f.seqs.of(m.UID)
	if seq == 0 {
		return nil
	}
	f.told++
	if f.plan.flat {
		return f.write(seq, m, nil, nil)
	}
	src := f.source(m)
	defer src.close()
	st, contents, err := f.plan.prepare(&src.source)
	if err == nil {
		return f.write(seq, m, st, contents)
	}
	if f.isGone(m, err) {
		f.told--
		return nil
	}
	if errors.Is(err, errEncoding) {
		err = no(imap.ResponseCodeUnknownCTE, "the encoding of a part is not known here")
	} else {
		f.log.Error("cannot read a message", "mailbox", f.sel.id, "uid", m.UID, "id", m.Body, "err", err)
	}
	f.trouble = err
	return nil
}

// isGone reports whether a message cannot be read because somebody has expunged it since it was listed.
func (f *fetch) isGone(m mailbox.Message, err error) bool {
	if !errors.Is(err, store.ErrNoBody) {
		return false
	}
	_, err = f.srv.Mailboxes.Message(f.sel.id, m.UID)
	return errors.Is(err, mailbox.ErrExpunged) || errors.Is(err, mailbox.ErrNotFound)
}

// write sends the response of a message for which all is ready. When its octets cannot be read after
// their number was sent, only the end of the connection is left.
func (f *fetch) write(seq uint32, m mailbox.Message, st *mime.Structure, contents []content) error {
	r := f.w.CreateMessage(seq)
	err := f.items(r, m, st, contents)
	if err != nil && !f.wire.broken() {
		f.log.Error("cannot read a message to its end", "mailbox", f.sel.id, "uid", m.UID, "id", m.Body, "err", err)
		f.wire.abort(err)
	}
	return errors.Join(err, r.Close())
}

// copyTo sends a content.
func (f *fetch) copyTo(w io.WriteCloser, c content) error {
	defer w.Close()
	r, err := c.reader()
	if err != nil {
		return err
	}
	if f.buf == nil {
		f.buf = make([]byte, 32<<10)
	}
	n, err := io.CopyBuffer(onlyWriter{w}, onlyReader{r}, f.buf)
	if err == nil && n < c.size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

type onlyReader struct{ io.Reader }

// openSource is a source with the body that it has opened.
type openSource struct {
	source
	opened *store.Body
}

func (f *fetch) source(m mailbox.Message) *openSource {
	src := &openSource{source: source{size: m.Size}}
	src.body = func() (_ *store.Body, err error) {
		if src.opened == nil {
			src.opened, err = f.open(m)
		}
		return src.opened, err
	}
	var st *mime.Structure
	src.structure = func() (_ *mime.Structure, err error) {
		if st == nil {
			st, err = f.srv.Mailboxes.Structure(m.Body)
		}
		return st, err
	}
	return src
}

// smallMessage is how large a message may be that is read as a whole for a few fields of its header.
const smallMessage = 64 << 10

// open opens a message's octets and holds them against their checksum, which is over all of them: of a message that is
// damaged nothing is sent. The one that was held last is known, since large messages are fetched piece by piece.
func (f *fetch) open(m mailbox.Message) (*store.Body, error) {
	b, err := f.srv.Mailboxes.OpenBody(m.Body)
	if err != nil || m.Body == f.verified || f.plan.headers && m.Size > smallMessage {
		return b, err
	}
	if err := b.Verify(); err != nil {
		b.Close()
		return nil, err
	}
	f.verified = m.Body
	return b, nil
}

func (src *openSource) close() {
	if src.opened != nil {
		src.opened.Close()
	}
}

// Store changes flags, and tells the new ones unless that is not wanted.
func (s *session) Store(w *imapserver.FetchWriter, set imap.NumSet, change *imap.StoreFlags, _ *imap.StoreOptions) error {
	sel, err := s.writable()
	if err != nil {
		return err
	}
	flags := fromFlags(change.Flags)
	if slices.Contains(flags, `\Recent`) {
		return bad(`\Recent cannot be changed`)
	}
	uids, err := sel.resolve(set, true)
	if err != nil {
		return err
	}
	var stored uint64
	seqs := newSequence(sel.view.UIDs())
	err = pages(uids, step, func(page *roaring.Bitmap) error {
		changed, err := s.change(sel.id, page, storeOp(change.Op), flags)
		sel.own.note(changed)
		stored += uint64(len(changed))
		if !change.Silent {
			err = errors.Join(err, tellFlags(w, seqs, changed, !byNumber(set)))
		}
		return err
	})
	if err == nil && stored < uids.GetCardinality() && byNumber(set) {
		err = mailbox.ErrExpunged
	}
	return s.refuse("store flags", err)
}

// change changes flags and returns the messages that have them now.
func (s *session) change(id mailbox.ID, uids *roaring.Bitmap, op mailbox.FlagOp, flags []string) (list []mailbox.Message, err error) {
	stored, err := s.srv.Mailboxes.Store(s.ctx, id, uids, op, flags, nil)
	for m, failed := range s.srv.Mailboxes.Messages(id, stored.Done) {
		if failed != nil {
			return list, errors.Join(err, failed)
		}
		list = append(list, m)
	}
	return list, err
}

// tellFlags tells the flags of messages.
func tellFlags(w *imapserver.FetchWriter, seqs *sequence, changed []mailbox.Message, withUID bool) error {
	var flags []imap.Flag
	for _, m := range changed {
		seq := seqs.of(m.UID)
		if seq == 0 {
			continue
		}
		r := w.CreateMessage(seq)
		if withUID {
			r.WriteUID(imap.UID(m.UID))
		}
		flags = toFlags(flags[:0], m.Flags)
		r.WriteFlags(flags)
		if err := r.Close(); err != nil {
			return err
		}
	}
	return nil
}

// Copy copies messages to another mailbox: all or none.
func (s *session) Copy(set imap.NumSet, dest string) (*imap.CopyData, error) {
	sel, err := s.mailbox()
	if err != nil {
		return nil, err
	}
	to, pairs, err := s.transfer(sel, set, dest, s.srv.Mailboxes.Copy)
	if err != nil || len(pairs) == 0 {
		return nil, err
	}
	return copyData(to, pairs), nil
}

// Move is Copy and then removes the messages here.
func (s *session) Move(w *imapserver.MoveWriter, set imap.NumSet, dest string) error {
	sel, err := s.writable()
	if err != nil {
		return err
	}
	to, pairs, failed := s.transfer(sel, set, dest, s.srv.Mailboxes.Move)
	if len(pairs) > 0 {
		if err := w.WriteCopyData(copyData(to, pairs)); err != nil {
			return err
		}
	}
	if err := s.follow(w.WriteExpunge); err != nil {
		return err
	}
	return failed
}

type way func(ctx context.Context, from mailbox.ID, uids *roaring.Bitmap, to mailbox.ID) (mailbox.Mailbox, []mailbox.Pair, error)

// transfer copies or moves messages.
func (s *session) transfer(sel *selected, set imap.NumSet, dest string, do way) (mailbox.Mailbox, []mailbox.Pair, error) {
	uids, err := sel.resolve(set, true)
	if err != nil {
		return mailbox.Mailbox{}, nil, err
	}
	to, err := s.destination(dest)
	if err != nil || uids.IsEmpty() {
		return to, nil, err
	}
	to, pairs, err := do(s.ctx, sel.id, uids, to.ID)
	if err == nil && len(pairs) == 0 && byNumber(set) {
		err = mailbox.ErrExpunged
	}
	return to, pairs, s.refuse("copy messages", err)
}

// Expunge removes the messages with \Deleted, of uids or all (RFC 9051, 6.4.3 and 6.4.9). CLOSE calls it too.
func (s *session) Expunge(w *imapserver.ExpungeWriter, set *imap.UIDSet) error {
	closing := s.wire.cmd.name == "CLOSE"
	if closing && (s.sel == nil || s.sel.gone || s.sel.readOnly) {
		return nil
	}
	sel, err := s.writable()
	if err != nil {
		return err
	}
	var uids *roaring.Bitmap
	if set != nil {
		if uids, err = sel.resolve(*set, true); err != nil {
			return err
		}
	}
	_, failed := s.srv.Mailboxes.Expunge(s.ctx, sel.id, uids)
	if closing && failed == nil {
		return nil
	}
	if err := s.follow(w.WriteExpunge); err != nil {
		return err
	}
	return s.refuse("expunge messages", failed)
}

// follow tells what is expunged and how many messages there are then, and notes other changes for the end of the
// command. The library tells nothing at the end of one that failed; a message that was not told of has no number.
func (s *session) follow(write func(seq uint32) error) error {
	c, err := s.sel.view.Sync(true)
	if err != nil {
		return s.refuse("read what changed", err)
	}
	if c.Removed {
		s.wire.bye(removed)
		return nil
	}
	if err := s.tellExpunged(write, c.Expunged.ToArray()); err != nil {
		return err
	}
	if err := s.take(c); err != nil {
		return err
	}
	if s.sel.arrived {
		s.sel.arrived = false
		s.wire.say(fmt.Sprintf("* %d EXISTS", s.sel.view.UIDs().GetCardinality()))
	}
	return nil
}

// Search finds messages among those that the client knows.
func (s *session) Search(kind imapserver.NumKind, criteria *imap.SearchCriteria, o *imap.SearchOptions) (*imap.SearchData, error) {
	sel, err := s.mailbox()
	if err != nil {
		return nil, err
	}
	criterion, err := sel.criterion(criteria)
	if err != nil {
		return nil, err
	}
	found, err := s.srv.Mailboxes.Search(s.ctx, sel.id, sel.view.UIDs(), criterion)
	if err != nil {
		if o.ReturnSave {
			sel.result = nil // RFC 5182, 2.1
		}
		return nil, s.refuse("search", err)
	}
	if o.ReturnSave {
		sel.result = saved(found, o)
	}
	return searchData(kind, found, sel.view.UIDs()), nil
}

// saved is what "$" stands for after a SEARCH (RFC 5182, 2.4).
func saved(found *roaring.Bitmap, o *imap.SearchOptions) *roaring.Bitmap {
	if o.ReturnAll || o.ReturnCount || found.IsEmpty() {
		return found
	}
	ends := roaring.New()
	if o.ReturnMin {
		ends.Add(found.Minimum())
	}
	if o.ReturnMax {
		ends.Add(found.Maximum())
	}
	return ends
}
