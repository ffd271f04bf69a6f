package postroad

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/internal/account"
	"postroad/internal/control"
	"postroad/internal/mailbox"
	"postroad/internal/mime"
	"postroad/internal/store"
	"postroad/internal/trace"
)

// Mailboxes lists an account's mailboxes.
func (a *Admin) Mailboxes(ctx context.Context, address string) ([]control.Mailbox, error) {
	owner, _, err := a.owner(address)
	if err != nil {
		return nil, err
	}
	boxes, err := a.c.Mailboxes.List(owner)
	list := make([]control.Mailbox, 0, len(boxes))
	for _, m := range boxes {
		list = append(list, showMailbox(m))
	}
	return list, adminError(err)
}

func showMailbox(m mailbox.Mailbox) control.Mailbox {
	return control.Mailbox{
		Name: m.Name, Role: string(m.Role), Subscribed: m.Subscribed,
		UIDValidity: m.UIDValidity, UIDNext: m.UIDNext, ModSeq: m.ModSeq,
		Messages: m.Messages, Unseen: m.Unseen, Octets: m.Octets, Created: m.Created,
	}
}

// roles are the special uses that an administrator may give.
var roles = map[string]mailbox.Role{
	"": "", "drafts": mailbox.Drafts, "sent": mailbox.Sent, "junk": mailbox.Junk, "trash": mailbox.Trash, "archive": mailbox.Archive,
}

// CreateMailbox makes a mailbox, subscribed.
func (a *Admin) CreateMailbox(ctx context.Context, m control.MailboxName) (control.Mailbox, error) {
	owner, _, err := a.owner(m.Account)
	if err != nil {
		return control.Mailbox{}, err
	}
	role, ok := roles[m.Role]
	if !ok {
		return control.Mailbox{}, control.Errorf(control.Invalid, "%q is not a role; use drafts, sent, junk, trash or archive", m.Role)
	}
	made, err := a.c.Mailboxes.Create(owner, m.Mailbox, role)
	if err != nil {
		return control.Mailbox{}, adminError(err)
	}
	if err := a.c.Mailboxes.Subscribe(owner, made.Name, true); err != nil {
		return control.Mailbox{}, adminError(err)
	}
	made.Subscribed = true
	return showMailbox(made), nil
}

// RenameMailbox renames a mailbox and all below it.
func (a *Admin) RenameMailbox(ctx context.Context, r control.RenameMailbox) error {
	owner, _, err := a.owner(r.Account)
	if err != nil {
		return err
	}
	return adminError(a.c.Mailboxes.Rename(ctx, owner, r.From, r.To))
}

// RemoveMailbox removes a mailbox with its messages.
func (a *Admin) RemoveMailbox(ctx context.Context, m control.MailboxName) error {
	owner, _, err := a.owner(m.Account)
	if err != nil {
		return err
	}
	return adminError(a.c.Mailboxes.Remove(ctx, owner, m.Mailbox))
}

// box returns the mailbox that a name means.
func (a *Admin) box(m control.MailboxName) (mailbox.Mailbox, account.Account, error) {
	owner, acct, err := a.owner(m.Account)
	if err != nil {
		return mailbox.Mailbox{}, acct, err
	}
	box, err := a.c.Mailboxes.Get(owner, m.Mailbox)
	return box, acct, adminError(err)
}

// Messages lists a mailbox.
func (a *Admin) Messages(ctx context.Context, l control.MessageList) iter.Seq2[control.Message, error] {
	return func(yield func(control.Message, error) bool) {
		box, _, err := a.box(l.MailboxName)
		if err != nil {
			yield(control.Message{}, err)
			return
		}
		n := 0
		for m, err := range a.c.Mailboxes.Messages(box.ID, after(l.After, box.UIDNext)) {
			if l.Limit > 0 && n == l.Limit {
				return
			}
			shown := control.Message{}
			if err == nil {
				shown, err = a.showMessage(m)
			}
			if err == nil {
				err = ctx.Err()
			}
			if !yield(shown, adminError(err)) || err != nil {
				return
			}
			n++
		}
	}
}

// after is the set of the UIDs after one, or nil for all.
func after(uid, next mailbox.UID) *roaring.Bitmap {
	if uid == 0 {
		return nil
	}
	b := roaring.New()
	if uid < next {
		b.AddRange(uint64(uid)+1, uint64(next))
	}
	return b
}

func (a *Admin) showMessage(m mailbox.Message) (control.Message, error) {
	shown := control.Message{
		UID: m.UID, ID: m.Body.String(), Size: m.Size, Internal: m.Internal, Flags: append([]string{}, m.Flags...),
	}
	st, err := a.c.Mailboxes.Structure(m.Body)
	if err != nil {
		return shown, err
	}
	shown.Subject, shown.Preview = text(mime.DecodeHeader(st.Envelope.Subject)), text(st.Preview)
	if from := st.Envelope.From; len(from) > 0 {
		shown.From = text(showFrom(from[0]))
	}
	return shown, nil
}

// text is what others wrote as valid UTF-8, which is what can be told.
func text(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

// showFrom is an author as people read it.
func showFrom(f mime.Address) string {
	addr := f.Mailbox
	if f.Host != "" {
		addr += "@" + f.Host
	}
	if f.Name == "" {
		return addr
	}
	return mime.DecodeHeader(f.Name) + " <" + addr + ">"
}

// ReadMessage writes a message's octets.
func (a *Admin) ReadMessage(ctx context.Context, m control.MessageName, w io.Writer) error {
	id, err := a.bodyOf(m)
	if err != nil {
		return err
	}
	body, err := a.c.Store.OpenBody(id)
	if err != nil {
		return adminError(fmt.Errorf("message %s: %w", id, err))
	}
	defer body.Close()
	if _, err := io.Copy(w, body.Reader()); err != nil {
		return adminError(fmt.Errorf("message %s: %w", id, err))
	}
	return nil
}

// bodyOf returns the body that a name means.
func (a *Admin) bodyOf(m control.MessageName) (store.ID, error) {
	if m.ID != "" {
		return parseID(m.ID)
	}
	box, _, err := a.box(control.MailboxName{Account: m.Account, Mailbox: m.Mailbox})
	if err != nil {
		return 0, err
	}
	found, err := a.c.Mailboxes.Message(box.ID, m.UID)
	if err != nil {
		return 0, adminError(fmt.Errorf("%s %s, UID %d: %w", m.Account, box.Name, m.UID, err))
	}
	return found.Body, nil
}

// The bounds of one step of an import: one transaction, one flush.
const (
	importMessages = 64
	importOctets   = 8 << 20
)

// Import stores messages in a mailbox.
func (a *Admin) Import(ctx context.Context, to control.MailboxName, messages iter.Seq2[control.ImportMessage, error], progress func(control.Imported)) (control.Imported, error) {
	box, acct, err := a.box(to)
	if err != nil {
		return control.Imported{}, err
	}
	im := &importing{a: a, ctx: ctx, box: box, acct: acct, by: control.Caller(ctx), progress: progress}
	defer im.discard()
	for m, err := range messages {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = im.take(m)
		}
		if err != nil {
			// What was read whole is kept, as if the source had ended here.
			if ctx.Err() == nil {
				if flushed := im.flush(); flushed != nil {
					err = flushed
				}
			}
			return im.done, adminError(err)
		}
	}
	return im.done, adminError(im.flush())
}

// importing is an import under way. One goroutine.
type importing struct {
	a        *Admin
	ctx      context.Context
	box      mailbox.Mailbox
	acct     account.Account
	by       string
	progress func(control.Imported)

	waiting []arrival // read whole, not yet committed
	octets  int64     // of waiting
	done    control.Imported
}

// arrival is a message that waits for its step's transaction.
type arrival struct {
	draft *store.Draft
	mailbox.Arrival
	messageID string
}

// take reads a message, and commits the step when it is full.
func (im *importing) take(m control.ImportMessage) error {
	draft := im.a.c.Store.NewDraft()
	arrived, err := read(draft, m)
	if err != nil {
		draft.Discard()
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	if arrived.Internal.IsZero() {
		arrived.Internal = im.a.c.Now()
	}
	im.waiting = append(im.waiting, arrived)
	im.octets += arrived.Size
	if len(im.waiting) < importMessages && im.octets < importOctets {
		return nil
	}
	return im.flush()
}

// read fills the draft with a message. Its time is the one that came with it, or
// that of its Date field.
func read(draft *store.Draft, m control.ImportMessage) (arrival, error) {
	scan := mime.NewScanner()
	if _, err := io.Copy(io.MultiWriter(draft, scan), m.Body); err != nil {
		return arrival{}, err
	}
	st := scan.Finish()
	structure, err := st.AppendBinary(nil)
	if m.Internal.IsZero() {
		m.Internal, _ = mime.ParseDate(st.Envelope.Date)
	}
	return arrival{draft: draft, messageID: st.Envelope.MessageID, Arrival: mailbox.Arrival{
		Body: draft.ID(), Size: draft.Size(), Structure: structure, Internal: m.Internal, Flags: m.Flags,
	}}, err
}

// flush commits what waits in one transaction, within the owner's quota. After an
// error nothing waits any more.
func (im *importing) flush() error {
	if len(im.waiting) == 0 {
		return nil
	}
	defer im.discard()
	if err := im.fits(); err != nil {
		return err
	}
	drafts := make([]*store.Draft, len(im.waiting))
	for i, w := range im.waiting {
		drafts[i] = w.draft
	}
	if err := im.a.c.Store.Update(im.add, drafts...); err != nil {
		return err
	}
	im.done.Messages += int64(len(im.waiting))
	im.done.Octets += im.octets
	if im.progress != nil {
		im.progress(im.done)
	}
	return nil
}

// add puts the step's messages into the mailbox. The mailbox is looked up by name
// again: it may have been removed between two steps.
func (im *importing) add(tx store.Tx) error {
	for _, w := range im.waiting {
		placed, err := im.a.c.Mailboxes.Add(tx, im.box.Owner, im.box.Name, w.Arrival)
		if err != nil {
			return err
		}
		trace.Record(tx, w.Body, trace.Event{
			Time: im.a.c.Now(), Kind: trace.Appended, MessageID: w.messageID, Size: w.Size,
			To: []string{im.acct.Address.String()}, Protocol: "import", By: im.by,
			Mailbox: im.acct.Address.String() + " " + placed.Name, UID: placed.UID,
		})
	}
	return nil
}

// fits says ErrOverQuota when the owner may not have what waits.
func (im *importing) fits() error {
	acct, err := im.a.c.Accounts.ByID(im.acct.ID)
	if err != nil || acct.Quota == (account.Quota{}) {
		return err
	}
	octets, messages, err := im.a.c.Mailboxes.Usage(im.box.Owner)
	if err != nil {
		return err
	}
	return cmp.Or(over(acct, "octets", octets, im.octets, acct.Quota.Octets),
		over(acct, "messages", messages, int64(len(im.waiting)), acct.Quota.Messages))
}

// over says ErrOverQuota when more than what is allowed would be used; 0 is no limit.
func over(acct account.Account, what string, used, more, allowed int64) error {
	if allowed == 0 || used+more <= allowed {
		return nil
	}
	return fmt.Errorf("%s: %w: %d of %d %s are used, and the next messages need %d",
		acct.Address, mailbox.ErrOverQuota, used, allowed, what, more)
}

// discard forgets what waits; drafts that were committed are not touched by it.
func (im *importing) discard() {
	for _, w := range im.waiting {
		w.draft.Discard()
	}
	im.waiting, im.octets = im.waiting[:0], 0
}
