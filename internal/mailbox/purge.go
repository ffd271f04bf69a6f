package mailbox

import (
	"context"

	"postroad/internal/store"
)

// Run drops what removed mailboxes and expunged messages leave behind, whenever there is something, until ctx is done. What
// it cannot drop is told to trouble, and tried again with the next. Without it Sweep does the work.
func (s *Service) Run(ctx context.Context, trouble func(error)) {
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			trouble(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.doomed:
		}
	}
}

func (s *Service) wakePurge() {
	select {
	case s.doomed <- struct{}{}:
	default:
	}
}

// purge drops what expunged messages have left, in bounded steps.
func (s *Service) purge(ctx context.Context) error {
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.st.UpdateSoon(func(tx store.Tx) (err error) {
			more, err = purgeSheet(tx)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// purgeSheet drops the records of one sheet's expunged messages and lets go of their bodies. It says whether there may be
// more such sheets.
func purgeSheet(tx store.Tx) (more bool, err error) {
	all := store.NewKey("md")
	for k := range tx.Scan(all, all.End()) {
		id, rest := store.TakeUint(k[len(all):])
		number, _ := store.TakeUint(rest)
		key := doomedKey(ID(id), uint32(number))
		if err := purgeMessages(tx, ID(id), uint32(number)); err != nil {
			return false, err
		}
		tx.Delete(key)
		return true, nil
	}
	return false, nil
}

func purgeMessages(tx store.Tx, id ID, number uint32) error {
	b, err := getSheet(tx, id, number*sheetUIDs)
	if err != nil {
		return err
	}
	if b == nil {
		b = &sheet{number: number}
	}
	var doomed bitset
	doomed.setRange(0, sheetUIDs)
	doomed.remove(&b.present)
	var gone []record
	err = facts(tx, id, b, doomed, func(m *record) error {
		gone = append(gone, *m)
		return nil
	})
	if err != nil {
		return err
	}
	for i := range gone {
		tx.Delete(messageKey(id, gone[i].uid))
		tx.Unref(gone[i].body)
	}
	return nil
}
