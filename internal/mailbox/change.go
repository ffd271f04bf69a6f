package mailbox

import (
	"context"
	"fmt"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"postroad/internal/store"
)

// allFlags are the rights to change all flags.
const allFlags = RightSeen | RightWrite | RightTrash

// Store is Service.Store with the account's rights: flags that it may not change stay as they are. ErrRights when it may
// change none of them (RFC 4314, 4: STORE).
func (a *Access) Store(ctx context.Context, id ID, uids *roaring.Bitmap, op FlagOp, flags []string, unchangedSince *uint64) (Stored, error) {
	m, err := a.Check(id, 0)
	if err != nil {
		return noStored(), err
	}
	may := permitted(flags, m.Rights)
	if m.Rights&allFlags == 0 || op != SetFlags && len(may) == 0 && len(flags) > 0 {
		return noStored(), fmt.Errorf("%w: %q needs %q", ErrRights, m.Name, (allFlags &^ m.Rights).letters())
	}
	if op != SetFlags || m.Rights.Has(allFlags) {
		return a.s.Store(ctx, id, uids, op, may, unchangedSince)
	}
	others, err := a.others(id, m.Rights, may)
	if err != nil {
		return noStored(), err
	}
	first, err := a.s.Store(ctx, id, uids, RemoveFlags, others, unchangedSince)
	if err != nil || first.Done.IsEmpty() {
		return first, err
	}
	then, err := a.s.Store(ctx, id, first.Done, AddFlags, may, nil)
	then.Changed.Or(first.Changed)
	then.ModSeqs = append(first.ModSeqs, then.ModSeqs...)
	then.Modified = first.Modified
	return then, err
}

func noStored() Stored {
	return Stored{Done: roaring.New(), Changed: roaring.New(), Modified: roaring.New()}
}

// permitted returns those flags that may be changed.
func permitted(flags []string, rights Rights) []string {
	return slices.DeleteFunc(slices.Clone(flags), func(f string) bool { return !rights.Has(OfFlag(f)) })
}

// others returns the flags that messages of a mailbox may have, that may be changed, and that are not among flags.
func (a *Access) others(id ID, rights Rights, flags []string) ([]string, error) {
	all, err := a.s.Keywords(id)
	if err != nil {
		return nil, err
	}
	for i := range systemFlags {
		all = append(all, systemFlag(i))
	}
	given := Flags(flags)
	return slices.DeleteFunc(permitted(all, rights), given.Has), nil
}

// Expunge is Service.Expunge for who has the right to it.
func (a *Access) Expunge(ctx context.Context, id ID, uids *roaring.Bitmap) (*roaring.Bitmap, error) {
	if _, err := a.Check(id, RightExpunge); err != nil {
		return roaring.New(), err
	}
	return a.s.Expunge(ctx, id, uids)
}

// Copy is Service.Copy to a mailbox in which the account may put messages; flags that it may not set there stay behind
// (RFC 4314, 4: COPY).
func (a *Access) Copy(ctx context.Context, from ID, uids *roaring.Bitmap, to Mailbox) ([]Pair, error) {
	return a.transfer(ctx, from, RightRead, uids, to, (*Service).copyAll)
}

// Move is Service.Move, with rights as Copy and the right to remove messages (RFC 6851, 4.4).
func (a *Access) Move(ctx context.Context, from ID, uids *roaring.Bitmap, to Mailbox) ([]Pair, error) {
	return a.transfer(ctx, from, RightRead|RightTrash|RightExpunge, uids, to, (*Service).moveAll)
}

type transferring func(*Service, context.Context, ID, *roaring.Bitmap, ID, Rights) ([]Pair, error)

func (a *Access) transfer(ctx context.Context, from ID, need Rights, uids *roaring.Bitmap, to Mailbox, do transferring) ([]Pair, error) {
	if _, err := a.Check(from, need); err != nil {
		return nil, err
	}
	m, err := a.Check(to.ID, RightInsert)
	if err != nil {
		return nil, err
	}
	return do(a.s, ctx, from, uids, to.ID, m.Rights)
}

// AppendAll is Service.AppendAll to a mailbox in which the account may put messages; flags that it may not set there are
// left out (RFC 4314, 4: APPEND). To replace a message it needs the right to remove that (RFC 8508, 6).
func (a *Access) AppendAll(id ID, msgs []NewMessage, replaces *Replaced, also func(store.Tx, []Placed) error) ([]Placed, error) {
	m, err := a.Check(id, RightInsert)
	if err == nil && replaces != nil {
		_, err = a.Check(replaces.Mailbox, RightTrash|RightExpunge)
	}
	if err != nil {
		for _, msg := range msgs {
			msg.Draft.Discard()
		}
		return nil, err
	}
	msgs = slices.Clone(msgs)
	for i := range msgs {
		msgs[i].Flags = permitted(msgs[i].Flags, m.Rights)
	}
	return a.s.AppendAll(id, msgs, replaces, also)
}
