package mailbox

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"postroad/internal/store"
)

// CreateDefaults makes INBOX, Drafts, Sent, Junk, Trash and Archive for a new owner, all subscribed.
func (s *Service) CreateDefaults(tx store.Tx, o Owner) error {
	for _, role := range []Role{"", Drafts, Sent, Junk, Trash, Archive} {
		name := strings.TrimPrefix(string(role), `\`)
		if role == "" {
			name = inbox
		}
		if _, err := s.create(tx, o, name, role); err != nil {
			return err
		}
		tx.Put(subscriptionKey(o, name), []byte{recordVersion})
	}
	return nil
}

// Create makes a mailbox and the missing ones above it. A trailing "/" is dropped.
// ErrName, ErrExists, ErrLimit.
func (s *Service) Create(o Owner, name string, role Role) (Mailbox, error) {
	name, err := cleanName(strings.TrimSuffix(name, "/"))
	if err != nil {
		return Mailbox{}, err
	}
	var m Mailbox
	err = s.st.Update(func(tx store.Tx) error {
		b, err := s.createPath(tx, o, name, role)
		if err == nil {
			m = b.mailbox(tx)
		}
		return err
	})
	return m, err
}

// createPath makes a mailbox and the missing ones above it.
func (s *Service) createPath(tx store.Tx, o Owner, name string, role Role) (*box, error) {
	if err := s.createAbove(tx, o, name); err != nil {
		return nil, err
	}
	return s.create(tx, o, name, role)
}

// createAbove makes the missing mailboxes above name.
func (s *Service) createAbove(tx store.Tx, o Owner, name string) error {
	for _, parent := range above(name) {
		if named(tx, o, parent) != 0 {
			continue
		}
		if _, err := s.create(tx, o, parent, ""); err != nil {
			return err
		}
	}
	return nil
}

// create makes one mailbox under a clean name.
func (s *Service) create(tx store.Tx, o Owner, name string, role Role) (*box, error) {
	if named(tx, o, name) != 0 {
		return nil, fmt.Errorf("%w: %q", ErrExists, name)
	}
	if err := vacant(tx, o, role, 0); err != nil {
		return nil, err
	}
	u, err := loadUsage(tx, o)
	if err != nil {
		return nil, err
	}
	if u.mailboxes >= int64(s.o.Mailboxes) {
		return nil, fmt.Errorf("%w: there are %d mailboxes already; remove some first", ErrLimit, u.mailboxes)
	}
	validity, err := s.nextValidity(tx, o)
	if err != nil {
		return nil, err
	}
	b := &box{Mailbox: Mailbox{
		ID: ID(s.st.NewID()), Owner: o, Name: name, Role: role,
		UIDValidity: validity, UIDNext: 1, ModSeq: 1, Created: s.o.Now(),
	}}
	if err := b.inherit(tx); err != nil {
		return nil, err
	}
	b.put(tx)
	putName(tx, b)
	s.announceBox(tx, Created, b)
	return b, changeUsage(tx, o, usage{mailboxes: 1})
}

func putName(tx store.Tx, b *box) {
	tx.Put(nameKey(b.Owner, b.Name), binary.BigEndian.AppendUint64(nil, uint64(b.ID)))
}

// nextValidity returns a UIDVALIDITY greater than all that this owner's mailboxes ever had. It
// follows the clock too, so that what is restored from a backup does not meet old numbers again.
func (s *Service) nextValidity(tx store.Tx, o Owner) (uint32, error) {
	var last uint64
	if v := tx.Get(validityKey(o)); len(v) == 8 {
		last = lastUint(v)
	}
	const latest = math.MaxUint32 - 1<<24 // a clock that is far ahead leaves numbers to go on with
	next := max(last+1, uint64(min(max(s.o.Now().Unix(), 1), latest)))
	if next > math.MaxUint32 {
		return 0, fmt.Errorf("%w: UIDVALIDITY is used up; make a new account", ErrLimit)
	}
	tx.Put(validityKey(o), binary.BigEndian.AppendUint64(nil, next))
	return uint32(next), nil
}

// mailbox is what a person sees of b.
func (b *box) mailbox(r store.Reader) Mailbox {
	m := b.Mailbox
	m.Subscribed = r.Get(subscriptionKey(b.Owner, b.Name)) != nil
	return m
}

// Rename renames a mailbox and all below it, in one transaction; subscriptions stay as they are.
// The ones missing above the new name are made. A mailbox that is not there but has others below
// it can be renamed too. Renaming INBOX moves its messages to a new mailbox, in bounded steps,
// and leaves INBOX empty and what is below it where it is (RFC 9051, 6.3.6).
func (s *Service) Rename(ctx context.Context, o Owner, from, to string) error {
	from, err := lookupName(from)
	if err != nil {
		return err
	}
	to, err = cleanName(strings.TrimSuffix(to, "/"))
	if err != nil {
		return err
	}
	if from == inbox {
		return s.renameInbox(ctx, o, to)
	}
	return s.st.Update(func(tx store.Tx) error { return s.rename(tx, o, from, to) })
}

func (s *Service) renameInbox(ctx context.Context, o Owner, to string) error {
	source, err := s.Get(o, inbox)
	if err != nil {
		return err
	}
	var target *box
	err = s.st.Update(func(tx store.Tx) error {
		if target, err = s.createPath(tx, o, to, ""); err != nil {
			return err
		}
		return target.copyAnnotations(tx, source.ID) // RFC 5464, 4.1
	})
	if err != nil {
		return err
	}
	_, _, err = s.Move(ctx, source.ID, nil, target.ID)
	return err
}

func (s *Service) rename(tx store.Tx, o Owner, from, to string) error {
	if strings.HasPrefix(to, from+"/") {
		return fmt.Errorf("%w: %q lies below %q", ErrName, to, from)
	}
	ids := family(tx, o, from)
	if len(ids) == 0 {
		return notFound(from)
	}
	if err := s.createAbove(tx, o, to); err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.renameOne(tx, id, from, to); err != nil {
			return err
		}
	}
	return nil
}

// family returns the ids of the mailbox name and of all below it. Their number is bounded by
// the number of mailboxes that an owner may have.
func family(r store.Reader, o Owner, name string) []ID {
	var ids []ID
	if id := named(r, o, name); id != 0 {
		ids = append(ids, id)
	}
	below := append(ownerNames(o), name+"/"...) // no NUL in a name, so Text would write the same
	for _, v := range r.Scan(below, below.End()) {
		ids = append(ids, ID(lastUint(v)))
	}
	return ids
}

func (s *Service) renameOne(tx store.Tx, id ID, from, to string) error {
	b, err := loadBox(tx, id)
	if err != nil {
		return err
	}
	name, err := cleanName(to + strings.TrimPrefix(b.Name, from))
	if err != nil {
		return err
	}
	if named(tx, b.Owner, name) != 0 {
		return fmt.Errorf("%w: %q", ErrExists, name)
	}
	tx.Delete(nameKey(b.Owner, b.Name))
	old := b.Name
	b.Name = name
	b.put(tx)
	putName(tx, b)
	s.announce(tx, Event{What: Renamed, Owner: b.Owner, Mailbox: b.Mailbox, Name: name, OldName: old})
	return nil
}

// Remove deletes a mailbox with its messages; mailboxes below it stay. The name is free and the
// mailbox out of sight after the first transaction; the messages go in bounded steps. When those are
// interrupted, the next Remove of the owner's or Sweep goes on with them. ErrNotFound, ErrInbox.
func (s *Service) Remove(ctx context.Context, o Owner, name string) error {
	name, err := lookupName(name)
	if err != nil {
		return err
	}
	if name == inbox {
		return ErrInbox
	}
	err = s.st.Update(func(tx store.Tx) error {
		b, err := loadNamed(tx, o, name)
		if err != nil {
			return err
		}
		return s.unname(tx, b)
	})
	if err != nil {
		return err
	}
	return s.sweep(ctx, ownerRemoved(o))
}

// unname takes a mailbox out of sight and notes that its messages have to go.
func (s *Service) unname(tx store.Tx, b *box) error {
	if err := b.dropACL(tx); err != nil {
		return err
	}
	tx.Delete(nameKey(b.Owner, b.Name))
	tx.Put(removedKey(b.Owner, b.ID), []byte{recordVersion})
	taken := usage{octets: -b.Octets, messages: -int64(b.Messages), mailboxes: -1}
	b.removed = true
	b.Messages, b.Unseen, b.Deleted, b.Octets = 0, 0, 0, 0
	b.put(tx)
	tx.OnCommit(func() {
		s.hub.changed(b.ID, b.ModSeq, nil)
		s.hub.forget(b.ID)
	})
	s.announceBox(tx, Removed, b)
	return changeUsage(tx, b.Owner, taken)
}

// Sweep drops what removed mailboxes and expunged messages have left. Run calls it.
func (s *Service) Sweep(ctx context.Context) error {
	return errors.Join(s.sweep(ctx, store.NewKey("mr")), s.purge(ctx))
}

// sweep drops what is left of the removed mailboxes whose keys begin with prefix.
func (s *Service) sweep(ctx context.Context, prefix store.Key) error {
	for {
		id, err := s.firstID(prefix)
		if err != nil || id == 0 {
			return err
		}
		if err := s.drop(ctx, id); err != nil {
			return fmt.Errorf("drop the messages of a removed mailbox (%w); they go with the next removal or start", err)
		}
	}
}

// firstID returns the id that the first key with this prefix ends in, or 0.
func (s *Service) firstID(prefix store.Key) (id ID, err error) {
	err = s.st.View(func(r store.Reader) error {
		id = 0
		for k := range r.Scan(prefix, prefix.End()) {
			id = ID(lastUint(k))
			break
		}
		return nil
	})
	return id, err
}

// drop removes all of a removed mailbox, in steps.
func (s *Service) drop(ctx context.Context, id ID) error {
	for done := false; !done; {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.st.Update(func(tx store.Tx) (err error) {
			done, err = s.dropStep(tx, id)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// dropStep removes some messages, when there are none some of what else is kept of them, and after that the mailbox.
func (s *Service) dropStep(tx store.Tx, id ID) (done bool, err error) {
	b, err := getBox(tx, id)
	if err != nil || b == nil {
		return true, err
	}
	if dropped, err := dropMessages(tx, id); dropped || err != nil {
		return false, err
	}
	if dropKeys(tx, doomedOf(id), bulkStep)+dropKeys(tx, sheetsOf(id), bulkStep)+dropBlocks(tx, id, bulkStep) > 0 {
		return false, nil
	}
	if more, err := b.dropAnnotations(tx); more || err != nil {
		return false, err
	}
	tx.Delete(keywordsKey(id))
	tx.Delete(removedKey(b.Owner, id))
	tx.Delete(boxKey(id))
	return true, nil
}

// dropMessages removes some messages of a mailbox that is out of sight and says whether there were any.
func dropMessages(tx store.Tx, id ID) (bool, error) {
	var page []record
	for k, v := range tx.Scan(messagesOf(id), messagesOf(id).End()) {
		var m record
		if err := m.decode(id, UID(lastUint(k)), v); err != nil {
			return false, err
		}
		if page = append(page, m); len(page) == bulkStep {
			break
		}
	}
	for i := range page {
		tx.Delete(messageKey(id, page[i].uid))
		tx.Unref(page[i].body)
	}
	return len(page) > 0, nil
}

// dropKeys removes up to most keys with a prefix and returns how many it did.
func dropKeys(tx store.Tx, prefix store.Key, most int) int {
	var keys [][]byte
	for k := range tx.Scan(prefix, prefix.End()) {
		if keys = append(keys, slices.Clone(k)); len(keys) == most {
			break
		}
	}
	for _, k := range keys {
		tx.Delete(k)
	}
	return len(keys)
}

// RemoveAll removes all mailboxes of an owner, and all else that is known of it, in bounded
// transactions. It can be called again after an error.
func (s *Service) RemoveAll(ctx context.Context, o Owner) error {
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.st.Update(func(tx store.Tx) (err error) {
			more, err = s.unnameSome(tx, o)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := s.sweep(ctx, ownerRemoved(o)); err != nil {
		return err
	}
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.st.Update(func(tx store.Tx) (err error) {
			more, err = dropGrants(tx, o, bulkStep)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := s.dropAll(ctx, store.NewKey("mt").Uint(uint64(o))); err != nil {
		return err
	}
	return s.st.Update(func(tx store.Tx) error { return forget(tx, o) })
}

// dropAll removes the keys with a prefix, in steps.
func (s *Service) dropAll(ctx context.Context, prefix store.Key) error {
	for n := bulkStep; n == bulkStep; {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.st.Update(func(tx store.Tx) error {
			n = dropKeys(tx, prefix, bulkStep)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// unnameSome takes some mailboxes of an owner out of sight and says whether there may be more.
func (s *Service) unnameSome(tx store.Tx, o Owner) (more bool, err error) {
	var ids []ID
	for _, v := range tx.Scan(ownerNames(o), ownerNames(o).End()) {
		if ids = append(ids, ID(lastUint(v))); len(ids) == bulkStep {
			break
		}
	}
	for _, id := range ids {
		b, err := loadBox(tx, id)
		if err != nil {
			return false, err
		}
		if err := s.unname(tx, b); err != nil {
			return false, err
		}
	}
	return len(ids) == bulkStep, nil
}

// forget drops what is left of an owner, unless mailboxes were made meanwhile.
func forget(tx store.Tx, o Owner) error {
	for range tx.Scan(ownerNames(o), ownerNames(o).End()) {
		return nil
	}
	dropKeys(tx, ownerSubscriptions(o), math.MaxInt)
	tx.Delete(validityKey(o))
	tx.Delete(usageKey(o))
	return dropPrivate(tx, o)
}

// Subscribe sets or clears a subscription; the name need not exist. ErrName, ErrLimit.
func (s *Service) Subscribe(o Owner, name string, on bool) error {
	name, err := cleanName(strings.TrimSuffix(name, "/"))
	if err != nil {
		return err
	}
	return s.subscribe(o, name, on)
}

// subscribe sets or clears a subscription to a clean name, or to one of another account's.
func (s *Service) subscribe(o Owner, name string, on bool) error {
	return s.st.Update(func(tx store.Tx) error {
		if was := tx.Get(subscriptionKey(o, name)) != nil; was == on {
			return nil
		}
		s.announce(tx, Event{What: Subscribed, Owner: o, Name: name, On: on})
		if !on {
			tx.Delete(subscriptionKey(o, name))
			return nil
		}
		if n := len(subscriptions(tx, o)); n >= s.o.Mailboxes {
			return fmt.Errorf("%w: there are %d subscriptions already; clear some first", ErrLimit, n)
		}
		tx.Put(subscriptionKey(o, name), []byte{recordVersion})
		return nil
	})
}

func subscriptions(r store.Reader, o Owner) []string {
	var names []string
	prefix := ownerSubscriptions(o)
	for k := range r.Scan(prefix, prefix.End()) {
		name, _ := store.TakeText(k[len(prefix):])
		names = append(names, name)
	}
	return names
}

// Subscriptions returns the subscribed names, in order, also those without a mailbox.
func (s *Service) Subscriptions(o Owner) (names []string, err error) {
	err = s.st.View(func(r store.Reader) error {
		names = subscriptions(r, o)
		return nil
	})
	slices.SortStableFunc(names, inboxFirst)
	return names, err
}

// inboxFirst orders INBOX before other names, which keep their order.
func inboxFirst(a, b string) int {
	rank := func(name string) int {
		if name == inbox {
			return 0
		}
		return 1
	}
	return cmp.Compare(rank(a), rank(b))
}

// List returns all mailboxes of an owner in the order of their names, INBOX first.
func (s *Service) List(o Owner) (list []Mailbox, err error) {
	err = s.st.View(func(r store.Reader) error {
		list, err = ownList(r, o)
		for i := range list {
			list[i].Subscribed = r.Get(subscriptionKey(o, list[i].Name)) != nil
		}
		return err
	})
	return list, err
}

// ownList reads an owner's mailboxes without their subscriptions.
func ownList(r store.Reader, o Owner) ([]Mailbox, error) {
	var list []Mailbox
	for _, v := range r.Scan(ownerNames(o), ownerNames(o).End()) {
		b, err := loadBox(r, ID(lastUint(v)))
		if err != nil {
			return nil, err
		}
		list = append(list, b.Mailbox)
	}
	slices.SortStableFunc(list, func(a, b Mailbox) int { return inboxFirst(a.Name, b.Name) })
	return list, nil
}

// Get returns a mailbox by name; "inbox" in any case is INBOX.
func (s *Service) Get(o Owner, name string) (m Mailbox, err error) {
	name, err = lookupName(name)
	if err != nil {
		return m, err
	}
	err = s.st.View(func(r store.Reader) error {
		b, err := loadNamed(r, o, name)
		if err == nil {
			m = b.mailbox(r)
		}
		return err
	})
	return m, err
}

// ByID returns a mailbox as it is now.
func (s *Service) ByID(id ID) (m Mailbox, err error) {
	err = s.st.View(func(r store.Reader) error {
		b, err := loadBox(r, id)
		if err == nil {
			m = b.mailbox(r)
		}
		return err
	})
	return m, err
}

// Usage returns the octets and messages an owner has.
func (s *Service) Usage(o Owner) (octets, messages int64, err error) {
	err = s.st.View(func(r store.Reader) error {
		u, err := loadUsage(r, o)
		octets, messages = u.octets, u.messages
		return err
	})
	return octets, messages, err
}
